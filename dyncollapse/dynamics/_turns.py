"""An explicit and an implicit method take turns: the one where something grows that the other does not see."""

import math
from typing import Self

import numpy as np

from dyncollapse.dynamics._cvode import solve_by_cvode
from dyncollapse.dynamics._problem import Problem, Reached, TooManyEvaluations, Watch
from dyncollapse.dynamics._scipy import solve_by_scipy
from dyncollapse.dynamics._stiffness import ENOUGH, MUCH, Stiffness
from dyncollapse.dynamics._unseen import UNSEEN, Lookout, Sight

EXPLICIT = "DOP853"
# Absolute tolerance of CVODE where a flow is stiff, over rtol and the largest weight, unless one was asked for.
LOOSE = 1e-2
# A share of the evaluations is kept for CVODE to go on after all.
RESERVE = 0.1


def solve_in_turns(
    problem: Problem, watch: Watch, first: str, rtol: float, tolerances: np.ndarray, *, loose: bool
) -> Reached:
    """Integrate from tick 0 to the last.

    CVODE as the first method goes to the end unless something grows that it does not see. DOP853 then begins once more.
    DOP853 gives way to CVODE where the flow is stiff and nothing grows unseen. Where DOP853 would take too long, CVODE
    goes on from where it was left.

    Args:
        problem: The flow, by the first method's clock; its field has `linearise`.
        watch: Called after every step.
        first: CVODE or DOP853.
        rtol: Relative tolerance.
        tolerances: Absolute tolerance of every entry.
        loose: Whether CVODE may have larger ones when it goes on for DOP853 that was first.

    Returns:
        How it ended.

    Raises:
        NoStep: Where the flow leaves the range of floating point.
        TooManyEvaluations: When the watch's allowance is used up.
    """
    explicit, implicit = (
        Problem(problem.equation, problem.vector, problem.times, logarithmic=clock) for clock in (False, True)
    )
    left: Turn | None = None  # in which CVODE did not see something
    if first == "CVODE":
        sight = Sight(problem.field, problem.vector.start, rtol, tolerances)
        turn = Turn(implicit, watch, rtol, tolerances, sight)
        if not (reached := turn.take()).left:
            return reached
        left = turn.taken_back()
        watch.go_on(explicit, method=EXPLICIT)
    else:
        sight = Sight(problem.field, problem.vector.start, rtol, tolerances, LOOSE if loose else 0.0)
    while True:
        stiffness = Stiffness(explicit, sight, left.until, left.expected()) if left else Stiffness(explicit, sight)
        reached = _take_explicit_turn(explicit, watch, rtol, tolerances, stiffness, left)
        if not reached.left:
            return reached
        assert watch.last is not None
        t, y = watch.last
        turn = Turn(implicit, watch, rtol, sight.tolerances(y), sight)
        watch.go_on(implicit, stiff_from=t, stiff_method="CVODE")
        reached = turn.take(stiffness.expected)
        if not reached.left:
            return reached
        if not turn.lookout.left:  # CVODE took longer
            watch.go_on(explicit, stiff_until=watch.last[0])
            return solve_by_scipy(explicit, watch, EXPLICIT, rtol, tolerances)
        left = turn.taken_back()
        watch.go_on(explicit)


class Turn:
    """A turn of CVODE, from the watch's last step on."""

    def __init__(self, problem: Problem, watch: Watch, rtol: float, tolerances: np.ndarray, sight: Sight) -> None:
        """Take tolerances, and what looks for growth that they hide."""
        self._problem, self._watch, self._rtol, self._tolerances = problem, watch, rtol, tolerances
        self.lookout = Lookout(sight, watch)
        self._to_begin = self._to_end = watch.mark()
        self.until = 0.0  # flow time at which it was left

    def take(self, most: float = math.inf) -> Reached:
        """Take it, until something grows unseen or `most` evaluations and products are done."""
        return solve_by_cvode(self._problem, self._watch, self._rtol, self._tolerances, most, self.lookout)

    def taken_back(self) -> Self:
        """Take the watch back to where this turn began, and remember where it was left."""
        assert self._watch.last is not None
        self.until, self._to_end = self._watch.last[0], self._watch.mark()
        self._to_begin()
        return self

    def expected(self) -> float:
        """Evaluations after which an explicit method has not followed what made it leave."""
        assert self.lookout.growth is not None
        return max(ENOUGH, MUCH * self.lookout.growth.evaluations(self.until, self._watch.end))

    def go_on(self) -> Reached:
        """Go on to the end from there, whatever grows."""
        self._to_end()
        self._watch.go_on(self._problem, **{UNSEEN: self.until})  # until a look says that nothing grows
        self.lookout.stays = True
        return self.take()


def _take_explicit_turn(
    problem: Problem, watch: Watch, rtol: float, tolerances: np.ndarray, stiffness: Stiffness, left: Turn | None
) -> Reached:
    """Go on by DOP853; where that takes too long, by CVODE to the end, from where it left."""
    try:
        with watch.reserved(RESERVE if left else 0.0):
            reached = solve_by_scipy(problem, watch, EXPLICIT, rtol, tolerances, stiffness)
    except TooManyEvaluations:
        if left is None:
            raise
        return left.go_on()
    return left.go_on() if stiffness.hopeless and left is not None else reached
