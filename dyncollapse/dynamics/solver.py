"""Hand a gradient flow to SciPy's ODE solvers, and turn what they reach into a Trajectory."""

import math
import time as clock
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from dyncollapse.dynamics.tolerances import absolute_tolerances
from dyncollapse.dynamics.trajectory import Interrupted, Trajectory
from dyncollapse.model.networks import Weights, check_weights

Time = float | Sequence[float] | Tensor | np.ndarray
Progress = Callable[[float, float], None]
RightHandSide = Callable[[float, np.ndarray], np.ndarray]

# A flow is at rest once no weight moves, per unit of time, by more than this many rtol of the largest weight. Below
# that the speed is noise of the solver. A rule of thumb.
REST_SPEED = 10

# The smallest rtol that SciPy accepts: steps cannot be more exact than round-off.
LEAST_RTOL = 100 * float(np.finfo(float).eps)

IMPLICIT = ("LSODA", "BDF", "Radau")
# A refused step is tried again at a fifth of its size or more. After so many trials a step of 1 is below round-off.
MOST_TRIED = 100
METHODS = ("DOP853", "RK45", "RK23", *IMPLICIT)


class FlowFailed(RuntimeError):
    """The solver could not go on beyond a flow time.

    Attributes:
        trajectory: What was recorded until then.
        time: The last flow time that was reached. Where a weight reaches infinity in finite time it is that moment, up
            to the solver's tolerance.

    Examples:
        >>> from dyncollapse import frozen_flow
        >>> try:  # s' = s^3 for two equal layers: s = 1 reaches infinity at t = 1 / 2
        ...     frozen_flow((torch.ones(1, 1), torch.ones(1, 1)), torch.ones(1, 1), 1.0)
        ... except FlowFailed as failure:
        ...     round(failure.time, 4)
        0.5
    """

    def __init__(self, message: str, trajectory: Trajectory, time: float) -> None:
        """Keep the partial record and the time that was reached."""
        super().__init__(message)
        self.trajectory, self.time = trajectory, time

    def __reduce__(self) -> tuple[Any, ...]:
        """Allow pickling, so that worker processes can raise it."""
        return type(self), (str(self), self.trajectory, self.time)


@dataclass(frozen=True)
class Equation:
    """A gradient flow as an ordinary differential equation for the parameters, weights first and then biases.

    Attributes:
        velocity: Their velocities at flow time t.
        loss: The loss at flow time t, one per run.
        jacobian: Derivative of the velocity with respect to all parameters of one run, or None.
        smooth: Whether the velocity is; ReLU's jumps.
    """

    velocity: Callable[[float, Weights], list[Tensor]]
    loss: Callable[[float, Weights], Tensor]
    jacobian: Callable[[float, Weights], Tensor] | None = None
    smooth: bool = True


@dataclass(frozen=True)
class Solver:
    """A method of SciPy's solve_ivp and its accuracy: each weight's error per step stays below atol + rtol |w|.

    Attributes:
        method: One of METHODS.
        rtol: Relative tolerance.
        atol: Absolute tolerance, or None for `absolute_tolerances`.
    """

    method: str
    rtol: float
    atol: float | None

    def check(self) -> None:
        """Raise ValueError for what SciPy would change or refuse."""
        if self.method not in METHODS or not (
            LEAST_RTOL <= self.rtol < 1 and (self.atol is None or 0 <= self.atol < math.inf)
        ):
            raise ValueError(
                f"method, rtol and atol are {self.method!r}, {self.rtol}, {self.atol}; choose one of "
                f"{', '.join(METHODS)}, rtol between {LEAST_RTOL:.2g} and 1, atol finite and at least 0"
            )


def integrate(
    weights: Weights,
    biases: Sequence[Tensor],
    equation: Equation,
    time: Time,
    *,
    solver: Solver,
    meta: dict[str, Any],
    progress: Progress | None = None,
) -> Trajectory:
    """Integrate a flow with solve_ivp and return the states that it reached.

    Args:
        weights: Where it starts, one tensor (*runs, out, in) per layer.
        biases: One tensor (*runs, out) per layer, or none.
        equation: What moves them.
        time: One flow time or an increasing vector of them.
        solver: Method and tolerances.
        meta: How the path is made. The solver's settings and counts are added: "atol" is the smallest absolute
            tolerance of any weight, "largest_atol" the largest.
        progress: Called with (t, t_end) after every step.

    Returns:
        The states at exactly the given times.

    Raises:
        ValueError: For unusable times, weights or solver settings.
        FlowFailed: When the solver cannot go on.
        Interrupted: On Ctrl-C.
    """
    times, vector, started = check_times(time), _Vector(weights, biases), clock.perf_counter()
    solver.check()
    tolerances = vector.pack(absolute_tolerances(weights, biases, solver.rtol, solver.atol, smooth=equation.smooth))
    meta = meta | {"method": solver.method, "rtol": solver.rtol, "atol": float(tolerances.min())}
    meta |= {"largest_atol": float(tolerances.max())}

    def trajectory(moments: np.ndarray, states: np.ndarray, **extra: Any) -> Trajectory:
        path = vector.unpack(states.reshape(-1, len(vector.start)))
        losses = [equation.loss(t, tuple(p[i] for p in path)) for i, t in enumerate(moments)]
        record = {"seconds": clock.perf_counter() - started, **extra}
        recorded = torch.stack(losses) if losses else torch.empty(0)
        layers, shifts = path[: vector.depth], path[vector.depth :]
        return Trajectory(torch.from_numpy(moments.copy()), layers, recorded, shifts, meta | record)

    if times[-1] == 0:
        return trajectory(times, vector.start[None], rest_time=None, evaluations=0)
    problem = _Problem(equation, vector, times, solver.method)
    if solver.atol == 0:
        _check_relative(vector.start, problem.velocity(0.0, vector.start))
    watch = _Watch(vector.start, problem.ticks, times[-1], problem.to_time, REST_SPEED * solver.rtol, progress)
    try:
        solution = _solve(problem, watch, solver, tolerances)
    except KeyboardInterrupt:
        raise Interrupted(trajectory(*watch.record())) from None
    except (torch.linalg.LinAlgError, FloatingPointError):
        raise watch.failure(
            "it leaves the range of floating point, or no step is small enough.", trajectory(*watch.record())
        ) from None
    moments, states = times[: len(solution.t)], np.asarray(solution.y, dtype=float).T
    if len(moments) and moments[0] == 0:
        states[0] = vector.start  # from which LSODA's interpolant differs by round-off
    if not solution.success:
        raise watch.failure(solution.message, trajectory(moments, states))
    counts = {"evaluations": int(solution.nfev)}
    counts |= {"jacobians": int(solution.njev)} if problem.logarithmic else {}
    return trajectory(moments, states, rest_time=watch.resting_since, **counts)


class _Problem:
    """The flow as solve_ivp sees it: dy / dtick for one vector y of all parameters.

    With a Jacobian, ticks are tau = log(1 + t). A stiff flow slows down as it goes, and with steps that are even in log
    time a quarter to a half fewer matrices were factorised. Without one, ticks are t over a unit that puts the end
    between 1 and 2: SciPy's norms of velocities would underflow where t goes to 1e200.
    """

    def __init__(self, equation: Equation, vector: "_Vector", times: np.ndarray, method: str) -> None:
        self.equation, self.vector = equation, vector
        self.logarithmic = equation.jacobian is not None and method in IMPLICIT
        self.unit = math.ldexp(1.0, math.frexp(times[-1])[1] - 1)
        self.ticks = np.log1p(times) if self.logarithmic else times / self.unit

    def to_time(self, tick: float) -> float:
        return math.expm1(tick) if self.logarithmic else tick * self.unit

    def velocity(self, t: float, y: np.ndarray) -> np.ndarray:
        """Return dy / dt."""
        return self.vector.pack(self.equation.velocity(t, self.vector.unpack(y)))

    def by_tick(self, tick: float, y: np.ndarray) -> np.ndarray:
        return self.unit * self.velocity(tick * self.unit, y)

    @torch.inference_mode()  # a tenth faster, and nothing here is differentiated automatically
    def by_log_tick(self, tick: float, y: np.ndarray) -> np.ndarray:
        return math.exp(tick) * self.velocity(math.expm1(tick), y)

    @torch.inference_mode()
    def jacobian_by_log_tick(self, tick: float, y: np.ndarray) -> np.ndarray:
        assert self.equation.jacobian is not None
        matrix = self.equation.jacobian(math.expm1(tick), self.vector.unpack(y))
        return matrix.mul_(math.exp(tick)).cpu().numpy()


def _solve(problem: _Problem, watch: "_Watch", solver: Solver, tolerances: np.ndarray) -> Any:
    def counted(tick: float, y: np.ndarray) -> np.ndarray:
        watch.evaluate()
        return problem.by_tick(tick, y)

    right_hand_side: RightHandSide = problem.by_log_tick if problem.logarithmic else counted
    options = {"jac": problem.jacobian_by_log_tick} if problem.logarithmic else {}
    # `integrate` reports a blow-up, a singular matrix or a stalled iteration by an exception with one line.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"), warnings.catch_warnings(action="ignore"):
        return solve_ivp(
            right_hand_side,
            (0.0, problem.ticks[-1]),
            problem.vector.start,
            solver.method,
            t_eval=problem.ticks,
            rtol=solver.rtol,
            atol=tolerances,
            events=watch,
            **options,
        )


def _check_relative(start: np.ndarray, velocity: np.ndarray) -> None:
    moving = int(((start == 0) & (velocity != 0)).sum())
    if moving:
        raise ValueError(
            f"atol is 0, but {moving} weight(s) are exactly 0 at the start and move, and no error is relative to 0; "
            "give an atol above 0, or none"
        )


def check_times(time: Time) -> np.ndarray:
    """Turn one time or an increasing vector of them into an array. Raises ValueError for anything else."""
    given = time.detach().cpu() if isinstance(time, Tensor) else time
    try:
        times = np.empty(0) if np.iscomplexobj(given) else np.atleast_1d(np.asarray(given, dtype=float))
    except (TypeError, ValueError):
        times = np.empty(0)
    increasing = times.ndim == 1 and len(times) > 0 and bool((np.diff(times) > 0).all())
    if not (increasing and np.isfinite(times).all() and times[0] >= 0):
        shown = " ".join(str(time).split())[:100]
        raise ValueError(f"times are {shown}; give one finite number or an increasing vector, none below 0")
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
    """An event function, which solve_ivp calls once per accepted step. It records states and detects rest."""

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
        # Evaluations since the last accepted step. A Jacobian by differences takes one for each weight.
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
        """Make the error, with the last step that was reached."""
        t, state = self.last or (0.0, self.start)
        return FlowFailed(
            f"the flow cannot be continued beyond t = {t:.9g} of {self.end:.6g}, where the largest weight is "
            f"{np.abs(state).max():.3g}: {reason} Causes are a weight that reaches infinity in finite time, "
            "and a change faster than the round-off of t",
            partial,
            float(t),
        )

    def record(self) -> tuple[np.ndarray, np.ndarray]:
        """Times and states that were kept."""
        if not self.reached:
            return np.empty(0), np.empty(0)
        moments, states = zip(*self.reached, strict=True)
        return np.array(moments), np.array(states)
