"""The sample flow of a linear network as a vector field in NumPy, for losses whose force is compiled.

A fast form of `Objective.gradient`, `curvature` and `value`; the tests hold them equal. PyTorch's calls would add a
third to the time of a small network's force.
"""

import itertools
from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from dyncollapse.dynamics._last_point import LastPoint
from dyncollapse.dynamics._layer_arrays import LayerArrays, cut, multiplied
from dyncollapse.dynamics._on_arrays import force_settings
from dyncollapse.dynamics.equation import Linearisation
from dyncollapse.model._kernels import compiled
from dyncollapse.model.networks import Weights
from dyncollapse.model.objective import Objective
from dyncollapse.model.pairs import Pairs

Vector = np.ndarray


class SampleField:
    """dy / dt for one run, where y holds the entries of W_1, ..., W_L and then of the biases, each row by row."""

    def __init__(
        self,
        weights: Weights,
        pairs: Pairs,
        objective: Objective,
        weight_decay: float = 0.0,
        *,
        biased: bool = False,
    ) -> None:
        """Prepare the batches.

        Args:
            weights: Layers of the shapes of W_1, ..., W_L.
            pairs: Views (*batches, n, d).
            objective: A loss for which `on_arrays` holds.
            weight_decay: Its product with the parameters is subtracted from the velocity.
            biased: Whether every layer has a bias.
        """
        self._shapes, self._weight_decay = [tuple(w.shape) for w in weights], weight_decay
        self._ends = [*itertools.accumulate((w.numel() for w in weights), initial=0)]
        self._views = [_array(view) for view in (pairs.anchor, pairs.positive)]
        # Eq. 2 sees differences of embeddings alone, so no offset moves it.
        self._affine = biased and objective.loss != "infonce"
        self._loss, self._settings = objective.name, force_settings(objective, pairs.views)
        self._at = LastPoint(lambda y: SamplePoint(self, y))

    def velocity(self, _t: float, y: Vector) -> Vector:
        """Return dy / dt, which the caller leaves as it is: the force, pulled back to the layers (Lemmas 2 and 3).

        NumPy may warn of overflow.
        """
        return self._at(y).velocity

    def linearise(self, _t: float, y: Vector) -> "SamplePoint":
        """Return the derivative of the velocity at y."""
        return self._at(y)

    def force(self, product: Vector) -> Vector:
        """X at P, averaged over the batches."""
        return self._mean("forces", product)

    def force_along(self, product: Vector, change: Vector) -> Vector:
        """The derivative of X at P along a change of P."""
        half = product.T @ change  # of the derivative of P^T P
        return self._mean("forces_along", np.concatenate([product, half + half.T]))

    def _mean(self, name: str, matrices: Vector) -> Vector:
        inputs = matrices.shape[-1]
        found = compiled(f"{self._loss}_{name}", [matrices[None], *self._views], self._settings, (inputs, inputs))
        return found.mean(0)

    def loss(self, parameters: Sequence[Tensor]) -> Tensor:
        """Return the loss, averaged over the batches, of float64 layers and biases."""
        with np.errstate(over="ignore", invalid="ignore"):
            product = reduce(multiplied, self.layers(np.concatenate([p.numpy().ravel() for p in parameters])))
        losses = compiled(f"{self._loss}_losses", [product[None], *self._views], self._settings)
        return torch.from_numpy(losses).mean()

    def layers(self, y: Vector, passed: float = 1.0) -> list[Vector]:
        """The layers; where an offset matters, those of `pullback.affine_layers`, which pass on 1, or their changes."""
        layers = cut(y, self._ends, self._shapes)
        if not self._affine:
            return layers
        affine, first = list[Vector](), self._ends[-1]
        for layer in layers:
            rows, columns = layer.shape
            last = len(affine) == len(layers) - 1
            one = np.zeros((rows + (not last), columns + 1))
            one[:rows, :columns], one[:rows, columns] = layer, y[first : first + rows]
            one[rows:, columns] = passed
            affine.append(one)
            first += rows
        return affine

    def packed(self, pulled: list[Vector], y: Vector) -> Vector:
        """What moves all parameters, or its derivative where they move by y, from that of the layers of `layers`."""
        velocity, first = np.zeros(len(y)), self._ends[-1]
        for (i, j), (rows, columns), matrix in zip(itertools.pairwise(self._ends), self._shapes, pulled, strict=True):
            velocity[i:j] = matrix[:rows, :columns].ravel()
            if self._affine:
                velocity[first : first + rows] = matrix[:rows, columns]
                first += rows
        return velocity - self._weight_decay * y if self._weight_decay else velocity


class SamplePoint(Linearisation):
    """The velocity at one y, and its derivative."""

    def __init__(self, field: SampleField, y: Vector) -> None:
        """Compute the velocity."""
        self._field, self._layers = field, LayerArrays(field.layers(y))
        self._force = field.force(self._layers.product)
        pulled, self._behind = self._layers.pulled(self._layers.product @ self._force)
        self.velocity = field.packed(pulled, y)

    def times(self, direction: Vector) -> Vector:
        """Return J v: every product that the velocity is made of, by the product rule."""
        changes = self._field.layers(direction.copy(), 0.0)  # numba compiles once more for what nobody may write to
        moved, product = self._layers.moved(changes), self._layers.product
        top = moved[-1] @ self._force + product @ self._field.force_along(product, moved[-1])
        return self._field.packed(self._layers.pulled_along(self._behind, top, changes, moved), direction)


def _array(view: Tensor) -> Vector:
    """All batches (b, n, d), row by row: numba would compile once more for another order."""
    return np.ascontiguousarray(view.detach().double().numpy()).reshape(-1, *view.shape[-2:])
