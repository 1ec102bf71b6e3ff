"""The training loop: take steps, log losses, monitor spaces, save checkpoints, stop between steps on request."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.bridge.data.batches import Batch
from dyncollapse.bridge.data.skipped import Skipped
from dyncollapse.bridge.training.collapse_monitor import CollapseMonitor
from dyncollapse.bridge.training.distributed import gather_values
from dyncollapse.bridge.training.stop_signals import stop_signals
from dyncollapse.bridge.training.trainer import Trainer
from dyncollapse.bridge.training.training_log import TrainingLog
from dyncollapse.runtime.settings import NAMED

# The newest checkpoint may contain the update that made the loss diverge.
ADVICE = "lower `lr` or raise `warmup_epochs` in a new run; to look at this one, take the checkpoint before the newest"


class Stopped(Exception):
    """Raised after Ctrl-C or SIGTERM, once the state is saved; the run can be resumed.

    Examples:
        >>> try:
        ...     raise Stopped("stopped at step 40 of 600")  # as `pretrain` does
        ... except Stopped as stopped:
        ...     print(f"{stopped}; call pretrain with the same folder to go on")
        stopped at step 40 of 600; call pretrain with the same folder to go on
    """


class LossDiverged(Exception):
    """Raised if the loss or the weights are not finite; no checkpoint holds such weights.

    Attributes:
        text: The message with the names of settings in backticks, which `str` drops.

    Examples:
        >>> str(LossDiverged("the loss is nan at step 7; lower `lr`"))
        'the loss is nan at step 7; lower lr'
    """

    def __init__(self, text: str) -> None:
        """Keep the text with its marks.

        Args:
            text: One line that names settings in backticks.
        """
        super().__init__(NAMED.sub(r"\1", text))
        self.text = text


@dataclass(frozen=True)
class Progress:
    """Callbacks through which a run reports its progress.

    Attributes:
        step: Called with the steps that were taken and the steps in all.
        tell: Called with a sentence on what happens, such as "going on from ...".

    Examples:
        >>> lines = []
        >>> progress = Progress(step=lambda done, total: lines.append(f"{done}/{total}"))
        >>> _ = progress.step(1, 600)
        >>> lines
        ['1/600']
    """

    step: Callable[[int, int], object] = lambda _done, _total: None
    tell: Callable[[str], object] = lambda _text: None


@dataclass(frozen=True, eq=False)
class Outputs:
    """Where the training loop writes and reports.

    Attributes:
        folder: The run's folder, for checkpoints.
        log: The log of losses; None except in the first process.
        monitor_log: The log of the monitor's reports; None except in the first process.
        monitor: The monitor of both spaces.
        skipped: Record of images that cannot be read.
        progress: Callbacks after each step.
    """

    folder: Path
    log: TrainingLog | None
    monitor_log: TrainingLog | None
    monitor: CollapseMonitor
    skipped: Skipped
    progress: Progress


@dataclass(eq=False)
class _Window:
    """Losses, failures and time since the last line of the log."""

    loss: Float[Tensor, ""]
    steps: int = 0
    unread: list[tuple[int, str]] = field(default_factory=list)  # of this process
    started: float = field(default_factory=time.perf_counter)

    def restart(self) -> None:
        """Begin the next window."""
        self.loss, self.steps, self.started = self.loss.zero_(), 0, time.perf_counter()
        self.unread.clear()


def take_steps(trainer: Trainer, batches: Iterable[Batch], first: int, outputs: Outputs) -> None:
    """Train to the end of a run.

    Args:
        trainer: The state, which changes.
        batches: Batches of steps first, first + 1, ...
        first: Steps that were taken before.
        outputs: Where losses, reports and checkpoints go.

    Raises:
        Stopped: After Ctrl-C or SIGTERM, once the state is saved.
        LossDiverged: If the loss or the weights are not finite.
        Unreadable: If none of the first images can be read, or with `strict` if one cannot.
        CannotWrite: If a file cannot be written.
    """
    recipe, total = trainer.recipe, trainer.total
    window = _Window(torch.zeros((), device=trainer.process.device))
    begun = time.perf_counter()
    outputs.progress.step(first, total)
    with stop_signals() as stop:
        for step, batch in enumerate(batches, first + 1):
            _take_step(trainer, step, batch, window, outputs)
            saving = step == total or step % recipe.checkpoint_every == 0
            # Several processes agree to stop when they write a line of the log; a single one stops at once.
            stop_now = stop.is_set() and trainer.process.count == 1
            stopping = False
            if saving or stop_now or step % recipe.log_every == 0:
                stopping = _close_window(trainer, step, window, outputs, begun=begun, stop=stop.is_set())
            if saving or stopping:
                _save_checkpoint(trainer, step, outputs.folder)
            outputs.progress.step(step, total)
            if stopping and step < total:
                raise Stopped(f"stopped at step {step} of {total}")


def _take_step(trainer: Trainer, step: int, batch: Batch, window: _Window, outputs: Outputs) -> None:
    """Take step `step`, counted from 1, and pass its views to the monitor."""
    window.unread.extend(batch.failures)
    if trainer.recipe.strict:
        outputs.skipped.add(window.unread)
    loss, views = trainer.step(step - 1, batch)
    window.loss, window.steps = window.loss + loss, window.steps + 1
    report = outputs.monitor.update(step, views)
    if report is not None and outputs.monitor_log is not None:
        outputs.monitor_log.write({"step": step, **report})


def _close_window(trainer: Trainer, step: int, window: _Window, outputs: Outputs, *, begun: float, stop: bool) -> bool:
    """Write a line of the log; return whether any process was asked to stop."""
    mean = float(window.loss) / window.steps  # waits for the device
    if not math.isfinite(mean):
        raise LossDiverged(f"the loss is {mean} at step {step}; {ADVICE}")
    stopping = False
    for failures, asked in gather_values((window.unread, stop), trainer.process.count):
        outputs.skipped.add(failures)
        outputs.skipped.check(step)
        stopping = stopping or asked
    now = time.perf_counter()
    line = {
        "step": step,
        "epoch": step / trainer.order.steps_per_epoch,
        "loss": mean,
        "lr": trainer.optimiser.param_groups[0]["lr"],
        "images_per_second": window.steps * trainer.recipe.batch_size / (now - window.started),
        "monitor_share": outputs.monitor.seconds / (now - begun),
        "skipped_images": len(outputs.skipped.reasons),
    }
    if outputs.log is not None:
        outputs.log.write(line)
    window.restart()
    return stopping


def _save_checkpoint(trainer: Trainer, step: int, folder: Path) -> None:
    if not trainer.finite:
        raise LossDiverged(f"the weights overflowed at step {step}; {ADVICE}")
    checkpoint = trainer.checkpoint(step)  # by all processes: it gathers their generators' states
    if trainer.process.first:
        checkpoint.save(folder, trainer.recipe.keep)
