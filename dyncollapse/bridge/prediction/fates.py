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
    """Which modes live, which are suppressed, which die, and which find no room; every mode is one of the four.

    Attributes:
        alive: The embedding's variance stays above the level whatever the sampling error.
        suppressed: It may lie below the level, or does.
        dead: The mode shrinks to zero whatever the sampling error.
        no_room: The mode would live, and the outputs are filled by others.
    """

    alive: Bool[Tensor, " r"]
    suppressed: Bool[Tensor, " r"]
    dead: Bool[Tensor, " r"]
    no_room: Bool[Tensor, " r"]

    def counts(self) -> dict[str, int]:
        """Number of modes of each fate."""
        return {name: int(getattr(self, name).sum()) for name in ("alive", "suppressed", "dead", "no_room")}


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
    factor: float = 1.0,
) -> Fates:
    """Judge modes by their rest values at both ends of what sampling leaves open.

    Args:
        loss: The loss by name.
        ratio: Effective rho at the measured gamma; a mode dies from 1 on.
        variance: Embedding variance at rest.
        room: Whether an output is left for the mode.
        gamma: Correlations.
        factor: How much the effective rho falls per gamma: lambda / mu for vcreg, else 1.

    Returns:
        The fates.

    Examples:
        >>> gamma = Correlations(*torch.tensor([[0.5, 0.0], [0.4, 0.0], [0.6, 0.1]]))
        >>> ratio, variance = torch.tensor([0.5, 1.0]), torch.tensor([0.5, 0.0])
        >>> fates_of("spectral", ratio, variance, torch.ones(2, dtype=torch.bool), gamma).counts()
        {'alive': 1, 'suppressed': 1, 'dead': 0, 'no_room': 0}
    """
    worst, best = (ratio + factor * (gamma.value - end) for end in (gamma.low, gamma.high))
    finite = variance[torch.isfinite(variance)]
    level = COLLAPSED_BELOW**2 * (float(finite.max()) if len(finite) else 1.0)
    dead = best > 1 + AT_ONE
    if loss in ("barlow", "byol"):  # where a mode lives, its variance does not fall to 0 with gamma
        lives = (gamma.low > 0) & (ratio < 1)
    elif loss == "infonce":
        lives = (worst < 1) & (infonce_rest(worst.clamp_min(0), (1 - worst).clamp_min(0)) >= max(level, AT_ONE))
    else:
        lives = 1 - worst >= max(level, AT_ONE)
    lives &= ~dead
    return Fates(lives & room, ~(lives | dead), dead, lives & ~room)
