"""Sums over two random halves of the samples, in the span of the rows if these are fewer than the dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.distributed import ProcessGroup

from dyncollapse.diagnostics.view_moments import ViewMoments


@dataclass(frozen=True, eq=False)
class Summed:
    """Sums over all samples and over both halves.

    Attributes:
        total: Sums over all samples.
        halves: Sums over each half.
        frame: Orthonormal columns that span all rows of all views, if these are fewer than the dimensions: the sums
            are then in coordinates of these columns. None if they are about the d columns themselves.
        column_mean: Mean of each column of the first view.
        column_variance: Variance of each column of the first view.
    """

    total: ViewMoments
    halves: tuple[ViewMoments, ViewMoments]
    frame: Float[Tensor, "d r"] | None
    column_mean: Float[Tensor, " d"]
    column_variance: Float[Tensor, " d"]


class SplitMoments:
    """`ViewMoments` of two halves of a stream of samples, each with several views.

    Rows are held until there are as many as dimensions, then summed: memory is O(rows x d) at first and O(d^2) from
    then on.
    """

    def __init__(self, dim: int, others: int, *, fast: bool, device: torch.device) -> None:
        """Start without samples, for rows of dimension `dim` and `others` views beside the first."""
        self.dim, self.others, self.fast, self.device = dim, others, fast, device
        self._held: list[tuple[list[Tensor], Tensor]] | None = []
        self._halves: tuple[ViewMoments, ViewMoments] | None = None

    @classmethod
    def restored(cls, halves: tuple[ViewMoments, ViewMoments], *, fast: bool) -> "SplitMoments":
        """Return sums of two halves that were summed before."""
        first = halves[0].each[0]
        sums = cls(first.dim, len(halves[0].shifts), fast=fast, device=first.mean.device)
        sums._halves, sums._held = halves, None
        return sums

    @property
    def count(self) -> int:
        """Number of samples."""
        if self._halves is not None:
            return sum(half.count for half in self._halves)
        return sum(len(heads) for _, heads in self._held or ())

    def update(self, views: Sequence[Shaped[Tensor, "n d"]], heads: Bool[Tensor, " n"]) -> None:
        """Add samples, given as one tensor per view; `heads` marks those of the first half."""
        if self._held is not None:
            with torch.inference_mode(False):  # tensors made in inference mode could not be used outside it
                self._held.append(([view.detach().clone() for view in views], heads))
            if self.count * (1 + self.others) >= self.dim:
                self.sum_rows()
            return
        assert self._halves is not None
        _split(views, heads, self._halves)

    def merge(self, other: "SplitMoments") -> None:
        """Add the samples of another sum of the same dimension and number of views."""
        if self._held is not None and other._held is not None:
            self._held += other._held
            if self.count * (1 + self.others) < self.dim:
                return
            self.sum_rows()
            return
        mine, theirs = self.sum_rows(), other._halves or other._summed_rows()
        for own, added in zip(mine, theirs, strict=True):
            own.merge(added)

    def all_reduce(self, group: ProcessGroup | None = None) -> None:
        """Join the sums of all processes of a group: see `Moments.all_reduce`."""
        for half in self.sum_rows():
            half.all_reduce(group)

    def summed(self, *, others: bool = True) -> Summed:
        """Return all sums; rows that are still held are summed in coordinates of their span.

        Without `others` the total is that of the first view alone.
        """
        if self._held is None:
            frame, halves = None, self.sum_rows()
        else:
            frame, halves = self._in_their_span(self._held)
        kept = self.others if others else 0
        total = ViewMoments(halves[0].each[0].dim, kept, fast=self.fast, device=self.device)
        for half in halves:
            total.merge(half)
        if frame is None:
            columns = total.each[0].mean, total.each[0].covariance.diagonal()
        else:
            rows = torch.cat([views[0].to(self.device, torch.float64) for views, _ in self._held or ()])
            # The first row is subtracted before summing, since nearly equal numbers are subtracted without rounding.
            columns = rows[0] + (rows - rows[0]).mean(0), (rows - rows[0]).var(0, correction=0)
        return Summed(total, halves, frame, *columns)

    def sum_rows(self) -> tuple[ViewMoments, ViewMoments]:
        """Sum the held rows, and hold none from then on."""
        if self._halves is None:
            self._halves, self._held = self._summed_rows(), None
        return self._halves

    def _summed_rows(self) -> tuple[ViewMoments, ViewMoments]:
        halves = self._empty(self.dim)
        for views, heads in self._held or ():
            _split(views, heads, halves)
        return halves

    def _empty(self, dim: int) -> tuple[ViewMoments, ViewMoments]:
        first, second = (ViewMoments(dim, self.others, fast=self.fast, device=self.device) for _ in range(2))
        return first, second

    def _in_their_span(
        self, held: Sequence[tuple[list[Tensor], Tensor]]
    ) -> tuple[Float[Tensor, "d r"], tuple[ViewMoments, ViewMoments]]:
        """Return an orthonormal frame of all rows, and the sums over their coordinates in it."""
        blocks = [([view.to(self.device, torch.float64) for view in views], heads) for views, heads in held]
        first = next(views[0][:1] for views, heads in blocks if len(heads))
        apart = torch.cat([view - first for views, _ in blocks for view in views])
        if not bool(torch.isfinite(apart.square().sum(1)).all()):
            raise ValueError("the embeddings hold numbers whose squares overflow; give them in other units")
        frame = torch.linalg.qr(torch.cat([first, apart[1:]]).mT).Q  # apart[0] is the first row minus itself
        halves = self._empty(frame.shape[1])
        for views, heads in blocks:
            _split([(view - first) @ frame for view in views], heads, halves)
        for half in halves:
            half.translate((first @ frame)[0])
        return frame, halves


def _split(views: Sequence[Tensor], heads: Tensor, halves: tuple[ViewMoments, ViewMoments]) -> None:
    """Add each sample to one half; a single view needs no halves and is added to the first."""
    if len(views) == 1:
        halves[0].update(views)
        return
    for half, chosen in zip(halves, (heads, ~heads), strict=True):
        half.update([view[chosen.to(view.device)] for view in views])
