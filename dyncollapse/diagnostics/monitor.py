"""Watch embeddings go by: one pass, constant memory in their number, mergeable across processes."""

import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.distributed
from jaxtyping import Shaped
from torch import Tensor

from dyncollapse.diagnostics.conversion import Rows, as_rows
from dyncollapse.diagnostics.evidence import Evidence, principal_directions
from dyncollapse.diagnostics.finite import ADVICE, check_finite, nonfinite
from dyncollapse.diagnostics.options import DiagnosisOptions
from dyncollapse.diagnostics.report import EmbeddingReport, examine
from dyncollapse.diagnostics.reservoir import Reservoir
from dyncollapse.diagnostics.split_moments import SplitMoments
from dyncollapse.model.choices import VIEWS
from dyncollapse.model.covariance import ContrastiveCovariance, blockwise_covariance, check_weighing
from dyncollapse.runtime.settings import SettingError

# Bytes of a block of rows in float64: several sums read it, from the cache where it is that small (a rule of thumb).
BLOCK_BYTES = 1 << 25
# Between the seeds of processes: a prime far from seeds that people choose.
SEED_STRIDE = 1_000_003


class Monitor:
    """Collects what `EmbeddingReport` tells from batches of embeddings, in a training loop or from a file.

    `update` takes a batch and, if there are any, other views of the same samples in the same order; `compute` reports
    on all that came, as often as wanted; `merge` and `all_reduce` join what several monitors saw. Memory is
    O(dim^2) + `sample` rows of every view, however many rows come, and O(rows x dim) while these are fewer than the
    dimensions. With other views the contrastive covariances count every
    negative alike (alpha = 1 / N): exact for Eq. 2 near W = 0, and without any N x N pairs.

    views: "two-sided" when all views are augmented, "one-sided" when the first is clean. space: what the report
    calls the place where embeddings were taken. fast: products in float32, with the higher noise floor that the report
    then shows. sample: rows kept, drawn evenly with `seed` and the process's rank, for intervals and warnings; monitors
    of one process that are to merge want seeds of their own.
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
        """Start with nothing seen. Raises SettingError for what `DiagnosisOptions` refuses."""
        options = DiagnosisOptions(views=views, space=space, fast=fast, sample=sample, seed=seed)  # type: ignore[arg-type]
        self.views, self.space, self.fast = options.views, options.space, options.fast
        self.sample, self.seed = options.sample, options.seed
        self.reset()

    def reset(self) -> None:
        """Forget everything seen, to start another epoch."""
        self.dtype: torch.dtype | None = None
        self.reservoirs = [Reservoir(self.sample, self.seed)]  # of every view, the same rows of each
        # Halves drawn at random, for files have an order: directions that one finds are judged on the other.
        self.sums: SplitMoments | None = None
        self.coin = torch.Generator().manual_seed(self.seed)
        self._sources = frozenset([uuid.uuid4().hex])  # of the monitors whose rows are in these sums
        self._reduced = False

    @property
    def reservoir(self) -> Reservoir:
        """The sampled rows of the first view."""
        return self.reservoirs[0]

    def update(
        self,
        z: Rows,
        *others: Rows,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Add a batch, and other views of its samples.

        Raises ValueError for shapes or formats that do not fit, and after `all_reduce`; also for NaN and infinity, of
        which it names the first row. Rows are added in blocks of BLOCK_BYTES; those before that row's are then added.
        """
        self._require_own_rows("update")
        z, others = as_rows(z), tuple(map(as_rows, others))
        self._check(z, others)
        rows = max(1, BLOCK_BYTES // (8 * z.shape[1]))
        check_finite([view[:rows] for view in (z, *others)])
        if self.sums is None:
            self._start(z.shape[1], len(others), z.dtype, z.device)
            for reservoir, view in zip(self.reservoirs, (z, *others), strict=True):
                reservoir.update(view[:0].detach())  # or a process without rows could not take part in `all_reduce`
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
        """Add what another monitor of the same dimension and number of views saw.

        Raises ValueError for monitors that differ, that hold rows of one source both (merged before, or this one
        itself), and after `all_reduce`.
        """
        self._require_own_rows("merge")
        if other.sums is None:
            return
        if self._sources & other._sources:
            raise ValueError("these monitors hold rows of the same source already; merging would count them twice")
        if self.sums is None:
            self._start(*other._layout(), other.dtype or torch.float64, other.sums.device)
        assert self.sums is not None
        mine, theirs = ((*m._layout(), m.dtype, m.views, m.fast) for m in (self, other))
        if mine != theirs:
            raise ValueError(
                f"monitors of (dimension, other views, format, convention, fast) {mine} and {theirs} do not merge"
            )
        for reservoir, added in zip(self.reservoirs, other.reservoirs, strict=True):
            reservoir.merge(added)
        self.sums.merge(other.sums)
        self._sources |= other._sources

    def all_reduce(self, group: torch.distributed.ProcessGroup | None = None) -> None:
        """Give every process of the group what all of them saw: once, before `compute`; `reset` before going on.

        Sums are all-reduced, the samples of rows gathered and thinned. Raises ValueError, on every process alike, where
        one has had no update or they differ in dimension, views, format or settings, and where it was called before.
        """
        self._require_own_rows("all_reduce")
        self._agree(group)
        assert self.sums is not None
        for reservoir in self.reservoirs:
            reservoir.all_reduce(group)
        self.sums.all_reduce(group)
        self._reduced = True

    def compute(self) -> EmbeddingReport:
        """Report on everything seen. Raises ValueError for fewer than two rows and for squares that overflow."""
        return examine(self.evidence())

    def evidence(self) -> Evidence:
        """What was measured, before any judgement; errors as for `compute`."""
        count = 0 if self.sums is None else self.sums.count
        if self.dtype is None or self.sums is None or count < 2:
            raise ValueError(f"the spread of {count} sample(s) is not defined; give at least 2 rows")
        summed = self.sums.summed()
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
        )

    def _agree(self, group: torch.distributed.ProcessGroup | None) -> None:
        """Let all processes see what each one holds: collectives of unlike sums add up to nonsense, or hang."""
        layout = (0, 0) if self.sums is None else self._layout()
        # Collectives want equal shapes, however many views there are: one number for the formats of all.
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
        if len(set(held)) > 1:
            raise ValueError(
                f"the processes' monitors differ in (dimension, other views, formats, convention, fast, sample): {held}"
            )

    def _layout(self) -> tuple[int, int]:
        """Dimension, and number of other views."""
        assert self.sums is not None
        return self.sums.dim, self.sums.others

    def _require_own_rows(self, action: str) -> None:
        if self._reduced:
            raise ValueError(f"{action} after all_reduce would count rows of other processes again; call reset first")

    def _check(self, z: Tensor, others: Sequence[Tensor]) -> None:
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
        # One seed for all: the same rows of every view stay.
        self.reservoirs = [Reservoir(self.sample, self.seed + SEED_STRIDE * rank) for _ in range(1 + others)]
        self.sums = SplitMoments(dim, others, fast=self.fast, device=device)


def diagnose(
    z: Rows,
    positives: Rows | Sequence[Rows] | None = None,
    *,
    inputs: Rows | None = None,
    input_positives: Rows | None = None,
    views: str = "two-sided",
    loss: str | None = None,
    temperature: float | None = None,
    space: str = "embedding",
    svd: bool = False,
    fast: bool = False,
    sample: int = 4096,
    seed: int = 0,
    input_dim: int | None = None,
    progress: Callable[[str, float, float], None] | None = None,
) -> EmbeddingReport:
    """Report on embeddings that are all there: which dimensions collapsed, why, and how sure that is.

    Args:
        z: Embeddings, a row per sample; arrays and memory-mapped tensors are read in blocks.
        positives: One or several other views of the same samples, row by row.
        inputs: What the last linear layer made `z` from.
        input_positives: What it made the first of `positives` from.
        views: "two-sided" when all views are augmented, "one-sided" when `z` is clean.
        loss: "infonce", "dot" or "ntxent" weighs negatives by that loss's softmax, in N^2 time, for each other view in
            turn; without it every negative counts alike.
        temperature: That of dot and ntxent.
        space: What the report calls the place where `z` was taken.
        svd: Take the spectrum from the centred matrix itself, held whole in float64, which keeps digits of the tail
            that a covariance rounds away.
        fast: Products in float32, with the higher noise floor that the report then shows.
        sample: Rows kept for intervals and warnings, drawn with `seed`.
        seed: Seed of everything random.
        input_dim: How many units the last linear layer reads, where `inputs` are not at hand.
        progress: Called with the name of the step, rows done and rows in all.

    Returns:
        The report.

    Raises:
        ValueError: For shapes that do not fit, NaN or infinity (how many, and where first), under two rows, and for
            what `DiagnosisOptions` refuses.

    Example:
        >>> z = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1.0, 1.0, 1e-3])
        >>> diagnose(z).collapsed
        1
    """
    DiagnosisOptions(
        views=views,  # type: ignore[arg-type]
        loss=loss,  # type: ignore[arg-type]
        temperature=temperature,
        input_dim=input_dim,
        space=space,
        svd=svd,
        fast=fast,
        sample=sample,
        seed=seed,
    )
    given = [] if positives is None else positives if isinstance(positives, list | tuple) else [positives]
    z, *others = (as_rows(view) for view in (z, *given))
    pair = _input_pair(inputs, input_positives, len(z), input_dim)
    check_loss(loss, temperature, views, len(others))

    def measured(name: str, *arrays: Tensor) -> Evidence:
        monitor = Monitor(views=views, space=space, fast=fast, sample=min(sample, max(2, len(z))), seed=seed)
        return _evidence_of(monitor, name, arrays, progress and partial(progress, name))

    found = replace(measured("embeddings", z, *others), input_dim=input_dim)
    source = measured("inputs", *pair) if pair else None
    if loss is not None:
        told = progress and partial(progress, "pairs")
        weigh = partial(_weighed, loss=loss, temperature=temperature, views=views, progress=told)
        found = replace(weigh(found, (z, *others), (z, *others)), weights=loss)
        source = weigh(source, pair, (z, others[0])) if source and pair else None
    direct = principal_directions(z) if svd else None
    return examine(replace(found, inputs=source, direct=direct))


def _input_pair(
    inputs: Rows | None, input_positives: Rows | None, samples: int, input_dim: int | None
) -> tuple[Shaped[Tensor, "n k"], Shaped[Tensor, "n k"]] | None:
    """Both views of the last layer's inputs, checked; None without any."""
    if (inputs is None) != (input_positives is None):
        raise SettingError(
            "`inputs` and `input_positives` go together; give both views of the last layer's inputs, or neither"
        )
    if inputs is None:
        return None
    if input_dim is not None:
        raise SettingError("`input_dim` says what `inputs` show by themselves; leave it out")
    x, x_pos = as_rows(inputs, "inputs"), as_rows(input_positives, "input_positives")
    if len(x) != samples:
        raise ValueError(f"there are {len(x)} inputs and {samples} embeddings; row i of both must be sample i")
    return x, x_pos


def _evidence_of(
    monitor: Monitor, name: str, arrays: Sequence[Tensor], progress: Callable[[int, int], None] | None
) -> Evidence:
    """What a monitor measures on these views; a refusal says how many NaN or infinite numbers there are, and where."""
    try:
        monitor.update(*arrays, progress=progress)
        return monitor.evidence()
    except ValueError as error:
        for number, array in enumerate(arrays):
            if array.ndim != 2:
                raise error from None
            _refuse_nonfinite(f"{name} (view {number + 1})" if number else name, array)
        raise error from None


def _weighed(evidence: Evidence, x: Sequence[Tensor], z: Sequence[Tensor], **settings: Any) -> Evidence:
    """The evidence on views `x` with pairs weighed by the softmax of views `z`, the first of each with every other."""
    first, *others = (_in_frame(evidence, view) for view in x)
    pairs = zip(others, z[1:], strict=True)
    return replace(evidence, **_weighed_pairs([(first, x_pos, z[0], z_pos) for x_pos, z_pos in pairs], **settings))


def _in_frame(evidence: Evidence, rows: Shaped[Tensor, "n d"]) -> Shaped[Tensor, "n c"]:
    """Rows as all matrices of the evidence see them."""
    return rows if evidence.frame is None else evidence.coordinates(rows)


def _weighed_pairs(
    tensors: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], *, loss: str, **settings: Any
) -> dict[str, Any]:
    """Softmax-weighted contrastive covariances, mean over (x, x_pos, z, z_pos), and the precision of their sums."""
    found = [blockwise_covariance(*one, loss=loss, **settings) for one in tensors]
    data, augmentation = (torch.stack([getattr(p, side) for p in found]).mean(0) for side in ("data", "augmentation"))
    if not (torch.isfinite(data).all() and torch.isfinite(augmentation).all()):
        raise ValueError(f"the {loss} weights of numbers this large overflow; give them in float64")
    double = torch.float64 in {rows.dtype for one in tensors for rows in one}
    eps = torch.finfo(torch.float64 if double else torch.float32).eps
    return {"pairs": ContrastiveCovariance(data, augmentation), "pairs_eps": eps}


def check_loss(loss: str | None, temperature: float | None, views: str, others: int) -> None:
    """Refuse what `blockwise_covariance` would, before anything long is read."""
    if loss is None:
        if temperature is not None:
            raise SettingError(
                f"`temperature` {temperature} belongs to a loss; name it, dot or ntxent, or leave it out"
            )
        return
    check_weighing(loss, temperature, views)
    if not others:
        raise ValueError(f"loss {loss!r} weighs pairs; give the other view of each sample as positives")


def _refuse_nonfinite(name: str, rows: Tensor) -> None:
    count, first = nonfinite(rows)
    if first is not None:
        raise ValueError(
            f"the {name} hold {count} NaN or infinite number(s), "
            f"the first in row {first[0]}, column {first[1]} {ADVICE}"
        )
