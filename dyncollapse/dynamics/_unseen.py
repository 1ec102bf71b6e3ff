"""Whether something grows that a solver does not see: a direction in which the state is below its tolerance.

Long implicit steps damp such a direction instead of following it, and the flow stays at a saddle that it should leave.
A direction that the solver sees holds its steps short.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh_tridiagonal

from dyncollapse.dynamics._problem import Watch
from dyncollapse.dynamics.equation import Field

# Most products for the eigenvalues of one point unless more are allowed, and most numbers that are kept for them.
MOST_PRODUCTS, MOST_NUMBERS = 200, 2**23
# What is known is looked at after LOOK more products and after a share OFTEN more.
LOOK, OFTEN = 5, 0.2
# A direction counts if it grows by more than e^GROWTH in a step. Whether the state has a component along it can be told
# once its residual is below this share of its rate.
GROWTH, KNOWN = 1.0, 1e-6
# A direction of which no more than this share lies outside of entries that are 0 and stay so has a component of 0.
# They stay below this share of the largest weight: linear solutions leave round-off in them.
ELSEWHERE, ROUND_OFF = 1e-3, 1e-12
# The state's component along a direction is seen where it is so many times the tolerance. Errors are about as large as
# that: with 1, the escape of a mode was measured to come 2 % too early, with 10 0.3 %, with 100 0.01 %.
CLEARLY = 100
# Directions of growth are those of a saddle where the flow is quiet: the state moves more slowly than they grow by so
# much. Elsewhere they are those of a moment.
QUIET = 10
# An implicit method's steps are looked at where time has gone on by this factor, and products for that are below this
# share of its own work. A look takes what is left of that share, or FEW: what grows is found before what hardly decays.
AGAIN, SHARE, FEW = 2.0, 0.05, 40
# Steps h of DOP853 are stable while h |eigenvalue| is below 6.1 (Hairer and Wanner 1996, section IV.2). Held back by
# that they were measured to lie between 5 and 7, and held back by rtol 1e-8 below 2. Each takes STAGES evaluations.
STABLE, STAGES = 4.0, 12
# What the record calls the time from which something may have been stepped over.
UNSEEN = "unseen_from"


class Growth(NamedTuple):
    """A direction that grows from below the tolerance.

    Attributes:
        rate: Of its growth, per unit of time.
        wait: Time until its component is seen.
        decay: The largest rate of decay that was met beside it.
    """

    rate: float
    wait: float
    decay: float

    def evaluations(self, t: float, end: float) -> float:
        """Evaluations that an explicit method takes from 0 until it is seen, if it was found at t, or to the end."""
        return STAGES * min(t + self.wait, end) * self.decay / STABLE


class Answer(NamedTuple):
    """What was found at one point.

    Attributes:
        growth: What grows unseen, or None.
        sure: Whether every rate of growth was found. Else products ran out. Directions of equal rates count as one.
        products: How many were taken.
        stable: Whether nothing grows, seen or not.
    """

    growth: Growth | None
    sure: bool
    products: int
    stable: bool = False


Product = Callable[[np.ndarray], np.ndarray]


def unseen_growth(
    along: Product,
    velocity: np.ndarray,
    tolerance: np.ndarray,
    *,
    duration: float,
    slowest: float,
    still: np.ndarray | None = None,
    most: int = MOST_PRODUCTS,
) -> Answer:
    """Look for a direction that is below the tolerance, and will not stay there, by the method of Lanczos.

    Args:
        along: v -> J v with the derivative J = dv / dy, which is symmetric.
        velocity: dy / dt; its component along a direction of rate r is r times the state's.
        tolerance: Error of every entry that the solver does not see.
        duration: For how long it could grow.
        slowest: The slowest rate that counts.
        still: Whether an entry is 0 and does not move; none unless given.
        most: Products that may be taken.

    Returns:
        The first one that was found.
    """
    size, done = len(velocity), 0
    random = np.random.default_rng(0).standard_normal(size)
    start = random + velocity * np.linalg.norm(random) / (2 * np.linalg.norm(velocity) or 1.0)
    for basis, values, vectors, residuals in _ritz(along, start, max(1, min(size, most, MOST_NUMBERS // size))):
        done = len(basis)
        grows = values > slowest
        clear = grows & (residuals < KNOWN * values)
        components = vectors[:, clear].T @ (basis @ velocity) / values[clear]
        for rate, component, direction in zip(values[clear], components, vectors[:, clear].T @ basis, strict=True):
            if still is not None and np.linalg.norm(direction[~still]) < ELSEWHERE:
                continue
            seen = float(np.max(np.abs(component * direction) / tolerance)) / CLEARLY
            if 0 < seen < 1 and -math.log(seen) < rate * duration:
                growth = Growth(float(rate), -math.log(seen) / float(rate), max(0.0, -float(values[0])))
                return Answer(growth, True, done)
        below = max(0, int(np.count_nonzero(~grows)) - 1)  # the fastest of the others
        if done == size or (clear.sum() == grows.sum() and residuals[below] < slowest / 2):
            return Answer(None, True, done, stable=not grows.any())
    return Answer(None, False, done)


def _ritz(
    along: Product, start: np.ndarray, most: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield a basis (k, n), Ritz values in rising order, their vectors (k, k) in that basis, and residuals (k,)."""
    basis, diagonal, beside, look = np.empty((most, len(start))), list[float](), list[float](), LOOK
    vector, left = start, float(np.linalg.norm(start))
    for k in range(most):
        basis[k] = vector / left
        moved = along(basis[k])
        diagonal.append(float(basis[k] @ moved))
        known = basis[: k + 1]
        vector = moved - known.T @ (known @ moved)
        vector -= known.T @ (known @ vector)  # once more, against round-off
        left = float(np.linalg.norm(vector))
        if not math.isfinite(left):
            return
        ended = left <= np.finfo(float).eps * max(map(abs, diagonal))
        if ended or k == most - 1 or k + 1 >= look:
            look = max(k + 1 + LOOK, math.ceil((1 + OFTEN) * (k + 1)))
            values, vectors = eigh_tridiagonal(diagonal, beside)
            yield known, values, vectors, left * np.abs(vectors[-1])
        if ended:
            return
        beside.append(left)


class Sight:
    """What an implicit method with certain tolerances sees of a flow."""

    def __init__(
        self, field: Field, start: np.ndarray, rtol: float, tolerances: np.ndarray, loose: float = 0.0
    ) -> None:
        """Keep the flow and the tolerances.

        Args:
            field: The flow, with `linearise`.
            start: Where it starts. What is 0 there and does not move grows from nothing.
            rtol: Relative tolerance.
            tolerances: Absolute tolerance of every entry.
            loose: Smallest absolute tolerance, over rtol and the largest weight.
        """
        self._field, self._rtol, self._tolerances, self._loose = field, rtol, tolerances, loose
        self._zeros = (start == 0) & (field.velocity(0.0, start) == 0)

    def tolerances(self, y: np.ndarray) -> np.ndarray:
        """Absolute tolerance of every entry for a flow that goes on from y."""
        return np.maximum(self._tolerances, self._loose * self._rtol * np.abs(y).max())

    def unseen(self, t: float, y: np.ndarray, duration: float, step: float, most: int = MOST_PRODUCTS) -> Answer:
        """Look at one point.

        Args:
            t: Flow time.
            y: The state.
            duration: For how long something could grow.
            step: The implicit method's longest step. Where the flow is not quiet, what grows by less than e^GROWTH in
                it does not count.
            most: Products that may be taken.

        Returns:
            What was found.
        """
        assert self._field.linearise is not None
        along, velocity = self._field.linearise(t, y), self._field.velocity(t, y)
        tolerance = self.tolerances(y) + self._rtol * np.abs(y)
        largest = float(np.abs(y).max())
        drift = QUIET * float(np.abs(velocity).max()) / (largest or 1.0)
        until_end, in_step = (GROWTH / max(time, np.finfo(float).tiny) for time in (duration, step))
        slowest = max(until_end, min(in_step, drift))
        still = self._zeros & (np.abs(y) <= ROUND_OFF * largest)
        return unseen_growth(
            along.times, velocity, tolerance, duration=duration, slowest=slowest, still=still, most=most
        )


class Lookout:
    """Asked after every step of an implicit method, it looks where its products are at most SHARE of the method's own.

    It looks at the last step in any case. Where an explicit method would take too long, it says so in the record.
    """

    def __init__(self, sight: Sight, watch: Watch) -> None:
        """Begin where the method begins."""
        self._sight, self._watch, self._start = sight, watch, watch.evaluations + watch.products
        self._looked, self._products = watch.last[0] if watch.last else 0.0, 0
        self._before, self._longest = self._looked, 0.0  # end of the last step, and the longest since the last look
        self.growth: Growth | None = None  # what was found last
        self.left, self.stays = False, False  # whether it said so, and whether it does no more

    def leaves(self) -> bool:
        """Whether an explicit method should go back to where this one began, since something grows unseen."""
        assert self._watch.last is not None
        (t, y), ended = self._watch.last, self._watch.is_done()
        self._before, self._longest = t, max(self._longest, t - self._before)
        work = self._watch.evaluations + self._watch.products - self._start
        if not ended and (t < AGAIN * self._looked or self._products > SHARE * work):
            return False
        # It could have been damped since the last look.
        duration, most = self._watch.end - self._looked, int(SHARE * work) - self._products
        found = self._sight.unseen(t, y, duration, self._longest, max(FEW, min(most, MOST_PRODUCTS)))
        before, self.growth = self.growth, found.growth
        self._looked, self._longest, self._products = t, 0.0, self._products + found.products
        if found.growth is None:
            if found.stable:
                self._watch.switched.pop(UNSEEN, None)
            return False
        allowed = self._watch.most_evaluations - self._watch.evaluations
        self.left = not self.stays and found.growth.evaluations(t, self._watch.end) <= allowed
        if not self.left and (before is not None or ended):  # what is found once can be of a moment
            self._watch.switched.setdefault(UNSEEN, t)
        return self.left
