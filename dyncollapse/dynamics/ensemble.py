"""The runs of a training, shared out among threads."""

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Self, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.dynamics._kernels import ALL, shares, thread_counts
from dyncollapse.dynamics._part import Part
from dyncollapse.dynamics.sgd import Rule
from dyncollapse.model.networks import Weights, end_to_end
from dyncollapse.model.pairs import Pairs
from dyncollapse.runtime.process import torch_threads

Result = TypeVar("Result")

# Contrastive losses act on embeddings of order 1, the width of their kernel or their temperature. A network has
# diverged when its embeddings exceed that, or those at its start, by this factor. A rule of thumb.
BLOW_UP = 1e6


def blow_up_bound(inputs: float, start: float) -> float:
    """Entry of the end-to-end matrix at which a run has blown up.

    Args:
        inputs: The largest entry of its inputs.
        start: The largest entry of the end-to-end matrix that it starts from.

    Returns:
        The bound.

    Examples:
        >>> blow_up_bound(10.0, 0.5)
        500000.0
    """
    return BLOW_UP * max(1 / max(inputs, 1e-30), start)


class Ensemble:
    """All runs of a training at one step. They are advanced inside its `with` block, which holds the threads.

    On a CPU runs are shared out over threads, by default as many as PyTorch has: those of a JoinedStream's streams, for
    which each thread draws, or those stepped on arrays, for which one thread draws meanwhile. Each thread steps its own
    runs: splitting single operations across threads costs more than it saves. PyTorch has fewer threads meanwhile.
    """

    def __init__(
        self,
        weights: Weights,
        others: Sequence[Tensor],
        pairs: Pairs | Iterable[Pairs],
        rule: Rule,
        threads: int | None = None,
    ) -> None:
        """Copy weights (*runs, out, in) and the others of `full_state`, and draw a batch; ValueError without one."""
        self.step = 0
        self._stopped, self._context = threading.Event(), ExitStack()
        on_cpu, available = weights[0].device.type == "cpu", torch.get_num_threads()
        self._parts = [
            Part([w[rows] for w in weights], [p[rows] for p in others], share, rule, self._stopped)
            for rows, share in (shares(pairs, weights[0].shape[:-2]) if on_cpu else [(ALL, pairs)])
        ]
        self._pool: ThreadPoolExecutor | None = None
        if len(self._parts) == 1 and self._parts[0].on_arrays:
            self._workers, self._threads = self._parts[0].share_out(threads or available), 1
        else:
            numbers = sum(part.numbers_per_step for part in self._parts)
            compiled = all(part.is_compiled for part in self._parts)
            counts = thread_counts(len(self._parts), numbers, compiled, threads or available, available)
            self._workers, self._threads = counts if on_cpu else (1, available)
        inputs = torch.stack([part.batch.anchor.abs().max() for part in self._parts]).max()
        self._bound = blow_up_bound(float(inputs), largest := self._largest())
        if not math.isfinite(largest):
            raise ValueError("the initial layers multiply to infinity; give smaller weights")

    def __enter__(self) -> Self:
        """Start the threads."""
        self._context.enter_context(torch_threads(self._threads))
        if self._workers > 1:
            pool = ThreadPoolExecutor(self._workers, initializer=torch.set_num_threads, initargs=(self._threads,))
            self._pool = self._context.enter_context(pool)
        self._context.callback(self._stopped.set)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the threads after the step that each is at."""
        self._context.close()

    def advance(self, steps: int) -> None:
        """Take some steps.

        Args:
            steps: How many.

        Raises:
            TrainingFailed: When the stream of batches or the optimiser's schedule ends early.
        """
        pool = self._pool if len(self._parts) == 1 else None  # several parts have a thread each
        self._each(lambda part: part.advance(steps, pool))
        self.step += steps

    def parameters(self) -> list[Tensor]:
        """Copies of all weights and then of the others."""
        return [torch.cat(values) for values in zip(*(part.parameters for part in self._parts), strict=True)]

    def loss(self) -> Float[Tensor, "*runs"]:
        """Loss of every run on the current batch."""
        losses = self._each(Part.loss)
        return losses[0] if len(losses) == 1 else torch.cat(losses)

    def within_bounds(self) -> bool:
        """Whether no run has blown up; waits for the device."""
        return self._largest() < self._bound  # false for NaN, too

    def _each(self, function: Callable[[Part], Result]) -> list[Result]:
        if self._pool is None or len(self._parts) == 1:
            return [function(part) for part in self._parts]
        under_way = [self._pool.submit(function, part) for part in self._parts]
        if any(done.exception() for done in wait(under_way, return_when=FIRST_EXCEPTION).done):
            self._stopped.set()  # the others need not reach the end
        return [future.result() for future in under_way]

    def _largest(self) -> float:
        return float(torch.stack([end_to_end(part.weights).abs().max() for part in self._parts]).max())
