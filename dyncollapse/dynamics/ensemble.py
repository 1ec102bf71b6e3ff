"""The step of SGD, and the runs of a training with their batches and threads."""

import itertools
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.dynamics._kernels import ALL, WORTH_A_CUT, shares, thread_counts
from dyncollapse.dynamics._linear_steps import Block, LinearSteps
from dyncollapse.dynamics._on_arrays import on_arrays
from dyncollapse.dynamics.optimisers import Factory, optimiser_step
from dyncollapse.dynamics.trajectory import TrainingFailed
from dyncollapse.model._kernels import is_compiled
from dyncollapse.model.forces import COMPILED
from dyncollapse.model.networks import Weights, check_inputs, end_to_end, is_linear
from dyncollapse.model.objective import Objective
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.self_distillation import SelfDistillation, target_layers
from dyncollapse.model.streams import JoinedStream, PairStream, numbers_per_step
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


@dataclass(frozen=True)
class Rule:
    """How a step changes the parameters.

    Attributes:
        lr: Learning rate.
        objective: What is minimised, or stepped against a target.
        momentum: Heavy-ball momentum, as in torch.optim.SGD.
        weight_decay: Its product with the parameter is added to the gradient.
        optimiser: Makes the optimiser that takes the steps in place of these three settings, or None.
    """

    lr: float
    objective: Objective | SelfDistillation
    momentum: float = 0.0
    weight_decay: float = 0.0
    optimiser: Factory | None = None

    @property
    def unit(self) -> float:
        """What a step adds to the time: lr / (1 - momentum) of flow time, or 1 for an optimiser."""
        return 1.0 if self.optimiser is not None else self.lr / (1 - self.momentum)


def sgd_step(
    parameters: Sequence[Tensor], velocities: Sequence[Tensor], gradients: Sequence[Tensor], rule: Rule
) -> None:
    """Take one step of SGD in place: v <- momentum v + dL/dw + weight_decay w, then w <- w - lr v.

    Args:
        parameters: Weights and biases w.
        velocities: v, one for each; not used without momentum.
        gradients: dL/dw, one for each.
        rule: The settings; those that are 0 cost nothing.

    Examples:
        >>> w = torch.ones(1)
        >>> sgd_step([w], [], [torch.ones(1)], Rule(0.25, Objective()))
        >>> w.item()
        0.75
    """
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        update = gradient.add(parameter, alpha=rule.weight_decay) if rule.weight_decay else gradient
        if rule.momentum:
            update = velocities[i].mul_(rule.momentum).add_(update)
        parameter.sub_(update, alpha=rule.lr)


class Ensemble:
    """All runs of a training at one step. They are advanced inside its `with` block, which holds the threads.

    On a CPU the streams of a JoinedStream are shared out over threads, by default as many as PyTorch has. Each thread
    steps its own runs: splitting single operations across threads costs more than it saves. PyTorch has fewer threads
    meanwhile.
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
            _Part([w[rows] for w in weights], [p[rows] for p in others], share, rule, self._stopped)
            for rows, share in (shares(pairs, weights[0].shape[:-2]) if on_cpu else [(ALL, pairs)])
        ]
        numbers = sum(part.numbers_per_step for part in self._parts)
        compiled = all(part.is_compiled for part in self._parts)
        counts = thread_counts(len(self._parts), numbers, compiled, threads or available, available)
        self._workers, self._threads = counts if on_cpu else (1, available)
        self._pool: ThreadPoolExecutor | None = None
        if len(self._parts) == 1:
            self._workers = self._parts[0].share_out(threads or available)
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
        if len(self._parts) == 1:
            self._parts[0].advance(steps, self._pool)
        else:
            self._each(lambda part: part.advance(steps))
        self.step += steps

    def parameters(self) -> list[Tensor]:
        """Copies of all weights and then of the others."""
        return [torch.cat(values) for values in zip(*(part.parameters for part in self._parts), strict=True)]

    def loss(self) -> Float[Tensor, "*runs"]:
        """Loss of every run on the current batch."""
        losses = self._each(_Part.loss)
        return losses[0] if len(losses) == 1 else torch.cat(losses)

    def within_bounds(self) -> bool:
        """Whether no run has blown up; waits for the device."""
        return self._largest() < self._bound  # false for NaN, too

    def _each(self, function: Callable[["_Part"], Result]) -> list[Result]:
        return list(self._pool.map(function, self._parts) if self._pool else map(function, self._parts))

    def _largest(self) -> float:
        return float(torch.stack([end_to_end(part.weights).abs().max() for part in self._parts]).max())


class _Part:
    """Runs that are stepped together: their parameters, and the batch that the next step uses."""

    def __init__(
        self,
        weights: Sequence[Tensor],
        others: Sequence[Tensor],
        pairs: Pairs | Iterable[Pairs],
        rule: Rule,
        stopped: threading.Event,
    ) -> None:
        self.weights = tuple(w.detach().clone() for w in weights)
        self.others = tuple(p.detach().clone() for p in others)
        self._rule, self._stopped, self._taken = rule, stopped, 0
        self._fresh = isinstance(pairs, Pairs | PairStream | JoinedStream)  # others may write over a batch
        self._batches = itertools.repeat(pairs) if isinstance(pairs, Pairs) else iter(pairs)
        self.batch = self._draw()
        check_inputs(self.weights[0], self.batch.anchor, self.batch.positive)
        rule.objective.check_start(self.weights, self.batch, self.others)
        self._steps = self._on_arrays()
        if self._steps is not None:
            self.weights, self.others = self._steps.weights, self._steps.biases
        self.parameters = (*self.weights, *self.others)
        self._target = target_layers(rule.objective, self.others)
        learnt = self.parameters[: len(self.parameters) - len(self._target)]
        # Without automatic differentiation its bookkeeping is switched off: a tenth of a single run's step. Not so
        # beside an optimiser of PyTorch, whose state has to be of plain tensors.
        self._bare = rule.objective.closed_form and rule.optimiser is None
        if rule.optimiser is not None:
            self._step: Callable[[Sequence[Tensor]], None] = optimiser_step(rule.optimiser, learnt)
        elif self._steps is None:
            velocities = [torch.zeros_like(p) for p in learnt] if rule.momentum else []
            self._step = partial(sgd_step, learnt, velocities, rule=rule)

    def _on_arrays(self) -> LinearSteps | None:
        """The steps on arrays, where they are compiled."""
        rule, objective, weights = self._rule, self._rule.objective, self.weights
        if not isinstance(objective, Objective) or rule.optimiser is not None:
            return None
        shared = self.batch.anchor.ndim <= weights[0].ndim  # without batch axes in front, which are averaged over
        if not (shared and on_arrays(objective, weights, self.batch, biased=bool(self.others))):
            return None
        return LinearSteps(weights, self.others, objective, (rule.lr, rule.momentum, rule.weight_decay))

    def share_out(self, threads: int) -> int:
        """Cut the runs into shares for at most so many threads, as many as pay, and return their number."""
        runs = self.weights[0].shape[:-2].numel()
        count = max(1, min(threads, runs, self.numbers_per_step // WORTH_A_CUT)) if self._steps else 1
        self._shares = [slice(i * runs // count, (i + 1) * runs // count) for i in range(count)]
        return count

    @property
    def is_compiled(self) -> bool:
        """Whether compiled functions do what grows with the batch."""
        objective = self._rule.objective
        if not isinstance(objective, Objective) or not is_linear(objective.activation, len(self.weights)):
            return False
        return objective.loss in COMPILED and is_compiled(self.weights[-1].shape[-2], self.batch.anchor)

    @property
    def numbers_per_step(self) -> int:
        """Numbers that a step goes through; of a weight matrix about as often as of an n x d array."""
        *batches, n, d = self.batch.anchor.shape
        runs = np.broadcast_shapes(self.weights[0].shape[:-2], batches)
        return math.prod(runs) * numbers_per_step(n, d) + 8 * sum(w.numel() for w in self.weights)

    def advance(self, steps: int, pool: Executor | None = None) -> None:
        """Take so many steps, fewer when the ensemble is stopped."""
        if self._steps is not None:
            self._advance_by_blocks(steps, pool)
            return
        rule = self._rule
        with torch.inference_mode(self._bare):
            for _ in range(steps):
                if self._stopped.is_set():
                    return
                try:
                    self._step(rule.objective.gradient(self.weights, self.batch, self.others))
                    if self._target:
                        self._follow()
                    self.batch = self._draw()
                except ValueError as error:
                    raise TrainingFailed(self._taken + 1, str(error)) from error
                self._taken += 1

    @torch.inference_mode()
    def _advance_by_blocks(self, steps: int, pool: Executor | None) -> None:
        assert self._steps is not None
        last = self._taken + steps
        block, ended = self._block(steps)
        while block is not None and not self._stopped.is_set():
            after, under_way = self._taken + len(block.views), list[Future[None]]()
            if pool is None:
                self._steps.take(block)
            else:
                under_way = [pool.submit(self._steps.take, block, rows) for rows in self._shares]
            following = self._block(0 if ended else last - after)  # drawn while other threads step
            for share in under_way:
                share.result()
            self._taken = after
            if ended:
                raise TrainingFailed(after, str(ended)) from ended
            block, ended = following

    def _block(self, most: int) -> tuple[Block | None, ValueError | None]:
        """Batches for at most so many steps, and what kept the stream from another one after them."""
        if most == 0:
            return None, None
        block = self._begun(most)
        try:
            while block.takes(batch := self._draw()):
                block.add(batch)
        except ValueError as error:
            return block, error
        self.batch = batch
        return block, None

    def _begun(self, most: int) -> Block:
        """A block of the current batch, with room for at most so many."""
        runs = self.weights[0].shape[:-2]
        block = Block(self.batch, runs, most, biased=bool(self.others), fresh=self._fresh)
        block.add(self.batch)
        return block

    def loss(self) -> Tensor:
        """Loss of every run on the current batch."""
        if self._steps is not None:
            return self._steps.losses(self._begun(1))
        return self._rule.objective.value(self.weights, self.batch, self.others)

    def _follow(self) -> None:
        assert isinstance(self._rule.objective, SelfDistillation)
        share = (self._rule.objective.target_rate or 0.0) * self._rule.unit
        for layer, source in zip(self._target, self.weights, strict=True):
            layer.lerp_(source, share)

    def _draw(self) -> Pairs:
        batch = next(self._batches, None)
        if batch is None:
            raise ValueError("the stream of batches ended too early; a training needs one more batch than it has steps")
        return batch
