"""Hand a flow to an ODE solver, and turn what it reaches into a Trajectory."""

import math
import time as clock
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dyncollapse.dynamics._cvode import cvode_is_installed, solve_by_cvode
from dyncollapse.dynamics._problem import LARGEST, NoStep, Problem, Reached, TooManyEvaluations, Vector, Watch
from dyncollapse.dynamics._scipy import solve_by_scipy
from dyncollapse.dynamics._turns import solve_in_turns
from dyncollapse.dynamics.equation import Equation
from dyncollapse.dynamics.tolerances import absolute_tolerances
from dyncollapse.dynamics.trajectory import Interrupted, Trajectory, parameter_fields
from dyncollapse.model.networks import Weights

Time = float | Sequence[float] | Tensor | np.ndarray
Progress = Callable[[float, float], None]

# A flow is at rest once no weight moves, per unit of time, by more than this many rtol of the largest weight. Below
# that the speed is noise of the solver. A rule of thumb.
REST_SPEED = 10

# The smallest rtol that SciPy accepts: steps cannot be more exact than round-off.
LEAST_RTOL = 100 * float(np.finfo(float).eps)

# Smallest atol of a predictor, over rtol and its largest entry. At rest that of equal modes is a multiple of 1. Its
# other entries are sums of larger terms that cancel, whose round-off held steps below 1 with a smaller tolerance.
PREDICTOR_SHARE = 1e-4

# The earliest time after the start: solvers square their first steps, and the squares have to be normal numbers.
LEAST_TIME = 1e-150

# Evaluations of the velocity after which a flow is given up, unless more are allowed: ten times what the longest flow
# of the figures takes.
MOST_EVALUATIONS = 10**6

WITH_MATRICES = ("LSODA", "BDF", "Radau")
IMPLICIT = ("CVODE", *WITH_MATRICES)
METHODS = ("DOP853", "RK45", "RK23", *IMPLICIT)

WHERE = "which has wheels for Linux on x86-64, macOS and Windows, and is built from source elsewhere"
BLOW_UPS = "Causes are a weight that reaches infinity in finite time, and a change faster than the round-off of t"


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
class Solver:
    """A method and its accuracy: each weight's error per step stays below atol + rtol |w|.

    Attributes:
        method: One of METHODS: CVODE of SUNDIALS, or a method of SciPy's solve_ivp.
        rtol: Relative tolerance.
        atol: Absolute tolerance, or None for `absolute_tolerances`.
        max_evaluations: Evaluations of the velocity after which the flow is given up.
        switches: Whether CVODE and an explicit method take turns, where the flow's derivative is known.
    """

    method: str
    rtol: float
    atol: float | None
    max_evaluations: int = MOST_EVALUATIONS
    switches: bool = False

    def check(self) -> None:
        """Raise ValueError for what a solver would change or refuse."""
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if isinstance(value, bool) or not (isinstance(value, Real) or (name == "atol" and value is None)):
                raise ValueError(f"{name} is {value!r}; it must be a number")
        if self.method not in METHODS or not (
            LEAST_RTOL <= self.rtol < 1 and (self.atol is None or 0 <= self.atol < math.inf)
        ):
            raise ValueError(
                f"method, rtol and atol are {self.method!r}, {self.rtol}, {self.atol}; choose one of "
                f"{', '.join(METHODS)}, rtol between {LEAST_RTOL:.2g} and 1, atol finite and at least 0"
            )
        most = self.max_evaluations
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise ValueError(f"max_evaluations is {most!r}; it must be a whole number of at least 1")
        if self.method == "CVODE" and not cvode_is_installed():
            raise ValueError(f"method CVODE needs scikit-sundae, {WHERE}; or choose method LSODA")

    def tolerances(self, weights: Weights, others: Sequence[Tensor], *, smooth: bool) -> np.ndarray:
        """Absolute tolerance of every entry of the solver's vector."""
        if not others or others[0].ndim < weights[0].ndim:
            return Vector.pack(absolute_tolerances(weights, others, self.rtol, self.atol, smooth=smooth))
        found = absolute_tolerances((*weights, *others), (), self.rtol, self.atol, smooth=smooth)
        if self.atol is None:
            largest = others[0].abs().amax((-2, -1), keepdim=True)
            found[len(weights)] = torch.maximum(found[len(weights)], PREDICTOR_SHARE * self.rtol * largest)
        return Vector.pack(found)


def stiff_method() -> str:
    """CVODE, or LSODA with a warning where scikit-sundae is not installed."""
    if cvode_is_installed():
        return "CVODE"
    warnings.warn(
        "scikit-sundae is not installed, so LSODA integrates: with more than a few hundred weights it takes minutes "
        f"where CVODE takes seconds. It comes by pip, {WHERE}",
        stacklevel=4,  # where the flow was called, behind the decorator of public functions
    )
    return "LSODA"


def integrate(
    weights: Weights,
    others: Sequence[Tensor],
    equation: Equation,
    time: Time,
    *,
    solver: Solver,
    meta: dict[str, Any],
    progress: Progress | None = None,
) -> Trajectory:
    """Integrate a flow and return the states that it reached.

    Args:
        weights: Where it starts, one tensor (*runs, out, in) per layer.
        others: The parameters beside the weights, as in `Equation`.
        equation: What moves them all.
        time: One flow time or an increasing vector of them.
        solver: Method and tolerances.
        meta: How the path is made. The solver's settings and counts are added: "atol" is the smallest absolute
            tolerance of any weight, "largest_atol" the largest.
        progress: Called with (t, t_end) after every step.

    Returns:
        The states at exactly the given times.

    Raises:
        ValueError: For unusable times, weights or solver settings.
        FlowFailed: When the solver cannot go on, and when `solver.max_evaluations` are used up.
        Interrupted: On Ctrl-C.
    """
    times, vector, started = check_times(time), Vector(weights, others), clock.perf_counter()
    solver.check()
    tolerances = solver.tolerances(weights, others, smooth=equation.smooth)
    meta = meta | {"method": solver.method, "rtol": solver.rtol}
    meta |= {"atol": float(tolerances.min()), "largest_atol": float(tolerances.max())}

    def trajectory(moments: np.ndarray, states: np.ndarray, **extra: Any) -> Trajectory:
        path = vector.unpack(states.reshape(-1, len(vector.start)))
        losses = equation.losses(moments.tolist(), path)
        record = {"seconds": clock.perf_counter() - started, **extra}
        fields = parameter_fields(path, vector.depth)
        return Trajectory(torch.from_numpy(moments.copy()), loss=losses, meta=meta | record, **fields)

    if times[-1] == 0:
        return trajectory(times, vector.start[None], rest_time=None, evaluations=0)
    matrices = solver.method in WITH_MATRICES and equation.jacobian is not None
    problem = Problem(equation, vector, times, logarithmic=solver.method == "CVODE" or matrices)
    velocity = _first_velocity(problem)
    if solver.atol == 0:
        _check_relative(vector.start, velocity)
    watch = Watch(problem, REST_SPEED * solver.rtol, solver.max_evaluations, progress)

    def reached(**extra: Any) -> Trajectory:
        return trajectory(*watch.record(), **watch.switched | extra)

    try:
        counts, stopped, _ = _solve(problem, watch, solver, tolerances)
        if stopped is None:
            return reached(rest_time=watch.resting_since, **counts)
    except KeyboardInterrupt:
        raise Interrupted(reached()) from None
    except NoStep as stop:
        raise _failure(watch, _reason(watch, str(stop)), BLOW_UPS, reached()) from None
    except (torch.linalg.LinAlgError, np.linalg.LinAlgError):
        reason = _reason(watch, "a matrix is singular.")
        raise _failure(watch, reason, BLOW_UPS, reached()) from None
    except TooManyEvaluations:
        reason = f"all {solver.max_evaluations} evaluations that it was allowed are used up."
        raise _failure(watch, reason, _remedies(solver), reached()) from None
    raise _failure(watch, _reason(watch, stopped), BLOW_UPS, reached())


def _solve(problem: Problem, watch: Watch, solver: Solver, tolerances: np.ndarray) -> Reached:
    if solver.switches and problem.field.linearise is not None:
        return solve_in_turns(problem, watch, solver.method, solver.rtol, tolerances, loose=solver.atol is None)
    if solver.method == "CVODE":
        return solve_by_cvode(problem, watch, solver.rtol, tolerances)
    return solve_by_scipy(problem, watch, solver.method, solver.rtol, tolerances)


def _remedies(solver: Solver) -> str:
    other = "" if solver.method == "CVODE" or solver.switches else ", or method CVODE for a stiff flow"
    return f"Ask for an earlier time or a larger rtol or atol{other}, or raise max_evaluations"


def _first_velocity(problem: Problem) -> np.ndarray:
    largest = np.abs(problem.vector.start).max()
    with np.errstate(all="ignore"):
        velocity = problem.velocity(0.0, problem.vector.start)
        loss = problem.equation.loss(0.0, problem.vector.unpack(problem.vector.start))
    if largest > LARGEST or not (np.isfinite(velocity).all() and bool(torch.isfinite(loss).all())):
        own = problem.equation.own_loss
        advice = f"keep the loss {own} and its gradient finite there" if own else "give a start of another size"
        raise ValueError(
            f"at the start, where the largest weight is {largest:.3g}, the loss or the velocity is NaN, infinite or "
            f"out of range; {advice}"
        )
    return velocity


def _reason(watch: Watch, otherwise: str) -> str:
    """Why a flow cannot go on: a velocity that is not finite, or else what the solver says."""
    if not watch.broken:
        return otherwise
    own = watch.problem.equation.own_loss
    return f"beyond it the velocity{f', from the loss {own},' if own else ''} is NaN or infinite."


def _failure(watch: Watch, reason: str, advice: str, partial: Trajectory) -> FlowFailed:
    t, state = watch.last or (0.0, watch.problem.vector.start)
    return FlowFailed(
        f"the flow cannot be continued beyond t = {t:.9g} of {watch.end:.6g}, where the largest weight is "
        f"{np.abs(state).max():.3g}: {reason} {advice}",
        partial,
        float(t),
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
    if ((times > 0) & (times < LEAST_TIME)).any():
        raise ValueError(f"a time is {times[times > 0][0]:g}; times above 0 must be at least {LEAST_TIME:g}")
    increasing = times.ndim == 1 and len(times) > 0 and bool((np.diff(times) > 0).all())
    if not (increasing and np.isfinite(times).all() and times[0] >= 0):
        shown = " ".join(str(time).split())[:100]
        raise ValueError(f"times are {shown}; give one finite number or an increasing vector, none below 0")
    return times
