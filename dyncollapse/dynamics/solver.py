"""Hand a gradient flow to SciPy's ODE solvers, and turn what they reach into a Trajectory."""

import math
import time as clock
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from dyncollapse.dynamics.tolerances import absolute_tolerances
from dyncollapse.dynamics.trajectory import Interrupted, Trajectory
from dyncollapse.model.networks import Weights, check_weights
from dyncollapse.runtime.memory import recycle_freed_memory

Time = float | Sequence[float] | Tensor | np.ndarray
Progress = Callable[[float, float], None]
RightHandSide = Callable[[float, np.ndarray], np.ndarray]

# A flow counts as at rest from the step on after which no weight moves by more than this many rtol of the largest in
# a unit of time (ours): below that, the speed is the solver's own noise.
REST_SPEED = 10

# SciPy raises smaller rtol to this, with a warning: steps cannot be more exact than round-off.
LEAST_RTOL = 100 * float(np.finfo(float).eps)

IMPLICIT = ("LSODA", "BDF", "Radau")
# A step that is refused is tried again at a fifth of its size at worst: these reach from 1 to round-off of 0.
MOST_TRIED = 100
METHODS = ("DOP853", "RK45", "RK23", *IMPLICIT)


class FlowFailed(RuntimeError):
    """The solver could not go on beyond flow time `time`; `trajectory` holds what was recorded before.

    Where a weight reaches infinity in finite time, `time` is that moment, up to the solver's tolerance.
    """

    def __init__(self, message: str, trajectory: Trajectory, time: float) -> None:
        """Keep the partial record and the moment."""
        super().__init__(message)
        self.trajectory, self.time = trajectory, time

    def __reduce__(self) -> tuple[Any, ...]:
        """Let other processes raise it, too."""
        return type(self), (str(self), self.trajectory, self.time)


def integrate(
    weights: Weights,
    biases: Sequence[Tensor],
    velocity: Callable[[float, Weights], list[Tensor]],
    loss: Callable[[float, Weights], Tensor],
    time: Time,
    meta: dict[str, Any],
    rtol: float,
    atol: float | None,
    method: str,
    progress: Progress | None,
    jacobian: Callable[[float, Weights], Tensor] | None = None,
    *,
    smooth: bool = True,
) -> Trajectory:
    """Hand the flow to solve_ivp and turn what it reached, all or part of the way, into a Trajectory.

    `atol` and `rtol` bound each weight's error per step by atol + rtol |w|; `meta["atol"]` reports the smallest atol
    of any weight, `meta["largest_atol"]` the largest. See `absolute_tolerances` for atol None, 0 and `smooth`.
    With a Jacobian the solver sees tau = log(1 + t) for time: what is left of a stiff flow slows down as it goes,
    and steps that are even in log time need fewer factorised matrices (measured: a quarter to a half fewer).
    """
    recycle_freed_memory()
    times, vector, started = check_times(time), _Vector(weights, biases), clock.perf_counter()
    if method not in METHODS or not (LEAST_RTOL <= rtol < 1 and (atol is None or 0 <= atol < math.inf)):
        raise ValueError(
            f"method, rtol and atol are {method!r}, {rtol}, {atol}; choose one of {', '.join(METHODS)}, "
            f"rtol between {LEAST_RTOL:.2g} and 1, atol finite and at least 0"
        )
    tolerances = vector.pack(absolute_tolerances(weights, biases, rtol, atol, smooth=smooth))
    meta = meta | {"method": method, "rtol": rtol, "atol": float(tolerances.min())}
    meta |= {"largest_atol": float(tolerances.max())}
    logarithmic = jacobian is not None and method in IMPLICIT
    # In linear time the end is between 1 and 2: SciPy's norms of velocities would underflow where t goes to 1e200.
    unit = math.ldexp(1.0, math.frexp(times[-1])[1] - 1)
    ticks, to_time = (np.log1p(times), math.expm1) if logarithmic else (times / unit, lambda tick: tick * unit)
    watch = _Watch(vector.start, ticks, times[-1], to_time, REST_SPEED * rtol, progress)

    def derivative(t: float, y: np.ndarray) -> np.ndarray:
        return vector.pack(velocity(t, vector.unpack(y)))

    def trajectory(moments: np.ndarray, states: np.ndarray, **extra: Any) -> Trajectory:
        path = vector.unpack(states.reshape(-1, len(vector.start)))
        losses = [loss(t, tuple(p[i] for p in path)) for i, t in enumerate(moments)]
        record = {"seconds": clock.perf_counter() - started, **extra}
        recorded = torch.stack(losses) if losses else torch.empty(0)
        layers, shifts = path[: vector.depth], path[vector.depth :]
        return Trajectory(torch.from_numpy(moments.copy()), layers, recorded, shifts, meta | record)

    if times[-1] == 0:
        return trajectory(times, vector.start[None], rest_time=None, evaluations=0)
    if atol == 0:
        _check_relative(vector.start, derivative(0.0, vector.start))

    def by_tick(tick: float, y: np.ndarray) -> np.ndarray:
        watch.evaluate()
        return unit * derivative(tick * unit, y)

    right_hand_side: RightHandSide = by_tick
    options: dict[str, RightHandSide] = {}
    if jacobian is not None and logarithmic:
        right_hand_side, options["jac"] = _in_log_time(derivative, jacobian, vector)
    try:
        # A blow-up, singular matrices and stalled iterations are reported below, in words.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"), warnings.catch_warnings(action="ignore"):
            solution = solve_ivp(
                right_hand_side,
                (0.0, ticks[-1]),
                vector.start,
                method,
                t_eval=ticks,
                rtol=rtol,
                atol=tolerances,
                events=watch,
                **options,
            )
    except KeyboardInterrupt:
        raise Interrupted(trajectory(*watch.record())) from None
    except (torch.linalg.LinAlgError, FloatingPointError):
        raise watch.failure(
            "it leaves the range of floating point, or no step is small enough.", trajectory(*watch.record())
        ) from None
    moments, states = times[: len(solution.t)], np.asarray(solution.y, dtype=float).T
    if len(moments) and moments[0] == 0:
        states[0] = vector.start  # LSODA's interpolant misses it by round-off
    if not solution.success:
        raise watch.failure(solution.message, trajectory(moments, states))
    counts = {"evaluations": int(solution.nfev)} | ({"jacobians": int(solution.njev)} if logarithmic else {})
    return trajectory(moments, states, rest_time=watch.resting_since, **counts)


def _in_log_time(
    derivative: RightHandSide, jacobian: Callable[[float, Weights], Tensor], vector: "_Vector"
) -> tuple[RightHandSide, RightHandSide]:
    """Velocity dy / dtau and its Jacobian as functions of tau = log(1 + t) and y."""

    @torch.inference_mode()  # a tenth faster, and nothing here is differentiated automatically
    def by_tick(tick: float, y: np.ndarray) -> np.ndarray:
        return math.exp(tick) * derivative(math.expm1(tick), y)

    @torch.inference_mode()
    def jacobian_by_tick(tick: float, y: np.ndarray) -> np.ndarray:
        return jacobian(math.expm1(tick), vector.unpack(y)).mul_(math.exp(tick)).cpu().numpy()

    return by_tick, jacobian_by_tick


def run_by_run(
    flow: Callable[[Weights, Progress | None], Trajectory], weights: Weights, progress: Progress | None
) -> Trajectory:
    """Integrate every run on its own and stack the records; what stops one of them keeps the finished ones."""
    runs, done = weights[0].shape[:-2], []
    singles = list(zip(*(w.flatten(0, -3) for w in weights), strict=True))
    try:
        for number, single in enumerate(singles):
            share = None
            if progress:

                def share(t: float, end: float, number: int = number) -> None:
                    progress((number + t / end) / len(singles) * end, end)

            done.append(flow(single, share))
    except (FlowFailed, Interrupted) as stop:
        stop.trajectory = _stacked(done, (len(done),)) if done else _stacked([stop.trajectory], (1,))
        raise
    return _stacked(done, runs)


def _stacked(done: list[Trajectory], runs: tuple[int, ...]) -> Trajectory:
    """Join records of single runs, which share their times, into one with run axes."""
    rests = [path.meta["rest_time"] for path in done if path.meta.get("rest_time") is not None]
    totals = {
        name: sum(path.meta[name] for path in done)
        for name in ("seconds", "evaluations", "jacobians")
        if name in done[0].meta
    }
    meta = done[0].meta | totals | {"rest_time": max(rests) if len(rests) == len(done) else None}
    layers = tuple(
        torch.stack(paths, dim=1).unflatten(1, runs) for paths in zip(*(path.weights for path in done), strict=True)
    )
    loss = torch.stack([path.loss for path in done], dim=1).unflatten(1, runs)
    return Trajectory(done[0].time, layers, loss, (), meta)


def _check_relative(start: np.ndarray, velocity: np.ndarray) -> None:
    moving = int(((start == 0) & (velocity != 0)).sum())
    if moving:
        raise ValueError(
            f"atol is 0, but {moving} weight(s) are exactly 0 at the start and move, and no error is relative to 0; "
            "give an atol above 0, or none"
        )


def check_times(time: Time) -> np.ndarray:
    """Turn one time or an increasing vector of them into an array. Raises ValueError for anything else."""
    times = np.atleast_1d(np.asarray(time, dtype=float))
    increasing = times.ndim == 1 and len(times) > 0 and bool((np.diff(times) > 0).all())
    if not (increasing and np.isfinite(times).all() and times[0] >= 0):
        raise ValueError(f"times are {time}; give one finite number or an increasing vector, none below 0")
    return times


class _Vector:
    """All parameters of a network as the one float64 vector that solve_ivp wants, and back."""

    def __init__(self, weights: Weights, biases: Sequence[Tensor]) -> None:
        check_weights(weights, biases)
        parameters = [p.detach().to(torch.float64) for p in (*weights, *biases)]
        self.depth, self.device = len(weights), weights[0].device
        self.shapes, self.sizes = [p.shape for p in parameters], [p.numel() for p in parameters]
        self.start = self.pack(parameters)

    @staticmethod
    def pack(parameters: Sequence[Tensor]) -> np.ndarray:
        return torch.cat([p.flatten() for p in parameters]).cpu().numpy()

    def unpack(self, states: np.ndarray) -> Weights:
        """Cut a vector, or a path of them (t, n), into parameters with the same leading axis."""
        parts = torch.from_numpy(np.ascontiguousarray(states)).to(self.device).split(self.sizes, dim=-1)
        return tuple(p.view(*states.shape[:-1], *shape) for p, shape in zip(parts, self.shapes, strict=True))


class _Watch:
    """An event function: solve_ivp calls it once per accepted step, so it keeps what is reached and sees rest begin."""

    def __init__(
        self,
        start: np.ndarray,
        ticks: np.ndarray,
        end: float,
        to_time: Callable[[float], float],
        rest_speed: float,
        progress: Progress | None,
    ) -> None:
        self.ticks, self.end, self.to_time, self.rest_speed, self.progress = ticks, end, to_time, rest_speed, progress
        self.start = start
        self.reached: list[tuple[float, np.ndarray]] = []
        self.last: tuple[float, np.ndarray] | None = None
        self.resting_since: float | None = None
        # Evaluations since a step was accepted: a Jacobian by differences takes one for each weight.
        self.tried, self.most_tried = 0, MOST_TRIED * (len(start) + MOST_TRIED)

    def evaluate(self) -> None:
        """Count an evaluation. Raises FloatingPointError where steps of every size are refused."""
        self.tried += 1
        if self.tried > self.most_tried:
            raise FloatingPointError

    def __call__(self, tick: float, y: np.ndarray) -> float:
        t = self.to_time(tick)
        if self.last is not None:
            before, state = self.last
            still = np.abs(y - state).max() <= self.rest_speed * (t - before) * np.abs(y).max()
            self.resting_since = (before if self.resting_since is None else self.resting_since) if still else None
        if not np.isfinite(y).all():  # LSODA would go on
            raise FloatingPointError
        self.last, self.tried = (t, y.copy()), 0
        if len(self.reached) < len(self.ticks) and tick >= self.ticks[len(self.reached)]:
            self.reached.append(self.last)
        if self.progress:
            self.progress(t, self.end)
        return 1.0  # never crosses zero: there is nothing to look for

    def failure(self, reason: str, partial: Trajectory) -> FlowFailed:
        """Say after which step the flow could not go on."""
        t, state = self.last or (0.0, self.start)
        return FlowFailed(
            f"the flow cannot be continued beyond t = {t:.9g} of {self.end:.6g}, where the largest weight is "
            f"{np.abs(state).max():.3g}: {reason} A weight that reaches infinity in finite time "
            "does this, and a change that takes less time than round-off of t",
            partial,
            t,
        )

    def record(self) -> tuple[np.ndarray, np.ndarray]:
        """Times and states that were kept."""
        if not self.reached:
            return np.empty(0), np.empty(0)
        moments, states = zip(*self.reached, strict=True)
        return np.array(moments), np.array(states)
