"""The population flow at one point, by PyTorch's tensors, on a GPU."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from dyncollapse.model.objective import Objective
from dyncollapse.model.pair_moments import Task
from dyncollapse.theory.population import objective_limit

Vector = np.ndarray
# Of P: X, and K1 and K2 of dX = -(K1 G K2 + K2 G K1) with G = dP^T P + P^T dP.
Force = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


class TensorForm:
    """A flow and the shapes of its layers."""

    def __init__(
        self, shapes: Sequence[tuple[int, ...]], task: Task, objective: Objective, weight_decay: float
    ) -> None:
        """Prepare the covariances of a float64 task."""
        self.shapes, self.weight_decay, self.device = list(shapes), weight_decay, task.seen[0].device
        self.edges = [0, *itertools.accumulate(out * inside for out, inside in shapes)]
        self.force = _infonce(task) if objective.loss == "infonce" else _quartic(task, objective)

    def point(self, y: Vector) -> "TensorPoint":
        """Compute everything at y."""
        return TensorPoint(self, self.unpack(y))

    def unpack(self, y: Vector) -> list[Tensor]:
        """Cut a vector into layers."""
        values = torch.tensor(y, device=self.device)
        return [
            values[start:stop].reshape(shape)
            for (start, stop), shape in zip(itertools.pairwise(self.edges), self.shapes, strict=True)
        ]

    @staticmethod
    def pack(layers: Sequence[Tensor]) -> Vector:
        """Join layers into a vector."""
        return torch.cat([layer.flatten() for layer in layers]).cpu().numpy()


class TensorPoint:
    """Layers W_1, ..., W_L and what depends on them: their partial products, and Y = P X."""

    def __init__(self, form: TensorForm, layers: list[Tensor]) -> None:
        """Compute them."""
        self._form, self.layers, self.weight_decay = form, layers, form.weight_decay
        # W_{l-1} ... W_1 for each l, and at the end P. None is the identity.
        self.below: list[Tensor | None] = [None]
        for layer in layers:
            self.below.append(_product(layer, self.below[-1]))
        assert self.below[-1] is not None
        self.product = self.below[-1]
        self.force, self.k1, self.k2 = form.force(self.product)
        self.pulled = self.product @ self.force

    @property
    def velocity(self) -> Vector:
        """dW_l / dt = (W_L ... W_{l+1})^T P X (W_{l-1} ... W_1)^T - weight decay."""
        velocities, from_above = [], self.pulled
        for layer, below in zip(reversed(self.layers), self.below[-2::-1], strict=True):
            velocity = from_above if below is None else from_above @ below.mT
            velocities.append(velocity - self.weight_decay * layer if self.weight_decay else velocity)
            if below is not None:
                from_above = layer.mT @ from_above
        return self._form.pack(velocities[::-1])

    def times(self, direction: Vector) -> Vector:
        """J v, the change of the velocities along a direction V_1, ..., V_L: the product rule, term by term."""
        along = self._form.unpack(direction)
        changes: list[Tensor] = []  # of W_l ... W_1, for each l
        for i, v in enumerate(along):
            change = _product(v, self.below[i])
            changes.append(change + self.layers[i] @ changes[-1] if changes else change)
        gram = changes[-1].mT @ self.product
        part = self.k1 @ (gram + gram.mT) @ self.k2
        from_above, d_above = self.pulled, changes[-1] @ self.force - self.product @ (part + part.mT)
        derivatives = []
        for i in reversed(range(len(along))):
            derivative, layer, v, below = d_above, self.layers[i], along[i], self.below[i]
            if below is not None:
                derivative = d_above @ below.mT + from_above @ changes[i - 1].mT
                d_above = v.mT @ from_above + layer.mT @ d_above
                from_above = layer.mT @ from_above
            derivatives.append(derivative - self.weight_decay * v if self.weight_decay else derivative)
        return self._form.pack(derivatives[::-1])

    def preconditioner(self, gamma: float) -> tuple[float, Callable[[Vector], Vector]]:
        """Return the largest share of -gamma J along a mode, and an approximation of v -> (1 - gamma J)^-1 v."""
        decayed, form = 1 + gamma * self.weight_decay, self._form
        left, right = (torch.linalg.eigh(matrix)[1] for matrix in self._bases())
        above = [left.mT if a is None else left.mT @ a for a in self._above()]
        below = [right if b is None else b @ right for b in self.below[:-1]]
        gram = torch.zeros_like(self.product)
        for a, b in zip(above, below, strict=True):
            gram = gram + a.square().sum(1)[:, None] * b.square().sum(0)
        # Directions along which the flow runs away need no damping, and 1 - gamma h could be 0.
        rates = gamma / decayed * self._rates(left, right).clamp(max=0)
        share = rates / (1 - rates * gram)

        def solve(v: Vector) -> Vector:
            given = form.unpack(v)
            change = torch.zeros_like(share)
            for a, r, b in zip(above, given, below, strict=True):
                change = change + a @ r @ b
            change = change * share
            parts = zip(above, given, below, strict=True)
            return form.pack([(r + a.mT @ change @ b.mT) / decayed for a, r, b in parts])

        return -float((rates * gram).min()), solve

    def _above(self) -> list[Tensor | None]:
        """W_L ... W_{l+1} for each l; None is the identity."""
        above: list[Tensor | None] = [None]
        for layer in self.layers[:0:-1]:
            above.append(layer if above[-1] is None else above[-1] @ layer)
        return above[::-1]

    def _bases(self) -> tuple[Tensor, Tensor]:
        """Symmetric matrices (m, m) and (d, d) in whose eigenbases the stiff part of J is almost diagonal."""
        above, below = self._above()[0], self.below[-2]
        if above is None or below is None:  # of one layer J is H itself
            return self.product @ self.k1 @ self.product.mT, self.force
        return above @ above.mT, below.mT @ below

    def _rates(self, left: Tensor, right: Tensor) -> Tensor:
        """Diagonal of H (m, d) in these bases, without the terms that exchange two modes."""
        product = self.product.mT @ left
        exchanged = _diagonal(self.k1, product)[:, None] * _diagonal(self.k2, right)
        exchanged = exchanged + _diagonal(self.k2, product)[:, None] * _diagonal(self.k1, right)
        return _diagonal(self.force, right) - exchanged


def _infonce(task: Task) -> Force:
    """X = N_1 + N_2 - A_e of Eq. 2, N_q = S_e^(1/2) (1 + K)^-q S_e^(1/2) with K = S_e^(1/2) P^T P S_e^(1/2)."""
    a_e, root = task.seen[1], task.seen_root

    def force(product: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen = product @ root
        k = seen.mT @ seen
        k.diagonal().add_(1)
        half = torch.linalg.inv(k) @ root
        first, second = root @ half, half.mT @ half
        # N1 G (N1 + N2) + N2 G N1 is twice the symmetric part of N1 G (N1 / 2 + N2).
        return first + second - a_e, first, first / 2 + second

    return force


def _quartic(task: Task, objective: Objective) -> Force:
    """X = X0 - r M P^T P M of the losses of fourth order in P."""
    limit = objective_limit(task, objective)
    assert limit.repulsion is not None
    growth, metric, rate = limit.growth, limit.metric, limit.repulsion

    def force(product: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen = product @ metric
        return growth - rate * (seen.mT @ seen), rate / 2 * metric, metric

    return force


def _product(upper: Tensor, lower: Tensor | None) -> Tensor:
    return upper if lower is None else upper @ lower


def _diagonal(matrix: Tensor, basis: Tensor) -> Tensor:
    """Diagonal of basis^T matrix basis."""
    return ((matrix @ basis) * basis).sum(0)
