"""Diagnose a stream of embeddings in one pass, in constant memory, on one process or several."""

import uuid
import zlib
from collections.abc import Callable, Sequence

import torch
import torch.distributed
from torch import Tensor

from dyncollapse.diagnostics.conversion import Rows, as_rows
from dyncollapse.diagnostics.evidence import Evidence
from dyncollapse.diagnostics.finite import check_finite
from dyncollapse.diagnostics.options import DiagnosisOptions
from dyncollapse.diagnostics.report import EmbeddingReport, examine
from dyncollapse.diagnostics.reservoir import Reservoir
from dyncollapse.diagnostics.split_moments import SplitMoments
from dyncollapse.model.choices import VIEWS

# Bytes of a block of rows in float64. Several sums read each block, so it should fit into a processor's cache.
BLOCK_BYTES = 1 << 25
# Distance between the seeds of processes: a prime far from seeds that people choose.
SEED_STRIDE = 1_000_003


class Monitor:
    """Diagnoses a stream of embeddings: batches go in, an `EmbeddingReport` on all of them comes out.

    `update` adds a batch, and other views of the same samples if there are any. `compute` reports on everything added
    so far and may be called at any time. `merge` joins monitors of one process, `all_reduce` those of all processes of
    a distributed run. With other views, negatives have uniform weights (alpha = 1/N), which is exact for Eq. 2 near
    W = 0 and needs no N x N pairs.

    Cost: `update` takes O(n d^2) time for n rows. Memory is O(d^2) plus `sample` rows of each view, however many rows
    are added; until there are d rows, the rows themselves are held. `compute` takes O(d^3), most of it for
    intervals and the comparison of views, which it can leave out. Sums are kept on the device of the first batch.

    Attributes:
        views: "two-sided" or "one-sided".
        space: Name of the space in the report.
        fast: Whether products are computed in float32.
        sample: Number of rows of each view that are kept.
        seed: Seed of their choice.
        dtype: Format of the embeddings; None before the first batch.
        reservoirs: The sampled rows of each view.
        sums: Sums over all rows; None before the first batch.
        coin: Generator that divides rows into two halves.

    References:
        docs/how-to/monitor-training.md (training loops, several processes, Lightning).

    Examples:
        >>> monitor = Monitor()
        >>> z = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1.0, 1.0, 1e-3])
        >>> for batch in z.split(100):
        ...     monitor.update(batch)
        >>> report = monitor.compute()
        >>> report.samples, report.collapsed
        (1000, 1)
    """

    def __init__(
        self,
        *,
        views: str = "two-sided",
        space: str = "embedding",
        fast: bool = False,
        sample: int = 4096,
        seed: int = 0,
    ) -> None:
        """Start without rows.

        Args:
            views: "two-sided" if all views are augmented, "one-sided" if the first is not.
            space: Name of the space of the embeddings in the report, for example "representation".
            fast: Compute products in float32: about twice as fast, with a higher noise floor, which the report states.
            sample: Number of rows of each view kept for intervals and warnings, drawn uniformly.
            seed: Seed of that sample; each process adds its rank. Give monitors of one process that will be merged
                different seeds.

        Raises:
            SettingError: A ValueError in one line, for options of another type or out of range.
        """
        options = DiagnosisOptions(views=views, space=space, fast=fast, sample=sample, seed=seed)  # type: ignore[arg-type]
        self.views, self.space, self.fast = options.views, options.space, options.fast
        self.sample, self.seed = options.sample, options.seed
        self.reset()

    def reset(self) -> None:
        """Forget all rows, for example before the next epoch, and allow `update` again after `all_reduce`."""
        self.dtype: torch.dtype | None = None
        self.reservoirs = [Reservoir(self.sample, self.seed)]  # one per view, with the same rows
        # Two random halves for cross-validation: random, since rows of a file may be ordered.
        self.sums: SplitMoments | None = None
        self.coin = torch.Generator().manual_seed(self.seed)
        self._sources = frozenset([uuid.uuid4().hex])  # identities of all monitors whose rows are in these sums
        self._reduced = False

    @property
    def reservoir(self) -> Reservoir:
        """The sampled rows of the first view, with the keys that selected them."""
        return self.reservoirs[0]

    def update(
        self,
        z: Rows,
        *others: Rows,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Add a batch of embeddings, and other views of its samples.

        Gradients are not followed: tensors are detached. Rows are added in blocks; if a block holds NaN or infinity,
        the blocks before it stay added.

        Args:
            z: Embeddings (n, d), a row per sample: a tensor, a NumPy array or a list. n may differ between batches.
            *others: Other views of the same samples, row by row, each (n, d); as many in every batch.
            progress: Called with the rows done and the number of rows.

        Raises:
            ValueError: For views of different shapes, for a dimension, number of views or format of `z` unlike those of
                earlier batches, for NaN and infinity (with the place of the first), and after `all_reduce`.
        """
        self._require_own_rows("update")
        z, others = as_rows(z), tuple(map(as_rows, others))
        self._check(z, others)
        rows = max(1, BLOCK_BYTES // (8 * z.shape[1]))
        check_finite([view[:rows] for view in (z, *others)])
        if self.sums is None:
            self._start(z.shape[1], len(others), z.dtype, z.device)
            for reservoir, view in zip(self.reservoirs, (z, *others), strict=True):
                reservoir.update(view[:0].detach())  # a process without rows needs a format for `all_reduce`
        assert self.sums is not None
        for start in range(0, len(z), rows):
            views = [view[start : start + rows].detach() for view in (z, *others)]
            if start:
                check_finite(views, start)
            for reservoir, view in zip(self.reservoirs, views, strict=True):
                reservoir.update(view)
            heads = torch.rand(len(views[0]), generator=self.coin, dtype=torch.float64) < 0.5
            self.sums.update(views, heads)
            if progress:
                progress(min(start + rows, len(z)), len(z))

    def merge(self, other: "Monitor") -> None:
        """Add the rows of another monitor of the same dimension, format, options and number of views.

        Args:
            other: The other monitor, which stays as it is.

        Raises:
            ValueError: For monitors that differ, for rows that would be counted twice (a monitor merged before, or this
                one itself), and after `all_reduce`.
        """
        self._require_own_rows("merge")
        if not isinstance(other, Monitor):
            raise ValueError(f"a monitor does not merge with {type(other).__name__}; give a Monitor")
        if other._reduced:
            raise ValueError("the other monitor holds the rows of all processes; merge monitors before all_reduce")
        if other.sums is None:
            return
        if self._sources & other._sources:
            raise ValueError("these monitors already share rows; merging them would count those rows twice")
        if self.sums is None:
            self._start(*other._layout(), other.dtype or torch.float64, other.sums.device)
        assert self.sums is not None
        mine, theirs = ((*m._layout(), m.dtype, m.views, m.fast, m.space) for m in (self, other))
        if mine != theirs:
            names = "(dimension, other views, format, `views`, `fast`, `space`)"
            raise ValueError(f"monitors of {names} {mine} and {theirs} do not merge")
        for reservoir, added in zip(self.reservoirs, other.reservoirs, strict=True):
            reservoir.merge(added)
        self.sums.merge(other.sums)
        self._sources |= other._sources

    def all_reduce(self, group: torch.distributed.ProcessGroup | None = None) -> None:
        """Join the monitors of all processes of a group: afterwards each one holds the rows of all.

        Every process of the group must call it, at the same point and once per `reset`. Call `compute` after it, on any
        process, and `reset` before the next batch. It sends O(d^2) numbers and `sample` rows of each view per process.
        The monitor's tensors must be where the group's backend reaches them, for example on the GPU for NCCL.

        Args:
            group: The process group; None for the default one.

        Raises:
            ValueError: On every process alike, if any of them has had no batch, if they differ in dimension, views,
                format or options, and on a second call without `reset`.
        """
        self._require_own_rows("all_reduce")
        self._agree(group)
        assert self.sums is not None
        for reservoir in self.reservoirs:
            reservoir.all_reduce(group)
        self.sums.all_reduce(group)
        self._reduced = True

    def compute(self, *, intervals: bool = True, compare: bool = True) -> EmbeddingReport:
        """Report on all rows added so far. The monitor stays as it is, and more batches may follow.

        Both options take the eigenvectors of d x d matrices, so leaving them out saves most of the time: see
        docs/how-to/monitor-training.md, which has a table. `notes` of the report say what was left out.

        Args:
            intervals: Give the measures and the number of collapsed dimensions their 95 % intervals.
            compare: Compare the views, if there are others: causes, rho, `signal_rank` and LiDAR.

        Returns:
            The report.

        Raises:
            ValueError: For fewer than two rows, and for values whose squares overflow or vanish.
        """
        return examine(self.evidence(intervals=intervals, compare=compare))

    def evidence(self, *, intervals: bool = True, compare: bool = True) -> Evidence:
        """Return what was measured, before it is judged; `compute` judges it.

        Args:
            intervals: As for `compute`.
            compare: As for `compute`.

        Returns:
            Sums over all rows and the sample of rows.

        Raises:
            ValueError: As for `compute`.
        """
        count = 0 if self.sums is None else self.sums.count
        if self.dtype is None or self.sums is None or count < 2:
            raise ValueError(f"the spread of {count} sample(s) is not defined; give at least 2 rows")
        summed = self.sums.summed(others=compare)
        total = summed.total
        if not all(moments.finite for moments in total.all):
            raise ValueError("the embeddings hold numbers whose squares overflow; give them in other units")
        rows, *others = [reservoir.rows for reservoir in self.reservoirs]
        assert rows is not None
        single = torch.finfo(torch.float32)
        if self.fast and 0 < float(rows.to(torch.float64).abs().max()) ** 2 < single.tiny / single.eps:
            raise ValueError("the embeddings are so small that their squares vanish in float32; leave out fast")
        if bool((rows != rows[:1]).any()) and not summed.column_variance.any():
            raise ValueError("the embeddings differ by so little that their squares vanish; give them in other units")
        uncompared = bool(others) and not compare
        if uncompared:
            others = []
        split = others and all(half.count > 1 for half in summed.halves)
        pairs = total.pairs(self.views) if others else None
        return Evidence(
            moments=total.each[0],
            frame=summed.frame,
            column_mean=summed.column_mean,
            column_variance=summed.column_variance,
            rows=rows,
            dtype=self.dtype,
            space=self.space,
            views=self.views,
            fast=self.fast,
            pairs=pairs,
            moved=0.0 if pairs is None else float(pairs.augmentation.diagonal().max()),
            correlation=total.correlation() if others else None,
            others=tuple(other for other in others if other is not None),
            halves=tuple(half.pairs(self.views) for half in summed.halves) if split else None,
            weights="uniform" if others else None,
            pairs_eps=torch.finfo(torch.float32 if self.fast else torch.float64).eps,
            lda=total.lda(),
            intervals=intervals,
            uncompared=uncompared,
        )

    def _agree(self, group: torch.distributed.ProcessGroup | None) -> None:
        """Check that all processes hold sums of one layout: a collective of different shapes hangs or adds nonsense."""
        layout = (0, 0) if self.sums is None else self._layout()
        # Collectives need equal shapes for any number of views, so one checksum stands for all formats.
        formats = zlib.crc32(repr([None if r.rows is None else r.rows.dtype for r in self.reservoirs]).encode())
        own = torch.tensor([*layout, formats, VIEWS.index(self.views), self.fast, self.sample])
        if torch.distributed.get_backend(group) == "nccl":
            own = own.cuda()
        everyone = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size(group))]
        torch.distributed.all_gather(everyone, own, group)
        held = [tuple(one.tolist()) for one in everyone]
        if any(not dim for dim, *_ in held):
            empty = [rank for rank, (dim, *_) in enumerate(held) if not dim]
            raise ValueError(f"process(es) {empty} have seen no embeddings; update every monitor before all_reduce")
        names = ("dimension", "number of views", "format", "`views`", "`fast`", "`sample`")
        differing = [name for name, values in zip(names, zip(*held, strict=True), strict=True) if len(set(values)) > 1]
        if differing:
            raise ValueError(f"monitors of the processes differ in {', '.join(differing)}; give all of them the same")

    def _layout(self) -> tuple[int, int]:
        """Return the dimension and the number of other views."""
        assert self.sums is not None
        return self.sums.dim, self.sums.others

    def _require_own_rows(self, action: str) -> None:
        if self._reduced:
            raise ValueError(f"{action} after all_reduce would count rows of other processes again; call reset first")

    def _check(self, z: Tensor, others: Sequence[Tensor]) -> None:
        if z.ndim == 3:
            shape = tuple(z.shape)
            raise ValueError(f"embeddings have shape {shape}; give one row per sample, or tokens to diagnose_tokens")
        if z.ndim != 2 or not z.shape[1]:
            raise ValueError(f"embeddings have shape {tuple(z.shape)}; give one row per sample, (samples, dimensions)")
        for other in others:
            if other.shape != z.shape:
                raise ValueError(
                    f"views have shapes {tuple(z.shape)} and {tuple(other.shape)}; "
                    "row i of each must be a view of the same sample i"
                )
        if self.dtype is not None and (z.shape[1], len(others)) != self._layout():
            dim, earlier = self._layout()
            raise ValueError(
                f"this batch has {len(others) + 1} view(s) of dimension {z.shape[1]}; "
                f"earlier ones had {earlier + 1} of dimension {dim}"
            )
        if self.dtype is not None and z.dtype != self.dtype:
            raise ValueError(f"this batch is {z.dtype}; earlier ones were {self.dtype}")

    def _start(self, dim: int, others: int, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = dtype
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank = torch.distributed.get_rank() if distributed else 0
        # One seed for all views, so that the same rows of each are kept.
        self.reservoirs = [Reservoir(self.sample, self.seed + SEED_STRIDE * rank) for _ in range(1 + others)]
        self.sums = SplitMoments(dim, others, fast=self.fast, device=device)
