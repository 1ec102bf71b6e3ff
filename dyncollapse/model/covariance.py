"""The contrastive covariance X = Sigma0 - Sigma1 that drives the gradient flow (Lemma 2)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Real
from torch import Tensor

from dyncollapse.model.losses import (
    add_product,
    check_loss_views,
    distance_logits,
    dot_logits,
    loss_temperature,
    matrix_product,
    negative_weights,
    normalised,
)
from dyncollapse.model.precision import exact_product, full_precision, outside_autocast

# Bytes of logits held at a time, enough rows for a fast product up to a million samples, and rows converted and centred
# at a time, so that a product with them loses no speed; and both on a GPU, where small products do not fill it (ours).
BLOCK_BYTES, TILE = 2**27, 1024
BLOCK_BYTES_ON_GPU, TILE_ON_GPU = 2**30, 2**14

WEIGHINGS = ("infonce", "dot", "ntxent")  # losses whose negatives carry softmax weights


@dataclass(frozen=True, eq=False)
class ContrastiveCovariance:
    """The two sides of the contrastive covariance, each (*runs, d, d) and PSD."""

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
    Sigma1 = (1/n) sum_i (1 - alpha_ii)(x'_i - x_i)(x'_i - x_i)^T,
    with negatives y = x (one-sided, the default) or y = x' (two-sided). Inputs may carry any leading run
    dimensions; memory stays at alpha's n x n. With the weights of another loss (NT-Xent, say) the two sums
    are a diagnostic, not that loss's exact force. Precision as for the losses: float32 at least.
    """
    centre, shift = x.mean(dim=-2, keepdim=True), x_pos - x
    x, b = x - centre, alpha.clone()
    b.diagonal(dim1=-2, dim2=-1).zero_()
    r = b.sum(-1, keepdim=True)
    h = _half_of_data(x, b, r, x if negatives is None else negatives - centre)
    return ContrastiveCovariance(h + h.mT, exact_product(shift.mT, r * shift) / x.shape[-2])


def centred_force(
    x: Float[Tensor, "... n d"],
    shift: Float[Tensor, "... n d"],
    b: Float[Tensor, "... n n"],
    r: Float[Tensor, "... n 1"],
    y: Float[Tensor, "... n d"],
) -> Float[Tensor, "... d d"]:
    """X = Sigma0 - Sigma1 of anchors x around 0, of `shift` = x' - x and of negatives y less the anchors' centre.

    b and r are `negative_weights`. Cheaper where y is x itself.
    """
    half = add_product(_half_of_data(x, b, r, y), shift.mT, r * shift, 1, -0.5 / x.shape[-2])
    return half + half.mT


def _half_of_data(x: Tensor, b: Tensor, r: Tensor, y: Tensor) -> Tensor:
    """H with Sigma0 = H + H^T: n H = x^T (r x / 2 - B y) + y^T c y / 2 with the column sums c, or its transpose."""
    c, share = b.sum(-2).unsqueeze(-1), 1 / x.shape[-2]
    own = (r + c) * x if y is x else r * x
    # A CPU multiplies few rows up to 2.5 times as fast as few columns, but for float32 in 16 columns or more.
    if x.dtype == torch.float32 and x.shape[-1] >= 16:
        h = matrix_product(x.mT, add_product(own, b, y, share / 2, -share))
    else:
        h = matrix_product(add_product(own.mT, y.mT, b if y is x else b.mT, share / 2, -share), x)
    return h if y is x else h + exact_product(y.mT, c * y * (share / 2))


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
    block: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ContrastiveCovariance:
    """`contrastive_covariance` of x under the softmax weights of z, without an n x n array.

    Logits are -|z_i - y_j|^2 / 2 ("infonce"), z_i . y_j / temperature ("dot") or their cosine / temperature ("ntxent",
    two-sided only), with y = z (one-sided) or z' (two-sided) and the positive's in place of j = i. Under "ntxent" the
    two sums are a diagnostic, not the exact force: normalisation changes that, and so does the loss's other direction
    (z' against z), which is left out.

    Holds `block` rows of weights (128 MB of them unless given, 1 GB on a GPU) and a few d x d arrays beside the inputs,
    which may be memory-mapped. Both sides come in float64; products are taken in float64 where any input is float64,
    else in float32. Calls `progress(rows done, n)` after every block. Raises ValueError for unknown names, shapes that
    do not fit, fewer than two rows, a temperature not above 0 or that the loss does not have, and a block below 1.
    """
    temperature = check_weighing(loss, temperature, views)
    _check(x, x_pos, z, z_pos, block)
    n, d = x.shape
    dtype = torch.float64 if torch.float64 in {t.dtype for t in (x, x_pos, z, z_pos)} else torch.float32
    default, tile_rows = block_sizes(n, dtype.itemsize, x.device)
    block = min(n, default if block is None else block)
    y, z_negative = (x, z) if views == "one-sided" else (x_pos, z_pos)
    centre = _mean(x, dtype)

    # Sigma0 = (H + H^T) / n with H = x^T (diag(r) x / 2 - B y) + y^T diag(c) y / 2: c alone has to wait for all blocks.
    h, augmentation = x.new_zeros(2, d, d, dtype=torch.float64)
    c = x.new_zeros(n, dtype=torch.float64)
    for rows, b, r in _weights_by_blocks(z, z_pos, z_negative, loss, temperature, dtype, block, tile_rows):
        c += b.sum(0)
        b_y = torch.zeros(len(b), d, dtype=dtype, device=x.device)
        for tile in _slices(n, tile_rows):
            b_y.addmm_(b[:, tile], y[tile].to(dtype) - centre)
        anchors = x[rows].to(dtype) - centre
        h += anchors.mT @ (anchors * (r / 2) - b_y)
        shift = x_pos[rows].to(dtype) - x[rows].to(dtype)
        augmentation += shift.mT @ (shift * r)
        if progress is not None:
            progress(rows.stop, n)
    for rows in _slices(n, max(block, tile_rows)):
        negatives = y[rows].to(dtype) - centre
        h += negatives.mT @ (negatives * (c[rows, None] / 2).to(dtype))
    return ContrastiveCovariance((h + h.mT) / n, (augmentation + augmentation.mT) / (2 * n))


def block_sizes(n: int, itemsize: int, device: torch.device) -> tuple[int, int]:
    """Rows of logits that are held, and rows that are converted at a time, for n samples in numbers of `itemsize`."""
    total, tile = (BLOCK_BYTES_ON_GPU, TILE_ON_GPU) if device.type == "cuda" else (BLOCK_BYTES, TILE)
    return max(1, total // (n * itemsize)), tile


def _weights_by_blocks(
    z: Tensor,
    z_pos: Tensor,
    y: Tensor,
    loss: str,
    temperature: float | None,
    dtype: torch.dtype,
    block: int,
    tile_rows: int,
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows of `negative_weights` and their sums, `block` at a time in one array that is used again."""
    logits = distance_logits if temperature is None else partial(dot_logits, temperature=temperature)
    centre = _mean(z, dtype)

    def prepared(rows: Tensor) -> Tensor:
        rows = rows.to(dtype)
        return rows - centre if loss == "infonce" else normalised(rows) if loss == "ntxent" else rows

    array = torch.empty(block, len(z), dtype=dtype, device=z.device)
    for rows in _slices(len(z), block):
        anchors, positives = prepared(z[rows]), prepared(z_pos[rows])
        b = array[: len(anchors)]
        for tile in _slices(len(z), tile_rows):
            b[:, tile] = logits(anchors, prepared(y[tile]))
        b.diagonal(rows.start).copy_(logits(anchors.unsqueeze(1), positives.unsqueeze(1)).flatten())
        yield rows, *negative_weights(b, rows.start)


def check_weighing(loss: str, temperature: float | None, views: str) -> float | None:
    """The temperature that `blockwise_covariance` uses; ValueError for what it refuses before it looks at numbers."""
    for name, value, allowed in (("loss", loss, WEIGHINGS), ("views", views, ("one-sided", "two-sided"))):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")
    check_loss_views(loss, views)
    return loss_temperature(loss, temperature)


def _check(x: Tensor, x_pos: Tensor, z: Tensor, z_pos: Tensor, block: int | None) -> None:
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


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _mean(rows: Tensor, dtype: torch.dtype) -> Tensor:
    # A tile at a time: a sum in half precision would overflow, and a conversion of all rows would copy them.
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    for tile in _slices(len(rows), TILE):
        total += rows[tile].to(dtype).sum(0)
    return (total / len(rows)).to(dtype)
