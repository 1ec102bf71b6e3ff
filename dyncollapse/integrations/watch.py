"""When a callback looks at embeddings, where it finds them, and what it reports: the same for every framework."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.distributed
from torch import Tensor

from dyncollapse.diagnostics.monitor import Monitor
from dyncollapse.diagnostics.report import EmbeddingReport

# Rows per dimension in a report: isotropic data then have a participation ratio of d / (1 + 1/10) = 0.91 d.
ROWS_PER_DIMENSION = 10
Source = str | Sequence[str] | Callable[[Any, Any, Any], Any]


class Watch:
    """Sums the embeddings of the last steps before every k-th step, and reports at that step.

    A window has as many steps as bring 10 rows per dimension, over all processes, and at most `every`. So `every` steps
    cost the time of one window and one report. Without `every` all that is given is summed, and reports are on request.

    Attributes:
        every: Steps between reports; None for reports on request.
        window: Steps in a window; None before the first batch, and without `every`.
        monitor: What sums the embeddings.
    """

    def __init__(self, every: int | None, *, intervals: bool, compare: bool, **options: Any) -> None:
        """Start before the first step.

        Args:
            every: Steps between reports; None for reports on request.
            intervals: As for `Monitor.compute`.
            compare: As for `Monitor.compute`.
            **options: Those of `Monitor`.

        Raises:
            ValueError: For `every` below 1, and for options that `Monitor` refuses.
        """
        if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
            raise ValueError(f"every is {every!r}; give a whole number of steps from 1 on")
        self.every, self.intervals, self.compare = every, intervals, compare
        self.monitor = Monitor(**options)
        self.window: int | None = None
        self._steps: set[int] = set()  # of the current window
        self._errors: list[str] = []

    def wants(self, step: int) -> bool:
        """Whether the embeddings of a step, counted from 1, are to be given to `update`."""
        return self.every is None or self.window is None or -step % self.every < self.window

    def update(self, step: int, views: Sequence[Tensor]) -> None:
        """Add the embeddings of a step; the first ones ever decide how many steps a window has.

        Args:
            step: The step, counted from 1.
            views: Views (n, d) of the same samples.
        """
        if self.every and self.window is None and views[0].ndim == 2:
            rows = max(1, len(views[0])) * _processes()
            self.window = min(self.every, -(-ROWS_PER_DIMENSION * views[0].shape[1] // rows))
        if not self.wants(step):
            return
        self._steps.add(step)
        try:
            self.monitor.update(*views)
        except ValueError as error:  # a network that diverged must not stop its own training, nor other processes
            self._errors.append(f"at step {step}, {error}")

    def report(self, step: int, say: Callable[[str], object]) -> EmbeddingReport | None:
        """Join the processes at the end of a window, report, and start anew; every process must call it.

        Args:
            step: The step, counted from 1.
            say: Called with lines for the user, on every process.

        Returns:
            The report; None within a window, and where the embeddings allow none: then a line says why.
        """
        if self.every and step % self.every:
            return None
        errors = [error for of_process in _gathered(self._errors) for error in of_process]
        seen = len(self._steps)
        self._errors, self._steps = [], set()
        try:
            if errors:
                raise ValueError(errors[0])
            if _processes() > 1:
                self.monitor.all_reduce()
            report = self.monitor.compute(intervals=self.intervals, compare=self.compare)
        except ValueError as error:
            say(f"no report on collapse at step {step}: {error}")
            return None
        finally:
            self.monitor.reset()
        if seen < (self.window or 0):
            say(
                f"the report on collapse at step {step} has {seen} of the {self.window} steps of its window: "
                "training began or resumed within it, and windows are not saved"
            )
        return report


def embeddings_of(source: Source, module: Any, batch: Any, outputs: Any) -> list[Tensor]:
    """Return the views that a callback was asked to watch.

    Args:
        source: A name, or one name per view: a key or attribute of `outputs`, or else an attribute of `module`, with
            dots for attributes of attributes. Or a function of (module, batch, outputs) that returns one view or a
            sequence of views.
        module: The module that is trained.
        batch: The batch.
        outputs: What the module returned for it.

    Returns:
        One tensor per view.

    Raises:
        ValueError: For a name that nothing has, and for what is no tensor.

    Examples:
        >>> z = torch.ones(3, 2)
        >>> [view.shape for view in embeddings_of(["z", "z_pos"], None, None, {"z": z, "z_pos": z})]
        [torch.Size([3, 2]), torch.Size([3, 2])]
    """
    if callable(source):
        found = source(module, batch, outputs)
    elif isinstance(source, str):
        found = _named(source, module, outputs)
    else:
        found = [_named(name, module, outputs) for name in source]
    views = list(found) if isinstance(found, list | tuple) else [found]
    if not views or any(not isinstance(view, Tensor) for view in views):
        kinds = ", ".join(type(view).__name__ for view in views) or "nothing"
        raise ValueError(f"embeddings are given by {source!r} as {kinds}; give a tensor, or one tensor per view")
    return views


def _named(name: str, module: Any, outputs: Any) -> Any:
    if isinstance(outputs, Mapping) and name in outputs:
        return outputs[name]
    for holder in (outputs, module):
        found = holder
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not None:
            return found
    keys = f"the keys {', '.join(map(str, outputs))}" if isinstance(outputs, Mapping) else type(outputs).__name__
    raise ValueError(
        f"no embeddings {name!r}: outputs have {keys}, and {type(module).__name__} has no such attribute; "
        "return them from the step, keep them as an attribute, or give a function of (module, batch, outputs)"
    )


def _processes() -> int:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if distributed else 1


def _gathered(value: list[str]) -> list[list[str]]:
    """Return the values of all processes, in order."""
    if _processes() == 1:
        return [value]
    every: list[Any] = [None] * _processes()
    torch.distributed.all_gather_object(every, value)
    return every
