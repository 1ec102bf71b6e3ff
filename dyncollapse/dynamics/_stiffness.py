"""Whether a flow is stiff where an explicit method stands: stability, and not accuracy, keeps its steps short."""

import math
from typing import Any

import numpy as np

from dyncollapse.dynamics._problem import Problem
from dyncollapse.dynamics._unseen import MOST_PRODUCTS, STABLE, STAGES, Sight

# It is looked into after FIRST steps and again after AGAIN times as many, if LEFT steps of their size are left. Each
# takes STAGES evaluations, and an implicit method some hundreds in all.
FIRST, AGAIN, LEFT = 25, 1.25, 25
# An explicit method that follows what an implicit one did not see is given up after MUCH times the evaluations that
# were expected, and not before ENOUGH. It is judged after JUDGED steps.
MUCH, ENOUGH, JUDGED = 10, 50_000, 200
# Products with the Jacobian for its largest eigenvalue, which is asked for again from the vector that was found last.
PRODUCTS = 10


class Stiffness:
    """Asked after every step of an explicit method, it looks into ever fewer: its products take as long as a step."""

    def __init__(self, problem: Problem, sight: Sight, after: float = 0.0, allowed: float = math.inf) -> None:
        """Begin with any direction, the same one in every run.

        Args:
            problem: The flow, by the explicit method's clock.
            sight: What an implicit method would see.
            after: Flow time until which an implicit method is known not to see something.
            allowed: Evaluations that the explicit method may take for that, until more is expected.
        """
        self._problem, self._sight, self._after = problem, sight, after
        self._steps, self._next, self._allowed = 0, FIRST, allowed
        self.hopeless = False  # whether it was left because the explicit method takes too long
        self._direction = np.random.default_rng(0).standard_normal(len(problem.vector.start))
        self.expected = math.inf  # evaluations that the explicit method would need from where it was left

    def leaves(self, solver: Any) -> bool:
        """Whether an implicit method should go on from here.

        Args:
            solver: An explicit solver of SciPy that has just taken a step.

        Returns:
            True where many steps are left, the last was as long as is stable, and nothing grows unseen.
        """
        self._steps += 1
        if self._steps < self._next:
            return False
        steps, missing = (
            (tick - solver.t) / solver.step_size for tick in (solver.t_bound, self._problem.tick(self._after))
        )
        if self._steps >= JUDGED and STAGES * (self._steps + missing) > self._allowed:
            self.hopeless = True
            return True
        if steps < LEFT:
            return False
        self._next = math.ceil(AGAIN * self._steps)
        t, end = (self._problem.time(tick) for tick in (solver.t, solver.t_bound))
        if t <= self._after or -self._largest(t, solver.y) * self._problem.pace(solver.t) * solver.step_size < STABLE:
            return False
        self.expected = STAGES * steps
        # Steps of an implicit method grow no faster than t. What it does not see after all is seen by a `Lookout`.
        found = self._sight.unseen(t, solver.y, end - t, t, max(MOST_PRODUCTS, self._steps))
        if found.growth is not None:
            self._allowed = max(self._allowed, MUCH * found.growth.evaluations(t, end))
        return found.sure and found.growth is None

    def _largest(self, t: float, y: np.ndarray) -> float:
        """The eigenvalue of largest modulus of dv / dy, by power iteration; 0 where it is not finite."""
        assert self._problem.field.linearise is not None
        along, value = self._problem.field.linearise(t, y), 0.0
        for _ in range(PRODUCTS):
            unit = self._direction / np.linalg.norm(self._direction)
            moved = along.times(unit)
            value = float(unit @ moved)
            if not np.isfinite(moved).all() or not moved.any():
                return 0.0
            self._direction = moved
        return value
