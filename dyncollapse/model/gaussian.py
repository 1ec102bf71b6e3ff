"""Gaussian data with Gaussian augmentations: the toy task of the paper's Sections 4 and 5."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Self

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dyncollapse.model.choices import VIEWS
from dyncollapse.model.precision import outside_autocast

# Numbers in a step of the runs that share a generator (ours): 32 runs of 128 pairs in 16 dimensions. Fewer would cost
# calls, more would leave processors idle.
SHARED = 2**19
# Numbers of anchors that are drawn at a time (ours): drawn one by one, small batches cost calls more than numbers.
DRAWN = 2**15
# Standard deviation, and 1 / the largest, that samples are drawn with in float32, whose range ends at 1e-38 and 3e38.
SMALLEST = 1e-30


@dataclass(frozen=True, eq=False)
class Pairs:
    """A batch of positive pairs and the view convention it was drawn under.

    `anchor` and `positive` are (..., n, d); row i of one is the positive of row i of the other.
    The negatives of anchor i are the other rows (j != i) of `negatives`.
    """

    anchor: Float[Tensor, "*runs n d"]
    positive: Float[Tensor, "*runs n d"]
    views: str = "one-sided"

    def __post_init__(self) -> None:
        """Refuse an unknown view convention and views of different shapes."""
        _check_views(self.views)
        if self.anchor.shape != self.positive.shape:
            raise ValueError(
                f"anchors have shape {tuple(self.anchor.shape)}, positives {tuple(self.positive.shape)}; "
                "give both views of the same samples"
            )

    @property
    def negatives(self) -> Float[Tensor, "*runs n d"]:
        """The points that row i is repelled from: the clean samples (one-sided) or the other view (two-sided)."""
        return self.anchor if self.views == "one-sided" else self.positive

    def to(self, dtype: torch.dtype) -> Self:
        """Return the same pairs in another precision."""
        return type(self)(self.anchor.to(dtype), self.positive.to(dtype), self.views)


def stack_pairs(batches: list[Pairs]) -> Pairs:
    """Stack M batches along a new leading axis: (..., n, d) each, (M, ..., n, d) together."""
    anchors, positives = zip(*((batch.anchor, batch.positive) for batch in batches), strict=True)
    return Pairs(torch.stack(anchors), torch.stack(positives), batches[0].views)


@dataclass(frozen=True, eq=False)
class GaussianTask:
    """Samples x ~ N(0, S), views x + n with n ~ N(0, A): S = `data_cov`, A = `aug_cov`, both (d, d) and PSD.

    `one-sided` (the paper's Eq. 2): anchors and negatives are clean, only the positive is augmented.
    `two-sided` (SimCLR): both views are augmented, negatives come from the other view.
    White noise is drawn in float32 and converted: both precisions see the same, up to 5.8 standard deviations on a CPU.
    Raises ValueError for matrices that are not finite, square, symmetric, PSD and alike in size, precision and device.
    """

    data_cov: Float[Tensor, "d d"]
    aug_cov: Float[Tensor, "d d"]
    views: str = "one-sided"

    def __post_init__(self) -> None:
        """Check both covariances and the view convention."""
        _check_views(self.views)
        for name, cov in (("data covariance", self.data_cov), ("augmentation covariance", self.aug_cov)):
            _check_covariance(name, cov)
        data, aug = (f"{tuple(cov.shape)} of {cov.dtype} on {cov.device}" for cov in (self.data_cov, self.aug_cov))
        if data != aug:
            raise ValueError(
                f"data covariance is {data}, augmentation covariance {aug}; "
                "both must have the input dimension, one precision and one device"
            )

    @classmethod
    def block(
        cls,
        dim: int = 16,
        aug_dim: int = 8,
        aug_strength: float = 1.0,
        data_var: float = 0.5,
        views: str = "one-sided",
        dtype: torch.dtype = torch.float64,
    ) -> Self:
        """Build the task of the paper's Fig. 3: S = data_var I, A = diag(0, ..., 0, k, ..., k).

        The last `aug_dim` of `dim` coordinates are augmented with *variance* k = `aug_strength`.
        data_var = 1/2 makes the pairwise covariance of the data the identity, as the paper's Section 4.3.
        """
        if dim < 1 or not 0 <= aug_dim <= dim:
            raise ValueError(f"aug_dim is {aug_dim} of dim {dim}; it must lie between 0 and dim, with dim at least 1")
        if not (0 <= aug_strength < float("inf")):
            raise ValueError(f"aug_strength is {aug_strength}; it is a variance, finite and at least 0")
        if not (0 < data_var < float("inf")):
            raise ValueError(f"data_var is {data_var}; it is a variance, finite and above 0")
        aug_vars = aug_strength * (torch.arange(dim) >= dim - aug_dim).to(dtype)
        return cls(data_var * torch.eye(dim, dtype=dtype), torch.diag(aug_vars), views)

    @property
    def dim(self) -> int:
        """The input dimension d."""
        return self.data_cov.shape[-1]

    def to(self, dtype: torch.dtype, device: torch.device | None = None) -> Self:
        """Return the same task in another precision, on another device when one is named."""
        return type(self)(self.data_cov.to(device, dtype), self.aug_cov.to(device, dtype), self.views)

    def sample(self, n: int, generator: Generator, runs: tuple[int, ...] = ()) -> Pairs:
        """Draw n fresh pairs for each run: views of shape (*runs, n, d)."""
        return self.augment(self._data_factor.normal((*runs, n), generator), generator)

    def augment(self, clean: Float[Tensor, "*runs n d"], generator: Generator) -> Pairs:
        """Draw both views of the given clean samples under the task's view convention."""
        noise = partial(self._aug_factor.normal, clean.shape[:-1], generator)
        anchor = clean if self.views == "one-sided" else clean + noise()
        return Pairs(anchor, clean + noise(), self.views)

    def stream(
        self, batch_size: int, generator: Generator, runs: tuple[int, ...] = (), pool: int | None = None
    ) -> "PairStream | JoinedStream":
        """Describe an endless stream of batches; see PairStream. `pool=None` draws fresh samples for every batch.

        On a CPU, many runs become streams of a few runs each, side by side, with generators that `generator` seeds: one
        generator draws on one thread only, for half of the time of a step on four. Shapes alone decide how many.
        """
        stream = PairStream(self, batch_size, runs, pool, generator.device, generator.get_state())
        count = min(-(-stream.numbers_per_step // SHARED), runs[0]) if runs and generator.device.type == "cpu" else 1
        if count < 2:
            return stream
        # Room for all pools at once, or none: drawn one by one they would fill the memory first.
        torch.empty(*runs, pool or 0, self.dim, dtype=self.data_cov.dtype)
        first_seed = int(torch.randint(2**32, (), generator=generator.clone_state()))
        edges = [i * runs[0] // count for i in range(count + 1)]
        return JoinedStream(
            tuple(
                replace(
                    stream,
                    runs=(stop - start, *runs[1:]),
                    generator_state=Generator().manual_seed(first_seed + i).get_state(),
                )
                for i, (start, stop) in enumerate(itertools.pairwise(edges))
            )
        )

    @cached_property
    def seen(self) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"]]:
        """(S_e, A_e), see `as_seen`."""
        return as_seen(self.data_cov, self.aug_cov, self.views)

    @cached_property
    def seen_root(self) -> Float[Tensor, "d d"]:
        """The symmetric square root of S_e."""
        return _root(self.seen[0])

    @cached_property
    def _data_factor(self) -> "_Factor":
        return _Factor.of(self.data_cov)

    @cached_property
    def _aug_factor(self) -> "_Factor":
        return _Factor.of(self.aug_cov)


@dataclass(frozen=True, eq=False)
class PairStream:
    """An endless, restartable stream of batches: every iteration starts again from the same generator state.

    Without a pool every sample is fresh; small batches are drawn several at a time. With `pool` samples per run, the
    clean samples are drawn once and visited in shuffled epochs, so a batch never holds a sample twice, and only the
    augmentation noise is fresh.
    Raises ValueError when a batch has fewer than two pairs or does not fit the pool.
    """

    task: GaussianTask
    batch_size: int
    runs: tuple[int, ...]
    pool: int | None
    device: torch.device
    generator_state: Tensor

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
        """Numbers that a step on all runs goes through."""
        return math.prod(self.runs) * numbers_per_step(self.batch_size, self.task.dim)

    def __iter__(self) -> Iterator[Pairs]:
        """Yield batches for ever, the same ones each time the stream is iterated."""
        generator = Generator(self.device)
        generator.set_state(self.generator_state)
        if self.pool is None:
            together = max(1, DRAWN // max(1, math.prod(self.runs) * self.batch_size * self.task.dim))
            while True:
                drawn = self.task.sample(self.batch_size, generator, (together, *self.runs))
                for anchor, positive in zip(drawn.anchor, drawn.positive, strict=True):
                    yield Pairs(anchor, positive, drawn.views)
        clean = self.task._data_factor.normal((*self.runs, self.pool), generator)
        while True:
            order = torch.randperm(self.pool, generator=generator, device=self.device)
            for rows in order[: self.pool - self.pool % self.batch_size].split(self.batch_size):
                yield self.task.augment(clean.index_select(-2, rows), generator)


@dataclass(frozen=True, eq=False)
class JoinedStream:
    """Streams side by side along the first run axis; the runs of each draw what they draw alone."""

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

    Raises ValueError unless all have run axes and share batch size, dimension, precision, device and views.
    """
    parts = tuple(p for stream in streams for p in (stream.streams if isinstance(stream, JoinedStream) else (stream,)))
    kinds = {(s.batch_size, s.runs[1:], s.task.data_cov.shape, s.task.data_cov.dtype, s.device) for s in parts}
    if len(kinds) != 1 or len({s.task.views for s in parts}) != 1 or not all(s.runs for s in parts):
        raise ValueError("streams that are joined need runs, and one batch size, dimension, precision and view kind")
    return JoinedStream(parts)


def numbers_per_step(n: int, dim: int) -> int:
    """Numbers that a step of one run goes through: n x n weights or eight n x d arrays, whichever are more (ours)."""
    return n * max(n, 8 * dim)


def as_seen(data: Tensor, aug: Tensor, views: str) -> tuple[Tensor, Tensor]:
    """(S_e, A_e): covariance of a point as the loss sees it, and of a positive pair's difference.

    S and A one-sided, S + A and 2 A two-sided; matrices and variances per mode alike.
    """
    return (data, aug) if views == "one-sided" else (data + aug, 2 * aug)


def _check_views(views: str) -> None:
    if views not in VIEWS:
        raise ValueError(f"views is {views!r}; choose one of {', '.join(VIEWS)}")


def _check_covariance(name: str, cov: Tensor) -> None:
    if cov.ndim != 2 or cov.shape[0] != cov.shape[1] or cov.shape[0] == 0:
        raise ValueError(f"{name} has shape {tuple(cov.shape)}; it must be a square matrix")
    if cov.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} has numbers of type {cov.dtype}; give float32 or float64")
    if not torch.isfinite(cov).all():
        raise ValueError(f"{name} holds NaN or infinity; give finite numbers")
    # A covariance that a user assembled by matrix products is symmetric and PSD only up to round-off.
    tolerance = float(cov.shape[0] * torch.finfo(cov.dtype).eps * cov.abs().max())
    asymmetry = float((cov - cov.T).abs().max())
    if asymmetry > 8 * tolerance:
        raise ValueError(f"{name} is not symmetric (largest difference {asymmetry:.3g}); pass (C + C.T) / 2")
    smallest = float(torch.linalg.eigvalsh(cov)[0])
    if smallest < -8 * tolerance:
        raise ValueError(f"{name} has the eigenvalue {smallest:.3g}; all must be at least 0")


def _root(cov: Tensor) -> Tensor:
    # Unlike a factor of columns it is unique, and so no matter of round-off where variances are alike.
    variances, vectors = torch.linalg.eigh(cov)
    kept = variances > cov.shape[0] * torch.finfo(cov.dtype).eps * variances.abs().max()
    return vectors * variances.where(kept, 0).sqrt() @ vectors.T


@dataclass(frozen=True, eq=False)
class _Factor:
    """F (d, rank) with F F^T = cov, the symmetric root in general.

    Where the coordinates from `first` on are independent, with one standard deviation `std`, and the others 0, numbers
    are drawn with that and put there: a product with F takes longer than to draw them.
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
        return cls(_root(cov), None, 0)

    @outside_autocast
    def normal(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Draw samples (*shape, d) of the covariance."""
        # In float32 whatever the precision: a CPU draws that five times as fast, and both see the same numbers.
        d, rank = self.matrix.shape
        white = torch.empty((*shape, rank), dtype=torch.float32, device=self.matrix.device)
        white = white.normal_(std=1.0 if self.std is None else self.std, generator=generator).to(self.matrix.dtype)
        if self.std is None:
            return white @ self.matrix
        return white if rank == d else torch.nn.functional.pad(white, (self.first, d - self.first - rank))
