"""What a verdict on dimensions consists of: the fate of each, the mechanism behind it, and one sentence about all."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

# A dimension counts as collapsed below this share of the largest singular value: 1e-4 in variance, which figures of
# the paper show as a clear gap, and far above what rounding and SGD's noise leave of a dead dimension.
COLLAPSED_BELOW = 1e-2


class Mechanism(StrEnum):
    """Why dimensions collapsed: the paper's two mechanisms, both of them, want of width, an open cause, or none."""

    NONE = "none"
    STRONG = "strong-augmentation"
    IMPLICIT = "implicit-regularization"
    BOTH = "both"
    WIDTH = "width"
    UNKNOWN = "unknown"


class Fate(StrEnum):
    """What becomes of a dimension; its value is the word that tables and JSON say."""

    ALIVE = "alive"
    DEAD = "dead"  # rho >= 1: it never comes back
    SUPPRESSED = "suppressed"  # augmentation keeps it too low to count
    WAITING = "waiting"  # it would grow
    STRUCTURAL = "structural"  # the layers have no room for it
    UNEXPLAINED = "unexplained"  # no other view, or rho within its error of 1
    UNRESOLVED = "unresolved"  # lost in rounding
    UNSEEN = "unseen"  # too few samples show it: not counted as collapsed

    @property
    def mechanism(self) -> Mechanism:
        """The mechanism behind this fate."""
        return _MECHANISMS[self]

    @property
    def collapsed(self) -> bool:
        """Whether a dimension with this fate counts as collapsed."""
        return self not in (Fate.ALIVE, Fate.UNSEEN)


_MECHANISMS = {
    Fate.ALIVE: Mechanism.NONE,
    Fate.DEAD: Mechanism.STRONG,
    Fate.SUPPRESSED: Mechanism.STRONG,
    Fate.WAITING: Mechanism.IMPLICIT,
    Fate.STRUCTURAL: Mechanism.WIDTH,
    Fate.UNEXPLAINED: Mechanism.UNKNOWN,
    Fate.UNRESOLVED: Mechanism.UNKNOWN,
    Fate.UNSEEN: Mechanism.NONE,
}


@dataclass(frozen=True)
class DimensionVerdict:
    """The verdict on one dimension.

    Attributes:
        fate: What becomes of it.
        escape_time: Flow time by which a waiting one leaves zero, infinite for never; None where it is not known.
        rho: Ratio of augmentation to data along it, None where it was not measured.
        rho_error: Standard error of `rho`, None for an exact one.
    """

    fate: Fate
    escape_time: float | None = None
    rho: float | None = None
    rho_error: float | None = None


@dataclass(frozen=True)
class Verdict:
    """Which dimensions collapsed, why, and one sentence about all.

    Attributes:
        dimensions: The verdict on each, in the order of what was judged.
        threshold: Singular value (of networks) or variance (of embeddings) up to which a dimension counts as collapsed.
        sentence: What the verdict says, for people.
        outputs: Dimensions of the embedding, where these are fewer than what was judged, the input modes.
        unseen_signal: Correlation of sampled views up to which signal may have gone unseen in suppressed dimensions.
    """

    dimensions: tuple[DimensionVerdict, ...]
    threshold: float
    sentence: str
    outputs: int | None = None
    unseen_signal: float | None = None

    @property
    def dim(self) -> int:
        """How many dimensions the embedding has."""
        return len(self.dimensions) if self.outputs is None else self.outputs

    @property
    def count(self) -> int:
        """How many dimensions of the embedding collapsed: those that no living mode fills."""
        if self.outputs is None:
            return sum(self.collapsed)
        return max(0, self.outputs - self.fates.count(Fate.ALIVE))

    @property
    def fates(self) -> list[Fate]:
        """The fate of each dimension."""
        return [one.fate for one in self.dimensions]

    @property
    def collapsed(self) -> list[bool]:
        """Whether each dimension collapsed."""
        return [one.fate.collapsed for one in self.dimensions]

    @property
    def escapes(self) -> list[float | None]:
        """Flow time by which each waiting dimension leaves zero; None for others and where it is not known."""
        return [one.escape_time for one in self.dimensions]

    @property
    def mechanisms(self) -> list[Mechanism]:
        """The mechanism behind each fate."""
        return [one.fate.mechanism for one in self.dimensions]

    @property
    def mechanism(self) -> Mechanism:
        """The mechanism of all together."""
        return joint_mechanism(self.mechanisms)


def joint_mechanism(mechanisms: Iterable[Mechanism]) -> Mechanism:
    """The paper's mechanism at work, or both of them; without these an open cause, want of width or none.

    Args:
        mechanisms: Those behind single dimensions.

    Returns:
        One for all of them.

    Example:
        >>> str(joint_mechanism([Mechanism.STRONG, Mechanism.WIDTH, Mechanism.NONE]))
        'strong-augmentation'
    """
    there = set(mechanisms)
    if {Mechanism.STRONG, Mechanism.IMPLICIT} <= there:
        return Mechanism.BOTH
    order = (Mechanism.BOTH, Mechanism.STRONG, Mechanism.IMPLICIT, Mechanism.UNKNOWN, Mechanism.WIDTH)
    return next((one for one in order if one in there), Mechanism.NONE)
