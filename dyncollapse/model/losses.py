"""Contrastive losses on embeddings, each a mean over the batch, one value per run.

Every loss takes anchors `z`, positives `z_pos` and, where it has a choice, `negatives`, all (*runs, n, m).
`negatives=None` repels anchor i from the other anchors (one-sided views, Eq. 2); pass `z_pos` for two-sided views.
Row i of the negatives is never a negative of anchor i: that slot of the softmax is the positive's.
Everything is computed, and returned, in the inputs' precision, in float32 at least: half-precision inputs are widened
and autocast does not apply, value and gradient; the gradient comes in the inputs' own precision.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.choices import AUTHORS_TEMPERATURE
from dyncollapse.model.precision import exact_product, full_precision, inside_autocast

LOG2_E = 1 / math.log(2)


@full_precision
def infonce(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    negatives: Float[Tensor, "*runs n m"] | None = None,
) -> Float[Tensor, "*runs"]:
    """InfoNCE on squared distances: mean_i [|z_i - z'_i|^2 / 2 + log Z_i] (the paper's Eq. 2).

    Round-off is of the order eps max|z|^2 after centring, since distances come from one matrix product; the
    squares must be finite (|z| below 1e150 in float64, 1e18 in float32).
    """
    return _cross_entropy(infonce_logits(z, z_pos, negatives))


@full_precision
def infonce_weights(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    negatives: Float[Tensor, "*runs n m"] | None = None,
) -> Float[Tensor, "*runs n n"]:
    """Softmax weights alpha of Eq. 2: alpha_ij for negatives (j != i), alpha_ii for the positive; rows sum to 1."""
    return torch.softmax(infonce_logits(z, z_pos, negatives), dim=-1)


def negative_weights(
    logits: Float[Tensor, "*runs b n"], first: int = 0
) -> tuple[Float[Tensor, "*runs b n"], Float[Tensor, "*runs b 1"]]:
    """B, the softmax weights of rows from `first` on, 0 on the positives' diagonal, and their sums over each row.

    Overwrites the logits; not to be differentiated. The sums are those of B itself, for 1 - alpha_ii would lose all
    digits once the embeddings separate.
    """
    if logits.is_cuda:
        b = torch.softmax(logits, dim=-1, out=logits)
        b.diagonal(first, -2, -1).zero_()
        return b, b.sum(-1, keepdim=True)
    # A CPU takes powers of 2 two to four times as fast as those of e.
    largest = logits.amax(-1, keepdim=True)
    b = torch.add(largest.mul_(-LOG2_E), logits, alpha=LOG2_E, out=logits).exp2_()
    own = b.diagonal(first, -2, -1)
    positive = own.unsqueeze(-1).clone()
    own.zero_()
    r = b.sum(-1, keepdim=True)
    share = (r + positive).reciprocal_()
    return b.mul_(share), r.mul_(share)


@full_precision
def effective_negatives(alpha: Float[Tensor, "*runs n n"]) -> Float[Tensor, "*runs"]:
    """Effective number of candidates in the softmax: exp(entropy) of each row of alpha, averaged over the rows.

    n for uniform rows, 1 for one-hot ones; 0 log 0 = 0. The positive's slot belongs to its row: where it takes
    all the weight the negatives exert no force, however evenly they share what is left. Rows must sum to 1.
    Compare with n beside any population limit (ours).
    """
    return torch.special.entr(alpha).sum(-1).exp().mean(-1)


@full_precision
def infonce_logits(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    negatives: Float[Tensor, "*runs n m"] | None = None,
) -> Float[Tensor, "*runs n n"]:
    """Logits -|z_i - y_j|^2 / 2 of Eq. 2 up to the row constant |z_i|^2 / 2, the positive's on the diagonal."""
    # Only differences matter, and centring keeps a common offset from drowning them.
    centre, shift = z.mean(dim=-2, keepdim=True), z_pos - z
    z = z - centre
    return centred_logits(z, shift, z if negatives is None else negatives - centre)


def centred_logits(
    z: Float[Tensor, "*runs n m"], shift: Float[Tensor, "*runs n m"], y: Float[Tensor, "*runs n m"]
) -> Float[Tensor, "*runs n n"]:
    """`infonce_logits` of anchors around 0, of `shift` = z' - z and of negatives y less the anchors' centre."""
    squares, shifts = z.square().sum(-1), shift.square().sum(-1)
    if y is z:  # the product has |z_i|^2 / 2 on its diagonal
        logits = add_product(squares.unsqueeze(-2), z, y.mT, -0.5, 1)
        logits.diagonal(dim1=-2, dim2=-1).sub_(shifts, alpha=0.5)
        return logits
    return _with_diagonal(distance_logits(z, y), (squares - shifts) / 2)


def distance_logits(z: Float[Tensor, "*runs b m"], y: Float[Tensor, "*runs n m"]) -> Float[Tensor, "*runs b n"]:
    """Logits -|z_i - y_j|^2 / 2 of any rows against any others, up to the row constant |z_i|^2 / 2."""
    return add_product(y.square().sum(-1).unsqueeze(-2), z, y.mT, -0.5, 1)


def add_product(
    c: Float[Tensor, "... #b #n"],
    a: Float[Tensor, "... b m"],
    b: Float[Tensor, "... m n"],
    beta: float,
    alpha: float,
) -> Float[Tensor, "... b n"]:
    """Add up beta c + alpha a b, in one pass over the result where PyTorch has a kernel for it."""
    runs = a.shape[:-2]
    if inside_autocast() or not runs or runs != b.shape[:-2] or runs != c.shape[:-2]:
        return beta * c + alpha * exact_product(a, b)
    if len(runs) > 1:
        a, b, c = (matrix.flatten(0, -3) for matrix in (a, b, c))
    product = torch.baddbmm(c, a, b, beta=beta, alpha=alpha)
    return product.unflatten(0, runs) if len(runs) > 1 else product


def matrix_product(a: Float[Tensor, "... b m"], b: Float[Tensor, "... m n"]) -> Float[Tensor, "... b n"]:
    """A b, where possible without what matmul makes of shapes before it calls bmm: a tenth of a single run's step."""
    if a.ndim == b.ndim == 3 and a.shape[0] == b.shape[0] and not inside_autocast():
        return torch.bmm(a, b)
    return exact_product(a, b)


def dot_logits(
    z: Float[Tensor, "*runs b m"], y: Float[Tensor, "*runs n m"], temperature: float
) -> Float[Tensor, "*runs b n"]:
    """Logits z_i . y_j / temperature of any rows against any others."""
    return exact_product(z, y.mT) / temperature


@full_precision
def dot_infonce(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    negatives: Float[Tensor, "*runs n m"] | None = None,
    temperature: float = AUTHORS_TEMPERATURE,
) -> Float[Tensor, "*runs"]:
    """InfoNCE on unnormalised dot products z_i . y_j / temperature: what the authors' toy code trains."""
    y = z if negatives is None else negatives
    positive = (z * z_pos).sum(-1) / temperature
    return _cross_entropy(_with_diagonal(dot_logits(z, y, temperature), positive))


@full_precision
def ntxent(
    z: Float[Tensor, "*runs n m"], z_pos: Float[Tensor, "*runs n m"], temperature: float = AUTHORS_TEMPERATURE
) -> Float[Tensor, "*runs"]:
    """Normalised, cross-view InfoNCE, averaged over both directions: what DirectCLR and SimCLR's bridge train.

    The negatives of a row are the other view's rows, never its own view's. A zero embedding stays zero.
    """
    logits = dot_logits(normalised(z), normalised(z_pos), temperature)
    return (_cross_entropy(logits) + _cross_entropy(logits.mT)) / 2


@full_precision
def spectral(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    negatives: Float[Tensor, "*runs n m"] | None = None,
) -> Float[Tensor, "*runs"]:
    """Spectral contrastive loss -2 mean_i z_i . z'_i + mean_{i != j} (z_i . y_j)^2 (HaoChen et al. 2021)."""
    y = z if negatives is None else negatives
    n = z.shape[-2]
    similarities = exact_product(z, y.mT)
    off_diagonal = similarities.square().sum((-2, -1)) - similarities.diagonal(dim1=-2, dim2=-1).square().sum(-1)
    return -2 * (z * z_pos).sum(-1).mean(-1) + off_diagonal / (n * (n - 1))


def loss_temperature(loss: str, temperature: float | None = None) -> float | None:
    """Temperature of dot and ntxent, the authors' 0.1 unless given; None for a loss without one.

    Raises ValueError for a temperature that is not finite and above 0, or that the loss does not have.
    """
    if loss in ("dot", "ntxent"):
        temperature = AUTHORS_TEMPERATURE if temperature is None else temperature
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature is {temperature}; it must be finite and above 0")
    elif temperature is not None:
        raise ValueError(f"temperature is {temperature}, but the {loss} loss has none; drop it or use dot or ntxent")
    return temperature


def check_loss_views(loss: str, views: str) -> None:
    """Raise ValueError when the loss is not defined under this view convention."""
    if loss == "ntxent" and views != "two-sided":
        raise ValueError("ntxent is symmetric in both views; it needs two-sided views, not one-sided")


def _cross_entropy(logits: Tensor) -> Tensor:
    # Two to three times as fast as logsumexp, with its gradient too, although it writes n x n numbers.
    return -torch.log_softmax(logits, dim=-1).diagonal(dim1=-2, dim2=-1).mean(-1)


def _with_diagonal(logits: Tensor, diagonal: Tensor) -> Tensor:
    # In place: `logits` is always a fresh product, and a copy of n x n numbers is what a step can least afford.
    logits.diagonal(dim1=-2, dim2=-1).copy_(diagonal)
    return logits


def normalised(z: Float[Tensor, "*runs n m"]) -> Float[Tensor, "*runs n m"]:
    """Rows of unit length; a zero row stays zero."""
    # Dividing by the largest entry first lets norms far outside the square's range pass without an epsilon.
    largest = z.abs().amax(-1, keepdim=True)
    z = z / torch.where(largest > 0, largest, 1.0)
    norm = z.norm(dim=-1, keepdim=True)
    return z / torch.where(norm > 0, norm, 1.0)
