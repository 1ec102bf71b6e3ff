"""The sample flow of a linear network as a vector field in NumPy, for losses whose force is compiled.

A fast form of `Objective.gradient` and `Objective.value`; the tests hold them equal. PyTorch's calls would add a third
to the time of a small network's force.
"""

import itertools
from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from dyncollapse.dynamics._on_arrays import force_settings
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

    def velocity(self, _t: float, y: Vector) -> Vector:
        """Return dy / dt: the force, pulled back to the layers (Lemmas 2 and 3). NumPy may warn of overflow."""
        layers = self._layers(y)
        below = [*itertools.accumulate(layers, _multiplied)]
        product = below[-1]
        shape = (product.shape[1], product.shape[1])
        force = compiled(f"{self._loss}_forces", [product[None], *self._views], self._settings, shape).mean(0)
        pull, pulled = product @ force, list[Vector]()
        for layer, under in zip(layers[:0:-1], below[-2::-1], strict=True):
            pulled.append(pull @ under.T)
            pull = layer.T @ pull
        velocity = self._packed([pull, *reversed(pulled)], len(y))
        return velocity - self._weight_decay * y if self._weight_decay else velocity

    def loss(self, parameters: Sequence[Tensor]) -> Tensor:
        """Return the loss, averaged over the batches, of float64 layers and biases."""
        with np.errstate(over="ignore", invalid="ignore"):
            product = reduce(_multiplied, self._layers(np.concatenate([p.numpy().ravel() for p in parameters])))
        losses = compiled(f"{self._loss}_losses", [product[None], *self._views], self._settings)
        return torch.from_numpy(losses).mean()

    def _layers(self, y: Vector) -> list[Vector]:
        """The layers; where an offset matters, those of `pullback.affine_layers`."""
        layers = [y[i:j].reshape(s) for (i, j), s in zip(itertools.pairwise(self._ends), self._shapes, strict=True)]
        if not self._affine:
            return layers
        affine, first = list[Vector](), self._ends[-1]
        for layer in layers:
            rows, columns = layer.shape
            last = len(affine) == len(layers) - 1
            one = np.zeros((rows + (not last), columns + 1))
            one[:rows, :columns], one[:rows, columns] = layer, y[first : first + rows]
            one[rows:, columns] = 1
            affine.append(one)
            first += rows
        return affine

    def _packed(self, pulled: list[Vector], size: int) -> Vector:
        """Velocities of all parameters from those of the layers of `_layers`."""
        velocity, first = np.zeros(size), self._ends[-1]
        for (i, j), (rows, columns), matrix in zip(itertools.pairwise(self._ends), self._shapes, pulled, strict=True):
            velocity[i:j] = matrix[:rows, :columns].ravel()
            if self._affine:
                velocity[first : first + rows] = matrix[:rows, columns]
                first += rows
        return velocity


def _array(view: Tensor) -> Vector:
    """All batches (b, n, d), row by row: numba would compile once more for another order."""
    return np.ascontiguousarray(view.detach().double().numpy()).reshape(-1, *view.shape[-2:])


def _multiplied(product: Vector, layer: Vector) -> Vector:
    return layer @ product
