"""A metric of torchmetrics that reports on collapse."""

from typing import Any

import torch
import torch.distributed
from torch import Tensor

from dyncollapse.diagnostics.conversion import Rows, as_rows
from dyncollapse.diagnostics.monitor import Monitor
from dyncollapse.diagnostics.monitor_state import empty_state, restore, stored
from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.integrations.reporting import scalars
from dyncollapse.runtime.extras import missing

try:
    from torchmetrics import Metric
except ModuleNotFoundError as error:
    raise missing(error, "torchmetrics", "integrations", "CollapseMetric") from None


class CollapseMetric(Metric):
    """Rank measures and the number of collapsed dimensions of embeddings, as a metric of torchmetrics.

    Everything that was summed is a state of the metric: `to`, `reset`, `state_dict` (after `persistent(True)`), `clone`
    and the synchronisation of processes are those of torchmetrics. Synchronised, the sums and the sampled rows of all
    processes are joined as by `Monitor.merge`.

    Cost: that of `Monitor`. States take about 16 d^2 bytes for one view and 48 d^2 for two, and torchmetrics keeps
    their start beside them; processes that synchronise gather them from each other. Calling the metric (`forward`)
    adds the batch twice and reports on it alone, so call `update` in training.

    Attributes:
        report: The whole report behind the latest `compute`; None before.

    References:
        docs/how-to/monitor-training.md (torchmetrics).

    Examples:
        >>> metric = CollapseMetric(4, others=0)
        >>> z = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1.0, 1.0, 1e-3])
        >>> for batch in z.split(100):
        ...     metric.update(batch)
        >>> int(metric.compute()["collapse/collapsed"]), metric.report.verdict.sentence[:29]
        (1, '1 of 4 dimensions collapsed (')
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = True  # a batch is summed about the mean of all rows before it

    count: Tensor
    origin: Tensor
    offset: Tensor
    scatter: Tensor
    keys: Tensor
    rows: Tensor

    def __init__(
        self,
        dim: int,
        *,
        others: int = 1,
        prefix: str = "collapse/",
        intervals: bool = False,
        compare: bool = True,
        dtype: torch.dtype = torch.float32,
        views: str = "two-sided",
        space: str = "embedding",
        fast: bool = False,
        sample: int = 1024,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        """Start without rows.

        Args:
            dim: Number of dimensions d of the embeddings.
            others: Number of views beside the first that each `update` brings.
            prefix: Text in front of the names that `compute` returns.
            intervals: As for `Monitor.compute`.
            compare: As for `Monitor.compute`: with two views of d = 2048, a report takes 27 times as long as without.
            dtype: Format of the rows that are kept; it must hold those that are added, as float32 holds bfloat16.
            views: As for `Monitor`.
            space: As for `Monitor`.
            fast: As for `Monitor`.
            sample: Number of rows of each view that are kept, as for `Monitor`.
            seed: As for `Monitor`.
            **settings: Those of `torchmetrics.Metric`, such as `sync_on_compute`.

        Raises:
            ValueError: For fewer than 1 dimension or 0 other views, and for options that `Monitor` refuses.
        """
        super().__init__(**settings)
        if dim < 1 or others < 0:
            raise ValueError(f"got dim={dim} and others={others}; give 1 dimension or more and 0 other views or more")
        self.options: dict[str, Any] = {"views": views, "space": space, "fast": fast, "sample": sample, "seed": seed}
        Monitor(**self.options)  # refuses options before the first batch
        self.prefix, self.intervals, self.compare = prefix, intervals, compare
        self.report: EmbeddingReport | None = None
        for name, start in empty_state(dim, others, sample, dtype).items():
            self.add_state(name, start, dist_reduce_fx=None)  # synchronised, each is stacked over the processes

    def update(self, z: Rows, *others: Rows) -> None:
        """Add a batch of embeddings, and other views of its samples.

        Args:
            z: Embeddings (n, dim), a row per sample.
            *others: Other views of the same samples, row by row, as many as the metric was made for.

        Raises:
            ValueError: For another dimension or number of views, for a format that `dtype` does not hold, and as for
                `Monitor.update`.
        """
        views = [as_rows(view).detach().to(self.device) for view in (z, *others)]
        kept = self.rows.dtype
        if unlike := {view.dtype for view in views if torch.promote_types(view.dtype, kept) != kept}:
            raise ValueError(f"the embeddings are {unlike.pop()}, which {kept} does not hold; give another `dtype`")
        state = {name: _changeable(getattr(self, name)) for name in self._defaults}
        rank = torch.distributed.get_rank() if _distributed() else 0
        monitor = self._monitor(state, rank)
        try:
            monitor.update(*(view.to(kept) for view in views))
        finally:  # rows before a NaN stay added, and the state's tensors have changed in place
            for name, tensor in stored(monitor, state).items():
                setattr(self, name, tensor)

    def compute(self) -> dict[str, Tensor]:
        """Report on all rows added so far, on those of all processes if they are synchronised.

        Returns:
            The scalars of the report as tensors; `report` has all of it.

        Raises:
            ValueError: For fewer than two rows, and for values whose squares overflow or vanish.
        """
        state = {name: getattr(self, name) for name in self._defaults}
        parts = [state]
        if self.count.ndim > 2:  # synchronised: stacked over the processes
            parts = [{name: tensor[rank] for name, tensor in state.items()} for rank in range(len(self.count))]
        joined, *rest = [self._monitor(part, rank) for rank, part in enumerate(parts)]
        for monitor in rest:
            joined.merge(monitor)
        self.report = joined.compute(intervals=self.intervals, compare=self.compare)
        values = scalars(self.report, self.prefix)
        return {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in values.items()}

    def _monitor(self, state: dict[str, Tensor], rank: int) -> Monitor:
        monitor = Monitor(**self.options)
        restore(monitor, state, rank)
        return monitor

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        for name in self._defaults:  # the sums change in place, those of a caller must not
            setattr(self, name, getattr(self, name).clone())


@torch.inference_mode(False)
def _changeable(tensor: Tensor) -> Tensor:
    """Return a tensor that may be changed in any mode: one that was made in inference mode is copied."""
    return tensor.clone() if tensor.is_inference() else tensor


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
