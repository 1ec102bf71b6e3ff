"""Losses on single coordinates of the embedding as they are trained in practice: vicreg and barlow_normalised.

Both see the standard deviation of every coordinate, so that a rotation of the embedding changes them: they are no
functions of P^T P, and have no force X with dL/dP = -P X.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model._kernels import matrix_product
from dyncollapse.model.loss_gradients import divisor
from dyncollapse.model.losses import normalised
from dyncollapse.model.moment_losses import about_mean, spread_views
from dyncollapse.model.precision import full_precision

COVARIANCE_WEIGHT = 0.04
"""Weight nu of vicreg's covariance term: Bardes et al. 2022 train with (25, 25, 1), here over 25."""

VARIANCE_FLOOR = 1e-4
"""Added to variances under vicreg's root, so that its slope is finite at zero; from the same paper."""

REDUNDANCY_WEIGHT = 5e-3
"""Weight of the squared correlations between different coordinates in Zbontar et al. 2021."""


@full_precision
def vicreg(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    views: str = "two-sided",
    invariance: float = 1.0,
) -> Float[Tensor, "*runs"]:
    """VICReg as published: invariance, a hinge on every standard deviation, and decorrelated coordinates.

    L = mean over coordinates of invariance x mean_i (z_ij - z'_ij)^2, plus for each view the means over coordinates of
    max(0, 1 - sqrt(var_j + 1e-4)) and of 0.04 sum_{k != j} Cov_jk^2. Variances and covariances are divided by n - 1.
    All terms are means over the coordinates, as in the paper's Algorithm 1; its Eq. 5 has the invariance as a sum.
    For one-sided views the clean anchors count in place of both views, as they are the points that other losses repel.

    Args:
        z: Anchors (*runs, n, m), n at least 2.
        z_pos: Positives z'.
        views: "one-sided" or "two-sided".
        invariance: Weight lambda of the invariance, where the hinge has 1 and the covariances have 0.04.

    Returns:
        One loss per run.

    References:
        Bardes, Ponce and LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
        ICLR 2022, Algorithm 1 with its coefficients (25, 25, 1) over 25.

    Examples:
        >>> z = torch.tensor([[3.0, 2.0], [3.0, -2.0], [-3.0, 2.0], [-3.0, -2.0]])
        >>> float(vicreg(z, z)), float(vicreg(z, z + 1))  # standard deviations above 1 cost nothing
        (0.0, 1.0)
    """
    terms = []
    for view in spread_views(z, z_pos, views):
        _, covariance, deviation = _moments(view)
        hinge = (1 - deviation).clamp_min(0).mean(-1)
        terms.append(hinge + COVARIANCE_WEIGHT / z.shape[-1] * _off_diagonal(covariance).square().sum((-2, -1)))
    return 2 / len(terms) * sum(terms[1:], terms[0]) + invariance * (z - z_pos).square().mean((-2, -1))


@full_precision
@torch.no_grad()
def vicreg_gradients(
    z: Float[Tensor, "*runs n m"],
    z_pos: Float[Tensor, "*runs n m"],
    views: str = "two-sided",
    invariance: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Gradients of `vicreg` with respect to the embeddings.

    With rows z_c about their mean, deviations d_j = sqrt(var_j + 1e-4) and D the covariances off the diagonal, each
    view adds z_c [4 x 0.04 D - diag(1 / d_j where d_j < 1)] / (m (n - 1)), and the invariance
    2 invariance (z - z') / (m n). The slope jumps where a deviation passes 1, and counts as 0 there.

    Args:
        z: Anchors (*runs, n, m), n at least 2.
        z_pos: Positives z'.
        views: "one-sided" or "two-sided".
        invariance: Weight of the invariance.

    Returns:
        g and g' (*runs, n, m).

    References:
        docs/explanation/theory.md, section 3.

    Examples:
        >>> z = torch.tensor([[3.0], [-3.0]])
        >>> [g.abs().max().item() for g in vicreg_gradients(z, z)]
        [0.0, 0.0]
    """
    n, m = z.shape[-2:]
    pull, spread = (z - z_pos) * (2 * invariance / (n * m)), spread_views(z, z_pos, views)
    slopes = []
    for view in spread:
        rows, covariance, deviation = _moments(view)
        hinge = torch.where(deviation < 1, 1 / deviation, 0.0).unsqueeze(-2) * rows
        slope = matrix_product(rows, _off_diagonal(covariance)).mul_(4 * COVARIANCE_WEIGHT) - hinge
        slopes.append(slope * (2 / (len(spread) * m * (n - 1))))
    return slopes[0] + pull, slopes[1] - pull if len(slopes) > 1 else -pull


@full_precision
def barlow_normalised(z: Float[Tensor, "*runs n m"], z_pos: Float[Tensor, "*runs n m"]) -> Float[Tensor, "*runs"]:
    """Barlow Twins as published, on the correlations between the coordinates of both views.

    L = sum_j (1 - corr_jj)^2 + 5e-3 sum_{j != k} corr_jk^2. Lengths and signs of coordinates do not matter, as long as
    both views share them. A coordinate that is constant over the batch has the correlation 0 with all others.

    Args:
        z: One view (*runs, n, m).
        z_pos: The other view.

    Returns:
        One loss per run.

    References:
        Zbontar, Jing, Misra, LeCun and Deny, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction",
        ICML 2021, Eq. 1 and 2.

    Examples:
        >>> z = torch.tensor([[1.0, 5.0], [1.0, -5.0], [-1.0, 5.0], [-1.0, -5.0]])
        >>> round(float(barlow_normalised(z, 3 * z)), 6), round(float(barlow_normalised(z, z.flip(-1))), 6)
        (0.0, 2.01)
    """
    unit, unit_pos = _unit_columns(z), _unit_columns(z_pos)
    correlation = matrix_product(unit.mT, unit_pos)
    own = (1 - correlation.diagonal(dim1=-2, dim2=-1)).square().sum(-1)
    return own + REDUNDANCY_WEIGHT * _off_diagonal(correlation).square().sum((-2, -1))


@full_precision
@torch.no_grad()
def barlow_normalised_gradients(
    z: Float[Tensor, "*runs n m"], z_pos: Float[Tensor, "*runs n m"]
) -> tuple[Tensor, Tensor]:
    """Gradients of `barlow_normalised` with respect to the embeddings.

    The derivative D with respect to the correlations is -2 (1 - corr_jj) on the diagonal and 2 x 5e-3 corr_jk off it.
    With columns u about their mean and of unit length, the gradients with respect to u and u' are u' D^T and u D. Those
    of z are these without their part along the column, over the column's length; a constant column counts as one of
    length 1.

    Args:
        z: One view (*runs, n, m).
        z_pos: The other view.

    Returns:
        g and g' (*runs, n, m).

    References:
        docs/explanation/theory.md, section 3.

    Examples:
        >>> z = torch.tensor([[1.0], [2.0], [4.0]])
        >>> g, _ = barlow_normalised_gradients(z, z.flip(0))
        >>> bool((g * z).sum().abs() < 1e-6)  # the length does not matter
        True
    """
    unit, unit_pos = _unit_columns(z), _unit_columns(z_pos)
    correlation = matrix_product(unit.mT, unit_pos)
    slope = 2 * REDUNDANCY_WEIGHT * correlation
    slope.diagonal(dim1=-2, dim2=-1).copy_(2 * (correlation.diagonal(dim1=-2, dim2=-1) - 1))
    sides = ((z, unit, matrix_product(unit_pos, slope.mT)), (z_pos, unit_pos, matrix_product(unit, slope)))
    g, g_pos = (
        (side - u * (side * u).sum(-2, keepdim=True)) / divisor(about_mean(rows).mT).mT for rows, u, side in sides
    )
    return g, g_pos


def _moments(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows about their mean, their covariance over n - 1, and the deviations of vicreg's hinge."""
    rows = about_mean(z)
    covariance = matrix_product(rows.mT, rows) / (z.shape[-2] - 1)
    return rows, covariance, (covariance.diagonal(dim1=-2, dim2=-1) + VARIANCE_FLOOR).sqrt()


def _off_diagonal(matrix: Float[Tensor, "*runs m m"]) -> Float[Tensor, "*runs m m"]:
    return matrix - torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1))


def _unit_columns(z: Tensor) -> Tensor:
    return normalised(about_mean(z).mT).mT
