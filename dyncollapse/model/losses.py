"""Contrastive losses on embeddings, each a mean over the batch, one value per run.

Every loss takes anchors `z`, positives `z_pos` and, where it has a choice, `negatives`, all (*runs, n, m).
`negatives=None` repels anchor i from the other anchors (one-sided views, Eq. 2); pass `z_pos` for two-sided views.
Row i of the negatives is never a negative of anchor i: its place in the softmax belongs to the positive.

Losses are computed and returned in the widest precision of their inputs, float32 at least: half-precision inputs are
widened, and autocast does not apply. Gradients arrive in each input's own precision.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model._kernels import distance_logits
from dyncollapse.model.choices import AUTHORS_TEMPERATURE, INVARIANCE
from dyncollapse.model.precision import exact_product, full_precision
from dyncollapse.runtime.settings import SettingError


@full_precision
def infonce(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    negatives: Float[Tensor, "*runs n m"] | None = None,
) -> Float[Tensor, "*runs"]:
    """InfoNCE on squared distances (Eq. 2): mean_i [|z_i - z'_i|^2 / 2 + log Z_i].

    Z_i = exp(-|z_i - z'_i|^2 / 2) + sum_{j != i} exp(-|z_i - y_j|^2 / 2), the normaliser of `infonce_weights`.

    Args:
        z: Anchors (*runs, n, m). Squared norms must be finite: |z| below 1e150 in float64, 1e18 in float32.
        z_pos: Positives z', row by row those of the anchors.
        negatives: Negatives y, the anchors unless given; pass `z_pos` for two-sided views.

    Returns:
        One loss per run. Its round-off is of the order eps max|z|^2 after centring.

    References:
        Jing, Vincent, LeCun and Tian, "Understanding Dimensional Collapse in Contrastive Self-supervised Learning",
        ICLR 2022, Eq. 2.

    Examples:
        >>> z = torch.zeros(4, 2)
        >>> bool(infonce(z, z).isclose(torch.tensor(4.0).log()))  # nothing tells the positive from three negatives
        True
    """
    return _cross_entropy(infonce_logits(z, z_pos, negatives))


@full_precision
def infonce_weights(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    negatives: Float[Tensor, "*runs n m"] | None = None,
) -> Float[Tensor, "*runs n n"]:
    """Softmax weights alpha of Eq. 2: alpha_ij = exp(-|z_i - y_j|^2 / 2) / Z_i, with z'_i in place of y_i.

    Args:
        z: Anchors (*runs, n, m).
        z_pos: Positives z'.
        negatives: Negatives y, the anchors unless given.

    Returns:
        Weights (*runs, n, n): of negative j for j != i, of the positive on the diagonal. Rows sum to 1.

    References:
        Jing et al. 2022, Lemma 1, where the weights appear.

    Examples:
        >>> z = torch.zeros(4, 2)
        >>> infonce_weights(z, z)[0].tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    return torch.softmax(infonce_logits(z, z_pos, negatives), dim=-1)


@full_precision
def infonce_logits(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    negatives: Float[Tensor, "*runs n m"] | None = None,
) -> Float[Tensor, "*runs n n"]:
    """Logits of Eq. 2: l_ij = -|z_i - y_j|^2 / 2 for the negatives, l_ii = -|z_i - z'_i|^2 / 2 for the positive.

    All up to |z_i|^2 / 2, which is constant in each row.

    Args:
        z: Anchors (*runs, n, m).
        z_pos: Positives z'.
        negatives: Negatives y, the anchors unless given.

    Returns:
        Logits (*runs, n, n).
    """
    # Only differences matter. Without centring they would lose digits to a common offset.
    centre, shift = z.mean(dim=-2, keepdim=True), z_pos - z
    z = z - centre
    y = z if negatives is None else negatives - centre
    # -|z_i - y_j|^2 / 2 = z_i . y_j - |y_j|^2 / 2 - |z_i|^2 / 2. The last term does not change a softmax over j.
    negative, own = distance_logits(z, y), shift.square().sum(-1) / 2
    if negatives is None:
        return _plus_diagonal(negative, -own)  # whose diagonal holds the distance 0 of an anchor to itself
    return _with_diagonal(negative, z.square().sum(-1) / 2 - own)


@full_precision
def effective_negatives(alpha: Float[Tensor, "*runs n n"]) -> Float[Tensor, "*runs"]:
    """Effective number of candidates in the softmax: exp(entropy) of each row of alpha, averaged over the rows.

    It is n for uniform rows and 1 for one-hot ones. The positive counts as a candidate: where it takes all the weight,
    the negatives exert no force, however evenly they share the rest. A batch in which this number is far below n does
    not behave as the population limit does; see `population_valid`.

    Args:
        alpha: Softmax weights (*runs, n, n) whose rows sum to 1.

    Returns:
        One number per run, between 1 and n.

    References:
        docs/explanation/beyond-the-paper.md, section 5h.

    Examples:
        >>> round(float(effective_negatives(torch.full((8, 8), 1 / 8))), 4)
        8.0
    """
    return torch.special.entr(alpha).sum(-1).exp().mean(-1)


@full_precision
def dot_infonce(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    negatives: Float[Tensor, "*runs n m"] | None = None,
    temperature: float = AUTHORS_TEMPERATURE,
) -> Float[Tensor, "*runs"]:
    """InfoNCE on unnormalised dot products z_i . y_j / temperature.

    Args:
        z: Anchors (*runs, n, m).
        z_pos: Positives.
        negatives: Negatives, the anchors unless given.
        temperature: Divides the dot products; the authors' 0.1 unless given.

    Returns:
        One loss per run.

    References:
        The loss of the toy code published with Jing et al. 2022; the paper prints Eq. 2 instead.

    Examples:
        >>> z = torch.zeros(4, 2)
        >>> bool(dot_infonce(z, z).isclose(torch.tensor(4.0).log()))
        True
    """
    negative = dot_logits(z, z if negatives is None else negatives, temperature)
    positive = (z * z_pos).sum(-1) / temperature
    return _cross_entropy(_with_diagonal(negative, positive))


@full_precision
def ntxent(
    z: Float[Tensor, "*runs n m"], z_pos: Float[Tensor, "*runs n m"], temperature: float = AUTHORS_TEMPERATURE
) -> Float[Tensor, "*runs"]:
    """Normalised, cross-view InfoNCE (NT-Xent), averaged over both directions.

    The negatives of a row are the other view's rows, never those of its own view: the loss that the bridge trains.

    Args:
        z: One view (*runs, n, m). A zero row stays zero when it is normalised.
        z_pos: The other view.
        temperature: Divides the cosines; the authors' 0.1 unless given.

    Returns:
        One loss per run.

    References:
        Chen et al. 2020 (SimCLR), without the negatives from the same view; Jing et al. 2022, Section 6.

    Examples:
        >>> z = torch.eye(3)
        >>> bool(ntxent(z, z) == ntxent(5 * z, 7 * z))  # lengths do not matter
        True
    """
    logits = dot_logits(normalised(z), normalised(z_pos), temperature)
    return (_cross_entropy(logits) + _cross_entropy(logits.mT)) / 2


@full_precision
def spectral(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    negatives: Float[Tensor, "*runs n m"] | None = None,
) -> Float[Tensor, "*runs"]:
    """Spectral contrastive loss -2 mean_i z_i . z'_i + mean_{i != j} (z_i . y_j)^2.

    Args:
        z: Anchors (*runs, n, m).
        z_pos: Positives.
        negatives: Negatives, the anchors unless given.

    Returns:
        One loss per run.

    References:
        HaoChen, Wei, Gaidon and Ma, "Provable Guarantees for Self-Supervised Deep Learning with Spectral Contrastive
        Loss", NeurIPS 2021.

    Examples:
        >>> z = torch.eye(3)
        >>> float(spectral(z, z))  # orthogonal rows repel nothing
        -2.0
    """
    y = z if negatives is None else negatives
    n = z.shape[-2]
    off_diagonal = _squared_products(z, y) - (z * y).sum(-1).square().sum(-1)
    return -2 * (z * z_pos).sum(-1).mean(-1) + off_diagonal / (n * (n - 1))


def _squared_products(z: Tensor, y: Tensor) -> Float[Tensor, "*runs"]:
    """Sum over all i and j of (z_i . y_j)^2 = tr(Z^T Z Y^T Y), by the smaller of its matrices: n x n or m x m."""
    if z.shape[-2] <= z.shape[-1]:
        return exact_product(z, y.mT).square().sum((-2, -1))
    return (exact_product(z.mT, z) * exact_product(y.mT, y)).sum((-2, -1))


def dot_logits(
    z: Float[Tensor, "*runs b m"], y: Float[Tensor, "*runs n m"], temperature: float
) -> Float[Tensor, "*runs b n"]:
    """Logits z_i . y_j / temperature of any rows against any others."""
    return exact_product(z, y.mT) / temperature


def normalised(z: Float[Tensor, "*runs n m"]) -> Float[Tensor, "*runs n m"]:
    """Rows of unit length; a zero row stays zero."""
    # Divided by its largest entry first, a row of very large or small entries has squares in range without an epsilon.
    largest = z.abs().amax(-1, keepdim=True)
    z = z / torch.where(largest > 0, largest, 1.0)
    norm = z.norm(dim=-1, keepdim=True)
    return z / torch.where(norm > 0, norm, 1.0)


def row_norms(z: Float[Tensor, "*runs n m"]) -> Float[Tensor, "*runs n 1"]:
    """Lengths of the rows, of any size as in `normalised`."""
    largest = z.abs().amax(-1, keepdim=True)
    return largest * (z / torch.where(largest > 0, largest, 1.0)).norm(dim=-1, keepdim=True)


def loss_temperature(loss: str, temperature: float | None = None) -> float | None:
    """Temperature that a loss uses.

    Args:
        loss: A loss by name.
        temperature: Of dot and ntxent, or None.

    Returns:
        The given one, the authors' 0.1 for dot and ntxent without one, and None for other losses.

    Raises:
        SettingError: For a temperature that is not finite and above 0, or that the loss does not have.
    """
    if loss in ("dot", "ntxent"):
        temperature = AUTHORS_TEMPERATURE if temperature is None else temperature
        if not 0 < temperature < float("inf"):
            raise SettingError(f"`temperature` is {temperature}; it must be finite and above 0")
    elif temperature is not None:
        raise SettingError(
            f"`temperature` is {temperature}, but the {loss} loss has none; drop it, or give `loss` dot or ntxent"
        )
    return temperature


def loss_invariance(loss: str, invariance: float | None = None) -> float | None:
    """Weight of the invariance that a loss uses.

    Args:
        loss: A loss by name.
        invariance: Of vcreg and vicreg, or None.

    Returns:
        The given one, 1 for vcreg and vicreg without one, and None for other losses.

    Raises:
        SettingError: For a weight that is not finite and at least 0, or that the loss does not have.
    """
    if loss in ("vcreg", "vicreg"):
        invariance = INVARIANCE if invariance is None else invariance
        if not 0 <= invariance < float("inf"):
            raise SettingError(f"`invariance` is {invariance}; it must be finite and at least 0")
    elif invariance is not None:
        raise SettingError(
            f"`invariance` is {invariance}, but the {loss} loss has none; drop it, or give `loss` vcreg or vicreg"
        )
    return invariance


def check_loss_views(loss: str, views: str) -> None:
    """Raise SettingError when the loss is not defined under this view convention."""
    if loss == "ntxent" and views != "two-sided":
        raise SettingError("`loss` ntxent is symmetric in both views; it needs `views` two-sided, not one-sided")


def _cross_entropy(logits: Float[Tensor, "*runs n n"]) -> Float[Tensor, "*runs"]:
    """Mean over the rows of -log softmax at the positive."""
    # Two to three times as fast as logsumexp, gradient included, although it writes n x n numbers.
    return -torch.log_softmax(logits, dim=-1).diagonal(dim1=-2, dim2=-1).mean(-1)


# Both change `logits` in place, which is always a fresh product: a copy of n x n numbers costs as much as the product.
def _with_diagonal(logits: Float[Tensor, "*runs n n"], diagonal: Float[Tensor, "*runs n"]) -> Tensor:
    logits.diagonal(dim1=-2, dim2=-1).copy_(diagonal)
    return logits


def _plus_diagonal(logits: Float[Tensor, "*runs n n"], diagonal: Float[Tensor, "*runs n"]) -> Tensor:
    # Measured: gradients take a fifth less time than with a replaced diagonal, for which autograd copies n x n slopes.
    logits.diagonal(dim1=-2, dim2=-1).add_(diagonal)
    return logits
