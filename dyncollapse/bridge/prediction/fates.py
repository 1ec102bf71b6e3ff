"""What becomes of each mode of a rest point, as far as the sampling error of its correlation tells."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyncollapse.diagnostics.verdict import COLLAPSED_BELOW
from dyncollapse.theory.mode_forces import infonce_rest

AT_ONE = 1e-9  # round-off of an effective rho


@dataclass(frozen=True, eq=False)
class Fates:
    """Which modes live, are suppressed, die, decay or find no room; every mode is one of the five.

    Attributes:
        alive: The embedding's variance stays above the level whatever the sampling error.
        suppressed: It may lie below the level, or does.
        dead: The loss shrinks the mode to zero whatever the sampling error.
        decayed: Weight decay shrinks it to zero, and the loss alone might not.
        no_room: The mode would live, and the outputs are filled by others.

    Examples:
        >>> lives, lost = torch.tensor([True, True, False]), torch.tensor([False, False, True])
        >>> fates = Fates.sorted(lives, lost, lost_to_loss=lost, room=torch.tensor([True, False, True]))
        >>> fates.counts()
        {'alive': 1, 'suppressed': 0, 'dead': 1, 'decayed': 0, 'no_room': 1}
    """

    alive: Bool[Tensor, " r"]
    suppressed: Bool[Tensor, " r"]
    dead: Bool[Tensor, " r"]
    decayed: Bool[Tensor, " r"]
    no_room: Bool[Tensor, " r"]

    def counts(self) -> dict[str, int]:
        """Number of modes of each fate."""
        names = ("alive", "suppressed", "dead", "decayed", "no_room")
        return {name: int(getattr(self, name).sum()) for name in names}

    @classmethod
    def sorted(
        cls,
        lives: Bool[Tensor, " r"],
        lost: Bool[Tensor, " r"],
        lost_to_loss: Bool[Tensor, " r"],
        room: Bool[Tensor, " r"],
    ) -> "Fates":
        """Fates from which modes live if they have room, shrink to zero, and shrink without weight decay, too."""
        lives = lives & ~lost
        return cls(lives & room, ~(lives | lost), lost & lost_to_loss, lost & ~lost_to_loss, lives & ~room)


@dataclass(frozen=True, eq=False)
class Correlations:
    """Correlation gamma of the two views along each mode, and the range in which sampling leaves it.

    Attributes:
        value: Gamma (r,).
        low: Its lower end.
        high: Its upper end.
    """

    value: Float[Tensor, " r"]
    low: Float[Tensor, " r"]
    high: Float[Tensor, " r"]


def bounded(
    value: Float[Tensor, " r"],
    margin: Float[Tensor, " r"],
    told: Bool[Tensor, " r"],
    explained: float,
    *,
    alike: bool,
) -> Correlations:
    """The range of each correlation.

    Args:
        value: Gamma.
        margin: What none of the errors of gamma exceeds by chance.
        told: Which correlations a test tells from 0. Of the others, sampling leaves at least `explained` open.
        explained: Correlation that sampling alone reaches.
        alike: Whether gamma is known to be at least 0, because both views are drawn alike.

    Returns:
        The correlations with their ranges.

    Examples:
        >>> none = torch.zeros(1, dtype=torch.bool)
        >>> found = bounded(torch.tensor([-0.1]), torch.tensor([0.05]), none, 0.25, alike=True)
        >>> found.low.item(), round(found.high.item(), 2)
        (0.0, 0.15)
    """
    half = torch.where(told, margin, margin.clamp_min(explained))
    low, high = value - half, value + half
    low = torch.where(told, low, low.clamp_max(0))  # what no test tells from 0 may be 0
    if alike:
        low, high = low.clamp_min(0), high.clamp_min(0)
    return Correlations(value, low, high)


def fates_of(
    loss: str,
    ratio: Float[Tensor, " r"],
    variance: Float[Tensor, " r"],
    room: Bool[Tensor, " r"],
    gamma: Correlations,
    *,
    factor: float = 1.0,
    decay: Float[Tensor, " r"] | float = 0.0,
) -> Fates:
    """Judge modes by their rest values at both ends of what sampling leaves open.

    Args:
        loss: The loss by name.
        ratio: Effective rho at the measured gamma, with weight decay; a mode shrinks to zero from 1 on.
        variance: Embedding variance at rest.
        room: Whether an output is left for the mode.
        gamma: Correlations.
        factor: How much the effective rho falls per gamma: lambda / mu for vcreg, else 1.
        decay: What weight decay adds to the effective rho. Not used for barlow, under which only gamma < 0 is dead.

    Returns:
        The fates.

    Examples:
        >>> gamma = Correlations(*torch.tensor([[0.5, 0.0], [0.4, 0.0], [0.6, 0.1]]))
        >>> ratio, variance = torch.tensor([0.5, 1.0]), torch.tensor([0.5, 0.0])
        >>> fates_of("spectral", ratio, variance, torch.ones(2, dtype=torch.bool), gamma).counts()
        {'alive': 1, 'suppressed': 1, 'dead': 0, 'decayed': 0, 'no_room': 0}
    """
    worst, best = (ratio + factor * (gamma.value - end) for end in (gamma.low, gamma.high))
    finite = variance[torch.isfinite(variance)]
    level = COLLAPSED_BELOW**2 * (float(finite.max()) if len(finite) else 1.0)
    lost = best > 1 + AT_ONE
    lost_to_loss = gamma.high < -AT_ONE if loss == "barlow" else best - decay > 1 + AT_ONE
    if loss == "barlow":  # where a mode lives, its variance does not fall to 0 with gamma
        lives = (gamma.low > 0) & (ratio < 1)
    elif loss == "infonce":
        lives = (worst < 1) & (infonce_rest(worst.clamp_min(0), (1 - worst).clamp_min(0)) >= max(level, AT_ONE))
    else:
        lives = 1 - worst >= max(level, AT_ONE)
    return Fates.sorted(lives, lost, lost_to_loss, room)
