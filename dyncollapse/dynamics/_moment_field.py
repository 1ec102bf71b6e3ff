"""The flow of a linear network under BYOL and SimSiam as a vector field in NumPy.

A fast form of `SelfDistillation.moment_gradient` and `moment_curvature`; the tests hold them equal. With PyTorch's
tensors small networks took three times as long.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from dyncollapse.dynamics._last_point import LastPoint
from dyncollapse.dynamics._layer_arrays import LayerArrays, cut
from dyncollapse.dynamics.equation import Linearisation
from dyncollapse.model.self_distillation import OnlineMoments, SelfDistillation

Vector = np.ndarray


class MomentField:
    """dy / dt for one run, where y holds the entries of the layers, of the predictor and of BYOL's target, in turn."""

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        moments: OnlineMoments,
        objective: SelfDistillation,
        weight_decay: float = 0.0,
    ) -> None:
        """Prepare the moments.

        Args:
            shapes: Of W_1, ..., W_L.
            moments: Of a task, or of batches, in float64.
            objective: Rates of predictor and target.
            weight_decay: Acts on weights and predictor.
        """
        self.online, self.cross = moments.online.numpy(), moments.cross.numpy()
        self.rate, self._target_rate, self._weight_decay = objective.predictor_rate, objective.target_rate, weight_decay
        self.depth, outputs = len(shapes), shapes[-1][0]
        self._shapes = [*shapes, (outputs, outputs), *(shapes if objective.target_rate is not None else ())]
        self._ends = [*itertools.accumulate(map(math.prod, self._shapes), initial=0)]
        self._at = LastPoint(lambda y: MomentPoint(self, y))

    def velocity(self, _t: float, y: Vector) -> Vector:
        """Return dy / dt, which the caller leaves as it is."""
        return self._at(y).velocity

    def linearise(self, _t: float, y: Vector) -> "MomentPoint":
        """Return the derivative of the velocity at y."""
        return self._at(y)

    def matrices(self, y: Vector) -> list[Vector]:
        """The layers, the predictor and the target's layers, or a direction of all."""
        return cut(y, self._ends, self._shapes)

    def moving(self, gradients: Sequence[Vector], y: Vector) -> Vector:
        """Velocity at y from the gradients of all that learns, or its change along y from theirs: both are linear."""
        layers, learnt = self._ends[self.depth], self._ends[self.depth + 1]
        moving = [-np.concatenate([gradient.ravel() for gradient in gradients])]
        if self._weight_decay:
            moving[0] -= self._weight_decay * y[:learnt]
        if self._target_rate is not None:
            moving.append(self._target_rate * (y[:layers] - y[learnt:]))
        return np.concatenate(moving)


class MomentPoint(Linearisation):
    """The velocity at one y, and its derivative."""

    def __init__(self, field: MomentField, y: Vector) -> None:
        """Compute the velocity."""
        self._field, matrices = field, field.matrices(y)
        self._layers, self._predictor = LayerArrays(matrices[: field.depth]), matrices[field.depth]
        target = matrices[field.depth + 1 :]
        self._target = LayerArrays(target) if target else self._layers
        product = self._layers.product
        self._residual = self._predictor @ product @ field.online - self._target.product @ field.cross
        pulled, self._behind = self._layers.pulled(self._predictor.T @ self._residual)
        self.velocity = field.moving([*pulled, field.rate * (self._residual @ product.T)], y)

    def times(self, direction: Vector) -> Vector:
        """Return J v: every product that the velocity is made of, by the product rule."""
        field, changes = self._field, self._field.matrices(direction)
        layers, turned, target = changes[: field.depth], changes[field.depth], changes[field.depth + 1 :]
        moved = self._layers.moved(layers)
        goal_moved = (self._target.moved(target) if target else moved)[-1]
        product, of_product = self._layers.product, moved[-1]
        change = (turned @ product + self._predictor @ of_product) @ field.online - goal_moved @ field.cross
        top = turned.T @ self._residual + self._predictor.T @ change
        pulled = self._layers.pulled_along(self._behind, top, layers, moved)
        of_predictor = field.rate * (change @ product.T + self._residual @ of_product.T)
        return field.moving([*pulled, of_predictor], direction)
