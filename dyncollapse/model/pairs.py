"""A batch of positive pairs and the convention under which its views are drawn."""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.array_arguments import array_fields
from dyncollapse.model.choices import VIEWS


@array_fields
@dataclass(frozen=True, eq=False)
class Pairs:
    """A batch of positive pairs and the view convention it was drawn under.

    Row i of `positive` is the positive of row i of `anchor`; the negatives of anchor i are the other rows (j != i) of
    `negatives`.

    Attributes:
        anchor: First views (*runs, n, d).
        positive: Second views of the same samples.
        views: "one-sided" (the paper's Eq. 2) or "two-sided" (SimCLR).

    Raises:
        ValueError: For an unknown view convention and views of different shapes.

    Examples:
        >>> pairs = Pairs(torch.zeros(4, 2), torch.ones(4, 2), "two-sided")
        >>> pairs.negatives is pairs.positive
        True
    """

    anchor: Float[Tensor, "*runs n d"]
    positive: Float[Tensor, "*runs n d"]
    views: str = "one-sided"

    def __post_init__(self) -> None:
        """Refuse an unknown view convention and views of different shapes."""
        check_views(self.views)
        if self.anchor.shape != self.positive.shape:
            raise ValueError(
                f"anchors have shape {tuple(self.anchor.shape)}, positives {tuple(self.positive.shape)}; "
                "give both views of the same samples"
            )

    @property
    def negatives(self) -> Float[Tensor, "*runs n d"]:
        """The points that row i is repelled from: the clean samples (one-sided) or the other view (two-sided)."""
        return self.anchor if self.views == "one-sided" else self.positive

    def to(self, dtype: torch.dtype) -> Self:
        """Return the same pairs in another precision."""
        return type(self)(self.anchor.to(dtype), self.positive.to(dtype), self.views)


def stack_pairs(batches: list[Pairs]) -> Pairs:
    """Stack M batches along a new leading axis.

    Args:
        batches: Pairs of one shape (*runs, n, d) and one view convention.

    Returns:
        Pairs (M, *runs, n, d).

    Raises:
        ValueError: For no batches, and batches that differ in shape or view convention.

    Examples:
        >>> batch = Pairs(torch.zeros(4, 2), torch.ones(4, 2))
        >>> stack_pairs([batch] * 3).anchor.shape
        torch.Size([3, 4, 2])
    """
    if len({(batch.anchor.shape, batch.views) for batch in batches}) != 1:
        kinds = ", ".join(sorted({f"{tuple(batch.anchor.shape)} {batch.views}" for batch in batches})) or "none"
        raise ValueError(f"batches are {kinds}; give one or more of one shape and one view convention")
    anchors, positives = zip(*((batch.anchor, batch.positive) for batch in batches), strict=True)
    return Pairs(torch.stack(anchors), torch.stack(positives), batches[0].views)


def check_views(views: str) -> None:
    """Raise ValueError for an unknown view convention."""
    if views not in VIEWS:
        raise ValueError(f"views is {views!r}; choose one of {', '.join(VIEWS)}")
