"""Flows by the solvers of SciPy."""

import warnings
from typing import Any

import numpy as np
import torch
from scipy.integrate import BDF, DOP853, LSODA, RK23, RK45, Radau

from dyncollapse.dynamics._problem import NoStep, Problem, Reached, Watch
from dyncollapse.dynamics._shared_context import SharedContext
from dyncollapse.dynamics._stiffness import Stiffness

SOLVERS = {"DOP853": DOP853, "RK45": RK45, "RK23": RK23, "LSODA": LSODA, "BDF": BDF, "Radau": Radau}


WARNINGS = SharedContext(lambda: warnings.catch_warnings(action="ignore"))


def solve_by_scipy(
    problem: Problem, watch: Watch, method: str, rtol: float, tolerances: np.ndarray, stiffness: Stiffness | None = None
) -> Reached:
    """Integrate from tick 0, or from the last step of another method, to the last tick, or to where the flow is stiff.

    Args:
        problem: The flow; with logarithmic ticks the method is implicit and gets the exact Jacobian.
        watch: Called after every step; it records the states at the ticks. It knows the last step of another method.
        method: One of SOLVERS.
        rtol: Relative tolerance.
        tolerances: Absolute tolerance of every entry.
        stiffness: Ends it where the flow is stiff, for another method to go on; None for a method that goes to the end.

    Returns:
        How it ended.

    Raises:
        NoStep: Where the flow leaves the range of floating point.
        TooManyEvaluations: When the watch's allowance is used up.
    """

    def by_tick(tick: float, y: np.ndarray) -> np.ndarray:
        return problem.pace(tick) * watch.evaluate(tick, y)

    options: dict[str, Any] = {"jac": problem.jacobian} if problem.logarithmic else {}
    quiet = torch.inference_mode(problem.logarithmic)  # a tenth faster, and nothing there is differentiated
    # A blow-up, a singular matrix or a stalled iteration becomes an exception with one line.
    with quiet, np.errstate(all="ignore"), WARNINGS:
        try:
            solver = SOLVERS[method](by_tick, *watch.begin(), problem.ticks[-1], rtol=rtol, atol=tolerances, **options)
            stopped, left = _take_steps(solver, watch, stiffness)
        except ValueError as error:
            if "infs or NaNs" not in str(error):
                raise
            raise NoStep("its derivative is NaN or infinite.") from None
    counts = {"evaluations": watch.evaluations}
    counts |= {"jacobian_products": watch.products} if watch.products else {}  # of another method's turns
    counts |= {"jacobians": int(solver.njev)} if problem.logarithmic else {}
    return Reached(counts, stopped, left)


def _take_steps(solver: Any, watch: Watch, stiffness: Stiffness | None) -> tuple[str | None, bool]:
    """Go to the last tick; returns why that was not possible, or None, and whether the flow was left because stiff."""
    while solver.status == "running":
        message = solver.step()
        if solver.status == "failed":
            return message, False
        watch.accept(solver.t, solver.y)
        due = watch.due(solver.t)
        if len(due):
            between = solver.dense_output()
            for tick in due:
                watch.keep(between(tick))
        watch.report()
        if stiffness is not None and stiffness.leaves(solver):
            return None, True
    return None, False
