"""Linear BYOL along the measured directions, each taken by itself."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.bridge.prediction.fates import Correlations, Fates
from dyncollapse.diagnostics.verdict import COLLAPSED_BELOW
from dyncollapse.model.pair_moments import PairMoments
from dyncollapse.theory.rest_modes import RestModes
from dyncollapse.theory.self_distillation import ByolRest, byol_learning_times, byol_rest


def byol_modes(
    gamma: Float[Tensor, " q"], variances: Float[Tensor, " q"], weight_decay: float
) -> tuple[ByolRest, list[int]]:
    """Rest points of BYOL for moments that commute.

    A closed form is known for these alone: each direction is taken to have its own variance and correlation, and to act
    on no other.

    Args:
        gamma: Correlation of the views along each direction.
        variances: Variance of the views along each.
        weight_decay: eta, on encoder and predictor.

    Returns:
        The rest points, and the place of their mode for each direction.

    Examples:
        >>> rest, places = byol_modes(torch.tensor([0.75, 0.5]).double(), torch.tensor([1.0, 4.0]).double(), 0.0)
        >>> rest.predictor[places].tolist()  # gamma
        [0.75, 0.5]
    """
    limited = gamma.clamp(-1, 1)
    moments = PairMoments.from_covariances(torch.diag(variances), torch.diag(limited * variances))
    rest = byol_rest(moments, weight_decay)
    owners = rest.directions.abs().argmax(0)  # each mode is one of the axes
    return rest, owners.argsort().tolist()


def as_rest_modes(
    rest: ByolRest, places: list[int], directions: Float[Tensor, "q q"], outputs: int | None
) -> RestModes:
    """The rest points in the order of the directions; the modes of most signal fill the outputs."""
    signal, view_var = rest.signal[places], rest.view_var[places]
    rank = signal.argsort(descending=True).argsort()
    room = rank < (len(signal) if outputs is None else outputs)
    variance = torch.where(room, rest.encoder[places].square() * view_var, 0.0)
    critical = rest.critical_decay[places]
    ratio = torch.where(critical > 0, rest.weight_decay / critical.clamp_min(1e-300), math.inf)
    return RestModes(directions, signal / view_var, ratio, variance, room)


def byol_times(rest: ByolRest, places: list[int], start: Float[Tensor, " q"], level: float) -> Float[Tensor, " q"]:
    """Flow time at which each direction is learnt from a start in balance with its predictor."""
    in_their_order = torch.empty_like(start)
    in_their_order[places] = start
    return byol_learning_times(rest, in_their_order, level)[places]


def byol_fates(rest: RestModes, gamma: Correlations, variances: Float[Tensor, " q"], weight_decay: float) -> Fates:
    """Fates by the decay that each direction survives, gamma^2 s_e / 4, at both ends of what sampling leaves open."""
    low, high = (end.clamp_min(0).square() * variances / 4 for end in (gamma.low, gamma.high))
    level = COLLAPSED_BELOW**2 * float(rest.variance.max())
    dead = (weight_decay > high) | (gamma.high < 0)
    lives = ~dead & (gamma.low > 0) & (weight_decay <= low) & ((rest.variance >= level) | ~rest.room)
    return Fates(lives & rest.room, ~(lives | dead), dead, lives & ~rest.room)
