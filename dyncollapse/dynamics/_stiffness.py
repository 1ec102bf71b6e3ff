"""Whether a flow is stiff where an explicit method stands: stability, and not accuracy, keeps its steps short."""

import math
from typing import Any

import numpy as np

from dyncollapse.dynamics._problem import Problem

# It is looked into after FIRST steps and again after AGAIN times as many, if LEFT steps of their size are left. Each
# takes 12 evaluations, and an implicit method some hundreds in all.
FIRST, AGAIN, LEFT = 25, 1.5, 50
# Products with the Jacobian for its largest eigenvalue, which is asked for again from the vector that was found last.
PRODUCTS = 10
# Steps h of DOP853 are stable while h |eigenvalue| is below 6.1 (Hairer and Wanner 1996, section IV.2). Held back by
# that they were measured to lie between 5 and 7, and held back by rtol 1e-8 below 2.
STABLE = 4.0


class Stiffness:
    """Asked after every step of an explicit method, it looks into ever fewer: its products take as long as a step."""

    def __init__(self, problem: Problem) -> None:
        """Begin with any direction, the same one in every run."""
        self._problem, self._steps, self._next = problem, 0, FIRST
        self._direction = np.random.default_rng(0).standard_normal(len(problem.vector.start))

    def leaves(self, solver: Any) -> bool:
        """Whether an implicit method should go on from here.

        Args:
            solver: An explicit solver of SciPy that has just taken a step.

        Returns:
            True where many steps are left and the last was as long as is stable.
        """
        self._steps += 1
        if self._steps < self._next or (solver.t_bound - solver.t) < LEFT * solver.step_size:
            return False
        self._next = math.ceil(AGAIN * self._steps)
        return -self._eigenvalue(solver.t, solver.y) * self._problem.pace(solver.t) * solver.step_size > STABLE

    def _eigenvalue(self, tick: float, y: np.ndarray) -> float:
        """The eigenvalue of largest modulus of dv / dy, by power iteration; 0 where it is not finite."""
        assert self._problem.field.linearise is not None
        along, value = self._problem.field.linearise(self._problem.time(tick), y), 0.0
        for _ in range(PRODUCTS):
            unit = self._direction / np.linalg.norm(self._direction)
            moved = along.times(unit)
            value = float(unit @ moved)
            if not np.isfinite(moved).all() or not moved.any():
                return 0.0
            self._direction = moved
        return value
