"""The population flow as a vector field: velocity, derivative along a direction and preconditioner, without matrices.

Fast forms of formulas that stand readable in `theory.population` and `model.networks`; the tests hold them equal. The
functions take NumPy arrays on a CPU, where small products cost half of PyTorch's, and PyTorch's on a GPU.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch

from dyncollapse.model.objective import Objective
from dyncollapse.model.pair_moments import Task
from dyncollapse.theory.population import objective_limit

# Size of gamma J from which its approximate inverse saves more iterations than it costs. A rule of thumb.
WORTH_SOLVING = 1.0

Matrix = Any  # an array of NumPy or of PyTorch
Vector = np.ndarray


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
        self.preconditioned = len(shapes) <= 2
        self.shapes, self.weight_decay = list(shapes), weight_decay
        self.edges = [0, *itertools.accumulate(out * inside for out, inside in shapes)]
        self.device = task.seen[0].device
        self.library: Any = library or (np if self.device.type == "cpu" else torch)
        self._force = _infonce(task, self) if objective.loss == "infonce" else _quartic(task, objective, self)
        self._last: tuple[bytes, _Point] | None = None

    def velocity(self, _t: float, y: Vector) -> Vector:
        """Return dy / dt."""
        return self.pack(self._at(y).velocities())

    def linearise(self, _t: float, y: Vector) -> "Linearisation":
        """Return the derivative of the velocity at y."""
        return Linearisation(self, self._at(y))

    def _at(self, y: Vector) -> "_Point":
        # Solvers ask for the derivative where they have asked for the velocity.
        place = y.tobytes()
        if self._last is None or self._last[0] != place:
            # Of a copy: solvers write the next state over this one.
            self._last = place, _Point(self.unpack(np.frombuffer(place)), self._force, self.weight_decay)
        return self._last[1]

    def array(self, values: torch.Tensor) -> Matrix:
        """Take a tensor into the library of this field."""
        return values.numpy() if self.library is np else values

    def unpack(self, y: Vector) -> list[Matrix]:
        """Cut a vector into layers."""
        values: Matrix = y if self.library is np else torch.tensor(y, device=self.device)
        return [
            values[start:stop].reshape(shape)
            for (start, stop), shape in zip(itertools.pairwise(self.edges), self.shapes, strict=True)
        ]

    def pack(self, layers: Sequence[Matrix]) -> Vector:
        """Join layers into a vector."""
        if self.library is np:
            return np.concatenate([layer.ravel() for layer in layers])
        return torch.cat([layer.flatten() for layer in layers]).cpu().numpy()


class Linearisation:
    """The derivative J of the velocity at one point: products with it, and an approximate inverse of 1 - gamma J."""

    def __init__(self, field: PopulationField, point: "_Point") -> None:
        """Keep the point."""
        self._field, self._point = field, point

    def times(self, direction: Vector) -> Vector:
        """Return J v."""
        return self._field.pack(self._point.derivatives(self._field.unpack(direction)))

    def preconditioner(self, gamma: float) -> Callable[[Vector], Vector] | None:
        """Return an approximation of v -> (1 - gamma J)^-1 v, or None where gamma J is small and 1 will do.

        The layers see each other through P: J = A^T H A but for terms that vanish with the force, where A v is the
        change of P along v and H the derivative of P X with respect to P. Then

            (1 - gamma J)^-1 = 1 + gamma A^T (1 - gamma H A A^T)^-1 H A.

        For two layers A A^T = W_2 W_2^T x 1 + 1 x W_1^T W_1, a sum of Kronecker products. In the eigenbases of both,
        and with the diagonal of H there, all of it is division by numbers. Three layers have a third term with
        eigenvectors of its own. Without it the iterations were measured to be more than without a preconditioner.

        Args:
            gamma: At least 0.

        Returns:
            A linear function of vectors, or None.
        """
        decayed = 1 + gamma * self._field.weight_decay
        gamma = gamma / decayed
        point, field = self._point, self._field
        left, right = (field.library.linalg.eigh(matrix)[1] for matrix in point.bases())
        above = [left.swapaxes(0, 1) if a is None else left.swapaxes(0, 1) @ a for a in point.above()]
        below = [right if b is None else b @ right for b in point.below[:-1]]
        gram: Matrix = 0
        for a, b in zip(above, below, strict=True):
            gram = gram + (a * a).sum(1)[:, None] * (b * b).sum(0)
        # Directions along which the flow runs away need no damping, and 1 - gamma h could be 0.
        rates = gamma * point.rates(left, right).clip(max=0)
        if -(rates * gram).min() < WORTH_SOLVING:
            return None
        share = rates / (1 - rates * gram)

        def solve(v: Vector) -> Vector:
            given = field.unpack(v)
            change: Matrix = 0
            for a, r, b in zip(above, given, below, strict=True):
                change = change + a @ r @ b
            change = change * share
            parts = zip(above, given, below, strict=True)
            return field.pack([(r + a.swapaxes(0, 1) @ change @ b.swapaxes(0, 1)) / decayed for a, r, b in parts])

        return solve


class _Point:
    """Layers W_1, ..., W_L and what depends on them: their partial products, and Y = P X."""

    def __init__(self, layers: list[Matrix], force: "Callable[[Matrix], _Force]", weight_decay: float) -> None:
        self.layers, self.weight_decay = layers, weight_decay
        # W_{l-1} ... W_1 for each l, and at the end P. None is the identity.
        self.below: list[Matrix | None] = [None]
        for layer in layers:
            self.below.append(_product(layer, self.below[-1]))
        self.product: Matrix = self.below[-1]
        self.force = force(self.product)
        self.pulled = self.product @ self.force.matrix

    def velocities(self) -> list[Matrix]:
        """dW_l / dt = (W_L ... W_{l+1})^T P X (W_{l-1} ... W_1)^T - weight decay."""
        velocities, from_above = [], self.pulled
        for layer, below in zip(reversed(self.layers), self.below[-2::-1], strict=True):
            velocity = from_above if below is None else from_above @ below.swapaxes(0, 1)
            velocities.append(velocity - self.weight_decay * layer if self.weight_decay else velocity)
            if below is not None:
                from_above = layer.swapaxes(0, 1) @ from_above
        return velocities[::-1]

    def derivatives(self, direction: list[Matrix]) -> list[Matrix]:
        """Change of the velocities along a direction V_1, ..., V_L: the product rule, term by term."""
        changes: list[Matrix] = []  # of W_l ... W_1, for each l
        for i, v in enumerate(direction):
            change = _product(v, self.below[i])
            changes.append(change + self.layers[i] @ changes[-1] if changes else change)
        gram = changes[-1].swapaxes(0, 1) @ self.product
        d_force = self.force.derivative(gram + gram.swapaxes(0, 1))
        from_above, d_above = self.pulled, changes[-1] @ self.force.matrix + self.product @ d_force
        derivatives = []
        for i in reversed(range(len(direction))):
            derivative, layer, v, below = d_above, self.layers[i], direction[i], self.below[i]
            if below is not None:
                derivative = d_above @ below.swapaxes(0, 1) + from_above @ changes[i - 1].swapaxes(0, 1)
                d_above = v.swapaxes(0, 1) @ from_above + layer.swapaxes(0, 1) @ d_above
                from_above = layer.swapaxes(0, 1) @ from_above
            derivatives.append(derivative - self.weight_decay * v if self.weight_decay else derivative)
        return derivatives[::-1]

    def above(self) -> list[Matrix | None]:
        """W_L ... W_{l+1} for each l; None is the identity."""
        above: list[Matrix | None] = [None]
        for layer in self.layers[:0:-1]:
            above.append(layer if above[-1] is None else above[-1] @ layer)
        return above[::-1]

    def bases(self) -> tuple[Matrix, Matrix]:
        """Symmetric matrices (m, m) and (d, d) in whose eigenbases the stiff part of J is almost diagonal."""
        above, below = self.above()[0], self.below[-2]
        if above is None or below is None:  # of one layer J is H itself
            return self.product @ self.force.left[0] @ self.product.swapaxes(0, 1), self.force.matrix
        return above @ above.swapaxes(0, 1), below.swapaxes(0, 1) @ below

    def rates(self, left: Matrix, right: Matrix) -> Matrix:
        """Diagonal of H (m, d) in these bases, without the terms that exchange two modes."""
        rates = _diagonal(self.force.matrix, right)[None]
        product = self.product.swapaxes(0, 1) @ left
        for inner, outer in zip(self.force.left, self.force.right, strict=True):
            rates = rates - _diagonal(inner, product)[:, None] * _diagonal(outer, right)
        return rates


@dataclass(frozen=True)
class _Force:
    """X at one P, the L_i and R_i of dX = -sum_i L_i (dP^T P + P^T dP) R_i, and that sum as a function."""

    matrix: Matrix
    left: list[Matrix]
    right: list[Matrix]
    derivative: Callable[[Matrix], Matrix]


def _infonce(task: Task, field: PopulationField) -> Callable[[Matrix], _Force]:
    """X = N_1 + N_2 - A_e of Eq. 2, N_q = S_e^(1/2) (1 + K)^-q S_e^(1/2) with K = S_e^(1/2) P^T P S_e^(1/2)."""
    a_e, root = field.array(task.seen[1]), task.seen_root
    diagonal = torch.equal(root, torch.diag(root.diagonal()))
    factor = field.array(root.diagonal() if diagonal else root)

    def times_root(matrix: Matrix) -> Matrix:
        return matrix * factor if diagonal else matrix @ factor

    def force(product: Matrix) -> _Force:
        seen = times_root(product)
        k = seen.swapaxes(0, 1) @ seen
        k.reshape(-1)[:: len(k) + 1] += 1
        half = times_root(field.library.linalg.inv(k))
        first, second = times_root(half.swapaxes(0, 1)), half.swapaxes(0, 1) @ half
        both, middle = first + second, first / 2 + second

        def derivative(gram: Matrix) -> Matrix:
            # N1 G (N1 + N2) + N2 G N1 is twice the symmetric part of N1 G (N1 / 2 + N2).
            part = first @ gram @ middle
            return -(part + part.swapaxes(0, 1))

        return _Force(both - a_e, [first, second], [both, first], derivative)

    return force


def _quartic(task: Task, objective: Objective, field: PopulationField) -> Callable[[Matrix], _Force]:
    """X = X0 - r M P^T P M of the losses of fourth order in P."""
    limit = objective_limit(task, objective)
    assert limit.repulsion is not None
    growth, metric, rate = field.array(limit.growth), field.array(limit.metric), limit.repulsion
    repulsion = rate * metric

    def derivative(gram: Matrix) -> Matrix:
        return -repulsion @ gram @ metric

    def force(product: Matrix) -> _Force:
        seen = product @ metric
        return _Force(growth - rate * (seen.swapaxes(0, 1) @ seen), [repulsion], [metric], derivative)

    return force


def _product(upper: Matrix, lower: Matrix | None) -> Matrix:
    return upper if lower is None else upper @ lower


def _diagonal(matrix: Matrix, basis: Matrix) -> Matrix:
    """Diagonal of basis^T matrix basis."""
    return ((matrix @ basis) * basis).sum(0)
