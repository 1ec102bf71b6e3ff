"""Flows by CVODE of SUNDIALS: backward differentiation formulas, with GMRES instead of a Jacobian matrix."""

import contextlib
import math
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from dyncollapse.dynamics._problem import Problem, Reached, Watch
from dyncollapse.dynamics._shared_context import SharedContext
from dyncollapse.dynamics._unseen import Lookout
from dyncollapse.dynamics.equation import Linearisation

# Most directions that GMRES keeps for one solution. Measured on two layers of 16 to t = 1e6: with 30, solutions that
# stopped short left errors of up to 3e-6 at rtol 1e-8; with 60 they are below 1e-7, in the same time.
KRYLOV_DIM = 60
# CVODE's own advice: smaller ones ask for more than round-off allows.
LEAST_RTOL = 1e-15
# Errors of CVODE's steps come close to its tolerances, those of LSODA stay far below. With these shares of the
# tolerances that a user asks for, escapes are as exactly on time and dead modes are followed as far down as by LSODA;
# on two layers of 16 that takes a sixth more evaluations.
SHARE_OF_RTOL, SHARE_OF_ATOL = 0.3, 0.03
# Where SUNDIALS looks for the file that takes its warnings. They would go to the terminal.
WARNINGS = "SUNLOGGER_WARNING_FILENAME"
# What a preconditioned product costs, in plain ones. Both ways are compared again after so many new step sizes, unless
# one was so many times as expensive. Rules of thumb.
PRICE, TRY_AGAIN, HOPELESS = 1.7, 16, 3
FAILURE = re.compile(r"\s*\[\w+, Error: -?\d+\]")
# Threads that set an environment variable in turns could lose what it was.
ONE_AT_A_TIME = threading.Lock()


def cvode_is_installed() -> bool:
    """Whether scikit-sundae is there. It has no wheels for Linux on ARM."""
    return find_spec("sksundae") is not None


def solve_by_cvode(
    problem: Problem,
    watch: Watch,
    rtol: float,
    tolerances: np.ndarray,
    most: float = math.inf,
    lookout: Lookout | None = None,
) -> Reached:
    """Integrate from tick 0, or from the last step of another method, to the last tick.

    Args:
        problem: The flow, with logarithmic ticks.
        watch: Called after every step; it records the states at the ticks. It knows the last step of another method.
        rtol: Relative tolerance.
        tolerances: Absolute tolerance of every entry.
        most: Evaluations and products beyond which it leaves the flow to another method.
        lookout: Makes it leave the flow where something grows that it does not see.

    Returns:
        How it ended.

    Raises:
        NoStep: Where the flow leaves the range of floating point.
        TooManyEvaluations: When the watch's allowance is used up.

    References:
        Hindmarsh et al. 2005, "SUNDIALS: Suite of Nonlinear and Differential/Algebraic Equation Solvers".
    """
    calls = Calls(problem, watch)
    solver = calls.solver(rtol, tolerances)
    most += watch.evaluations + watch.products
    with np.errstate(all="ignore"):
        begun = watch.begin()
        with QUIET, _without_warnings():
            solver.init_step(*begun)
        message, left = _take_steps(solver, watch, problem.ticks, most, lookout)
    return Reached({"evaluations": watch.evaluations, "jacobian_products": watch.products}, message, left)


def _take_steps(
    solver: Any, watch: Watch, ticks: np.ndarray, most: float, lookout: Lookout | None
) -> tuple[str | None, bool]:
    """Go to the last tick; returns why that was not possible, or None, and whether it is left to another method."""
    again = False
    while len(watch.reached) < len(ticks):
        step = _quietly(solver.step, ticks[-1], "onestep", ticks[-1])
        if not step.success:
            return step.message, False
        new, again = not again, False
        if new:
            watch.accept(step.t, step.y)
        for tick in watch.due(step.t):
            watch.keep(_quietly(solver.step, tick, "normal").y)
            again = tick < step.t  # CVODE then returns the end of this step once more
        if new:
            watch.report()
            if watch.evaluations + watch.products > most and len(watch.reached) < len(ticks):
                return None, True
            if lookout is not None and lookout.leaves():
                return None, True
    return None, False


class Choice:
    """Whether a preconditioner pays: products with the Jacobian per linear solution, with it and without.

    It is tried both ways, then kept to what was cheaper, and the other way is tried again from time to time unless it
    was far more expensive.
    """

    def __init__(self) -> None:
        """Begin with the preconditioner."""
        self.using, self._costs, self._asked = True, dict[bool, float](), 0

    def settle(self, products: int, solutions: int) -> None:
        """Take note of what the last way cost, and choose the next."""
        if solutions:
            cost = products / solutions * (PRICE if self.using else 1)
            self._costs[self.using] = (cost + self._costs.get(self.using, cost)) / 2
        self._asked += 1
        own, other = self._costs.get(self.using), self._costs.get(not self.using)
        again = other is not None and own is not None and self._asked % TRY_AGAIN == 0 and other < HOPELESS * own
        if own is not None and (other is None or other < own or again):
            self.using = not self.using


class Calls:
    """The functions that CVODE calls; they fill the arrays that it hands over."""

    def __init__(self, problem: Problem, watch: Watch) -> None:
        self._problem, self._watch = problem, watch
        self._pace, self.solutions = 1.0, 0
        self._choice, self._counted = Choice(), (0, 0)
        self._solving: tuple[float, bytes] | None = None  # when and where
        self._linear: Linearisation | None = None
        self._solve: Callable[[np.ndarray], np.ndarray] | None = None

    def solver(self, rtol: float, tolerances: np.ndarray) -> Any:
        from sksundae.cvode import CVODE, CVODEJacTimes, CVODEPrecond

        field, options = self._problem.field, {}
        if field.linearise is not None:
            # Without a function that begins a solution: it would be every sixth call, and calls cost more than sums.
            options["jactimes"] = CVODEJacTimes(None, self.multiply)
            if field.preconditioned:  # from the right, so that errors are measured in the flow's own norm
                options["precond"] = CVODEPrecond(self.prepare, self.precondition, "right")
        return CVODE(
            self.velocity,
            method="BDF",
            rtol=max(SHARE_OF_RTOL * rtol, LEAST_RTOL),
            atol=SHARE_OF_ATOL * tolerances,
            linsolver="gmres",
            krylov_dim=min(KRYLOV_DIM, len(tolerances)),
            **options,
        )

    def velocity(self, tick: float, y: np.ndarray, result: np.ndarray) -> None:
        np.multiply(self._watch.evaluate(tick, y), self._problem.pace(tick), out=result)

    def linearise(self, tick: float, y: np.ndarray) -> None:
        assert self._problem.field.linearise is not None
        self._linear = self._problem.field.linearise(self._problem.time(tick), y)
        self._pace = self._problem.pace(tick)

    def multiply(
        self, tick: float, y: np.ndarray, _velocity: np.ndarray, direction: np.ndarray, result: np.ndarray
    ) -> None:
        if self._solving != (solving := (tick, y.tobytes())):  # the first product of a linear solution
            self._solving = solving
            self.solutions += 1
            self.linearise(tick, y)
        assert self._linear is not None
        self._watch.products += 1
        np.multiply(self._linear.times(direction), self._pace, out=result)

    def prepare(
        self, tick: float, y: np.ndarray, _velocity: np.ndarray, _known: int, renewed: list, gamma: float
    ) -> None:
        self.linearise(tick, y)
        assert self._linear is not None
        self._solving, renewed[0] = None, 1
        counted, self._counted = self._counted, (self._watch.products, self.solutions)
        if self._solve is not None or not self._choice.using:
            self._choice.settle(self._watch.products - counted[0], self.solutions - counted[1])
        self._solve = self._linear.preconditioner(gamma * self._pace) if self._choice.using else None

    def precondition(
        self,
        _tick: float,
        _y: np.ndarray,
        _velocity: np.ndarray,
        given: np.ndarray,
        result: np.ndarray,
        _gamma: float,
        _tolerance: float,
        _side: int,
    ) -> None:
        result[:] = given if self._solve is None else self._solve(given)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Let a solver that is made here keep warnings to itself, such as that a step is lost in the round-off of t."""
    with ONE_AT_A_TIME:
        before = os.environ.get(WARNINGS)
        os.environ[WARNINGS] = os.devnull
        try:
            yield
        finally:
            if before is None:
                del os.environ[WARNINGS]
            else:
                os.environ[WARNINGS] = before


class _Filter:
    """A stream without what scikit-sundae prints when a step fails; the result of the step says it, too."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._dropped = stream, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        ending = self._dropped and text == "\n"  # which `print` writes by itself
        self._dropped = bool(FAILURE.match(text))
        return len(text) if ending or self._dropped else self._stream.write(text)


class _Filtered:
    """Filters what goes to stdout, and gives it back unless somebody has changed it meanwhile."""

    def __enter__(self) -> None:
        self._before, self._filter = sys.stdout, _Filter(sys.stdout)
        sys.stdout = self._filter

    def __exit__(self, *error: object) -> None:
        if sys.stdout is self._filter:
            sys.stdout = self._before


QUIET = SharedContext(_Filtered)


def _quietly(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call without scikit-sundae's own lines on stdout; what others print passes."""
    with QUIET:
        return call(*arguments)
