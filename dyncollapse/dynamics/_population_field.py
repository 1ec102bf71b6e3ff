"""The population flow as a vector field: velocity, derivative along a direction and preconditioner, without matrices.

Fast forms of formulas that stand readable in `theory.population` and `model.networks`; the tests hold them equal. On a
CPU they are compiled, since each of NumPy's calls takes several times as long as a small product. On a GPU they are
PyTorch's.

About the preconditioner. The layers see each other through P: J = A^T H A but for terms that vanish with the force,
where A v is the change of P along v and H the derivative of P X with respect to P. Then

    (1 - gamma J)^-1 = 1 + gamma A^T (1 - gamma H A A^T)^-1 H A.

For two layers A A^T = W_2 W_2^T x 1 + 1 x W_1^T W_1, a sum of Kronecker products. In the eigenbases of both, and with
the diagonal of H there, all of it is division by numbers. Three layers have a third term with eigenvectors of its own.
Without it the iterations were measured to be more than without a preconditioner.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Protocol, runtime_checkable

import numpy as np

from dyncollapse.dynamics._last_point import LastPoint
from dyncollapse.dynamics._population_tensors import TensorForm
from dyncollapse.model.objective import Objective
from dyncollapse.model.pair_moments import Task

# Size of gamma J from which its approximate inverse saves more iterations than it costs. A rule of thumb.
WORTH_SOLVING = 1.0
# Flows of at most so many entries are solved without it, since each call of the solver takes longer than a small
# product: together those of a size then took 0.76 to 1.04 of the time.
FEW_ENTRIES = 128

Vector = np.ndarray


@runtime_checkable
class Point(Protocol):
    """Everything that the flow needs at one y."""

    @property
    def velocity(self) -> Vector:
        """The velocity dy / dt."""

    def times(self, direction: Vector) -> Vector:
        """Return J v."""

    def preconditioner(self, gamma: float) -> tuple[float, Callable[[Vector], Vector]]:
        """Return the largest share of -gamma J along a mode, and an approximation of v -> (1 - gamma J)^-1 v."""


class PopulationField:
    """dy / dt for one run, where y holds the entries of W_1, ..., W_L, each row by row."""

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        task: Task,
        objective: Objective,
        weight_decay: float = 0.0,
        library: ModuleType | None = None,
    ) -> None:
        """Prepare the covariances of a float64 task for layers of these shapes (out, in).

        Args:
            shapes: Of W_1, ..., W_L.
            task: Covariances and view convention.
            objective: A named loss with a population limit, with linear layers.
            weight_decay: Its product with the weights is subtracted from the velocity.
            library: numpy or torch; numpy unless given or the task is on a GPU.
        """
        entries = sum(rows * columns for rows, columns in shapes)
        self.preconditioned = len(shapes) <= 2 and entries > FEW_ENTRIES
        self._at: Callable[[Vector], Point]
        if library is np or (library is None and task.seen[0].device.type == "cpu"):
            from dyncollapse.dynamics._population_arrays import ArrayForm  # imports numba

            self._at = LastPoint(ArrayForm(shapes, task, objective, weight_decay).point)
        else:
            self._at = LastPoint(TensorForm(shapes, task, objective, weight_decay).point)

    def velocity(self, _t: float, y: Vector) -> Vector:
        """Return dy / dt, which the caller leaves as it is."""
        return self._at(y).velocity

    def linearise(self, _t: float, y: Vector) -> "Linearisation":
        """Return the derivative of the velocity at y."""
        return Linearisation(self._at(y))


class Linearisation:
    """The derivative J of the velocity at one point: products with it, and an approximate inverse of 1 - gamma J."""

    def __init__(self, point: Point) -> None:
        """Keep the point."""
        self._point = point

    def times(self, direction: Vector) -> Vector:
        """Return J v."""
        return self._point.times(direction)

    def preconditioner(self, gamma: float) -> Callable[[Vector], Vector] | None:
        """Return an approximation of v -> (1 - gamma J)^-1 v, or None where gamma J is small and 1 will do.

        Args:
            gamma: At least 0.

        Returns:
            A linear function of vectors, or None.
        """
        largest, solve = self._point.preconditioner(gamma)
        return None if largest < WORTH_SOLVING else solve
