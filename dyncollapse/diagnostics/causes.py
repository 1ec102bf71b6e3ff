"""Why measured dimensions collapsed: causes from other views and from the last layer's inputs, with their errors."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.diagnostics.evidence import Evidence
from dyncollapse.diagnostics.ratios import Crossed, count_ratios, cross_validated_ratios, judged_ratios
from dyncollapse.diagnostics.shared_signal import (
    SharedSignal,
    family_margin,
    largest_directions,
    shared_signal,
)
from dyncollapse.diagnostics.verdict import Fate
from dyncollapse.theory.equilibria import rest_variance

# Embedding variance at rest, in units of the kernel's, below which a dimension counts as collapsed: COLLAPSED_BELOW^2.
NEGLIGIBLE_AT_REST = 1e-4
TOO_FEW = "too few samples to compare the views"
REPEATED = "rows are repeated, so one half of the samples does not check the other"


@dataclass(frozen=True)
class ViewFates:
    """Fates of collapsed principal directions by the evidence of other views.

    Attributes:
        fates: Number of each direction, and its fate: dead, suppressed, waiting, or unexplained if the samples leave it
            open.
        explained: For two-sided views, the correlation that sampling alone reaches in the suppressed directions.
        reason: Why causes are open, in words, where that is not the sampling error of rho.
    """

    fates: dict[int, Fate] = field(default_factory=dict)
    explained: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class InputCount:
    """In how many directions of the last layer's inputs a dimension could grow, must die, or shares no signal.

    Directions that are in none of the three counts are undecided.

    Attributes:
        width: Number of input units.
        varying: Number of directions in which the inputs vary.
        growing: Number of directions in which a dimension can grow.
        dying: Number of directions in which a dimension dies.
        silent: Number of directions in which the views share no signal.
        explained: Correlation that sampling alone reaches in the silent directions; a weaker one may be hidden.
        alive: Number of alive dimensions that clearly can grow; None if all of them can. The others may use any of the
            directions.
    """

    width: int
    varying: int
    growing: int
    dying: int
    silent: int
    explained: float | None = None
    alive: int | None = None


def fates_from_views(evidence: Evidence, collapsed: list[int]) -> ViewFates:
    """Decide the fates of collapsed directions whose variance lies above the noise floor of rho.

    Args:
        evidence: Measurements with other views.
        collapsed: Numbers of these principal directions, ascending.

    Returns:
        One fate for each of them.
    """
    one_sided = evidence.views == "one-sided"
    if evidence.few or (one_sided and not evidence.halves_apart):
        return ViewFates(dict.fromkeys(collapsed, Fate.UNEXPLAINED), reason=TOO_FEW if evidence.few else REPEATED)
    if not collapsed:
        return ViewFates()
    return _one_sided_fates(evidence, collapsed) if one_sided else _two_sided_fates(evidence, collapsed)


def _one_sided_fates(evidence: Evidence, collapsed: list[int]) -> ViewFates:
    """Compare rho along each direction with 1; a direction within the sampling error of 1 stays unexplained."""
    fates = dict.fromkeys(collapsed, Fate.UNEXPLAINED)
    for k, rho, side in zip(collapsed, *judged_ratios(evidence, collapsed), strict=True):
        if side:
            resting = float(rest_variance(rho.clamp_max(1), torch.ones(())))
            fates[k] = Fate.DEAD if side > 0 else Fate.WAITING if resting > NEGLIGIBLE_AT_REST else Fate.SUPPRESSED
    return ViewFates(fates)


def _two_sided_fates(evidence: Evidence, collapsed: list[int]) -> ViewFates:
    """Count the correlations of the views in the span of these directions: positive ones wait, negative ones are dead.

    The other directions are suppressed. Principal directions of nearly equal variance are arbitrary mixtures, so the
    span is tested as a whole, and its counts go to the directions with the largest and smallest correlations. If it has
    too many dimensions for a joint test, each direction is tested alone.
    """
    assert evidence.correlation is not None
    directions = evidence.principal[1][:, collapsed]
    gamma, error = _correlation_along(evidence, directions)
    order = [collapsed[k] for k in gamma.argsort(descending=True).tolist()]
    if 2 * len(collapsed) <= evidence.independent:
        signal = _signal(evidence, directions)
        resting = [float(rest_variance(1 - g, g)) for g in signal.correlations if g > 0][: signal.positive]
        positive, negative = sum(c > NEGLIGIBLE_AT_REST for c in resting), signal.negative
        explained = signal.explained
    else:
        margin = family_margin(len(collapsed)) * error
        positive, negative = int((gamma > margin).sum()), int((gamma < -margin).sum())
        explained = float(margin.max())
    fates = dict.fromkeys(order, Fate.SUPPRESSED)
    fates |= dict.fromkeys(order[:positive], Fate.WAITING)
    fates |= dict.fromkeys(order[len(order) - negative :], Fate.DEAD)
    return ViewFates(fates, explained)


def count_inputs(
    inputs: Evidence, signal: SharedSignal | None, crossed: list[Crossed], alive: int | None = None
) -> InputCount | None:
    """Count the input directions that limit how many dimensions can live, die or stay suppressed.

    At rest the rank of a linear layer is at most the number of input directions in which a dimension can grow.

    Args:
        inputs: Measurements of the last layer's inputs.
        signal: `whole_signal` of the inputs; None for too few samples.
        crossed: `cross_validated_ratios` of the inputs, for one-sided views.
        alive: Result of `growing_alive`.

    Returns:
        The counts; None if there are no other views or they do not differ from the first.
    """
    if inputs.pairs is None or inputs.correlation is None or inputs.unaugmented:
        return None
    varying = inputs.varying.shape[1]
    # Values of few steps may be rounded: what they hide looks like augmentation, but not like data or shared signal.
    sure = int(torch.linalg.eigvalsh(inputs.correlation[0]).gt(inputs.cause_floor).sum()) == varying
    if inputs.views == "two-sided":
        tested = signal or SharedSignal(inputs.varying.new_zeros(0), 0, 0, 1.0)
        # Directions left out of the test for lack of samples are undecided, not silent.
        silent = tested.tested - tested.positive - tested.negative if tested.tested == varying else 0
        return InputCount(inputs.dim, varying, tested.positive, tested.negative, sure * silent, tested.explained, alive)
    growing, dying = count_ratios(inputs, crossed)
    return InputCount(inputs.dim, varying, growing, sure * dying, 0, alive=alive)


def growing_alive(evidence: Evidence, alive: int) -> int:
    """Count alive dimensions that clearly can grow: data exceed augmentation there, or the views share signal.

    Without other views of the embeddings, the directions that alive dimensions read are those of a regression on the
    inputs.

    Args:
        evidence: Measurements with inputs of the last layer.
        alive: Number of alive dimensions, which are the first principal directions.

    Returns:
        A lower bound.
    """
    source, span = evidence, evidence.principal[1][:, :alive].flip(1)
    if evidence.pairs is None or evidence.unaugmented:
        source = evidence.inputs or evidence
        if source.pairs is None or len(source.rows) != len(evidence.rows) or len(source.rows) <= source.dim:
            return 0
        span = torch.linalg.qr(torch.linalg.lstsq(source.centred, evidence.centred @ span, driver="gelsd").solution).Q
    if not alive or source.few:
        return 0
    if source.views == "two-sided":
        return _signal(source, largest_directions(span, source.independent)).positive
    return count_ratios(source, cross_validated_ratios(source, span), span)[0]


def whole_signal(evidence: Evidence) -> SharedSignal:
    """Test the signal that two views share, in all directions that vary or as many as the samples can test."""
    return _signal(evidence, largest_directions(evidence.varying, evidence.independent))


def _signal(evidence: Evidence, directions: Float[Tensor, "c q"]) -> SharedSignal:
    assert evidence.correlation is not None
    if not directions.shape[1]:
        return SharedSignal(directions.new_zeros(0), 0, 0, 0.0)
    second = evidence.centred_other - evidence.centred_other.mean(0)
    return shared_signal(*evidence.correlation, directions, evidence.independent, evidence.centred, second)


def _correlation_along(evidence: Evidence, directions: Float[Tensor, "c k"]) -> tuple[Tensor, Tensor]:
    """Return the correlation of the views along every column, and its standard error if they were uncorrelated."""
    assert evidence.correlation is not None
    view, cross = (((cov @ directions) * directions).sum(0) / evidence.unit for cov in evidence.correlation)
    first, second = (rows @ directions / evidence.unit**0.5 for rows in (evidence.centred, evidence.centred_other))
    products = (first * (second - second.mean(0))).square().mean(0).sqrt()
    error = torch.where(view > 0, products / view, 1.0) / evidence.independent**0.5
    return torch.where(view > 0, cross / view, 0.0), error
