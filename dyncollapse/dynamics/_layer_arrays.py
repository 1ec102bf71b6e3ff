"""Layers as NumPy arrays: their products, and what is pulled back through them (Lemma 3), with the derivatives."""

import itertools
from collections.abc import Sequence

import numpy as np

Matrix = np.ndarray


def cut(vector: np.ndarray, ends: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> list[Matrix]:
    """Views of matrices that a vector holds one after the other, each row by row; ends begin with 0."""
    return [vector[i:j].reshape(shape) for (i, j), shape in zip(itertools.pairwise(ends), shapes, strict=True)]


class LayerArrays:
    """W_1, ..., W_L of one run.

    A fast form of `networks.end_to_end`, `networks.layer_gradients` and their derivatives in `model.pullback`.
    """

    def __init__(self, layers: Sequence[Matrix]) -> None:
        """Multiply them: `below` are W_1, W_2 W_1, ... and the last of them is `product`."""
        self.layers = layers
        self.below = [*itertools.accumulate(layers, multiplied)]
        self.product = self.below[-1]

    def pulled(self, top: Matrix) -> tuple[list[Matrix], list[Matrix]]:
        """Pull what acts on P back to the layers.

        Args:
            top: G (m, d).

        Returns:
            (W_L ... W_{l+1})^T G (W_{l-1} ... W_1)^T for each layer, and (W_L ... W_{l+1})^T G from the last layer on.
        """
        behind, pulled = [top], list[Matrix]()
        for layer, under in zip(self.layers[:0:-1], self.below[-2::-1], strict=True):
            pulled.append(behind[-1] @ under.T)
            behind.append(layer.T @ behind[-1])
        return [behind[-1], *reversed(pulled)], behind

    def moved(self, changes: Sequence[Matrix]) -> list[Matrix]:
        """Changes of `below` when the layers change."""
        moved = [changes[0]]
        for layer, change, under in zip(self.layers[1:], changes[1:], self.below[:-1], strict=True):
            moved.append(layer @ moved[-1] + change @ under)
        return moved

    def pulled_along(
        self, behind: Sequence[Matrix], top: Matrix, changes: Sequence[Matrix], moved: Sequence[Matrix]
    ) -> list[Matrix]:
        """Change of what `pulled` returns: every product that it is made of, by the product rule.

        Args:
            behind: As `pulled` returned it.
            top: Change of G.
            changes: Those of the layers.
            moved: Those of `below`.

        Returns:
            One matrix per layer.
        """
        pulled = list[Matrix]()
        steps = zip(self.layers[:0:-1], changes[:0:-1], behind[:-1], self.below[-2::-1], moved[-2::-1], strict=True)
        for layer, change, above, under, moved_under in steps:
            pulled.append(top @ under.T + above @ moved_under.T)
            top = layer.T @ top + change.T @ above
        return [top, *reversed(pulled)]


def multiplied(below: Matrix, layer: Matrix) -> Matrix:
    """One more layer on top of a product."""
    return layer @ below
