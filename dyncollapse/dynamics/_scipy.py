"""Flows by SciPy's solve_ivp."""

import warnings

import numpy as np
import torch
from scipy.integrate import solve_ivp

from dyncollapse.dynamics._problem import Problem, Reached, Watch


def solve_by_scipy(problem: Problem, watch: Watch, method: str, rtol: float, tolerances: np.ndarray) -> Reached:
    """Integrate from tick 0 to the last.

    Args:
        problem: The flow; with logarithmic ticks the method is implicit and gets the exact Jacobian.
        watch: Called after every step.
        method: Of solve_ivp.
        rtol: Relative tolerance.
        tolerances: Absolute tolerance of every entry.

    Returns:
        What it reached.

    Raises:
        NoStep: Where the flow leaves the range of floating point.
        TooManyEvaluations: When the watch's allowance is used up.
    """

    def by_tick(tick: float, y: np.ndarray) -> np.ndarray:
        watch.evaluate()
        return problem.pace(tick) * problem.velocity(problem.time(tick), y)

    def event(tick: float, y: np.ndarray) -> float:
        watch.step(tick, y)
        return 1.0  # never crosses zero: there is nothing to look for

    options = {"jac": problem.jacobian} if problem.logarithmic else {}
    quiet = torch.inference_mode(problem.logarithmic)  # a tenth faster, and nothing there is differentiated
    # A blow-up, a singular matrix or a stalled iteration becomes an exception with one line.
    with quiet, np.errstate(over="ignore", invalid="ignore", divide="ignore"), warnings.catch_warnings(action="ignore"):
        solution = solve_ivp(
            by_tick,
            (0.0, problem.ticks[-1]),
            problem.vector.start,
            method,
            t_eval=problem.ticks,
            rtol=rtol,
            atol=tolerances,
            events=event,
            **options,
        )
    counts = {"evaluations": int(solution.nfev)}
    counts |= {"jacobians": int(solution.njev)} if problem.logarithmic else {}
    return Reached(np.asarray(solution.y, dtype=float).T, counts, None if solution.success else solution.message)
