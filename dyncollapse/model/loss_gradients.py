"""Gradients of the losses with respect to the embeddings, in closed form (Lemma 1 for each loss).

Each function returns one gradient per tensor that it is given: g of the anchors, g' of the positives and, where
`negatives` are given, theirs. Where these are the positives once more (two-sided views), the gradient of the positives
is the sum of the last two. B is the matrix of softmax weights alpha with zeros on its diagonal, r and c are its row and
column sums; r_i = 1 - alpha_ii.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model._kernels import LOG2_E, matrix_product, thin_product
from dyncollapse.model.choices import AUTHORS_TEMPERATURE
from dyncollapse.model.losses import infonce_logits, normalised, row_norms
from dyncollapse.model.precision import full_precision

Gradients = tuple[Tensor, ...]
EmbeddingGradient = Callable[[Tensor, Tensor, Tensor | None], Gradients]


def exponentials(
    logits: Float[Tensor, "*any n n"],
) -> tuple[Float[Tensor, "*any n n"], Float[Tensor, "*any n 1"], Float[Tensor, "*any n 1"]]:
    """Softmax weights before their rows are divided, which saves a pass over n x n numbers.

    Args:
        logits: Logits to base 2, that of the positive on the diagonal; they are overwritten.

    Returns:
        E with zeros on its diagonal, the share s of each row such that B = diag(s) E, and the row sums r of B. These
        are sums of the negatives' weights: 1 - alpha_ii would lose all digits once the embeddings separate.
    """
    logits.sub_(logits.amax(-1, keepdim=True)).exp2_()
    own = logits.diagonal(dim1=-2, dim2=-1)
    positive = own.unsqueeze(-1).clone()
    own.zero_()
    r = logits.sum(-1, keepdim=True)
    share = (r + positive).reciprocal_()
    return logits, share, r.mul_(share)


@full_precision
@torch.no_grad()
def infonce_gradients(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    negatives: Float[Tensor, "*runs n m"] | None = None,
) -> Gradients:
    """Gradients of Eq. 2 with respect to the embeddings (Lemma 1).

    n g_i = sum_{j != i} alpha_ij (y_j - z'_i), n g'_i = sum_{j != i} alpha_ij (z'_i - z_i), and for the negatives
    n g_j = sum_{i != j} alpha_ij (z_i - y_j), which is added to g where they are the anchors.
    One layer then moves by W' = -G with G = sum_i (g_i x_i^T + g'_i x'_i^T), which is -W X (Lemma 2).

    Args:
        z: Anchors (*runs, n, m).
        z_pos: Positives z'.
        negatives: Negatives y, the anchors unless given; pass `z_pos` for two-sided views.

    Returns:
        g, g' and, where negatives are given, theirs, (*runs, n, m) each, of the loss's mean over the batch.

    References:
        Jing et al. 2022, Lemma 1, which is one-sided and sums over the batch.

    Examples:
        >>> g, g_pos = infonce_gradients(torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [1.0]]))
        >>> bool(torch.allclose(g, -g_pos))  # anchors at one point only attract their positives
        True
    """
    # Only differences matter; without the common offset fewer digits are lost.
    centre, shift = z.mean(dim=-2, keepdim=True), z_pos - z
    z = z - centre
    y = z if negatives is None else negatives - centre
    e, share, r = exponentials(infonce_base_2(z, z + shift, None if negatives is None else y))
    columns = matrix_product(share.mT, e).mT
    g = share * thin_product(e, y) - r * (z + shift)
    g_negative = thin_product(e.mT, share * z) - columns * y
    return _joined(g, r * shift, g_negative, negatives, 1 / z.shape[-2])


@full_precision
@torch.no_grad()
def dot_gradients(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    negatives: Float[Tensor, "*runs n m"] | None = None,
    temperature: float = AUTHORS_TEMPERATURE,
) -> Gradients:
    """Gradients of `dot_infonce` with respect to the embeddings.

    n tau g = B y - r z', n tau g' = -r z, and B^T z for the negatives.

    Args:
        z: Anchors (*runs, n, m).
        z_pos: Positives z'.
        negatives: Negatives y, the anchors unless given; pass `z_pos` for two-sided views.
        temperature: Divides the dot products; the authors' 0.1 unless given.

    Returns:
        g, g' and, where negatives are given, theirs, (*runs, n, m) each, of the loss's mean over the batch.

    References:
        docs/explanation/theory.md, section 3.

    Examples:
        >>> g, g_pos = dot_gradients(torch.tensor([[1.0], [1.0]]), torch.tensor([[2.0], [2.0]]), temperature=1.0)
        >>> bool((g_pos < 0).all())  # positives are pulled along their anchors
        True
    """
    y = z if negatives is None else negatives
    e, share, r = exponentials(dot_base_2(z, z_pos, y, temperature, replaced=y is not z_pos))
    g = share * thin_product(e, y) - r * z_pos
    g_negative = thin_product(e.mT, share * z)
    return _joined(g, -r * z, g_negative, negatives, 1 / (z.shape[-2] * temperature))


@full_precision
@torch.no_grad()
def ntxent_gradients(
    z: Float[Tensor, "*runs n m"], z_pos: Float[Tensor, "*runs n m"], temperature: float = AUTHORS_TEMPERATURE
) -> Gradients:
    """Gradients of `ntxent` with respect to the embeddings.

    With respect to unit rows u and u' they are (B u' - r u') / (2 n tau) and (B^T u - r u) / (2 n tau), where B and r
    are sums over both directions. Those of z are these without their part along the row, over the row's length. A zero
    row, which stays zero when it is normalised, counts as one of length 1.

    Args:
        z: One view (*runs, n, m).
        z_pos: The other view.
        temperature: Divides the cosines; the authors' 0.1 unless given.

    Returns:
        g and g' (*runs, n, m), of the loss's mean over the batch and both directions.

    References:
        docs/explanation/theory.md, section 3.

    Examples:
        >>> z = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
        >>> g, _ = ntxent_gradients(z, z.flip(0))
        >>> bool((g * z).sum(-1).abs().max() < 1e-6)  # lengths do not matter
        True
    """
    unit, unit_pos = normalised(z), normalised(z_pos)
    (b, r), rate = _both_directions(unit, unit_pos, temperature), 1 / (2 * z.shape[-2] * temperature)
    slope = rate * (thin_product(b, unit_pos) - r * unit_pos)
    slope_pos = rate * (thin_product(b.mT, unit) - r * unit)
    return tuple(
        (g - u * (g * u).sum(-1, keepdim=True)) / divisor(rows)
        for g, u, rows in ((slope, unit, z), (slope_pos, unit_pos, z_pos))
    )


@full_precision
@torch.no_grad()
def spectral_gradients(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    negatives: Float[Tensor, "*runs n m"] | None = None,
) -> Gradients:
    """Gradients of `spectral` with respect to the embeddings.

    g = -2 z' / n + 2 [z (y^T y) - q y] / (n (n - 1)) with q_i = z_i . y_i, g' = -2 z / n, and
    2 [y (z^T z) - q z] / (n (n - 1)) for the negatives. No n x n array is needed.

    Args:
        z: Anchors (*runs, n, m).
        z_pos: Positives z'.
        negatives: Negatives y, the anchors unless given; pass `z_pos` for two-sided views.

    Returns:
        g, g' and, where negatives are given, theirs, (*runs, n, m) each.

    References:
        docs/explanation/theory.md, section 3.

    Examples:
        >>> g, g_pos = spectral_gradients(torch.eye(2), torch.eye(2))
        >>> g.tolist()  # orthogonal rows are only pulled towards their positives
        [[-1.0, 0.0], [0.0, -1.0]]
    """
    n, y = z.shape[-2], z if negatives is None else negatives
    repel = 2 / (n * (n - 1))
    q = (z * y).sum(-1, keepdim=True)
    g = repel * (matrix_product(z, matrix_product(y.mT, y)) - q * y) - 2 / n * z_pos
    g_negative = repel * (matrix_product(y, matrix_product(z.mT, z)) - q * z)
    return _joined(g, -2 / n * z, g_negative, negatives, 1.0)


def two_directions(unit: Tensor, unit_pos: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """B and r of NT-Xent for the first view against the second, and for the second against the first."""
    logits = dot_base_2(unit, unit_pos, unit_pos, temperature, replaced=False)
    (back, back_share, back_r), (e, share, r) = exponentials(logits.mT.contiguous()), exponentials(logits)
    return e.mul_(share), r, back.mul_(back_share), back_r


def divisor(z: Float[Tensor, "*runs n m"]) -> Float[Tensor, "*runs n 1"]:
    """What `normalised` divides each row by: its length, or 1 for a zero row."""
    norm = row_norms(z)
    return torch.where(norm > 0, norm, 1.0)


def infonce_base_2(z: Tensor, z_pos: Tensor, y: Tensor | None) -> Tensor:
    """`infonce_logits` to base 2."""
    scale = LOG2_E**0.5  # logits are of second order
    return infonce_logits(z * scale, z_pos * scale, None if y is None else y * scale)


def dot_base_2(z: Tensor, z_pos: Tensor, y: Tensor, temperature: float, *, replaced: bool) -> Tensor:
    """Logits z_i . y_j / temperature to base 2; with `replaced`, those of z_i . z'_i stand on the diagonal."""
    scaled = z * (LOG2_E / temperature)
    logits = matrix_product(scaled, y.mT)
    if replaced:
        logits.diagonal(dim1=-2, dim2=-1).copy_((scaled * z_pos).sum(-1))
    return logits


def _both_directions(unit: Tensor, unit_pos: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Sums B + B'^T and r + r' of `two_directions`, from one array of exponentials where their range allows it."""
    widest = 2 * LOG2_E / temperature  # between the logits of cosines -1 and 1, to base 2
    if widest > -math.log2(torch.finfo(unit.dtype).tiny):
        b, r, back, back_r = two_directions(unit, unit_pos, temperature)
        return b.add_(back.mT), r + back_r
    e = dot_base_2(unit, unit_pos, unit_pos, temperature, replaced=False).sub_(widest / 2).exp2_()
    own = e.diagonal(dim1=-2, dim2=-1)
    positive = own.unsqueeze(-1).clone()
    own.zero_()
    rows, columns = e.sum(-1, keepdim=True), e.sum(-2).unsqueeze(-1)
    share, share_pos = (rows + positive).reciprocal_(), (columns + positive).reciprocal_()
    return (share + share_pos.mT).mul_(e), rows * share + columns * share_pos


def _joined(g: Tensor, g_pos: Tensor, g_negative: Tensor, negatives: Tensor | None, share: float) -> Gradients:
    if negatives is None:
        return (g + g_negative) * share, g_pos * share
    return g * share, g_pos * share, g_negative * share
