"""The runs of an SGD training, their batches, and the threads that step them."""

import itertools
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.networks import Weights, check_inputs, end_to_end
from dyncollapse.model.objective import Objective
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.streams import JoinedStream, numbers_per_step
from dyncollapse.runtime.threads import torch_threads

# Contrastive losses act on embeddings of order 1 (a kernel width, a temperature); a network that maps its
# data this many times beyond that, or beyond its start, is on its way to infinity.
BLOW_UP = 1e6
# Numbers in a step that are worth a thread of PyTorch's (ours), as in 4 runs of 128 pairs: to wake it for fewer takes
# longer than it saves. And a thread of Python's, 16 such runs: with fewer it waits for the others' lock.
WORTH_A_THREAD, WORTH_A_SHARE = 2**16, 2**18
ALL = slice(None)


def blow_up_bound(inputs: float, start: float) -> float:
    """Entry of the end-to-end matrix at which a run has blown up, from the largest of its inputs and of its start."""
    return BLOW_UP * max(1 / max(inputs, 1e-30), start)


@dataclass(frozen=True)
class Rule:
    """How a step changes the parameters: torch.optim.SGD's settings, and the loss that is minimised."""

    lr: float
    objective: Objective
    momentum: float = 0.0
    weight_decay: float = 0.0


class Ensemble:
    """All runs at one step of their training, in a context in which they may be stepped.

    On a CPU the streams of a JoinedStream are shared out over as many threads as PyTorch has. Each steps its runs by
    itself, for to part every operation takes longer than most operations do. Inside, PyTorch has fewer threads.
    """

    def __init__(self, weights: Weights, biases: Sequence[Tensor], pairs: Pairs | Iterable[Pairs], rule: Rule) -> None:
        """Copy weights (*runs, out, in) and biases (*runs, out) and draw a batch; ValueError where there is none."""
        self.step = 0
        self._stopped, self._context = threading.Event(), ExitStack()
        self._map: Callable[..., Iterable[Any]] = map
        self._threads, on_cpu = torch.get_num_threads(), weights[0].device.type == "cpu"
        self._parts = [
            _Part([w[rows] for w in weights], [b[rows] for b in biases], share, rule, self._stopped)
            for rows, share in (_parted(pairs, weights[0].shape[:-2]) if on_cpu else [(ALL, pairs)])
        ]
        # A worker for each thread, but one for each part where a part left over would step alone in a second round.
        self._workers = len(self._parts) if len(self._parts) < 2 * self._threads else self._threads
        if on_cpu:
            useful = max(1, sum(part.numbers_per_step for part in self._parts) // WORTH_A_THREAD)
            self._threads = max(1, min(self._threads, useful) // self._workers)
        inputs = torch.stack([part.batch.anchor.abs().max() for part in self._parts]).max()
        self._bound = blow_up_bound(float(inputs), largest := self._largest())
        if not math.isfinite(largest):
            raise ValueError("the initial layers multiply to infinity; give smaller weights")

    def __enter__(self) -> Self:
        """Start the threads."""
        self._context.enter_context(torch_threads(self._threads))
        if self._workers > 1:
            pool = ThreadPoolExecutor(self._workers, initializer=torch.set_num_threads, initargs=(self._threads,))
            self._map = self._context.enter_context(pool).map
        self._context.callback(self._stopped.set)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the threads after the step that each is at."""
        self._context.close()

    def advance(self, steps: int) -> None:
        """Take so many steps. Raises ValueError where the stream of batches ends before."""
        list(self._map(lambda part: part.advance(steps), self._parts))
        self.step += steps

    def parameters(self) -> list[Tensor]:
        """Copies of all weights and then all biases."""
        return [torch.cat(values) for values in zip(*(part.parameters for part in self._parts), strict=True)]

    def loss(self) -> Float[Tensor, "*runs"]:
        """Loss of every run on the batch at hand."""
        losses = list(self._map(_Part.loss, self._parts))
        return losses[0] if len(losses) == 1 else torch.cat(losses)

    def within_bounds(self) -> bool:
        """Whether no run has blown up; waits for the device."""
        return self._largest() < self._bound  # false for NaN, too

    def _largest(self) -> float:
        return float(torch.stack([end_to_end(part.weights).abs().max() for part in self._parts]).max())


class _Part:
    """Runs that are stepped together: their parameters, and the batch that the next step uses."""

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        pairs: Pairs | Iterable[Pairs],
        rule: Rule,
        stopped: threading.Event,
    ) -> None:
        self.weights = tuple(w.detach().clone() for w in weights)
        self.biases = tuple(b.detach().clone() for b in biases)
        self.parameters = (*self.weights, *self.biases)
        velocities = [torch.zeros_like(p) for p in self.parameters] if rule.momentum else self.parameters
        self._moving = tuple(zip(self.parameters, velocities, strict=True))
        self._rule, self._stopped = rule, stopped
        self._closed_form = rule.objective.closed_form(biases)
        self._batches = itertools.repeat(pairs) if isinstance(pairs, Pairs) else iter(pairs)
        self.batch = self._draw()
        check_inputs(self.weights[0], self.batch.anchor, self.batch.positive)

    @property
    def numbers_per_step(self) -> int:
        """Numbers that a step goes through; of a weight matrix about as often as of an n x d array."""
        *batches, n, d = self.batch.anchor.shape
        runs = torch.broadcast_shapes(self.weights[0].shape[:-2], batches)
        return math.prod(runs) * numbers_per_step(n, d) + 8 * sum(w.numel() for w in self.weights)

    def advance(self, steps: int) -> None:
        """Take so many steps, fewer when the ensemble is stopped."""
        rule = self._rule
        # Without autograd a tenth of a single run's step is bookkeeping that nobody reads.
        with torch.inference_mode(self._closed_form):
            for _ in range(steps):
                if self._stopped.is_set():
                    return
                gradients = rule.objective.gradient(self.weights, self.batch, self.biases)
                for (parameter, velocity), gradient in zip(self._moving, gradients, strict=True):
                    update = gradient.add(parameter, alpha=rule.weight_decay) if rule.weight_decay else gradient
                    if rule.momentum:
                        update = velocity.mul_(rule.momentum).add_(update)
                    parameter.sub_(update, alpha=rule.lr)
                self.batch = self._draw()

    def loss(self) -> Tensor:
        """Loss of every run on the batch at hand."""
        return self._rule.objective.value(self.weights, self.batch, self.biases)

    def _draw(self) -> Pairs:
        batch = next(self._batches, None)
        if batch is None:
            raise ValueError("the stream of batches ended too early; a training needs one more batch than it has steps")
        return batch


def _parted(pairs: Pairs | Iterable[Pairs], runs: torch.Size) -> list[tuple[slice, Pairs | Iterable[Pairs]]]:
    """Part the runs where generators change, into shares that are worth a thread of Python: rows and batches of each.

    The number of threads has no say, so that it changes no bits.
    """
    streams = pairs.streams if isinstance(pairs, JoinedStream) else ()
    edges = [0, *itertools.accumulate(stream.runs[0] for stream in streams)]
    if not streams or runs != (edges[-1], *streams[0].runs[1:]):  # the runs' axes are not the batches'
        return [(ALL, pairs)]
    ends = list(itertools.accumulate(stream.numbers_per_step for stream in streams))
    shares = itertools.groupby(
        range(len(streams)), lambda i: (ends[i] - streams[i].numbers_per_step / 2) // WORTH_A_SHARE
    )
    spans = ((own[0], own[-1] + 1) for own in (list(share) for _, share in shares))
    return [(slice(edges[first], edges[stop]), JoinedStream(streams[first:stop])) for first, stop in spans]
