"""Endless streams of batches, one or many side by side, that start again whenever they are iterated."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor

from dyncollapse.model._drawing import drawn_together
from dyncollapse.model.array_arguments import array_fields
from dyncollapse.model.pairs import Pairs


@runtime_checkable
class Sampler(Protocol):
    """What a stream needs of its task; `GaussianTask` is one."""

    @property
    def data_cov(self) -> Float[Tensor, "d d"]:
        """Covariance (d, d) of the clean samples, in their precision."""

    @property
    def views(self) -> str:
        """The view convention."""

    @property
    def dim(self) -> int:
        """The input dimension d."""

    def clean(self, shape: tuple[int, ...], generator: Generator) -> Float[Tensor, "*runs n d"]:
        """Draw clean samples."""

    def augment(self, clean: Float[Tensor, "*runs n d"], generator: Generator) -> Pairs:
        """Draw both views of clean samples."""

    def sample(self, n: int, generator: Generator, runs: tuple[int, ...] = ()) -> Pairs:
        """Draw n fresh pairs for each run."""


@array_fields
@dataclass(frozen=True, eq=False)
class PairStream:
    """An endless, restartable stream of batches: every iteration starts again from the same generator state.

    Without a pool every sample is fresh. With one, the clean samples are drawn once and visited in shuffled epochs, so
    a batch never holds a sample twice, and only the augmentation is fresh.

    Attributes:
        task: Draws samples and views.
        batch_size: Pairs in a batch.
        runs: Shape of the runs.
        pool: Samples of each run, or None.
        device: Of the batches and the generator.
        generator_state: Where the generator starts.

    Raises:
        ValueError: When a batch has fewer than two pairs or does not fit the pool.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> stream = GaussianTask.block(3, 1).stream(8, torch.Generator())
        >>> first, again = next(iter(stream)), next(iter(stream))
        >>> torch.equal(first.positive, again.positive)
        True
    """

    task: Sampler
    batch_size: int
    runs: tuple[int, ...]
    pool: int | None
    device: torch.device
    generator_state: UInt8[Tensor, " bytes"]

    def __post_init__(self) -> None:
        """Check the batch size against the pool."""
        if self.batch_size < 2:
            raise ValueError(f"batch size is {self.batch_size}; a contrastive batch needs at least 2 pairs")
        if self.pool is not None and self.pool < self.batch_size:
            raise ValueError(
                f"batch size is {self.batch_size} and the pool holds {self.pool} samples; "
                "make the pool at least as large as a batch, or draw fresh samples"
            )

    @property
    def numbers_per_step(self) -> int:
        """Cost of a step on all runs, see `numbers_per_step`."""
        return math.prod(self.runs) * numbers_per_step(self.batch_size, self.task.dim)

    def __iter__(self) -> Iterator[Pairs]:
        """Yield batches for ever, the same ones each time the stream is iterated."""
        generator = Generator(self.device)
        generator.set_state(self.generator_state)
        if self.pool is None:
            together = drawn_together(math.prod(self.runs) * self.batch_size * self.task.dim)
            while True:
                drawn = self.task.sample(self.batch_size, generator, (together, *self.runs))
                for anchor, positive in zip(drawn.anchor, drawn.positive, strict=True):
                    yield Pairs(anchor, positive, drawn.views)
        clean = self.task.clean((*self.runs, self.pool), generator)
        while True:
            order = torch.randperm(self.pool, generator=generator, device=self.device)
            for rows in order[: self.pool - self.pool % self.batch_size].split(self.batch_size):
                yield self.task.augment(clean.index_select(-2, rows), generator)


@dataclass(frozen=True, eq=False)
class JoinedStream:
    """Streams side by side along the first run axis; the runs of each draw what they draw alone.

    Attributes:
        streams: The streams, in the order of their runs; as made by `join_streams`.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> parts = [GaussianTask.block(3, 1).stream(8, torch.Generator().manual_seed(s), (1,)) for s in (0, 1)]
        >>> joined, alone = next(iter(JoinedStream(tuple(parts)))), next(iter(parts[1]))
        >>> torch.equal(joined.anchor[1], alone.anchor[0])
        True
    """

    streams: tuple[PairStream, ...]

    def __iter__(self) -> Iterator[Pairs]:
        """Yield batches for ever, the same ones each time the stream is iterated."""
        if len(self.streams) == 1:
            yield from self.streams[0]
        for parts in zip(*self.streams, strict=True):
            anchors, positives = zip(*((part.anchor, part.positive) for part in parts), strict=True)
            yield Pairs(torch.cat(anchors), torch.cat(positives), parts[0].views)


def join_streams(streams: Sequence[PairStream | JoinedStream]) -> JoinedStream:
    """Lay the runs of several streams side by side, so that one ensemble holds them all.

    Args:
        streams: Each with at least one run axis.

    Returns:
        A stream whose first axis runs through the runs of all.

    Raises:
        ValueError: Unless all have run axes and share batch size, dimension, precision, device and views.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> streams = [GaussianTask.block(3, 1).stream(8, torch.Generator(), (runs,)) for runs in (1, 2)]
        >>> next(iter(join_streams(streams))).anchor.shape
        torch.Size([3, 8, 3])
    """
    parts = tuple(p for stream in streams for p in (stream.streams if isinstance(stream, JoinedStream) else (stream,)))
    kinds = {(s.batch_size, s.runs[1:], s.task.data_cov.shape, s.task.data_cov.dtype, s.device) for s in parts}
    if len(kinds) != 1 or len({s.task.views for s in parts}) != 1 or not all(s.runs for s in parts):
        raise ValueError("streams that are joined need runs, and one batch size, dimension, precision and view kind")
    return JoinedStream(parts)


def numbers_per_step(n: int, dim: int) -> int:
    """Cost of a step of one run, in numbers read and written: n x n weights or eight n x d arrays, whichever are more.

    A rule of thumb for sharing out work: a step of Eq. 2 reads and writes about eight arrays as large as a view.
    """
    return n * max(n, 8 * dim)
