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
    """C = W1 W1^T - W2^T W2, constant along the gradient flow of a linear network (App. B.5).

    Args:
        w1: The lower layer (*runs, h, d).
        w2: The upper layer (*runs, m, h).

    Returns:
        C (*runs, h, h).

    References:
        Jing et al. 2022, App. B.5.

    Examples:
        >>> imbalance(2 * torch.eye(2), torch.eye(2)).diagonal().tolist()
        [3.0, 3.0]
    """
    return w1 @ w1.mT - w2.mT @ w2


@outside_autocast
def imbalance_drift(weights: Sequence[Tensor]) -> float | None:
    """Largest change of C along a path of weights, relative to the layers' Gram matrices.

    It is the maximum over time, runs and adjacent layers of |C(t) - C(0)|_F / max_t (|W1 W1^T|_F + |W2^T W2|_F). The
    Gram matrices set the scale, because C itself is 0 for a balanced start.

    Args:
        weights: One tensor (time, *runs, out, in) per layer.

    Returns:
        The change; None for one layer.

    References:
        Jing et al. 2022, App. B.5; docs/explanation/beyond-the-paper.md, section 5g for SGD.

    Examples:
        >>> w1 = torch.stack([torch.eye(1), 2 * torch.eye(1)])
        >>> round(imbalance_drift((w1, torch.ones(2, 1, 1))), 6)  # C from 0 to 3, Gram matrices of 4 and 1
        0.6
    """
    drifts = []
    for w1, w2 in itertools.pairwise(weights):
        path = imbalance(w1, w2)
        scale = torch.linalg.matrix_norm(w1 @ w1.mT) + torch.linalg.matrix_norm(w2.mT @ w2)
        drift = torch.linalg.matrix_norm(path - path[0]).amax(0)
        drifts.append(float(torch.where(drift == 0, 0.0, drift / scale.amax(0)).max()))
    return max(drifts, default=None)


def isotropic_rest_layers(
    imbalance_spectrum: Float[Tensor, "*runs h"], product_value: float
) -> tuple[Float[Tensor, "*runs h"], Float[Tensor, "*runs h"]]:
    """Singular values of two square layers at a rest point where P is p* times an orthogonal matrix.

    s1^2 = (c + sqrt(c^2 + 4 p*^2)) / 2 and s2^2 = (-c + sqrt(c^2 + 4 p*^2)) / 2 for each eigenvalue c of C, so that
    s1 s2 = p*. As c descends, s1 descends and s2 ascends: W1 W1^T and W2^T W2 share eigenvectors in opposite order. For
    distinct c, |A| is therefore the anti-diagonal permutation, contrary to Theorem 2.

    Args:
        imbalance_spectrum: Eigenvalues c of C (*runs, h).
        product_value: p*.

    Returns:
        s1 and s2 (*runs, h), in the order of the eigenvalues.

    Raises:
        ValueError: For a product value below 0 or not finite.

    References:
        docs/explanation/beyond-the-paper.md, section 5e.

    Examples:
        >>> s1, s2 = isotropic_rest_layers(torch.tensor([1.5, 0.0]), 1.0)
        >>> [round(value, 4) for value in (s1 * s2).tolist()], round(float(s1[0] ** 2 - s2[0] ** 2), 4)
        ([1.0, 1.0], 1.5)
    """
    if not 0 <= product_value < math.inf:
        raise ValueError(f"product_value is {product_value}; it is a singular value, finite and at least 0")
    c = imbalance_spectrum
    larger = torch.sqrt((c.abs() + torch.sqrt(c.square() + 4 * product_value**2)) / 2)
    # The smaller one follows from the product p*; computed like the larger one it would be lost to cancellation.
    smaller = torch.where(larger > 0, product_value / larger, 0.0)
    return torch.where(c >= 0, larger, smaller), torch.where(c >= 0, smaller, larger)
