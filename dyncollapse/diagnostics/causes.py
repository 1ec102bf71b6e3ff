"""Why measured dimensions collapsed: what other views and the last layer's inputs can tell, and how surely."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.diagnostics.evidence import FEWEST_FOR_ERRORS, Evidence
from dyncollapse.diagnostics.ratios import Crossed, count_ratios, judged_ratios
from dyncollapse.diagnostics.shared_signal import (
    SharedSignal,
    family_margin,
    largest_directions,
    shared_signal,
)
from dyncollapse.diagnostics.verdict import Fate
from dyncollapse.theory.equilibria import rest_variance

# Embedding variance at rest, in units of the kernel's, below which a dimension does not count: see COLLAPSED_BELOW.
NEGLIGIBLE_AT_REST = 1e-4


@dataclass(frozen=True)
class Told:
    """Fates of collapsed principal directions that other views of the embeddings tell, and the test behind them.

    `fates` maps the number of a direction to dead, suppressed, waiting or unexplained (within its error of the
    threshold); `explained` is the correlation of two views that sampling alone reaches there, for two-sided ones.
    """

    fates: dict[int, Fate] = field(default_factory=dict)
    explained: float | None = None


@dataclass(frozen=True)
class InputCount:
    """In how many directions of the last layer's inputs a dimension could grow, must die, or has no signal to grow on.

    `width` counts all input units, `varying` the directions in which they vary; those of them that the three counts
    leave out are open. `explained` is the correlation of two views that sampling alone reaches where they have no
    signal: a weaker one may have gone unseen there.
    """

    width: int
    varying: int
    growing: int
    dying: int
    silent: int
    explained: float | None = None


def tell(evidence: Evidence, collapsed: list[int]) -> Told:
    """Fates of these principal directions, whose variance lies above the noise floor of rho, by their other views."""
    if len(evidence.rows) < FEWEST_FOR_ERRORS:
        return Told(dict.fromkeys(collapsed, Fate.UNEXPLAINED))
    if not collapsed:
        return Told()
    return (
        _tell_two_sided(evidence, collapsed) if evidence.views == "two-sided" else _tell_one_sided(evidence, collapsed)
    )


def _tell_one_sided(evidence: Evidence, collapsed: list[int]) -> Told:
    """Compare rho along each direction with 1, and leave open those that sampling may have put on their side."""
    fates = dict.fromkeys(collapsed, Fate.UNEXPLAINED)
    for k, rho, side in zip(collapsed, *judged_ratios(evidence, collapsed), strict=True):
        if side:
            resting = float(rest_variance(rho.clamp_max(1), torch.ones(())))
            fates[k] = Fate.DEAD if side > 0 else Fate.WAITING if resting > NEGLIGIBLE_AT_REST else Fate.SUPPRESSED
    return Told(fates)


def _tell_two_sided(evidence: Evidence, collapsed: list[int]) -> Told:
    """Count shared signal inside the span of these directions: there it waits, without it they are suppressed.

    Principal directions of nearly equal variance are arbitrary mixtures, so the span is tested as a whole and its
    counts are given to the directions with the largest and the smallest correlation. Where it has too many
    dimensions for a joint test, each direction is tested alone.
    """
    assert evidence.correlation is not None
    directions = evidence.principal[1][:, collapsed]
    gamma, error = _correlation_along(evidence, directions)
    order = [collapsed[k] for k in gamma.argsort(descending=True).tolist()]
    if 2 * len(collapsed) <= evidence.samples:
        found = _signal(evidence, directions)
        resting = [float(rest_variance(1 - g, g)) for g in found.correlations if g > 0][: found.positive]
        positive, negative = sum(c > NEGLIGIBLE_AT_REST for c in resting), found.negative
        explained = found.explained
    else:
        margin = family_margin(len(collapsed)) * error
        positive, negative = int((gamma > margin).sum()), int((gamma < -margin).sum())
        explained = float(margin.max())
    fates = dict.fromkeys(order, Fate.SUPPRESSED)
    fates |= dict.fromkeys(order[:positive], Fate.WAITING)
    fates |= dict.fromkeys(order[len(order) - negative :], Fate.DEAD)
    return Told(fates, explained)


def count_inputs(inputs: Evidence, signal: SharedSignal | None, crossed: list[Crossed]) -> InputCount | None:
    """What the last layer's inputs leave for dimensions that are lost in rounding; None where nothing can be compared.

    At rest a linear layer passes on no more directions than those in which a dimension can grow. `signal` is
    `whole_signal` of the inputs, None for too few samples; `crossed` are their `cross_validated_ratios`, for one-sided
    views.
    """
    if inputs.pairs is None or inputs.correlation is None or inputs.unaugmented:
        return None
    varying = inputs.varying.shape[1]
    if inputs.views == "two-sided":
        found = signal or SharedSignal(inputs.varying.new_zeros(0), 0, 0, 1.0)
        # What was left out of the test for lack of samples is open, not silent.
        silent = found.tested - found.positive - found.negative if found.tested == varying else 0
        return InputCount(inputs.dim, varying, found.positive, found.negative, silent, found.explained)
    growing, dying = count_ratios(inputs, crossed)
    return InputCount(inputs.dim, varying, growing, dying, 0)


def whole_signal(evidence: Evidence) -> SharedSignal:
    """The shared signal of two views in all directions that vary, or as many as so many samples can test."""
    return _signal(evidence, largest_directions(evidence.varying, evidence.samples))


def _signal(evidence: Evidence, directions: Float[Tensor, "c q"]) -> SharedSignal:
    assert evidence.correlation is not None
    if not directions.shape[1]:
        return SharedSignal(directions.new_zeros(0), 0, 0, 0.0)
    second = evidence.centred_other - evidence.centred_other.mean(0)
    return shared_signal(*evidence.correlation, directions, evidence.samples, evidence.centred, second)


def _correlation_along(evidence: Evidence, directions: Float[Tensor, "c k"]) -> tuple[Tensor, Tensor]:
    """Correlation of the views along every column, and its standard error where they are uncorrelated."""
    assert evidence.correlation is not None
    view, cross = (((cov @ directions) * directions).sum(0) for cov in evidence.correlation)
    first = evidence.centred @ directions
    second = evidence.centred_other @ directions
    products = (first * (second - second.mean(0))).square().mean(0).sqrt()
    error = torch.where(view > 0, products / view, 1.0) / evidence.samples**0.5
    return torch.where(view > 0, cross / view, 0.0), error
