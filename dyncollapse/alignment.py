"""Alignment of adjacent layers, and the imbalance that the flow of a linear network conserves (App. B.5)."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def alignment_matrix(w1: Float[Tensor, "*runs h d"], w2: Float[Tensor, "*runs m h"]) -> Float[Tensor, "*runs k l"]:
    """A = V2^T U1 for W1 = U1 S1 V1^T below W2 = U2 S2 V2^T, singular values descending (Sec. 5.2).

    Rows follow W2's right singular vectors, columns W1's left ones. Signs are arbitrary: look at |A|.
    Within a group of equal singular values so is the basis: use `block_alignment` there.
    """
    if w1.shape[-2] != w2.shape[-1]:
        raise ValueError(
            f"layers of shape {tuple(w1.shape)} and {tuple(w2.shape)} are not adjacent; "
            "w1's outputs must be w2's inputs"
        )
    u1 = torch.linalg.svd(w1, full_matrices=False).U
    v2h = torch.linalg.svd(w2, full_matrices=False).Vh
    return v2h @ u1


def block_alignment(w1: Float[Tensor, "h d"], w2: Float[Tensor, "m h"], gap: float = 1e-2) -> float:
    """Share of W1's left singular frame that lies in the matching blocks of W2's right one, between 0 and 1.

    Neighbouring indices fall into one block when either layer's singular values there differ by less than
    `gap` times that layer's largest (ours): inside a block, individual vectors carry no meaning.
    Blind to signs and to rotations within blocks; 1 exactly when A is block diagonal.
    """
    a = alignment_matrix(w1, w2)
    k = min(a.shape)
    s1, s2 = (torch.linalg.svdvals(w)[:k] for w in (w1, w2))
    separated = (s1[:-1] - s1[1:] > gap * s1[0]) & (s2[:-1] - s2[1:] > gap * s2[0])
    edges = [0, *(int(i) + 1 for i in separated.nonzero().flatten()), k]
    inside = sum(a[i:j, i:j].square().sum() for i, j in itertools.pairwise(edges))
    return float(inside) / k


def imbalance(w1: Float[Tensor, "*runs h d"], w2: Float[Tensor, "*runs m h"]) -> Float[Tensor, "*runs h h"]:
    """C = W1 W1^T - W2^T W2, constant along the gradient flow of a linear network (App. B.5)."""
    return w1 @ w1.mT - w2.mT @ w2


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
