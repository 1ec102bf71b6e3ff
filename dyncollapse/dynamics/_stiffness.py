"""Whether a flow is stiff where an explicit method stands: stability, and not accuracy, keeps its steps short."""

import math
from typing import Any

import numpy as np
from scipy.linalg import eigh_tridiagonal

from dyncollapse.dynamics._problem import Problem

# It is looked into after FIRST steps and again after AGAIN times as many, if LEFT steps of their size are left. Each
# takes STAGES evaluations, and an implicit method some hundreds in all.
FIRST, AGAIN, LEFT, STAGES = 25, 1.5, 50, 12
# Products with the Jacobian for its largest eigenvalue, which is asked for again from the vector that was found last.
PRODUCTS = 10
# Steps h of DOP853 are stable while h |eigenvalue| is below 6.1 (Hairer and Wanner 1996, section IV.2). Held back by
# that they were measured to lie between 5 and 7, and held back by rtol 1e-8 below 2.
STABLE = 4.0
# A direction that grows below the tolerance would be damped by an implicit method's long steps. It does not count if it
# grows by less than a factor e^GROWTH until the end.
GROWTH = 1.0
# Most products for the eigenvalue that grows fastest, unless more steps were taken than that, and most numbers that are
# kept for it. What is known of it is looked at after LOOK more products each time.
MOST_PRODUCTS, MOST_NUMBERS, LOOK = 200, 2**23, 5


class Stiffness:
    """Asked after every step of an explicit method, it looks into ever fewer: its products take as long as a step."""

    def __init__(self, problem: Problem) -> None:
        """Begin with any direction, the same one in every run."""
        self._problem, self._steps, self._next = problem, 0, FIRST
        self._direction = np.random.default_rng(0).standard_normal(len(problem.vector.start))
        self.expected = math.inf  # evaluations that the explicit method would need from where it was left

    def leaves(self, solver: Any) -> bool:
        """Whether an implicit method should go on from here.

        Args:
            solver: An explicit solver of SciPy that has just taken a step.

        Returns:
            True where many steps are left, the last was as long as is stable, and nothing grows.
        """
        self._steps += 1
        steps = (solver.t_bound - solver.t) / solver.step_size
        if self._steps < self._next or steps < LEFT:
            return False
        self._next = math.ceil(AGAIN * self._steps)
        t, end = (self._problem.time(tick) for tick in (solver.t, solver.t_bound))
        if -self._largest(t, solver.y) * self._problem.pace(solver.t) * solver.step_size < STABLE:
            return False
        self.expected = STAGES * steps
        return self.growth(t, solver.y, end - t) == 0

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

    def growth(self, t: float, y: np.ndarray, duration: float) -> float | None:
        """A rate at which a direction grows at y, if that counts after some time, by the method of Lanczos.

        Args:
            t: Flow time.
            y: Where.
            duration: For how long it could grow.

        Returns:
            At most the largest eigenvalue of dv / dy, which is symmetric; 0 where that is known to be too small to
            count, and None where as many products as are allowed leave it open.
        """
        assert self._problem.field.linearise is not None
        along, rate = self._problem.field.linearise(t, y), GROWTH / duration
        basis = np.empty((min(len(y), max(MOST_PRODUCTS, self._steps), max(1, MOST_NUMBERS // len(y))), len(y)))
        diagonal, beside = list[float](), list[float]()
        velocity = self._problem.field.velocity(t, y)  # has most of what grows fast
        vector = np.random.default_rng(0).standard_normal(len(y))
        vector += velocity * np.linalg.norm(vector) / (2 * np.linalg.norm(velocity) or 1.0)
        left = float(np.linalg.norm(vector))
        for k in range(len(basis)):
            basis[k] = vector / left
            moved = along.times(basis[k])
            diagonal.append(float(basis[k] @ moved))
            known = basis[: k + 1]
            vector = moved - known.T @ (known @ moved)
            vector -= known.T @ (known @ vector)  # once more, against round-off
            left = float(np.linalg.norm(vector))
            if not math.isfinite(left):
                return None
            last = left <= np.finfo(float).eps * max(map(abs, diagonal)) or k == len(basis) - 1
            if last or k % LOOK == LOOK - 1:
                (largest,), vectors = eigh_tridiagonal(diagonal, beside, select="i", select_range=(k, k))
                if largest > rate:
                    return float(largest)
                if left * abs(vectors[-1, 0]) < rate / 2:
                    return 0.0
            if last:
                break
            beside.append(left)
        return None if len(basis) < len(y) else 0.0
