"""Monitor collapse during training: spectra of representation and embedding over windows of steps."""

import time

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.bridge.spaces import SPACES
from dyncollapse.bridge.training.distributed import Process, gather_values
from dyncollapse.bridge.training.schemas import MonitorLine
from dyncollapse.diagnostics.monitor import Monitor

# Samples per dimension in a window. By the Marchenko-Pastur law, isotropic data then have an effective rank of 0.95 d
# and a participation ratio of d / (1 + 1/10) = 0.91 d. Values far below are not an effect of the window.
SAMPLES_PER_DIMENSION = 10
MEASURES = ("rankme", "effective_rank", "participation_ratio", "stable_rank", "alpha_req")


class CollapseMonitor:
    """Diagnoses both spaces during training, from the two augmented views of the last steps before every k-th step.

    The network is in training mode: BatchNorm uses the batch's statistics, and weights change within a window. For a
    checkpoint in evaluation mode use `diagnose_spaces`.
    """

    def __init__(self, every: int, batch_size: int, dims: tuple[int, int], process: Process) -> None:
        """Choose the window: as many steps as give SAMPLES_PER_DIMENSION, but at most `every`.

        Args:
            every: Steps between reports; 0 for none.
            batch_size: Pairs in a batch, over all processes.
            dims: Dimensions of representation and embedding.
            process: This process.
        """
        self.every, self.process = every, process
        needed = -(-SAMPLES_PER_DIMENSION * max(dims) // batch_size)
        self.window = min(every, needed)
        self.monitors = {space: Monitor(space=space, fast=True, sample=1024) for space in SPACES}
        self.errors: dict[str, str] = {}  # in the current window, by space
        self.seconds = 0.0

    def update(
        self, step: int, views: dict[str, tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]]
    ) -> MonitorLine | None:
        """Add the views of a step, and report at the end of a window.

        Args:
            step: The step, counted from 1.
            views: This process's rows of both views, by space.

        Returns:
            Measures and spectra at the end of a window, else None.
        """
        if not self.every or (-step) % self.every >= self.window:
            return None
        if self.process.device.type == "cuda":
            torch.cuda.synchronize()  # work that the step has queued is not the monitor's time
        start = time.perf_counter()
        for space, monitor in self.monitors.items():
            try:
                monitor.update(*(view.detach().float() for view in views[space]))
            except ValueError as error:  # diverged: report it later, so that the other processes do not wait
                self.errors.setdefault(space, f"at step {step}, {error}")
        line = self._report() if step % self.every == 0 else None
        self.seconds += time.perf_counter() - start
        return line

    def _report(self) -> MonitorLine:
        line: MonitorLine = {}
        errors = gather_values(self.errors, self.process.count)
        self.errors = {}
        for space, monitor in self.monitors.items():
            if refused := [of_process[space] for of_process in errors if space in of_process]:
                line[f"{space}_error"] = refused[0]
                monitor.reset()
                continue
            try:
                if self.process.count > 1:
                    monitor.all_reduce()
                report = monitor.compute()
            except ValueError as error:  # nothing varies at all: say so and go on
                line[f"{space}_error"] = str(error)
                continue
            finally:
                monitor.reset()
            line[f"{space}_samples"] = report.samples
            line[f"{space}_collapsed"] = report.collapsed
            line[f"{space}_mechanism"] = report.verdict.mechanism
            line |= {f"{space}_{name}": report.measures[name] for name in MEASURES}
            line[f"{space}_spectrum"] = [float(f"{value:.4g}") for value in report.spectrum.tolist()]
        return line
