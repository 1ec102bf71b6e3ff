"""The contrastive covariance X = Sigma0 - Sigma1 that drives the gradient flow (Lemma 2)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Real
from torch import Tensor

from dyncollapse.model._blocks import Rows, block_sizes, centring, slices, weights_by_blocks
from dyncollapse.model._kernels import distance_logits, thin_product
from dyncollapse.model.array_arguments import array_fields
from dyncollapse.model.losses import check_loss_views, dot_logits, loss_temperature, normalised
from dyncollapse.model.precision import common_precision, exact_product, full_precision, outside_autocast

__all__ = ["WEIGHINGS", "ContrastiveCovariance", "block_sizes", "blockwise_covariance", "contrastive_covariance"]

WEIGHINGS = ("infonce", "dot", "ntxent")  # losses whose negatives carry softmax weights


@array_fields
@dataclass(frozen=True, eq=False)
class ContrastiveCovariance:
    """The two sides of the contrastive covariance X = Sigma0 - Sigma1, both PSD.

    Attributes:
        data: Sigma0 (*runs, d, d), from the differences of negative pairs.
        augmentation: Sigma1 (*runs, d, d), from the differences of positive pairs.

    References:
        Jing et al. 2022, Lemma 2.

    Examples:
        >>> both = ContrastiveCovariance(torch.eye(2), torch.diag(torch.tensor([0.5, 3.0])))
        >>> both.force.diagonal().tolist()  # the first direction grows, the second collapses
        [0.5, -2.0]
    """

    data: Float[Tensor, "*runs d d"]
    augmentation: Float[Tensor, "*runs d d"]

    @property
    def force(self) -> Float[Tensor, "*runs d d"]:
        """X = Sigma0 - Sigma1; under Eq. 2 dL/dP = -P X exactly (Lemma 2)."""
        return self.data - self.augmentation


@full_precision
def contrastive_covariance(
    x: Float[Tensor, "*runs n d"],
    x_pos: Float[Tensor, "*runs n d"],
    alpha: Float[Tensor, "*runs n n"],
    negatives: Float[Tensor, "*runs n d"] | None = None,
) -> ContrastiveCovariance:
    """Weigh data differences against augmentation differences by the softmax weights alpha (Lemma 2).

    Sigma0 = (1/n) sum_{i != j} alpha_ij (x_i - y_j)(x_i - y_j)^T,
    Sigma1 = (1/n) sum_i (1 - alpha_ii)(x'_i - x_i)(x'_i - x_i)^T.

    Args:
        x: Inputs of the anchors (*runs, n, d).
        x_pos: Inputs of the positives.
        alpha: Softmax weights (*runs, n, n), as from `infonce_weights`. With the weights of NT-Xent the two sums are a
            diagnostic, and not that loss's exact force.
        negatives: Inputs y of the negatives, x unless given; pass `x_pos` for two-sided views.

    Returns:
        Both sides, in the widest precision of the inputs, float32 at least. No array is larger than alpha.

    References:
        Jing et al. 2022, Lemma 2.

    Examples:
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> alpha = torch.full((2, 2), 0.5)  # as at P = 0
        >>> both = contrastive_covariance(x, x + 1.0, alpha)
        >>> float(both.data), float(both.augmentation)
        (2.0, 0.5)
    """
    n, shift = x.shape[-2], x_pos - x
    # A common offset changes no difference, but would cost digits below.
    centre = x.mean(dim=-2, keepdim=True)
    x, y = x - centre, (x if negatives is None else negatives) - centre
    b = alpha.clone()
    b.diagonal(dim1=-2, dim2=-1).zero_()  # the positives' place
    r, c = b.sum(-1).unsqueeze(-1), b.sum(-2).unsqueeze(-1)  # of each anchor, 1 - alpha_ii; of each negative
    # sum_ij b_ij (x_i - y_j)(x_i - y_j)^T multiplied out is H + H^T.
    h = exact_product(x.mT, r * x / 2 - thin_product(b, y)) + exact_product(y.mT, c * y / 2)
    return ContrastiveCovariance((h + h.mT) / n, exact_product(shift.mT, r * shift) / n)


@outside_autocast
@torch.no_grad()
def blockwise_covariance(
    x: Real[Tensor, "n d"],
    x_pos: Real[Tensor, "n d"],
    z: Real[Tensor, "n m"],
    z_pos: Real[Tensor, "n m"],
    *,
    loss: str = "infonce",
    temperature: float | None = None,
    views: str = "two-sided",
    dtype: torch.dtype | None = None,
    block: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ContrastiveCovariance:
    """`contrastive_covariance` of x under the softmax weights of z, without an n x n array (Lemma 2).

    Args:
        x: Inputs of the anchors (n, d). Like the others it may be memory-mapped, and of any real type.
        x_pos: Inputs of the positives.
        z: Embeddings of the anchors (n, m).
        z_pos: Embeddings of the positives.
        loss: Logits are -|z_i - y_j|^2 / 2 ("infonce"), z_i . y_j / temperature ("dot") or their cosine / temperature
            ("ntxent", two-sided only), with the positive's in place of j = i. Under "ntxent" the two sums are a
            diagnostic, and not the exact force, which has further terms from the normalisation and from the loss's
            other direction (z' against z).
        temperature: Of "dot" and "ntxent", 0.1 unless given.
        views: Negatives are the anchors ("one-sided") or the positives of the other samples ("two-sided").
        dtype: Precision of all products, float32 or float64. Unless given, float64 where any input is float64, else
            float32.
        block: Rows of weights held at a time beside a few d x d arrays; 128 MB of them unless given, 1 GB on a GPU.
        progress: Called with (rows done, n) after every block.

    Returns:
        Both sides, summed in float64.

    Raises:
        ValueError: For unknown names, shapes that do not fit, fewer than two rows, a temperature not above 0 or that
            the loss does not have, a block below 1, and another dtype.

    References:
        Jing et al. 2022, Lemma 2.

    Examples:
        >>> from dyncollapse import infonce_weights
        >>> x, x_pos = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> blocks = blockwise_covariance(x, x_pos, x, x_pos, block=2)  # 2 x 6 weights at a time
        >>> whole = contrastive_covariance(x, x_pos, infonce_weights(x, x_pos, x_pos), x_pos)
        >>> torch.allclose(blocks.force, whole.force)
        True
    """
    temperature = check_weighing(loss, temperature, views)
    _check(x, x_pos, z, z_pos, block, dtype)
    dtype = dtype or common_precision({t.dtype for t in (x, x_pos, z, z_pos)})
    default, tile = block_sizes(len(x), dtype.itemsize, x.device)
    block = min(len(x), default if block is None else block)
    centred = centring(x, dtype)
    anchors, positives = Rows(x, dtype, centred), Rows(x_pos, dtype, centred)
    negatives = anchors if views == "one-sided" else positives
    prepare = centring(z, dtype) if loss == "infonce" else normalised if loss == "ntxent" else None
    embedded, embedded_pos = Rows(z, dtype, prepare), Rows(z_pos, dtype, prepare)
    repelled = embedded if views == "one-sided" else embedded_pos
    logits = distance_logits if temperature is None else partial(dot_logits, temperature=temperature)

    # Sigma0 = (H + H^T) / n with H = x^T (r x / 2 - B y) + y^T c y / 2: c alone has to wait for all blocks.
    h, augmentation = x.new_zeros(2, x.shape[1], x.shape[1], dtype=torch.float64)
    c = x.new_zeros(len(x), 1, dtype=torch.float64)
    for rows, b, r in weights_by_blocks(logits, embedded, embedded_pos, repelled, block=block, tile=tile):
        c += b.sum(0).unsqueeze(-1)
        own = anchors[rows]
        h += own.mT @ (own * (r / 2) - negatives.weighted(b, tile))
        shift = (x_pos[rows].to(dtype) - x[rows].to(dtype)).contiguous()
        augmentation += shift.mT @ (shift * r)
        if progress is not None:
            progress(rows.stop, len(x))
    for rows in slices(len(x), max(block, tile)):
        own = negatives[rows]
        h += own.mT @ (own * (c[rows] / 2).to(dtype))
    return ContrastiveCovariance((h + h.mT) / len(x), (augmentation + augmentation.mT) / (2 * len(x)))


def check_weighing(loss: str, temperature: float | None, views: str) -> float | None:
    """Check the options of `blockwise_covariance` that need no data.

    Args:
        loss: A name in WEIGHINGS.
        temperature: Of "dot" and "ntxent", or None.
        views: The view convention.

    Returns:
        The temperature: the default where it has one and none is given.

    Raises:
        ValueError: For unknown names, and a temperature not above 0 or that the loss does not have.
    """
    for name, value, allowed in (("loss", loss, WEIGHINGS), ("views", views, ("one-sided", "two-sided"))):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")
    check_loss_views(loss, views)
    return loss_temperature(loss, temperature)


def _check(x: Tensor, x_pos: Tensor, z: Tensor, z_pos: Tensor, block: int | None, dtype: torch.dtype | None) -> None:
    shapes = [tuple(t.shape) for t in (x, x_pos, z, z_pos)]
    if {len(shape) for shape in shapes} != {2} or shapes[0] != shapes[1] or shapes[2] != shapes[3]:
        listed = ", ".join(map(str, shapes))
        raise ValueError(f"x and x_pos must share a shape (n, d), z and z_pos a shape (n, m); they have {listed}")
    if len(x) != len(z):
        raise ValueError(f"x has {len(x)} rows and z {len(z)}; row i of both must be sample i")
    if len(x) < 2:
        raise ValueError(f"a contrast needs at least two rows, not {len(x)}")
    if block is not None and block < 1:
        raise ValueError(f"block is {block}; it must be at least 1")
    if dtype not in (None, torch.float32, torch.float64):
        raise ValueError(f"dtype is {dtype}; choose torch.float32 or torch.float64")
