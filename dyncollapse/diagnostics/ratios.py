"""Rho of measured views, and on which side of 1 it lies for one-sided views, beyond its sampling error."""

from statistics import fmean
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment
from scipy.special import chdtrc, ndtr
from torch import Tensor

from dyncollapse.diagnostics.evidence import FEWEST_FOR_ERRORS, Evidence, descending
from dyncollapse.diagnostics.shared_signal import LEVEL, count_positive, family_margin
from dyncollapse.model.covariance import ContrastiveCovariance
from dyncollapse.theory.modes import relative_modes

# Factor between two variances from which on their directions can be distinguished.
LARGER = 10


class Crossed(NamedTuple):
    """Cross-validated rho: measured in one half of the samples along directions from the other half.

    Attributes:
        rho: rho along each direction.
        distance: Distance of (rho - 1) / (rho + 1) from 0, in standard errors.
    """

    rho: Float[Tensor, " r"]
    distance: Float[Tensor, " r"]


def ratio_along(directions: Float[Tensor, "d k"], pairs: ContrastiveCovariance) -> Float[Tensor, " k"]:
    """Return rho = v.Sigma1 v / v.Sigma0 v along every column v (the pair criterion); 0 where both sides vanish."""
    data, augmentation = _sides(directions, pairs)
    return torch.where(augmentation > 0, augmentation / data, 0.0)


def ratio_error(
    evidence: Evidence, directions: Float[Tensor, "c k"], ratio: Float[Tensor, " k"]
) -> Float[Tensor, " k"]:
    """Return the standard error of rho along every column, by the linearised bootstrap; infinite for few rows."""
    if len(evidence.rows) < FEWEST_FOR_ERRORS or not len(ratio):
        return torch.full_like(ratio, torch.inf)
    spread, moved = _squares(evidence, directions)
    if evidence.views == "two-sided":
        others = torch.stack([(other @ directions).square() for other in evidence.centred_others])
        spread = (spread + others.mean(0) / evidence.unit) / 2
    influence = (moved - 2 * ratio * spread).std(0) / (2 * spread.mean(0))
    return torch.nan_to_num(influence, nan=0.0, posinf=torch.inf) / evidence.independent**0.5


def generalised(
    evidence: Evidence, pairs: ContrastiveCovariance, span: Float[Tensor, "d q"] | None = None
) -> tuple[Float[Tensor, " r"], Float[Tensor, "d r"]]:
    """Return generalised eigenvalues of (Sigma1, Sigma0), ascending, and directions, where data exceed rounding.

    If orthonormal columns `span` are given, the directions are in their span.
    """
    # Softmax weights leave Sigma0 small beside the terms that cancel in it, which are as large as the covariance.
    floor = 2 * evidence.ratio_floor
    if span is None:
        return relative_modes(pairs.data, pairs.augmentation, floor)
    ratios, directions = relative_modes(span.mT @ pairs.data @ span, span.mT @ pairs.augmentation @ span, floor)
    return ratios, span @ directions


def cross_validated_ratios(evidence: Evidence, span: Float[Tensor, "d q"] | None = None) -> list[Crossed]:
    """Measure rho in each half of the samples, along the generalised directions of the other half.

    Sampled generalised eigenvalues spread by (d/n)^(1/2) around the true ones, the largest always upwards;
    cross-validated ones do not. Weights are uniform, as at W = 0, since softmax weights at rest bring rho to 1 in every
    alive dimension. Fewer than four samples have no halves, and give an empty list. All directions are in `span`, if
    it is given.
    """
    crossed = []
    for one, other in (evidence.halves, evidence.halves[::-1]) if evidence.halves else ():
        directions = generalised(evidence, one, span)[1]
        error = excess_error(evidence, directions, evidence.independent / 2)
        distance = _excess(*_sides(directions, other)) / error
        crossed.append(Crossed(ratio_along(directions, other), distance))
    return [half for half in crossed if len(half.rho)]


def count_ratios(
    evidence: Evidence, crossed: list[Crossed], span: Float[Tensor, "d q"] | None = None
) -> tuple[int, int]:
    """Count the directions in which one-sided rho is below 1, and those in which it is above, beyond sampling errors.

    Both counts are of cross-validated rho, averaged over the halves. Directions from one half mix with directions of
    small rho in the other, which lowers every rho. So the first count is bounded by `count_positive`, which assumes
    rho = 1 for the directions that are left. Both are 0 if repeated rows stand in both halves.
    """
    if evidence.halves is None or evidence.few or not evidence.halves_apart or not crossed:
        return 0, 0
    data, augmentation = (
        torch.stack([getattr(half, side) for half in evidence.halves]).mean(0) for side in ("data", "augmentation")
    )
    directions = generalised(evidence, ContrastiveCovariance(data, augmentation), span)[1]
    most = count_positive(
        data + augmentation, data - augmentation, directions, evidence.independent, *_sum_and_difference(evidence)
    )
    below, above = (fmean(_beyond(sign * c.distance[sign * c.distance > 0]) for c in crossed) for sign in (-1, 1))
    return min(most, round(below)), round(above)


def _beyond(distances: Float[Tensor, " r"]) -> int:
    """Estimate how many of the directions on one side of rho = 1 truly lie there, from distances in standard errors.

    Directions beyond `family_margin` count. Of the others, none counts if all of them may be at rho = 1, where the
    squares of their distances sum to a chi-square. Otherwise the number at rho = 1 follows from how many lie within one
    standard error, since 68 % of those at rho = 1 do (Storey 2002). A share below 20 % is taken as none at rho = 1:
    16 % of a group that is two errors away lie within one.
    """
    open_ = distances[distances <= family_margin(len(distances))]
    clear, count = len(distances) - len(open_), len(open_)
    if not count or chdtrc(count, float(open_.square().sum())) > LEVEL:
        return clear
    near = int((open_ < 1).sum())
    return clear + (count if near <= 0.2 * count else max(0, round(count - near / 0.683)))


def judged_ratios(evidence: Evidence, collapsed: list[int]) -> tuple[Float[Tensor, " q"], Float[Tensor, " q"]]:
    """Return rho for each of these principal directions, and the side of 1 on which it lies: -1, 1, or 0 if undecided.

    Sample variances of q directions of nearly equal variance spread by (q/n)^(1/2), and rho along them spreads the
    other way. So rho is measured in each half of the samples along eigenvectors of Sigma0 + Sigma1 in the other half,
    which prefer neither side; they are taken in the complement of the directions of larger variance. Eigenvectors are
    assigned to principal directions one to one, by the largest total overlap. Nothing is decided if repeated rows stand
    in both halves. Softmax weights multiply both sides by
    the factors that they have along the same directions over all samples.
    """
    assert evidence.pairs is not None
    rho, side = (evidence.covariance.new_full((len(collapsed),), value) for value in (torch.nan, 0.0))
    if evidence.halves is None or not evidence.halves_apart:
        return rho, side
    larger = evidence.principal[1][:, : collapsed[0]]
    rest = torch.linalg.qr(larger, mode="complete").Q[:, collapsed[0] :]
    chosen = [_without_preference(evidence, rest, half) for half in evidence.halves]
    count = min(directions.shape[1] for directions in chosen)
    sampled, distance = rho.new_zeros(2, count)
    overlap = rho.new_zeros(len(collapsed), count)
    for directions, other in zip(chosen, evidence.halves[::-1], strict=True):
        v = directions[:, :count]
        data, augmentation, error = _without_mixing(evidence, other, larger, v)
        if evidence.weights != "uniform":
            alike = (
                torch.stack(sums).mean(0) for sums in zip(*(_sides(v, half) for half in evidence.halves), strict=True)
            )
            data, augmentation = (
                side * weighted / unweighted
                for side, weighted, unweighted in zip(
                    (data, augmentation), _sides(v, evidence.pairs), alike, strict=True
                )
            )
        sampled += augmentation / data / 2
        distance += _excess(data, augmentation) / error / 2**0.5
        overlap += (evidence.principal[1][:, collapsed].mT @ v).square()
    known = torch.where(decided(distance), distance.sign(), 0.0)
    assigned, place = linear_sum_assignment(overlap.cpu().numpy(), maximize=True)
    rho[assigned], side[assigned] = sampled[place], known[place]
    return rho, side


def _without_preference(
    evidence: Evidence, frame: Float[Tensor, "c k"], pairs: ContrastiveCovariance
) -> Float[Tensor, "c q"]:
    """Return the eigenvectors of Sigma0 + Sigma1 in the span of `frame`, descending, whose values exceed rounding."""
    pooled, turn = descending(frame.mT @ (pairs.data + pairs.augmentation) @ frame)
    return frame @ turn[:, pooled > 2 * evidence.cause_floor]


def _without_mixing(
    evidence: Evidence,
    pairs: ContrastiveCovariance,
    larger: Float[Tensor, "c p"],
    directions: Float[Tensor, "c q"],
) -> tuple[Float[Tensor, " q"], Float[Tensor, " q"], Float[Tensor, " q"]]:
    """Return Sigma0 and Sigma1 along directions, corrected for mixing with directions of larger variance, and an error.

    Sampled eigenvectors mix with others of larger variance w by a random slope of variance E x^2 y^2 / (w^2 n), for
    scores x and y along both. A direction that mixes with the p principal directions `larger` is the residual of a
    regression on them: it lacks the data that they explain in the sample. Divided by 1 minus each sample's leverage,
    its square is unbiased (MacKinnon and White 1985). Of the augmentation along them it has too much. `directions` also
    mix with each other: they are from data and augmentation of one half of the samples, and so contain both of the
    other half. The third result is the standard error of (rho - 1) / (rho + 1).
    """
    spread, moved = _squares(evidence, directions)
    y = (evidence.centred @ larger).square() / evidence.unit
    variances = y.mean(0)
    leverage = (y / variances).sum(1, keepdim=True) / evidence.independent
    unexplained = spread / (1 - leverage).clamp_min(torch.finfo(y.dtype).eps)
    outer = unexplained.mT @ y / len(y) / variances.square() / evidence.independent
    n = evidence.independent / 2
    pooled = (unexplained + moved / 2).mean(0)
    inner = (unexplained.mT @ unexplained + moved.mT @ moved / 4) / len(y) / pooled.square() / n
    inner = torch.where(pooled > LARGER * pooled.unsqueeze(1), inner, 0.0)
    data, augmentation = _sides(directions, pairs)
    gained = outer * _sides(larger, pairs)[1]
    data = (data * unexplained.mean(0) / spread.mean(0) - inner @ data).clamp_min(0)
    augmentation = (augmentation - gained.sum(1) - inner @ augmentation).clamp_min(0)
    both = data + augmentation
    squared = (moved / 2 - unexplained).square().mean(0) / pooled.square() / n
    error = (squared + 2 * (gained / both.unsqueeze(1)).square().sum(1)).sqrt()
    return data, augmentation, torch.nan_to_num(error, nan=torch.inf)


def decided(distances: Float[Tensor, " r"]) -> Bool[Tensor, " r"]:
    """Decide which estimates differ from 0, with a probability of LEVEL for any error among all of them.

    Hommel's closed procedure: it takes p-values up to LEVEL / h, where h is the size of the largest set that Simes'
    test does not reject. It holds for any set of estimates that are truly 0.

    Args:
        distances: Distances of the estimates from 0, in standard errors.

    Returns:
        Whether each one differs from 0.

    References:
        Hommel 1988 (the procedure).
    """
    p = torch.as_tensor(2 * ndtr(-distances.abs().cpu().numpy()))
    ascending, count = p.sort().values, len(p)
    steps = torch.arange(1, count + 1, dtype=p.dtype)
    sizes = (h for h in range(count, 0, -1) if bool((ascending[count - h :] > steps[:h] * LEVEL / h).all()))
    return (p <= LEVEL / next(sizes, 1)).to(distances.device)


def excess_error(evidence: Evidence, directions: Float[Tensor, "c k"], samples: float) -> Float[Tensor, " k"]:
    """Return the standard error of (rho - 1) / (rho + 1) along every column if rho = 1.

    With x the clean view and a = x' - x along a direction, rho = 1 means that d = a^2 / 2 - x^2 has the mean 0. The sum
    of d over the root of the sum of d^2 is then standard normal for many samples. If sqrt(2) x and a are exchangeable,
    d is symmetric, and the sum is sub-Gaussian for every number of samples, for any tails and for any scale that the
    features of a sample share.

    Args:
        evidence: Measurements with other views.
        directions: Unit vectors as columns.
        samples: Number of samples of the estimate.

    Returns:
        One error per column; infinite where nothing moves.

    References:
        Efron 1969 (Student's t test under symmetry).
    """
    spread, moved = _squares(evidence, directions)
    error = (moved / 2 - spread).square().mean(0).sqrt() / (moved / 2 + spread).mean(0)
    return torch.nan_to_num(error, nan=torch.inf) / samples**0.5


def _sides(
    directions: Float[Tensor, "d k"], pairs: ContrastiveCovariance
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Return v.Sigma0 v and v.Sigma1 v along every column v."""
    data, augmentation = (((cov @ directions) * directions).sum(0) for cov in (pairs.data, pairs.augmentation))
    return data, augmentation


def _squares(evidence: Evidence, directions: Float[Tensor, "c k"]) -> tuple[Float[Tensor, "r k"], Float[Tensor, "r k"]]:
    """Return the squares of x and of x' - x along every column for the sampled rows, averaged over the other views.

    They are in units of `evidence.unit`.
    """
    apart = [(other - evidence.centred) @ directions for other in evidence.centred_others]
    moved = torch.stack([one.square() for one in apart]).mean(0)
    return (evidence.centred @ directions).square() / evidence.unit, moved / evidence.unit


def _excess(data: Float[Tensor, " k"], augmentation: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Return (rho - 1) / (rho + 1), which is between -1 and 1, and 0 where nothing moves."""
    both = data + augmentation
    return torch.where(both > 0, (augmentation - data) / both, 0.0)


def _sum_and_difference(evidence: Evidence) -> tuple[Float[Tensor, "r c"], Float[Tensor, "r c"]]:
    """Return sqrt(2) x + (x' - x) and sqrt(2) x - (x' - x), whose correlation is (1 - rho) / (1 + rho)."""
    apart = evidence.centred_other - evidence.centred
    return 2**0.5 * evidence.centred + apart, 2**0.5 * evidence.centred - apart
