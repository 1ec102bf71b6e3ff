"""Rho of measured views, and how surely one-sided views put it on one side of 1."""

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

# By what factor a variance has to exceed another for its direction to be told apart from that one's.
LARGER = 10


class Crossed(NamedTuple):
    """Rho in one half of the samples along directions that the other half gave, and its distance from 1.

    `distance` is that of (rho - 1) / (rho + 1) from 0, in standard errors.
    """

    rho: Float[Tensor, " r"]
    distance: Float[Tensor, " r"]


def ratio_along(directions: Float[Tensor, "d k"], pairs: ContrastiveCovariance) -> Float[Tensor, " k"]:
    """Rho = v.Sigma1 v / v.Sigma0 v along every column v; 0 where neither moves (the pair criterion)."""
    data, augmentation = _sides(directions, pairs)
    return torch.where(augmentation > 0, augmentation / data, 0.0)


def ratio_error(
    evidence: Evidence, directions: Float[Tensor, "c k"], ratio: Float[Tensor, " k"]
) -> Float[Tensor, " k"]:
    """Standard error of rho along every column, by the linearised bootstrap of the sampled rows; infinite for few."""
    if len(evidence.rows) < FEWEST_FOR_ERRORS or not len(ratio):
        return torch.full_like(ratio, torch.inf)
    spread, moved = _squares(evidence, directions)
    if evidence.views == "two-sided":
        spread = (
            spread + torch.stack([(other @ directions).square() for other in evidence.centred_others]).mean(0)
        ) / 2
    influence = (moved - 2 * ratio * spread).std(0) / (2 * spread.mean(0))
    return torch.nan_to_num(influence, nan=0.0, posinf=torch.inf) / evidence.samples**0.5


def generalised(evidence: Evidence, pairs: ContrastiveCovariance) -> tuple[Float[Tensor, " r"], Float[Tensor, "d r"]]:
    """Generalised eigenvalues of (Sigma1, Sigma0), ascending, and directions, where data spreads beyond rounding."""
    # Softmax weights leave Sigma0 small beside the terms that cancel in it, which are as large as the covariance.
    return relative_modes(pairs.data, pairs.augmentation, 2 * evidence.ratio_floor)


def cross_validated_ratios(evidence: Evidence) -> list[Crossed]:
    """Rho in each half of the samples, along the generalised directions of the other half.

    Generalised eigenvalues spread by (d/n)^(1/2) around the truth, the largest always upwards; these do not. Every
    negative counts alike, as at W = 0: softmax weights at rest bring rho to 1 wherever a dimension is alive. Fewer than
    four samples have no halves.
    """
    found = []
    for one, other in (evidence.halves, evidence.halves[::-1]) if evidence.halves else ():
        directions = generalised(evidence, one)[1]
        distance = _excess(*_sides(directions, other)) / excess_error(evidence, directions, evidence.samples / 2)
        found.append(Crossed(ratio_along(directions, other), distance))
    return [crossed for crossed in found if len(crossed.rho)]


def count_ratios(evidence: Evidence, crossed: list[Crossed]) -> tuple[int, int]:
    """In how many directions one-sided rho is below 1, and in how many above, as far as sampling allows to count.

    The cross-validated rho are counted, mean over both halves. Directions of one half lean on those of small rho in the
    other, which pulls all rho down: no more count as growing than exceed, one after the other, what rho = 1 shows.
    """
    if evidence.halves is None or len(evidence.rows) < FEWEST_FOR_ERRORS or not crossed:
        return 0, 0
    data, augmentation = (
        torch.stack([getattr(half, side) for half in evidence.halves]).mean(0) for side in ("data", "augmentation")
    )
    directions = generalised(evidence, ContrastiveCovariance(data, augmentation))[1]
    most = count_positive(
        data + augmentation, data - augmentation, directions, evidence.samples, *_sum_and_difference(evidence)
    )
    below, above = (fmean(_beyond(sign * c.distance[sign * c.distance > 0]) for c in crossed) for sign in (-1, 1))
    return min(most, round(below)), round(above)


def _beyond(distances: Float[Tensor, " r"]) -> int:
    """How many of the directions on one side of rho = 1 belong there, from their distances in standard errors.

    Those that no direction at rho = 1 reaches, and of the others as many as the group shows together. None where all of
    them may be at rho = 1: their squares then sum to a chi-square. Otherwise 68 % of those at rho = 1 lie within one
    standard error, so that their number follows from how many do (Storey 2002). Fewer than 20 % say nothing: 16 % do of
    a group that lies two errors away.
    """
    open_ = distances[distances <= family_margin(len(distances))]
    clear, count = len(distances) - len(open_), len(open_)
    if not count or chdtrc(count, float(open_.square().sum())) > LEVEL:
        return clear
    near = int((open_ < 1).sum())
    return clear + (count if near <= 0.2 * count else max(0, round(count - near / 0.683)))


def judged_ratios(evidence: Evidence, collapsed: list[int]) -> tuple[Float[Tensor, " q"], Float[Tensor, " q"]]:
    """Rho for each of these principal directions, and on which side of 1 it surely lies: -1, 1, or 0 for open.

    Sample variances of q directions of nearly equal variance spread by (q/n)^(1/2), and rho along them the other way.
    So rho is measured in each half of the samples along eigenvectors of Sigma0 + Sigma1 in the other half, in all that
    is not of larger variance than these directions; each eigenvector stands for the one that it overlaps with. A sum
    of both sides does not say which is the larger one. Softmax weights change both sides by what they change along
    the same directions over all samples.
    """
    assert evidence.pairs is not None
    rho, side = (evidence.covariance.new_full((len(collapsed),), value) for value in (torch.nan, 0.0))
    if evidence.halves is None:
        return rho, side
    larger = evidence.principal[1][:, : collapsed[0]]
    rest = torch.linalg.qr(larger, mode="complete").Q[:, collapsed[0] :]
    chosen = [_without_preference(evidence, rest, half) for half in evidence.halves]
    count = min(directions.shape[1] for directions in chosen)
    sampled, distance = rho.new_zeros(2, count)
    overlap = rho.new_zeros(len(collapsed), count)
    for directions, other in zip(chosen, evidence.halves[::-1], strict=True):
        v = directions[:, :count]
        data, augmentation, error = _without_leaning(evidence, other, larger, v)
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
    told, place = linear_sum_assignment(overlap.cpu().numpy(), maximize=True)
    rho[told], side[told] = sampled[place], known[place]
    return rho, side


def _without_preference(
    evidence: Evidence, frame: Float[Tensor, "c k"], pairs: ContrastiveCovariance
) -> Float[Tensor, "c q"]:
    """Eigenvectors of Sigma0 + Sigma1 in the span of `frame`, descending, as far as they are no rounding."""
    pooled, turn = descending(frame.mT @ (pairs.data + pairs.augmentation) @ frame)
    return frame @ turn[:, pooled > 2 * evidence.cause_floor]


def _without_leaning(
    evidence: Evidence,
    pairs: ContrastiveCovariance,
    larger: Float[Tensor, "c p"],
    directions: Float[Tensor, "c q"],
) -> tuple[Float[Tensor, " q"], Float[Tensor, " q"], Float[Tensor, " q"]]:
    """Sigma0 and Sigma1 along directions, had they been found without sampling error, and the error of their excess.

    Sampled eigenvectors lean on others of larger variance w by a random slope of variance E x^2 y^2 / (w^2 n), for
    scores x and y along both. What leans on the p principal directions `larger` lacks the data that these explain in
    the sample, a residual of p regressors: divided by 1 less each sample's leverage, its square is unbiased
    (MacKinnon and White 1985). It has gained the augmentation along them. `directions` were found beside each other
    from data and augmentation together, in one half of the samples, and have gained both in the other one.
    """
    spread, moved = _squares(evidence, directions)
    y = (evidence.centred @ larger).square()
    variances = y.mean(0)
    leverage = (y / variances).sum(1, keepdim=True) / evidence.samples
    unexplained = spread / (1 - leverage).clamp_min(torch.finfo(y.dtype).eps)
    outer = unexplained.mT @ y / len(y) / variances.square() / evidence.samples
    n = evidence.samples / 2
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
    """Which estimates do not lie at 0, given their distances in standard errors, with a chance of LEVEL for any error.

    Hommel's closed procedure: of p-values p, those up to LEVEL / h, where h is the size of the largest set that Simes'
    test does not reject. It holds whichever of the estimates lie at 0.

    References:
        Hommel 1988 (the procedure).
    """
    p = torch.as_tensor(2 * ndtr(-distances.abs().cpu().numpy()))
    ascending, count = p.sort().values, len(p)
    steps = torch.arange(1, count + 1, dtype=p.dtype)
    sizes = (h for h in range(count, 0, -1) if bool((ascending[count - h :] > steps[:h] * LEVEL / h).all()))
    return (p <= LEVEL / next(sizes, 1)).to(distances.device)


def excess_error(evidence: Evidence, directions: Float[Tensor, "c k"], samples: float) -> Float[Tensor, " k"]:
    """Standard error of (rho - 1) / (rho + 1) along every column, as it is at rho = 1, for so many samples.

    With x the clean view and a = x' - x along a direction, rho = 1 says that d = a^2 / 2 - x^2 has the mean 0. The sum
    of d over the root of the sum of d^2 is then standard normal for many samples; where sqrt(2) x and a are
    exchangeable, d is symmetric, and the sum is sub-Gaussian for every number of samples, for any tails and for any
    scale that a sample shares among its features.

    References:
        Efron 1969 (Student's t test under symmetry).
    """
    spread, moved = _squares(evidence, directions)
    error = (moved / 2 - spread).square().mean(0).sqrt() / (moved / 2 + spread).mean(0)
    return torch.nan_to_num(error, nan=torch.inf) / samples**0.5


def _sides(
    directions: Float[Tensor, "d k"], pairs: ContrastiveCovariance
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """v.Sigma0 v and v.Sigma1 v along every column v."""
    data, augmentation = (((cov @ directions) * directions).sum(0) for cov in (pairs.data, pairs.augmentation))
    return data, augmentation


def _squares(evidence: Evidence, directions: Float[Tensor, "c k"]) -> tuple[Float[Tensor, "r k"], Float[Tensor, "r k"]]:
    """Squares of x and of x' - x along every column, for the sampled rows, the latter's mean over the other views."""
    moved = torch.stack([((other - evidence.centred) @ directions).square() for other in evidence.centred_others]).mean(
        0
    )
    return (evidence.centred @ directions).square(), moved


def _excess(data: Float[Tensor, " k"], augmentation: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """(rho - 1) / (rho + 1): between -1 and 1, and 0 where nothing moves."""
    both = data + augmentation
    return torch.where(both > 0, (augmentation - data) / both, 0.0)


def _sum_and_difference(evidence: Evidence) -> tuple[Float[Tensor, "r c"], Float[Tensor, "r c"]]:
    """sqrt(2) x + (x' - x) and sqrt(2) x - (x' - x): correlated by (1 - rho) / (1 + rho) along a direction."""
    apart = evidence.centred_other - evidence.centred
    return 2**0.5 * evidence.centred + apart, 2**0.5 * evidence.centred - apart
