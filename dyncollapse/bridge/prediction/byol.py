"""Linear BYOL along the measured directions, each taken by itself."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.bridge.prediction.fates import Correlations, Fates
from dyncollapse.diagnostics.verdict import COLLAPSED_BELOW
from dyncollapse.theory.rest_modes import RestModes
from dyncollapse.theory.self_distillation import ByolRest


def as_rest_modes(rest: ByolRest, outputs: int | None) -> RestModes:
    """The rest points as modes; those of most signal fill the outputs.

    Args:
        rest: Rest points along directions u with u^T S_e u = 1, which have signal and variance of the whole direction.
        outputs: Outputs of the encoder; None for as many as directions.

    Returns:
        The modes, whose ratio is the weight decay over the one that kills the mode.
    """
    rank = rest.signal.argsort(descending=True).argsort()
    room = rank < (len(rank) if outputs is None else outputs)
    variance = torch.where(room, rest.encoder.square() * rest.view_var, 0.0)
    critical = rest.critical_decay
    ratio = torch.where(critical > 0, rest.weight_decay / critical.clamp_min(1e-300), math.inf)
    return RestModes(rest.directions, rest.signal / rest.view_var, ratio, variance, room)


def byol_fates(rest: RestModes, gamma: Correlations, variances: Float[Tensor, " q"], weight_decay: float) -> Fates:
    """Fates by the decay that each direction survives, gamma^2 s_e / 4, at both ends of what sampling leaves open."""
    low, high = (end.clamp_min(0).square() * variances / 4 for end in (gamma.low, gamma.high))
    level = COLLAPSED_BELOW**2 * float(rest.variance.max())
    opposed = gamma.high < 0
    lives = (gamma.low > 0) & (weight_decay <= low) & ((rest.variance >= level) | ~rest.room)
    return Fates.sorted(lives, (weight_decay > high) | opposed, opposed, rest.room)
