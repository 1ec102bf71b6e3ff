"""Runs of a training that are stepped together: their parameters, batches and steps."""

import itertools
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dyncollapse.dynamics._kernels import WORTH_A_THREAD
from dyncollapse.dynamics._linear_steps import Block, LinearSteps
from dyncollapse.dynamics._on_arrays import has_compiled_force, on_arrays
from dyncollapse.dynamics.optimisers import optimiser_step
from dyncollapse.dynamics.sgd import Rule, sgd_step
from dyncollapse.dynamics.trajectory import TrainingFailed
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.networks import check_inputs
from dyncollapse.model.objective import Objective
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.self_distillation import SelfDistillation, target_layers
from dyncollapse.model.streams import JoinedStream, PairStream, numbers_per_step


class Part:
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
        self._fresh = _is_fresh(pairs)
        self._batches = itertools.repeat(pairs) if isinstance(pairs, Pairs) else iter(pairs)
        self._kind: tuple[Any, ...] = ()
        self.batch = self._draw()
        rule.objective.check_start(self.weights, self.batch, self.others)
        self._steps = self._steps_on_arrays()
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

    def _steps_on_arrays(self) -> LinearSteps | None:
        """The steps on arrays, where they are compiled."""
        rule, objective, weights = self._rule, self._rule.objective, self.weights
        if not isinstance(objective, Objective) or rule.optimiser is not None:
            return None
        shared = self.batch.anchor.ndim <= weights[0].ndim  # without batch axes in front, which are averaged over
        if not (shared and on_arrays(objective, weights, self.others, self.batch)):
            return None
        return LinearSteps(weights, self.others, objective, (rule.lr, rule.momentum, rule.weight_decay))

    @property
    def on_arrays(self) -> bool:
        """Whether the steps are taken on arrays."""
        return self._steps is not None

    def share_out(self, threads: int) -> int:
        """Cut the runs, stepped on arrays, into shares for at most so many threads, as many as pay: their number."""
        runs = self.weights[0].shape[:-2].numel()
        count = max(1, min(threads, runs, self.numbers_per_step // WORTH_A_THREAD))
        self._shares = [slice(i * runs // count, (i + 1) * runs // count) for i in range(count)]
        return count

    @property
    def is_compiled(self) -> bool:
        """Whether compiled functions do what grows with the batch."""
        objective = self._rule.objective
        return isinstance(objective, Objective) and has_compiled_force(objective, self.weights, self.batch)

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
        block = Block(self.batch, runs, most, fresh=self._fresh)
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
        if not isinstance(batch, Pairs):
            raise ValueError(f"the stream of batches yields {type(batch).__name__}; it must yield Pairs")
        kind = batch.anchor.shape, batch.anchor.dtype, batch.positive.dtype, batch.anchor.device
        if kind != self._kind:
            check_inputs(self.weights[0], batch.anchor, batch.positive)
            self._check_axes(batch.anchor)
            self._kind = kind
        return batch

    def _check_axes(self, anchor: Tensor) -> None:
        axes = self.weights[0].ndim
        if self._kind and max(axes, anchor.ndim) != max(axes, len(self._kind[0])):
            raise ValueError(
                f"batches are {tuple(anchor.shape)}, and were {tuple(self._kind[0])} before; all must have as many "
                "axes of batches in front of the runs"
            )


def _is_fresh(pairs: object) -> bool:
    """Whether each batch keeps its memory; other streams and tasks may write the next one over it."""
    streams = pairs.streams if isinstance(pairs, JoinedStream) else (pairs,)
    ours = all(isinstance(stream, PairStream) and type(stream.task) is GaussianTask for stream in streams)
    return isinstance(pairs, Pairs) or ours
