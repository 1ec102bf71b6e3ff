"""A flow as solvers see it: one vector of all parameters, its velocity by the solver's clock, and a watch over both."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dyncollapse.dynamics.equation import Equation, Field, Linearisation
from dyncollapse.model.networks import Weights, check_weights

# A refused step is tried again at a fifth of its size or more. After so many trials a step of 1 is below round-off.
MOST_TRIED = 100
# Evaluations that are not finite after which no smaller step is tried. Explicit methods, which take 12 a step and cut
# it to a fifth each time, are at the round-off of t after some 300.
MOST_BROKEN = 1000
# A weight reaches infinity once it is GROWN times beyond order 1 and beyond its start, and in the end grew a
# thousandfold within this share of the time: further steps would be lost in the round-off of t. Rules of thumb.
GROWN, THOUSANDFOLD, MOMENT = 1e6, 1e3, 1e-12
# The largest weight that a flow may have: solvers' own sums overflow soon after, and some then try steps without end.
LARGEST = 1e290


class Vector:
    """All parameters of a network as the one float64 vector that solvers want, and back."""

    def __init__(self, weights: Weights, others: Sequence[Tensor]) -> None:
        """Take shapes and start from weights (*runs, out, in) and what `Equation` moves beside them."""
        check_weights(weights, [p for p in others if p.ndim < weights[0].ndim])
        parameters = [p.detach().to(torch.float64) for p in (*weights, *others)]
        self.depth, self.device = len(weights), weights[0].device
        ends = itertools.accumulate((p.numel() for p in parameters), initial=0)
        self.places = [(*ends, tuple(p.shape)) for ends, p in zip(itertools.pairwise(ends), parameters, strict=True)]
        self.start = self.pack(parameters)

    @staticmethod
    def pack(parameters: Sequence[Tensor]) -> np.ndarray:
        """Join parameters into a vector."""
        if parameters[0].is_cpu:  # by NumPy, which takes half as long for small matrices
            return np.concatenate([p.numpy().ravel() for p in parameters])
        return torch.cat([p.flatten() for p in parameters]).cpu().numpy()

    def unpack(self, states: np.ndarray) -> Weights:
        """Cut a vector, or a path of them (t, n), into parameters with the same leading axis."""
        writable = states if states.flags.writeable and states.flags.c_contiguous else states.copy()
        lead = states.shape[:-1]
        parts = [torch.from_numpy(writable[..., i:j].reshape(lead + shape)) for i, j, shape in self.places]
        return tuple(parts if self.device.type == "cpu" else [p.to(self.device) for p in parts])


class Problem:
    """The flow as dy / dtick for one vector y of all parameters.

    Logarithmic ticks are tau = log(1 + t). A stiff flow slows down as it goes, and steps that are even in log time were
    measured to need a quarter to a half fewer matrix factorisations. Other ticks are t over a unit that puts the end
    between 1 and 2: SciPy's norms of velocities would underflow where t goes to 1e200.
    """

    def __init__(self, equation: Equation, vector: Vector, times: np.ndarray, *, logarithmic: bool) -> None:
        """Choose the clock for a flow to times[-1]."""
        self.equation, self.vector, self.times, self.logarithmic = equation, vector, times, logarithmic
        self.field = equation.field or Field(self.velocity)
        if self.field.linearise is None and equation.tangent is not None:
            self.field = replace(self.field, linearise=self._linearise)
        self.unit = math.ldexp(1.0, math.frexp(times[-1])[1] - 1)
        self.ticks: np.ndarray = np.log1p(times) if logarithmic else times / self.unit

    def time(self, tick: float) -> float:
        """Flow time at a tick."""
        return math.expm1(tick) if self.logarithmic else tick * self.unit

    def tick(self, t: float) -> float:
        """The tick of a flow time."""
        return math.log1p(t) if self.logarithmic else t / self.unit

    def pace(self, tick: float) -> float:
        """Flow time per tick."""
        return math.exp(tick) if self.logarithmic else self.unit

    def velocity(self, t: float, y: np.ndarray) -> np.ndarray:
        """Return dy / dt."""
        return self.vector.pack(self.equation.velocity(t, self.vector.unpack(y)))

    def _linearise(self, t: float, y: np.ndarray) -> "_TensorLinearisation":
        assert self.equation.tangent is not None
        return _TensorLinearisation(self.vector, self.equation.tangent(t, self.vector.unpack(y)))

    def jacobian(self, tick: float, y: np.ndarray) -> np.ndarray:
        """Return the derivative of dy / dtick with respect to y, as a matrix."""
        assert self.equation.jacobian is not None
        matrix = self.equation.jacobian(self.time(tick), self.vector.unpack(y))
        return matrix.mul_(self.pace(tick)).cpu().numpy()


class _TensorLinearisation(Linearisation):
    """The derivative of a velocity that is known on tensors."""

    def __init__(self, vector: Vector, along: Callable[[Sequence[Tensor]], Sequence[Tensor]]) -> None:
        self._vector, self._along = vector, along

    def times(self, direction: np.ndarray) -> np.ndarray:
        return self._vector.pack(self._along(self._vector.unpack(direction)))


class Reached(NamedTuple):
    """How a solver ended.

    Attributes:
        counts: Of evaluations and the like, for the record.
        stopped: Why no step could be taken, or None.
        left: Whether it ended before the last tick for another method to go on.
    """

    counts: dict[str, int]
    stopped: str | None
    left: bool = False


class NoStep(FloatingPointError):
    """No step is small enough, or a state is not finite; the text says which."""


class TooManyEvaluations(RuntimeError):
    """The flow's allowance of evaluations is used up."""


class Watch:
    """Called at every evaluation and after every step. It records states, detects rest, and ends what has no end."""

    def __init__(
        self,
        problem: Problem,
        rest_speed: float,
        most_evaluations: int,
        progress: Callable[[float, float], None] | None,
    ) -> None:
        """Start at the first state; `rest_speed` is per unit of time and relative to the largest weight."""
        self.problem, self.rest_speed, self.progress = problem, rest_speed, progress
        self.end = problem.time(problem.ticks[-1])
        self.switched = dict[str, Any]()  # what the record says of a method that went on for another
        self.reached: list[np.ndarray] = []
        self.last: tuple[float, np.ndarray] | None = None
        self.resting_since: float | None = None
        self._fastest = 0  # number of a weight that moved more than the others when last all were compared
        # Evaluations since the last step. A Jacobian by differences takes one for each weight.
        self.tried, self.most_tried = 0, MOST_TRIED * (len(problem.vector.start) + MOST_TRIED)
        self.broken = 0  # evaluations since the last step that were not finite
        self._zeros = np.zeros(len(problem.vector.start))
        self.evaluations, self.products, self.most_evaluations = 0, 0, most_evaluations
        largest = float(np.abs(problem.vector.start).max())
        self._grown, self._mark = GROWN * max(1.0, largest), (0.0, largest)

    def evaluate(self, tick: float, y: np.ndarray) -> np.ndarray:
        """Return the velocity by the flow's own clock, and count it.

        Args:
            tick: When.
            y: Where.

        Returns:
            dy / dt.

        Raises:
            NoStep: Where steps of every size are refused.
            TooManyEvaluations: When the allowance is used up.
        """
        self.tried += 1
        self.evaluations += 1
        if self.tried > self.most_tried:
            raise NoStep("no step is small enough.")
        if self.evaluations > self.most_evaluations:
            raise TooManyEvaluations
        try:
            velocity = self.problem.field.velocity(self.problem.time(tick), y)
        except (torch.linalg.LinAlgError, np.linalg.LinAlgError):  # after too long a step; a shorter one may do
            velocity = np.full(len(y), np.nan)
        if velocity @ self._zeros != 0:  # NaN where an entry is not finite; a third of what `isfinite` takes
            self.broken += 1
            if self.broken > MOST_BROKEN:
                raise NoStep("no step is small enough.")
        return velocity

    def begin(self) -> tuple[float, np.ndarray]:
        """Return tick and state from which a method starts: the first, which it records, or another's last step."""
        if self.last is None:
            start = self.problem.vector.start
            self.accept(0.0, start)
            if len(self.due(0.0)):
                self.keep(start)
            self.report()
        assert self.last is not None
        t, y = self.last
        return self.problem.tick(t), y

    def accept(self, tick: float, y: np.ndarray) -> None:
        """Take note of a step. Raises NoStep for a state out of range, and for one on its way to infinity."""
        t, largest = float(self.problem.time(tick)), float(np.abs(y).max())
        if self.last is not None:
            before, state = self.last
            slow = self.rest_speed * (t - before) * largest
            still = abs(y[self._fastest] - state[self._fastest]) <= slow
            if still:  # the others need not be looked at in a flow that is not at rest
                change = np.abs(y - state)
                self._fastest = int(change.argmax())
                still = change[self._fastest] <= slow
            self.resting_since = (before if self.resting_since is None else self.resting_since) if still else None
        if not largest <= LARGEST:  # also for NaN, with which LSODA would go on
            raise NoStep(f"its weights leave the range of numbers, which ends at {LARGEST:g}.")
        self.last, self.tried, self.broken = (t, y.copy()), 0, 0
        since, smaller = self._mark
        if largest >= THOUSANDFOLD * smaller or largest < smaller:
            self._mark = t, largest
            if largest > self._grown and t - since <= MOMENT * t:
                raise NoStep("its largest weight grew a thousandfold in no time that t can resolve.")

    def keep(self, state: np.ndarray) -> None:
        """Record the state at the next of the times that were asked for."""
        self.reached.append(state)

    @contextmanager
    def reserved(self, share: float) -> Iterator[None]:
        """Keep a share of the allowance of evaluations for what comes after."""
        kept = int(share * self.most_evaluations)
        self.most_evaluations -= kept
        try:
            yield
        finally:
            self.most_evaluations += kept

    def is_done(self) -> bool:
        """Whether the states at all times are recorded."""
        return len(self.reached) == len(self.problem.ticks)

    def due(self, tick: float) -> np.ndarray:
        """The ticks up to this one that have not been recorded."""
        ticks, first = self.problem.ticks, len(self.reached)
        if first < len(ticks) and tick < ticks[first]:
            return ticks[:0]  # after most steps
        return ticks[first : np.searchsorted(ticks, tick, side="right")]

    def go_on(self, problem: Problem, **made: Any) -> None:
        """Watch another method from the last step on, which may have another clock, and say so in the record."""
        self.problem, self.switched = problem, self.switched | made

    def mark(self) -> Callable[[], None]:
        """Return a function that takes steps and records back to those of now."""
        kept, switched, records = (self.last, self.resting_since, self._mark), self.switched.copy(), self.reached.copy()

        def back() -> None:
            self.last, self.resting_since, self._mark = kept
            self.switched, self.reached[:] = switched.copy(), records
            self.tried = self.broken = 0

        return back

    def report(self) -> None:
        """Call `progress` with the last step."""
        if self.progress and self.last:
            self.progress(self.last[0], self.end)

    def record(self) -> tuple[np.ndarray, np.ndarray]:
        """The times that were reached, of those asked for, and their states (t, n)."""
        return self.problem.times[: len(self.reached)], np.array(self.reached, dtype=float)
