"""Why measured dimensions collapsed: what other views and the last layer's inputs can tell, and how surely."""

from dataclasses import dataclass, field
from statistics import fmean

import torch
from jaxtyping import Float
from scipy.stats import chi2
from torch import Tensor

from dyncollapse.diagnostics.evidence import FEWEST_FOR_ERRORS, Evidence, descending
from dyncollapse.diagnostics.shared_signal import (
    LEVEL,
    SharedSignal,
    count_positive,
    family_margin,
    inflation_of,
    largest_directions,
    shared_signal,
)
from dyncollapse.model.covariance import ContrastiveCovariance
from dyncollapse.theory.equilibria import rest_variance
from dyncollapse.theory.modes import relative_modes

# Embedding variance at rest, in units of the kernel's, below which a dimension does not count: see COLLAPSED_BELOW.
NEGLIGIBLE_AT_REST = 1e-4
# By what factor a variance has to exceed another for its direction to be told apart from that one's.
LARGER = 10


@dataclass(frozen=True)
class Told:
    """Fates of collapsed principal directions that other views of the embeddings tell, and the test behind them.

    `fates` maps the number of a direction to dead, suppressed, waiting or unexplained (within its error of the
    threshold); `explained` is the correlation of two views that sampling alone reaches there, for two-sided ones.
    """

    fates: dict[int, str] = field(default_factory=dict)
    explained: float | None = None


@dataclass(frozen=True)
class InputCount:
    """In how many directions of the last layer's inputs a dimension could grow, must die, or has no signal to grow on.

    `width` counts all input units, `varying` the directions in which they vary; those of them that the three counts
    leave out are open.
    """

    width: int
    varying: int
    growing: int
    dying: int
    silent: int


def tell(e: Evidence, collapsed: list[int]) -> Told:
    """Fates of these principal directions, whose variance lies above the noise floor of rho, by their other views."""
    if len(e.rows) < FEWEST_FOR_ERRORS:
        return Told(dict.fromkeys(collapsed, "unexplained"))
    if not collapsed:
        return Told()
    return _tell_two_sided(e, collapsed) if e.views == "two-sided" else _tell_one_sided(e, collapsed)


def _tell_one_sided(e: Evidence, collapsed: list[int]) -> Told:
    """Compare rho along each direction with 1, and leave open those that sampling may have put on their side."""
    rho, error = _ratio_along_collapsed(e, collapsed)
    distance = _distance_from_one(rho, error)
    order = distance.argsort().tolist()
    fates = dict.fromkeys(collapsed, "unexplained")
    for k in order[: _decided(-distance[rho < 1])]:
        resting = float(rest_variance(rho[k].clamp_min(0), torch.ones(())))
        fates[collapsed[k]] = "waiting" if resting > NEGLIGIBLE_AT_REST else "suppressed"
    for k in order[len(order) - _decided(distance[rho >= 1]) :]:
        fates[collapsed[k]] = "dead"
    return Told(fates)


def _ratio_along_collapsed(e: Evidence, collapsed: list[int]) -> tuple[Tensor, Tensor]:
    """Rho along these principal directions, not biased by their choice, and its standard error.

    The sample variances of q directions of nearly equal variance spread by (q/n)^(1/2), and rho the other way. So rho
    is that of one half of the samples along the principal directions of the other half, by rank, both ways round. These
    still lean on the p directions of larger variance, which adds p/m of the variance for halves of m samples, at those
    directions' rho: taken off again. Softmax weights have no halves: their error includes both.
    """
    assert e.pairs is not None
    values, directions = e.principal
    rho = ratio_along(directions, e.pairs)
    error = ratio_error(e, directions[:, collapsed], rho[collapsed])
    larger = (values > LARGER * values[collapsed].unsqueeze(1)).to(rho.dtype)
    count = larger.sum(1)
    if e.halves is None or e.weights != "uniform":
        return rho[collapsed], error + rho[collapsed] * ((len(collapsed) / e.samples) ** 0.5 + count / e.samples)
    crossed = []
    for one, other in (e.halves, e.halves[::-1]):
        variances, found = descending(one.data)
        crossed.append(ratio_along(found[:, collapsed], other))
        # Beyond a half's rank its directions are arbitrary, and with few samples they lean too far.
        lost = (variances[collapsed] <= 2 * e.ratio_floor) | (4 * count > e.samples)
        error = torch.where(lost, torch.inf, error)
    share = 2 * count / e.samples
    # A direction without data has an infinite rho, and is larger than none.
    their_rho = larger @ torch.where(values > 0, rho, 0.0) / count.clamp_min(1)
    rho = torch.stack(crossed).mean(0) * (1 + share) - share * their_rho
    return rho, error * _shared_inflation(e, directions[:, collapsed])


def _shared_inflation(e: Evidence, directions: Float[Tensor, "c q"]) -> float:
    """By what factor errors of rho along q directions exceed those of independent ones, of fixed directions.

    A scale that a sample shares over directions moves all of them together; and each half finds its directions by q/n.
    """
    total, difference = _sum_and_difference(e)
    factor = inflation_of(total @ directions, difference @ directions)
    return (factor * (1 + 2 * directions.shape[1] / e.samples)) ** 0.5


def _sum_and_difference(e: Evidence) -> tuple[Float[Tensor, "r c"], Float[Tensor, "r c"]]:
    """sqrt(2) x + (x' - x) and sqrt(2) x - (x' - x): correlated by (1 - rho) / (1 + rho) along a direction."""
    apart = e.centred_other - e.centred
    return 2**0.5 * e.centred + apart, 2**0.5 * e.centred - apart


def _tell_two_sided(e: Evidence, collapsed: list[int]) -> Told:
    """Count shared signal inside the span of these directions: there it waits, without it they are suppressed.

    Principal directions of nearly equal variance are arbitrary mixtures, so the span is tested as a whole and its
    counts are given to the directions with the largest and the smallest correlation. Where it has too many
    dimensions for a joint test, each direction is tested alone.
    """
    assert e.correlation is not None
    directions = e.principal[1][:, collapsed]
    gamma, error = _correlation_along(e, directions)
    order = [collapsed[k] for k in gamma.argsort(descending=True).tolist()]
    if 2 * len(collapsed) <= e.samples:
        found = _signal(e, directions)
        resting = [float(rest_variance(1 - g, g)) for g in found.correlations if g > 0][: found.positive]
        positive, negative = sum(c > NEGLIGIBLE_AT_REST for c in resting), found.negative
        explained = found.explained
    else:
        margin = family_margin(len(collapsed)) * error
        positive, negative = int((gamma > margin).sum()), int((gamma < -margin).sum())
        explained = float(margin.max())
    fates = dict.fromkeys(order, "suppressed")
    fates |= dict.fromkeys(order[:positive], "waiting")
    fates |= dict.fromkeys(order[len(order) - negative :], "dead")
    return Told(fates, explained)


def count_inputs(inputs: Evidence, signal: SharedSignal | None = None) -> InputCount | None:
    """What the last layer's inputs leave for dimensions that are lost in rounding; None where nothing can be compared.

    At rest a linear layer passes on no more directions than those in which a dimension can grow. `signal` is
    `whole_signal` of the inputs, where that was tested already.
    """
    if inputs.pairs is None or inputs.correlation is None or inputs.unaugmented:
        return None
    varying = _varying(inputs).shape[1]
    if inputs.views == "two-sided":
        found = signal or whole_signal(inputs)
        # What was left out of the test for lack of samples is open, not silent.
        silent = found.tested - found.positive - found.negative if found.tested == varying else 0
        return InputCount(inputs.dim, varying, found.positive, found.negative, silent)
    growing, dying = _count_ratios(inputs)
    return InputCount(inputs.dim, varying, growing, dying, 0)


def whole_signal(e: Evidence) -> SharedSignal:
    """The shared signal of two views in all directions that vary, or as many as so many samples can test."""
    return _signal(e, largest_directions(_varying(e), e.samples))


def _varying(e: Evidence) -> Float[Tensor, "c q"]:
    """Directions in which a view varies beyond the noise floor of rho, ascending in variance."""
    assert e.correlation is not None
    variances, frame = torch.linalg.eigh(e.correlation[0])
    return frame[:, variances > e.cause_floor]


def _signal(e: Evidence, directions: Float[Tensor, "c q"]) -> SharedSignal:
    assert e.correlation is not None
    if not directions.shape[1]:
        return SharedSignal(directions.new_zeros(0), 0, 0, 0.0)
    second = e.centred_other - e.centred_other.mean(0)
    return shared_signal(*e.correlation, directions, e.samples, e.centred, second)


def _correlation_along(e: Evidence, directions: Float[Tensor, "c k"]) -> tuple[Tensor, Tensor]:
    """Correlation of the views along every column, and its standard error where they are uncorrelated."""
    assert e.correlation is not None
    view, cross = (((cov @ directions) * directions).sum(0) for cov in e.correlation)
    first = e.centred @ directions
    second = e.centred_other @ directions
    products = (first * (second - second.mean(0))).square().mean(0).sqrt()
    error = torch.where(view > 0, products / view, 1.0) / e.samples**0.5
    return torch.where(view > 0, cross / view, 0.0), error


def ratio_along(directions: Float[Tensor, "d k"], pairs: ContrastiveCovariance) -> Float[Tensor, " k"]:
    """Rho = v.Sigma1 v / v.Sigma0 v along every column v; 0 where neither moves (the pair criterion)."""
    data, augmentation = (((cov @ directions) * directions).sum(0) for cov in (pairs.data, pairs.augmentation))
    return torch.where(augmentation > 0, augmentation / data, 0.0)


def ratio_error(e: Evidence, directions: Float[Tensor, "c k"], ratio: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Standard error of rho along every column, by the linearised bootstrap of the sampled rows; infinite for few."""
    if len(e.rows) < FEWEST_FOR_ERRORS or not len(ratio):
        return torch.full_like(ratio, torch.inf)
    scores = e.centred @ directions
    moved = torch.stack([(other - e.centred) @ directions for other in e.centred_others]).square().mean(0)
    spread = scores.square()
    if e.views == "two-sided":
        spread = (spread + torch.stack([(other @ directions).square() for other in e.centred_others]).mean(0)) / 2
    influence = (moved - 2 * ratio * spread).std(0) / (2 * spread.mean(0))
    return torch.nan_to_num(influence, nan=0.0, posinf=torch.inf) / e.samples**0.5


def generalised(e: Evidence, pairs: ContrastiveCovariance) -> tuple[Float[Tensor, " r"], Float[Tensor, "d r"]]:
    """Generalised eigenvalues of (Sigma1, Sigma0), ascending, and directions, where data spreads beyond rounding."""
    # Softmax weights leave Sigma0 small beside the terms that cancel in it, which are as large as the covariance.
    return relative_modes(pairs.data, pairs.augmentation, 2 * e.ratio_floor)


def cross_validated_ratios(e: Evidence) -> list[tuple[Float[Tensor, " r"], Float[Tensor, " r"]]]:
    """Rho in each half of the samples, along the directions that the other half finds, and its standard error.

    Generalised eigenvalues spread by (d/n)^(1/2) around the truth, the largest always upwards; these do not. Every
    negative counts alike, as at W = 0: softmax weights at rest bring rho to 1 wherever a dimension is alive. Fewer than
    four samples have no halves.
    """
    found = []
    for one, other in (e.halves, e.halves[::-1]) if e.halves else ():
        directions = generalised(e, one)[1]
        rho = ratio_along(directions, other)
        found.append((rho, 2**0.5 * ratio_error(e, directions, rho)))  # of half of the samples
    return [(rho, error) for rho, error in found if len(rho)]


def _count_ratios(e: Evidence) -> tuple[int, int]:
    """In how many directions one-sided rho is below 1, and in how many above, as far as sampling allows to count.

    The cross-validated rho are counted, mean over both halves. Directions of one half lean on those of small rho in the
    other, which pulls all rho down: no more count as growing than exceed, one after the other, what rho = 1 shows.
    """
    if e.halves is None or len(e.rows) < FEWEST_FOR_ERRORS:
        return 0, 0
    data, augmentation = (
        torch.stack([getattr(half, side) for half in e.halves]).mean(0) for side in ("data", "augmentation")
    )
    directions = generalised(e, ContrastiveCovariance(data, augmentation))[1]
    most = count_positive(data + augmentation, data - augmentation, directions, e.samples, *_sum_and_difference(e))
    below, above = [], []
    for rho, error in cross_validated_ratios(e):
        distance = _distance_from_one(rho, error)
        below.append(_decided(-distance[rho < 1]))
        above.append(_decided(distance[rho >= 1]))
    return (min(most, round(fmean(below))), round(fmean(above))) if below else (0, 0)


def _distance_from_one(rho: Float[Tensor, " r"], error: Float[Tensor, " r"]) -> Float[Tensor, " r"]:
    """How many standard errors rho lies above 1; 0 where neither is known."""
    return torch.nan_to_num((rho - 1) / error, nan=0.0)


def _decided(distances: Float[Tensor, " r"]) -> int:
    """How many of the directions on one side of rho = 1 belong there, from their distances in standard errors.

    Those that no direction at rho = 1 reaches, and of the others as many as the group shows together. None where all of
    them may be at rho = 1: their squares then sum to a chi-square. Otherwise 68 % of those at rho = 1 lie within one
    standard error, so that their number follows from how many do (Storey 2002). Fewer than 20 % say nothing: 16 % do of
    a group that lies two errors away.
    """
    open_ = distances[distances <= family_margin(len(distances))]
    clear, count = len(distances) - len(open_), len(open_)
    if not count or chi2.sf(float(open_.square().sum()), count) > LEVEL:
        return clear
    near = int((open_ < 1).sum())
    return clear + (count if near <= 0.2 * count else max(0, round(count - near / 0.683)))
