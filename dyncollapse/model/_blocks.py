"""Rows of large arrays a few at a time: what `covariance.blockwise_covariance` converts, centres and multiplies."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Real
from torch import Tensor

from dyncollapse.model._kernels import negative_weights

# BLOCK_BYTES of logits are held at a time, enough rows for a fast product up to a million samples. TILE rows are
# converted and centred at a time, enough for a product at full speed. Both are larger on a GPU, which small products do
# not fill. Rules of thumb; docs/results.md compares the time of the whole function with that of its matrix products.
BLOCK_BYTES, TILE = 2**27, 1024
BLOCK_BYTES_ON_GPU, TILE_ON_GPU = 2**30, 2**14


def block_sizes(n: int, itemsize: int, device: torch.device) -> tuple[int, int]:
    """Return how many rows of logits are held, and rows converted at a time, for n samples of `itemsize` bytes."""
    total, tile = (BLOCK_BYTES_ON_GPU, TILE_ON_GPU) if device.type == "cuda" else (BLOCK_BYTES, TILE)
    return max(1, total // (n * itemsize)), tile


def slices(n: int, size: int) -> Iterator[slice]:
    """Cut 0, ..., n - 1 into slices of `size`."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


@dataclass(frozen=True)
class Rows:
    """Rows (n, d) of any precision, possibly memory-mapped, of which some are converted and prepared when needed."""

    stored: Tensor
    dtype: torch.dtype
    prepare: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        """Return n."""
        return len(self.stored)

    def __getitem__(self, rows: slice) -> Float[Tensor, "b d"]:
        """Convert and prepare some of the rows, laid out row by row: products of columns have other last bits."""
        converted = self.stored[rows].to(self.dtype).contiguous()
        return converted if self.prepare is None else self.prepare(converted)

    def weighted(self, b: Float[Tensor, "b n"], tile_rows: int) -> Float[Tensor, "b d"]:
        """Return the product of b with all rows, converted a tile at a time."""
        total = torch.zeros(len(b), self.stored.shape[1], dtype=self.dtype, device=self.stored.device)
        for tile in slices(len(self), tile_rows):
            total.addmm_(b[:, tile], self[tile])
        return total


def centring(rows: Real[Tensor, "n d"], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return a function that subtracts the mean of these rows from some of them.

    The mean is summed in float64, a tile at a time: half precision would overflow, and converting all rows at once
    would copy them.
    """
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    for tile in slices(len(rows), TILE):
        total += rows[tile].to(dtype).contiguous().sum(0)  # sums of columns have other last bits
    centre = (total / len(rows)).to(dtype)
    return lambda some: some - centre


def weights_by_blocks(
    logits: Callable[[Tensor, Tensor], Tensor],
    anchors: Rows,
    positives: Rows,
    negatives: Rows,
    *,
    block: int,
    tile: int,
) -> Iterator[tuple[slice, Float[Tensor, "b n"], Float[Tensor, "b 1"]]]:
    """Yield the softmax weights of the negatives, and their sums, `block` rows at a time.

    Args:
        logits: Logits of any rows against any others, (b, m) and (c, m) to (b, c).
        anchors: Embeddings z (n, m).
        positives: Embeddings z'.
        negatives: Embeddings y.
        block: Rows of weights held at a time, all in one array that the next block overwrites.
        tile: Negatives whose logits are computed at a time.

    Yields:
        The slice of rows, its B with zeros for the positives, and B's row sums 1 - alpha_ii; see `negative_weights`.
    """
    n = len(anchors)
    array = torch.empty(block, n, dtype=anchors.dtype, device=anchors.stored.device)
    for rows in slices(n, block):
        z, z_pos = anchors[rows], positives[rows]
        b = array[: len(z)]
        for some in slices(n, tile):
            b[:, some] = logits(z, negatives[some])
        b.diagonal(rows.start).copy_(logits(z.unsqueeze(1), z_pos.unsqueeze(1)).flatten())
        yield rows, *negative_weights(b, rows.start)
