"""Fast Gaussian samples: in float32, without matrix products where possible, from one generator per few runs."""

import itertools
from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor

from dyncollapse.model.precision import outside_autocast

# Numbers per step of the runs that share a generator, as in 32 runs of 128 pairs in 16 dimensions. Drawing takes about
# a quarter of such a step (docs/results.md). A generator draws on one thread: with fewer runs per generator the calls
# would cost more than the numbers, with more runs cores would be idle.
SHARED = 2**19
# Small batches are drawn several at a time, up to this many numbers, because each call costs more than its numbers. A
# rule of thumb.
DRAWN = 2**15
# Smallest standard deviation of samples drawn in float32, and 1 / the largest: its range ends at 1e-38 and 3e38.
SMALLEST = 1e-30


@dataclass(frozen=True, eq=False)
class Factor:
    """A factor F (d, rank) of a covariance, F F^T = cov: its symmetric root in general.

    In the usual case all coordinates from `first` to `first` + rank are independent with one standard deviation `std`,
    and the others are 0. Samples are then drawn with that deviation and padded with zeros, since multiplying by F would
    take longer than drawing them.
    """

    matrix: Tensor
    std: float | None
    first: int

    @classmethod
    def of(cls, cov: Tensor) -> Self:
        """Factorise a covariance (d, d)."""
        first, rank = int(cov.diagonal().argmax()), int(cov.diagonal().count_nonzero())
        std = float(cov[first, first].sqrt())
        placed = torch.zeros_like(cov)
        placed.diagonal()[first : first + rank] = cov[first, first]
        if torch.equal(cov, placed) and (std == 0 or SMALLEST < std < 1 / SMALLEST):
            return cls(placed.sqrt()[:, first : first + rank], std, first)
        return cls(symmetric_root(cov), None, 0)

    @outside_autocast
    def normal(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Draw samples (*shape, d) from N(0, cov): F times white noise."""
        white, (d, rank) = self._white(shape, generator).to(self.matrix.dtype), self.matrix.shape
        if self.std is None:
            return white @ self.matrix
        return white if rank == d else torch.nn.functional.pad(white, (self.first, d - self.first - rank))

    @outside_autocast
    def added(self, points: Tensor, generator: Generator) -> Tensor:
        """Return points (*shape, d) + samples from N(0, cov), as `normal` draws them."""
        if self.std is None:
            return points + self.normal(points.shape[:-1], generator)
        total = points.clone(memory_format=torch.contiguous_format)
        total.narrow(-1, self.first, self.matrix.shape[-1]).add_(self._white(points.shape[:-1], generator))
        return total

    def _white(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        # Always in float32: a CPU draws it five times as fast, and both precisions then use the same numbers.
        white = torch.empty((*shape, self.matrix.shape[-1]), dtype=torch.float32, device=self.matrix.device)
        return white.normal_(std=1.0 if self.std is None else self.std, generator=generator)


def symmetric_root(cov: Tensor) -> Tensor:
    """Return the symmetric square root of a PSD matrix (d, d).

    It is unique, unlike a factor of columns, and so does not depend on round-off where variances are equal.
    """
    variances, vectors = torch.linalg.eigh(cov)
    kept = variances > cov.shape[0] * torch.finfo(cov.dtype).eps * variances.abs().max()
    return vectors * variances.where(kept, 0).sqrt() @ vectors.T


def split_generators(runs: tuple[int, ...], numbers: int, generator: Generator) -> list[tuple[int, Tensor]]:
    """Split runs among generators of their own, seeded by `generator`, which is left as it is.

    Args:
        runs: Shape of the runs; they are split along the first axis.
        numbers: The cost of a step on all runs, as from `streams.numbers_per_step`.
        generator: Seeds the others. On a GPU one generator draws for all runs.

    Returns:
        The number of runs and the state of each generator; empty where one generator is enough. It depends on the
        shapes alone.
    """
    count = min(-(-numbers // SHARED), runs[0]) if runs and generator.device.type == "cpu" else 1
    if count < 2:
        return []
    first_seed = int(torch.randint(2**32, (), generator=generator.clone_state()))
    edges = [i * runs[0] // count for i in range(count + 1)]
    return [
        (stop - start, Generator().manual_seed(first_seed + i).get_state())
        for i, (start, stop) in enumerate(itertools.pairwise(edges))
    ]


def drawn_together(numbers: int) -> int:
    """Return how many batches to draw at a time, each of this many numbers."""
    return max(1, DRAWN // max(1, numbers))
