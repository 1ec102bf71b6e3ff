"""The population flow at one point, by compiled functions of NumPy arrays."""

from collections.abc import Callable, Sequence

import numpy as np

from dyncollapse.dynamics._population_compiled import (
    Terms,
    almost_diagonal,
    fill_bases,
    fill_derivative,
    fill_point,
    fill_share,
    fill_solution,
    places_of,
)
from dyncollapse.model.objective import Objective
from dyncollapse.model.pair_moments import Task
from dyncollapse.theory.population import objective_limit

Vector = np.ndarray


class ArrayForm:
    """A flow and the sizes of its arrays."""

    def __init__(
        self, shapes: Sequence[tuple[int, ...]], task: Task, objective: Objective, weight_decay: float
    ) -> None:
        """Prepare the covariances of a float64 task."""
        places, self.point_size, self.bases_size = places_of([(rows, columns) for rows, columns in shapes])
        self.terms = Terms(places, len(shapes), float(weight_decay), *_force(task, objective))

    def point(self, y: Vector) -> "ArrayPoint":
        """Compute everything at y."""
        return ArrayPoint(self, y)


def _force(task: Task, objective: Objective) -> tuple[bool, float, Vector, Vector]:
    """What `Terms` calls quartic, repulsion, factor and constant."""
    if objective.loss == "infonce":
        root = task.seen_root.numpy()
        diagonal = np.diagonal(root).copy()  # numba compiles once more for what nobody may write to
        factor = diagonal[None] if np.array_equal(root, np.diag(diagonal)) else root
        return False, 0.0, np.ascontiguousarray(factor), np.ascontiguousarray(-task.seen[1].numpy())
    limit = objective_limit(task, objective)
    assert limit.repulsion is not None
    metric, growth = (np.ascontiguousarray(matrix.numpy()) for matrix in (limit.metric, limit.growth))
    return True, float(limit.repulsion), metric, growth


class ArrayPoint:
    """Layers and what depends on them."""

    def __init__(self, form: ArrayForm, y: Vector) -> None:
        """Compute it."""
        self._form, self._values, self.velocity = form, np.empty(form.point_size), np.empty(len(y))
        fill_point(y, form.terms, self._values, self.velocity)

    def times(self, direction: Vector) -> Vector:
        """Return J v."""
        derivative = np.empty(len(direction))
        fill_derivative(_writable(direction), self._form.terms, self._values, derivative)
        return derivative

    def preconditioner(self, gamma: float) -> tuple[float, Callable[[Vector], Vector]]:
        """Return the largest share of -gamma J along a mode, and an approximation of v -> (1 - gamma J)^-1 v."""
        terms, bases, gamma = self._form.terms, np.empty(self._form.bases_size), float(gamma)

        def solve(given: Vector) -> Vector:
            solution = np.empty(len(given))
            fill_solution(_writable(given), terms, gamma, bases, solution)
            return solution

        left, right = (np.linalg.eigh(matrix)[1] for matrix in almost_diagonal(terms, self._values))
        fill_bases(np.ascontiguousarray(left.T), np.ascontiguousarray(right), terms, self._values, bases)
        return fill_share(terms, gamma, bases), solve


def _writable(vector: Vector) -> Vector:
    """A copy, since numba compiles functions once more for arrays that nobody may write to."""
    return vector.copy()
