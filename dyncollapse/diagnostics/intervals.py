"""Rank measures of measured embeddings, with 95 % intervals."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.diagnostics.evidence import FEWEST_FOR_ERRORS, Evidence, descending
from dyncollapse.diagnostics.lidar import lidar_from_covariances
from dyncollapse.diagnostics.measures import (
    alpha_req,
    effective_rank,
    intrinsic_dimension,
    participation_ratio,
    participation_ratio_unbiased,
    rankme_from_eigenvalues,
)

LIDAR_DELTA = 1e-4
ALPHA_FIRST, ALPHA_LAST = 6, 100
NORMAL_95 = 1.96
DEFINITIONS = {
    "rankme": "exp entropy of singular values, not centred, no epsilon (Garrido et al. 2023)",
    "effective_rank": "exp entropy of covariance eigenvalues (Roy and Vetterli 2007)",
    "participation_ratio": "(sum l)^2 / sum l^2 over covariance eigenvalues l",
    "participation_ratio_unbiased": "from unbiased (tr C)^2 and tr C^2 (Himeno and Yamada 2014)",
    "stable_rank": "sum l / max l: |Z|_F^2 / |Z|_2^2 of the centred embeddings Z",
    "alpha_req": "-slope of log l_j, ranks 6 to 100, not collapsed, weights 1/j (Agrawal et al. 2022)",
    "signal_rank": "lower bound on the number of directions in which two views are correlated",
    "lidar": f"effective rank of the LDA matrix, 3 or more views, delta {LIDAR_DELTA:g} (Thilak et al. 2024)",
}
Measures = dict[str, float | None]
Interval = tuple[float, float] | None


def measures_with_intervals(evidence: Evidence, alive: int) -> tuple[Measures, dict[str, Interval], list[str]]:
    """Compute every measure of DEFINITIONS with its 95 % interval, if intervals are wanted.

    LiDAR has no interval, and neither has the signal rank, which is a bound itself.

    Args:
        evidence: What was measured.
        alive: Number of dimensions that are not collapsed; alpha-ReQ is fitted up to this rank.

    Returns:
        Values by name, intervals by name, and a line for each measure that is not defined here.
    """
    measures: Measures = dict.fromkeys(DEFINITIONS)
    intervals: dict[str, Interval] = dict.fromkeys(DEFINITIONS)
    if not evidence.variances[0] > 0:
        return measures, intervals, ["no rank measure is defined: nothing varies"]
    missing = []
    for name, (spectrum, coordinates, measure) in _wanted(evidence, alive).items():
        try:
            measures[name], intervals[name] = _with_interval(measure, spectrum, coordinates, evidence.samples)
        except ValueError as reason:
            missing.append(f"{name} is not defined here: {reason}")
    if evidence.lda is not None:
        try:
            measures["lidar"] = float(lidar_from_covariances(*evidence.lda, LIDAR_DELTA))
        except ValueError as reason:
            missing.append(f"lidar is not defined here: {reason}")
    return measures, intervals, missing


def collapsed_interval(evidence: Evidence, threshold: float) -> Interval:
    """Return how many dimensions are below the threshold if every eigenvalue changes by 1.96 standard errors.

    Args:
        evidence: What was measured.
        threshold: Variance up to which a dimension counts as collapsed.

    Returns:
        The lowest and the highest count; None for too few sampled rows, and if intervals are left out.
    """
    if len(evidence.rows) < FEWEST_FOR_ERRORS or not evidence.intervals:
        return None
    values, directions = (part[..., : evidence.seen] for part in evidence.principal)
    unit = float(values[0]) or 1.0  # squares of variances could overflow otherwise
    squares = (evidence.centred @ directions).square() / unit
    margin = NORMAL_95 * unit * squares.std(0) / evidence.samples**0.5
    low, high = (int((values + sign * margin <= threshold).sum()) for sign in (1, -1))
    return low, high


def _wanted(evidence: Evidence, alive: int) -> dict[str, tuple[Tensor, Tensor | None, Callable[[Tensor], Tensor]]]:
    """Return for each measure its spectrum, the coordinates of sampled rows along its directions, and its function.

    There are no coordinates if intervals are left out.
    """
    values, centred, rows = evidence.variances, None, None
    if evidence.intervals:
        uncentred, uncentred_directions = descending(evidence.moments.second_moment)
        centred = evidence.centred @ evidence.principal[1]
        rows = (evidence.centred + evidence.moments.mean) @ uncentred_directions
    else:
        uncentred = evidence.second_moment_values
    squares = (evidence.centred if centred is None else centred).square().sum(-1)
    squares = squares / squares.max().clamp_min(
        torch.finfo(torch.float64).tiny
    )  # their squares could overflow otherwise
    # E|z - mean|^4 in units of the squared variance, from the sample: it only corrects a bias of order 1/n.
    tails = float(squares.square().mean() / squares.mean().square()) if squares.any() else 1.0
    unit = float(values[0])

    def unbiased(v: Tensor) -> Tensor:
        return participation_ratio_unbiased(v / unit, evidence.samples, tails * (v.detach() / unit).sum().square())

    def decay(v: Tensor) -> Tensor:
        if alive <= ALPHA_FIRST:
            raise ValueError(
                f"it is fitted from rank {ALPHA_FIRST} on, but only {alive} dimension(s) are not collapsed"
            )
        return alpha_req(v, ALPHA_FIRST, min(ALPHA_LAST, alive))  # a fit across a cliff has no meaning

    return {
        "rankme": (uncentred, rows, rankme_from_eigenvalues),
        "effective_rank": (values, centred, effective_rank),
        "participation_ratio": (values, centred, participation_ratio),
        "participation_ratio_unbiased": (values, centred, unbiased),
        "stable_rank": (values, centred, intrinsic_dimension),
        "alpha_req": (values, centred, decay),
    }


def _with_interval(
    measure: Callable[[Tensor], Tensor],
    spectrum: Float[Tensor, " d"],
    coordinates: Float[Tensor, "r d"] | None,
    samples: int,
) -> tuple[float, Interval]:
    """Return the value of a function f of a spectrum, and the value +- 1.96 standard errors if there are coordinates.

    A row with coordinates y along the eigenvectors changes f by sum_k (df/dl_k) (y_k^2 - l_k) / N, its influence. The
    variance of f is that of the influences, times N: the linearised bootstrap (infinitesimal jackknife, Efron 1982).
    """
    with torch.inference_mode(False), torch.enable_grad():
        variable = spectrum.detach().clone().requires_grad_()
        value = measure(variable)
        (slope,) = torch.autograd.grad(value, variable)
    middle = float(value.detach())
    if coordinates is None or len(coordinates) < FEWEST_FOR_ERRORS:
        return middle, None
    influence = (coordinates.square() - spectrum) @ slope
    margin = NORMAL_95 * float(influence.std()) / samples**0.5
    return middle, (middle - margin, middle + margin)
