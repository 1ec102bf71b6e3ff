"""Flows by the solvers of SciPy."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from scipy.integrate import BDF, DOP853, LSODA, RK23, RK45, Radau

from dyncollapse.dynamics._problem import NoStep, Problem, Reached, Watch

SOLVERS = {"DOP853": DOP853, "RK45": RK45, "RK23": RK23, "LSODA": LSODA, "BDF": BDF, "Radau": Radau}


class _Warnings:
    """The process's warnings, which threads that integrate beside each other ignore together.

    With a `warnings.catch_warnings` of its own, the thread that ends last would restore what another had set.
    """

    def __init__(self) -> None:
        self._lock, self._threads, self._before = threading.Lock(), 0, ExitStack()

    @contextmanager
    def ignored(self) -> Iterator[None]:
        """Ignore warnings until the last thread has left."""
        with self._lock:
            if self._threads == 0:
                self._before.enter_context(warnings.catch_warnings(action="ignore"))
            self._threads += 1
        try:
            yield
        finally:
            with self._lock:
                self._threads -= 1
                if self._threads == 0:
                    self._before.close()


WARNINGS = _Warnings()


def solve_by_scipy(problem: Problem, watch: Watch, method: str, rtol: float, tolerances: np.ndarray) -> Reached:
    """Integrate from tick 0 to the last.

    Args:
        problem: The flow; with logarithmic ticks the method is implicit and gets the exact Jacobian.
        watch: Called after every step; it records the states at the ticks.
        method: One of SOLVERS.
        rtol: Relative tolerance.
        tolerances: Absolute tolerance of every entry.

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
    start, end = problem.vector.start, problem.ticks[-1]
    # A blow-up, a singular matrix or a stalled iteration becomes an exception with one line.
    with quiet, np.errstate(over="ignore", invalid="ignore", divide="ignore"), WARNINGS.ignored():
        try:
            solver = SOLVERS[method](by_tick, 0.0, start, end, rtol=rtol, atol=tolerances, **options)
            stopped = _take_steps(solver, watch)
        except ValueError as error:
            if "infs or NaNs" not in str(error):
                raise
            raise NoStep("its derivative is NaN or infinite.") from None
    counts = {"evaluations": int(solver.nfev)}
    return Reached(counts | ({"jacobians": int(solver.njev)} if problem.logarithmic else {}), stopped)


def _take_steps(solver: Any, watch: Watch) -> str | None:
    watch.accept(0.0, solver.y)
    if len(watch.due(0.0)):
        watch.keep(solver.y.copy())
    watch.report()
    while solver.status == "running":
        message = solver.step()
        if solver.status == "failed":
            return message
        watch.accept(solver.t, solver.y)
        due = watch.due(solver.t)
        if len(due):
            between = solver.dense_output()
            for tick in due:
                watch.keep(between(tick))
        watch.report()
    return None
