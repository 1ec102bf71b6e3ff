"""The imbalance C of adjacent layers, which the flow of a linear network conserves (App. B.5)."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.precision import full_precision, outside_autocast


@full_precision
def imbalance(w1: Float[Tensor, "*runs h d"], w2: Float[Tensor, "*runs m h"]) -> Float[Tensor, "*runs h h"]:
    """C = W1 W1^T - W2^T W2, constant along the gradient flow of a linear network (App. B.5)."""
    return w1 @ w1.mT - w2.mT @ w2


@outside_autocast
def imbalance_drift(weights: Sequence[Tensor]) -> float | None:
    """Largest change of C along a path of weights (time, *runs, out, in), relative to the layers' Gram matrices.

    max over time, runs and adjacent layers of |C(t) - C(0)|_F / max_t (|W1 W1^T|_F + |W2^T W2|_F).
    The Gram matrices, not C itself, set the scale, for a balanced start has C = 0. None for one layer.
    """
    drifts = []
    for w1, w2 in itertools.pairwise(weights):
        c = imbalance(w1, w2)
        scale = torch.linalg.matrix_norm(w1 @ w1.mT) + torch.linalg.matrix_norm(w2.mT @ w2)
        drift = torch.linalg.matrix_norm(c - c[0]).amax(0)
        drifts.append(float(torch.where(drift == 0, 0.0, drift / scale.amax(0)).max()))
    return max(drifts, default=None)


def isotropic_rest_layers(
    imbalance_spectrum: Float[Tensor, "*runs h"], product_value: float
) -> tuple[Float[Tensor, "*runs h"], Float[Tensor, "*runs h"]]:
    """Singular values (s1, s2) of two square layers at a rest point where P is p* times an orthogonal matrix (ours).

    s1^2 = (c + sqrt(c^2 + 4 p*^2)) / 2 and s2^2 = (-c + sqrt(c^2 + 4 p*^2)) / 2 for each eigenvalue c of C, in the
    order given; s1 s2 = p*. With c descending s1 descends and s2 ascends: W1 W1^T and W2^T W2 share eigenvectors in
    opposite order, so |A| is the anti-diagonal permutation where c is distinct, against Theorem 2.
    Raises ValueError for a product value below 0 or not finite.
    """
    if not 0 <= product_value < math.inf:
        raise ValueError(f"product_value is {product_value}; it is a singular value, finite and at least 0")
    c = imbalance_spectrum
    larger = torch.sqrt((c.abs() + torch.sqrt(c.square() + 4 * product_value**2)) / 2)
    # The smaller one from their product: the difference above it would cancel.
    smaller = torch.where(larger > 0, product_value / larger, 0.0)
    return torch.where(c >= 0, larger, smaller), torch.where(c >= 0, smaller, larger)
