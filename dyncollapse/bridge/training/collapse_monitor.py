"""The diagnostics during training: spectra of representation and embedding in windows of steps."""

import time
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.bridge.training.distributed import Process, gather_values
from dyncollapse.diagnostics.monitor import Monitor

SPACES = ("representation", "embedding")
# Samples per dimension in a window (ours): enough that isotropic data show nine tenths of their rank.
SAMPLES_PER_DIMENSION = 10
MEASURES = ("rankme", "effective_rank", "participation_ratio", "stable_rank", "alpha_req")


class Watch:
    """Monitors both spaces over the last steps before every `every`-th one, on the training batches' first two views.

    The network is in training mode there: BatchNorm uses the batch's statistics, and weights change within a window.
    `dyncollapse bridge diagnose` looks at a checkpoint in evaluation mode.
    """

    def __init__(self, every: int, batch_size: int, dims: tuple[int, int], process: Process) -> None:
        """Watch windows of as many steps as give SAMPLES_PER_DIMENSION, `every` at most; 0 watches nothing."""
        self.every, self.process = every, process
        needed = -(-SAMPLES_PER_DIMENSION * max(dims) // batch_size)
        self.window = min(every, needed)
        self.monitors = {space: Monitor(space=space, fast=True, sample=1024) for space in SPACES}
        self.errors: dict[str, str] = {}  # of a window, by space
        self.seconds = 0.0

    def update(
        self, step: int, views: dict[str, tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]]
    ) -> dict[str, Any] | None:
        """Take the views of both spaces at a step, counted from 1; a report at the end of a window."""
        if not self.every or (-step) % self.every >= self.window:
            return None
        if self.process.device.type == "cuda":
            torch.cuda.synchronize()  # what is still queued of the step is not the monitor's time
        start = time.perf_counter()
        for space, monitor in self.monitors.items():
            try:
                monitor.update(*(view.detach().float() for view in views[space]))
            except ValueError as error:  # a diverged run: the others may not have to wait for this process
                self.errors.setdefault(space, f"at step {step}, {error}")
        found = self._report() if step % self.every == 0 else None
        self.seconds += time.perf_counter() - start
        return found

    def _report(self) -> dict[str, Any]:
        line: dict[str, Any] = {}
        errors = gather_values(self.errors, self.process.count)
        self.errors = {}
        for space, monitor in self.monitors.items():
            if refused := [found[space] for found in errors if space in found]:
                line[f"{space}_error"] = refused[0]
                monitor.reset()
                continue
            try:
                if self.process.count > 1:
                    monitor.all_reduce()
                found = monitor.compute()
            except ValueError as error:  # a collapse so total that nothing varies: say so, go on
                line[f"{space}_error"] = str(error)
                continue
            finally:
                monitor.reset()
            line[f"{space}_samples"] = found.samples
            line[f"{space}_collapsed"] = found.collapsed
            line[f"{space}_mechanism"] = found.verdict.mechanism
            line |= {f"{space}_{name}": found.measures[name] for name in MEASURES}
            line[f"{space}_spectrum"] = [float(f"{value:.4g}") for value in found.spectrum.tolist()]
        return line
