"""The parts of a verdict on dimensions: the fate of each, the mechanism behind it, and one sentence about all."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

COLLAPSED_BELOW = 1e-2
"""Share of the largest singular value below which a dimension counts as collapsed. In variance it is 1e-4.

The paper's figures show a clear gap there, and it is far above what rounding and SGD's noise leave of a dead dimension.
Spectra of measured embeddings use the geometric mean of all larger values in place of the largest: `collapse_level`.
"""


class Mechanism(StrEnum):
    """Why dimensions collapsed; the value is the word in tables and JSON.

    Attributes:
        NONE: Nothing collapsed.
        STRONG: Augmentation exceeds data along the dimension, or removes all shared signal (strong augmentation).
        IMPLICIT: The dimension would grow but has not yet (implicit regularization).
        BOTH: The two mechanisms of the paper, in different dimensions.
        WIDTH: A layer has too few units to fill the dimension.
        DECAY: Weight decay keeps the dimension at zero; without it the dimension would grow.
        UNKNOWN: The samples or the views given do not decide the cause.

    References:
        Jing et al. 2022, Sections 4 and 5, arXiv 2110.09348 (the two mechanisms).

    Examples:
        >>> Mechanism("both") is Mechanism.BOTH, str(Mechanism.STRONG)
        (True, 'strong-augmentation')
    """

    NONE = "none"
    STRONG = "strong-augmentation"
    IMPLICIT = "implicit-regularization"
    BOTH = "both"
    WIDTH = "width"
    DECAY = "weight-decay"
    UNKNOWN = "unknown"


class Fate(StrEnum):
    """What happens to a dimension; the value is the word in tables and JSON.

    Attributes:
        ALIVE: Its variance lies above the threshold.
        DEAD: It shrinks to zero and stays there (for InfoNCE: rho >= 1).
        DECAYED: Weight decay shrinks it to zero, although the loss alone would let it grow.
        SUPPRESSED: Augmentation keeps it too small to count.
        WAITING: It is small but would grow.
        STRUCTURAL: The layers have too few units to fill it.
        UNEXPLAINED: It is collapsed, and there is no other view, rho is within its error of 1, or the loss is one whose
            threshold is not known.
        UNRESOLVED: It is collapsed below the noise floor, where rounding hides the cause.
        UNSEEN: There are too few samples to show it; it does not count as collapsed.

    References:
        docs/explanation/beyond-the-paper.md, sections 5c (dead) and 5f (waiting).

    Examples:
        >>> Fate.WAITING.collapsed, str(Fate.WAITING.mechanism)
        (True, 'implicit-regularization')
        >>> Fate.UNSEEN.collapsed
        False
    """

    ALIVE = "alive"
    DEAD = "dead"
    DECAYED = "decayed"
    SUPPRESSED = "suppressed"
    WAITING = "waiting"
    STRUCTURAL = "structural"
    UNEXPLAINED = "unexplained"
    UNRESOLVED = "unresolved"
    UNSEEN = "unseen"

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
    Fate.DECAYED: Mechanism.DECAY,
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
        fate: What happens to it.
        escape_time: Flow time t = lr x steps at which a waiting dimension leaves zero: infinite if it never does, None
            if it is not known.
        rho: Ratio of augmentation to data along it; None if it was not measured.
        rho_error: Standard error of `rho`; None if `rho` is exact.

    Examples:
        >>> DimensionVerdict(Fate.DEAD, rho=1.5).fate.collapsed
        True
    """

    fate: Fate
    escape_time: float | None = None
    rho: float | None = None
    rho_error: float | None = None


@dataclass(frozen=True, repr=False)
class Verdict:
    """Which dimensions collapsed and why.

    Attributes:
        dimensions: The verdict on each dimension: by input mode for networks, by principal direction for embeddings.
        threshold: Singular value (for networks) or variance (for embeddings) up to which a dimension counts as
            collapsed.
        sentence: The verdict in words, with the names of further arguments of `diagnose` in backticks.
        outputs: Number of dimensions of the embedding, if it is less than the number of judged input modes.
        unseen_signal: For two-sided views, the correlation up to which a shared signal may be hidden by sampling in
            suppressed dimensions.

    Examples:
        >>> dimensions = [DimensionVerdict(Fate.ALIVE), DimensionVerdict(Fate.DEAD), DimensionVerdict(Fate.WAITING)]
        >>> verdict = Verdict(tuple(dimensions), threshold=1e-4, sentence="2 of 3 dimensions collapsed.")
        >>> verdict.count, str(verdict.mechanism)
        (2, 'both')
    """

    dimensions: tuple[DimensionVerdict, ...]
    threshold: float
    sentence: str
    outputs: int | None = None
    unseen_signal: float | None = None

    def __repr__(self) -> str:
        """The counts and the mechanism; `sentence` has it in words, and `dimensions` one by one."""
        return f"Verdict({self.count} of {self.dim} dimensions collapsed, {self.mechanism.value})"

    @property
    def dim(self) -> int:
        """Number of dimensions of the embedding."""
        return len(self.dimensions) if self.outputs is None else self.outputs

    @property
    def count(self) -> int:
        """Number of collapsed dimensions of the embedding: those that no alive mode fills."""
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
        """Flow time at which each waiting dimension leaves zero; None for other dimensions and unknown times."""
        return [one.escape_time for one in self.dimensions]

    @property
    def mechanisms(self) -> list[Mechanism]:
        """The mechanism behind each fate."""
        return [one.fate.mechanism for one in self.dimensions]

    @property
    def mechanism(self) -> Mechanism:
        """The mechanism behind all fates together, see `joint_mechanism`.

        Of a network these are fates of input modes: where it has fewer outputs than modes, it may lose some although no
        dimension of the embedding collapsed.
        """
        return joint_mechanism(self.mechanisms)


def joint_mechanism(mechanisms: Iterable[Mechanism]) -> Mechanism:
    """Combine the mechanisms of dimensions: the paper's come first, then weight decay, an unknown cause, and width.

    Args:
        mechanisms: The mechanisms of single dimensions.

    Returns:
        BOTH if both mechanisms of the paper occur, else the one that occurs, else DECAY, UNKNOWN, WIDTH or NONE.

    Examples:
        >>> str(joint_mechanism([Mechanism.STRONG, Mechanism.WIDTH, Mechanism.NONE]))
        'strong-augmentation'
    """
    present = set(mechanisms)
    if {Mechanism.STRONG, Mechanism.IMPLICIT} <= present:
        return Mechanism.BOTH
    order = (Mechanism.STRONG, Mechanism.IMPLICIT, Mechanism.DECAY, Mechanism.UNKNOWN, Mechanism.WIDTH)
    return next((one for one in order if one in present), Mechanism.NONE)
