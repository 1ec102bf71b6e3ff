"""Losses that are functions of the embeddings' covariances: vcreg within views, barlow across views.

Each with its value, its gradients with respect to the embeddings, and its force X on a linear network with the
derivative of X. Covariances are about the batch's mean and divided by n, as in `PairMoments`: on one batch the losses
are then the population limits at that batch's own moments. (vcreg on two views averages |Cov - I|^2 over the views,
where the limit has the average of both covariances.)
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model._kernels import matrix_product
from dyncollapse.model.precision import full_precision

Along = Callable[[Tensor], Tensor]


@full_precision
def vcreg(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    views: str = "two-sided",
    invariance: float = 1.0,
) -> Float[Tensor, "*runs"]:
    """VICReg with its variance and covariance terms in one: |Cov(z) - I|_F^2 + invariance x mean_i |z_i - z'_i|^2.

    Cov is the covariance of the anchors for one-sided views. For two-sided views |Cov - I|^2 is averaged over both
    views. Unlike `vicreg` the loss is smooth, and blind to rotations of the embedding.

    Args:
        z: Anchors (*runs, n, m).
        z_pos: Positives z'.
        views: "one-sided" or "two-sided".
        invariance: Weight of the invariance term.

    Returns:
        One loss per run.

    References:
        Bardes, Ponce and LeCun, "VICReg", ICLR 2022, of which it is the Frobenius form; docs/explanation/theory.md,
        section 3.

    Examples:
        >>> z = torch.tensor([[1.0], [-1.0]])
        >>> float(vcreg(z, z)), float(vcreg(z, -z))  # variance 1; the second pair is two apart
        (0.0, 4.0)
    """
    spread = [_excess(view, view).square().sum((-2, -1)) for view in spread_views(z, z_pos, views)]
    return sum(spread[1:], spread[0]) / len(spread) + invariance * (z - z_pos).square().sum(-1).mean(-1)


@full_precision
@torch.no_grad()
def vcreg_gradients(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    views: str = "two-sided",
    invariance: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Gradients of `vcreg` with respect to the embeddings.

    With rows z_c about their mean, n g = 4 z_c (Cov - I) + 2 invariance (z - z') and n g' = -2 invariance (z - z') for
    one-sided views. For two-sided views each has its own half of the first term, 2 z_c (Cov - I).

    Args:
        z: Anchors (*runs, n, m).
        z_pos: Positives z'.
        views: "one-sided" or "two-sided".
        invariance: Weight of the invariance term.

    Returns:
        g and g' (*runs, n, m).

    References:
        docs/explanation/theory.md, section 3.

    Examples:
        >>> z = torch.tensor([[1.0], [-1.0]])
        >>> [g.abs().max().item() for g in vcreg_gradients(z, z)]  # at rest
        [0.0, 0.0]
    """
    n = z.shape[-2]
    pull, spread = (z - z_pos) * (2 * invariance / n), spread_views(z, z_pos, views)
    slopes = [_pushed(view, _excess(view, view)) * (4 / (n * len(spread))) for view in spread]
    return slopes[0] + pull, slopes[1] - pull if len(slopes) > 1 else -pull


@full_precision
def barlow(z: Float[Tensor, "*runs n m"], z_pos: Float[Tensor, "*runs n m"]) -> Float[Tensor, "*runs"]:
    """Barlow Twins on the covariance across views, |Cov(z, z') - I|_F^2, without standardised embeddings.

    Args:
        z: One view (*runs, n, m); clean anchors will do, since only the covariance between the views counts.
        z_pos: The other view.

    Returns:
        One loss per run.

    References:
        Zbontar et al., "Barlow Twins", ICML 2021; Simon et al., "On the stepwise nature of self-supervised learning",
        ICML 2023, for this form; docs/explanation/theory.md, section 3.

    Examples:
        >>> z = torch.tensor([[2.0], [-2.0]])
        >>> float(barlow(z, z / 4)), float(barlow(z, -z / 4))
        (0.0, 4.0)
    """
    return _excess(z, z_pos).square().sum((-2, -1))


@full_precision
@torch.no_grad()
def barlow_gradients(z: Float[Tensor, "*runs n m"], z_pos: Float[Tensor, "*runs n m"]) -> tuple[Tensor, Tensor]:
    """Gradients of `barlow` with respect to the embeddings.

    With rows about their mean and D = Cov(z, z') - I, n g = 2 z'_c D^T and n g' = 2 z_c D.

    Args:
        z: One view (*runs, n, m).
        z_pos: The other view.

    Returns:
        g and g' (*runs, n, m).

    References:
        docs/explanation/theory.md, section 3.

    Examples:
        >>> z = torch.tensor([[2.0], [-2.0]])
        >>> [g.abs().max().item() for g in barlow_gradients(z, z / 4)]  # at rest
        [0.0, 0.0]
    """
    excess, rate = _excess(z, z_pos), 2 / z.shape[-2]
    return _pushed(z_pos, excess.mT) * rate, _pushed(z, excess) * rate


def vcreg_along(product: Tensor, x: Tensor, x_pos: Tensor, views: str, invariance: float) -> tuple[Tensor, Along]:
    """X = 4 mean_v [C_v - C_v Q C_v] - 2 invariance A, and its derivative along any change of P.

    C_v are the covariances of the inputs that the loss spreads, A is the mean of (x - x')(x - x')^T, and Q = P^T P.
    """
    n, shift = x.shape[-2], x - x_pos
    spread = [about_mean(view) for view in spread_views(x, x_pos, views)]
    share = 4 / len(spread)
    sides = [matrix_product(view.mT, view @ product.mT) / n for view in spread]  # C_v P^T
    moments = [matrix_product(view.mT, view) / n for view in spread]
    halves = [moment - matrix_product(side, side.mT) for moment, side in zip(moments, sides, strict=True)]
    half = share / 2 * sum(halves[1:], halves[0]) - matrix_product(shift.mT, shift) * (invariance / n)

    def along(change: Tensor) -> Tensor:
        moved = [
            matrix_product(matrix_product(view.mT, view @ change.mT) / n, side.mT)
            for view, side in zip(spread, sides, strict=True)
        ]
        return _symmetric(-share * sum(moved[1:], moved[0]))

    return _symmetric(half), along


def barlow_along(product: Tensor, x: Tensor, x_pos: Tensor) -> tuple[Tensor, Along]:
    """X = 2 (C + C^T) - 2 (C Q C^T + C^T Q C), and its derivative along any change of P.

    C is the covariance of the inputs across views, which need not be symmetric, and Q = P^T P.
    """
    n, (x, x_pos) = x.shape[-2], (about_mean(x), about_mean(x_pos))
    left, right = (matrix_product(a.mT, b @ product.mT) / n for a, b in ((x, x_pos), (x_pos, x)))  # C P^T, C^T P^T
    moment = matrix_product(x.mT, x_pos) / n
    half = 2 * moment - matrix_product(left, left.mT) - matrix_product(right, right.mT)

    def along(change: Tensor) -> Tensor:
        dleft, dright = (matrix_product(a.mT, b @ change.mT) / n for a, b in ((x, x_pos), (x_pos, x)))
        return _symmetric(-2 * (matrix_product(dleft, left.mT) + matrix_product(dright, right.mT)))

    return _symmetric(half), along


def about_mean(rows: Float[Tensor, "*any n k"]) -> Float[Tensor, "*any n k"]:
    """Rows less their mean."""
    return rows - rows.mean(-2, keepdim=True)


def spread_views(x: Tensor, x_pos: Tensor, views: str) -> list[Tensor]:
    """The views that a loss without negatives keeps spread out: the anchors alone for one-sided views."""
    return [x] if views == "one-sided" else [x, x_pos]


def _excess(a: Float[Tensor, "*runs n m"], b: Float[Tensor, "*runs n m"]) -> Float[Tensor, "*runs m m"]:
    """Cov(a, b) - I."""
    covariance = matrix_product(about_mean(a).mT, about_mean(b)) / a.shape[-2]
    return covariance - torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)


def _pushed(rows: Tensor, excess: Tensor) -> Tensor:
    return matrix_product(about_mean(rows), excess)


def _symmetric(half: Tensor) -> Tensor:
    return half + half.mT
