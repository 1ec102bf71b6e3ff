"""SGD of linear networks on arrays, for losses whose force is compiled: many steps at a time, shared among threads.

A fast form of `Objective.gradient` and `sgd.sgd_step`; the tests hold them equal.
"""

import itertools
import math
from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from dyncollapse.dynamics._on_arrays import force_settings
from dyncollapse.model.networks import Weights
from dyncollapse.model.objective import Objective
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.pullback import affine_layers

# Most bytes of the batches that are held for steps to come, as in 16 steps of 8 runs of 128 pairs in 16 dimensions, and
# most such steps. Threads start once for all of them, and a cache holds them. Rules of thumb.
MOST_BYTES, MOST_STEPS = 2**22, 64


class Block:
    """Batches of some steps."""

    def __init__(self, like: Pairs, runs: tuple[int, ...], most: int, *, fresh: bool) -> None:
        """Make room for batches of the shape and views of one.

        Args:
            like: The first of them, in the precision of the parameters.
            runs: Shape of the runs; batches may have fewer axes, and axes of size 1.
            most: How many steps are wanted at most.
            fresh: Whether each batch has memory of its own, so that it need not be copied.
        """
        n, d = like.anchor.shape[-2:]
        self._like, self._whole, self._fresh, self.kind_of_views = like, (*runs, n, d), fresh, like.views
        self._kind = like.anchor.detach().numpy().dtype
        self._room = max(1, min(most, MOST_STEPS, MOST_BYTES // (2 * math.prod(self._whole) * self._kind.itemsize)))
        self.views: list[tuple[np.ndarray, np.ndarray]] = []

    def takes(self, batch: Pairs) -> bool:
        """Whether there is room for a batch, and it is like the others."""
        alike = batch.anchor.shape == self._like.anchor.shape and batch.views == self.kind_of_views
        return alike and len(self.views) < self._room

    def add(self, batch: Pairs) -> None:
        """Add a batch: anchors and positives (runs, n, d)."""
        again = self._fresh and self.views and batch is self._like
        self.views.append(self.views[0] if again else (self._array(batch.anchor), self._array(batch.positive)))

    def _array(self, view: Tensor) -> np.ndarray:
        array = view.detach().numpy()
        if array.shape != self._whole:
            array = np.broadcast_to(array, self._whole).copy()  # numba compiles once more for what nobody may write to
        return array.reshape(-1, *self._whole[-2:]).astype(self._kind, order="C", copy=not self._fresh)


class LinearSteps:
    """The parameters of all runs of a linear network, and SGD on them."""

    def __init__(
        self, weights: Weights, biases: Sequence[Tensor], objective: Objective, rates: tuple[float, float, float]
    ) -> None:
        """Copy the parameters.

        Args:
            weights: One tensor (*runs, out, in) per layer.
            biases: One tensor (*runs, out) per layer, or none.
            objective: A loss of `forces.COMPILED`.
            rates: Learning rate, momentum and weight decay.
        """
        # With numba, which other losses do without.
        from dyncollapse.dynamics._steps_compiled import descend
        from dyncollapse.model import _forces_compiled

        # An offset is the weight of an input that is always 1, and the lower layers pass it on.
        layers, runs = affine_layers(weights, biases), weights[0].shape[:-2]
        flat = torch.cat([layer.reshape(runs.numel(), -1) for layer in layers], 1)
        ends = [*itertools.accumulate((math.prod(layer.shape[-2:]) for layer in layers), initial=0)]
        own = [flat[:, i:j].view(layer.shape) for (i, j), layer in zip(itertools.pairwise(ends), layers, strict=True)]
        self.weights = tuple(layer[..., : w.shape[-2], : w.shape[-1]] for layer, w in zip(own, weights, strict=True))
        self.biases = tuple(layer[..., : b.shape[-1], -1] for layer, b in zip(own, biases, strict=False))
        self._places = np.array(
            [(i, *layer.shape[-2:], w.shape[-2]) for i, layer, w in zip(ends, layers, weights, strict=False)]
        )
        self._parameters = flat.numpy()
        # By NumPy, which multiplies run by run: PyTorch's sums would depend on how many runs there are.
        matrices = [layer.reshape(-1, *layer.shape[-2:]).numpy() for layer in layers]
        with np.errstate(over="ignore", invalid="ignore"):
            self._products = reduce(lambda product, layer: layer @ product, matrices[1:], matrices[0].copy())
        kind, d = self._parameters.dtype, self._products.shape[-1]
        self._momenta = np.zeros((len(flat), flat.shape[1] if rates[1] else 0), kind)
        self._forces = np.empty((len(flat), d, d), kind)
        self._find, self._judge = (
            getattr(_forces_compiled, f"{objective.name}_{what}") for what in ("forces", "losses")
        )
        self._descend, self._runs, self._objective = descend, runs, objective
        self._rates = float(rates[0]), float(rates[1]), float(rates[2])  # numba would compile once more for integers

    def take(self, block: Block, rows: slice = slice(None)) -> None:
        """Step some of the runs through all batches of a block; other threads may step the others meanwhile."""
        products, forces = self._products[rows], self._forces[rows]
        parameters, momenta = self._parameters[rows], self._momenta[rows]
        settings = force_settings(self._objective, block.kind_of_views)
        for x, x_pos in block.views:
            self._find(products, x[rows], x_pos[rows], *settings, forces)
            self._descend(parameters, momenta, self._places, forces, self._rates, products)

    def losses(self, block: Block) -> Tensor:
        """Loss of every run (*runs,) on the first batch of a block."""
        losses = np.empty(len(self._parameters), self._parameters.dtype)
        self._judge(self._products, *block.views[0], *force_settings(self._objective, block.kind_of_views), losses)
        return torch.from_numpy(losses).view(self._runs)
