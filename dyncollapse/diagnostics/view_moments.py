"""Sums over several views of the same samples, from which their contrastive covariances are computed."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributed import ProcessGroup

from dyncollapse.diagnostics.finite import check_finite
from dyncollapse.diagnostics.moments import Moments
from dyncollapse.model.covariance import ContrastiveCovariance


class ViewMoments:
    """Moments of every view, of the differences to the first view, and of the mean of three views or more.

    Differences have their own sums, since differences of covariances would lose them in rounding.

    Attributes:
        each: Moments of every view, first view first.
        shifts: Moments of x' - x for every other view x' and the first view x.
        centres: For three views or more, the moments of their mean, and of that mean minus the first view.
    """

    def __init__(self, dim: int, others: int, *, fast: bool = False, device: torch.device | str = "cpu") -> None:
        """Start without samples, for rows of dimension `dim` and `others` views beside the first."""
        counts = (1 + others, others, 2 if others > 1 else 0)
        self.each, self.shifts, self.centres = (
            [Moments(dim, fast=fast, device=device) for _ in range(count)] for count in counts
        )

    @classmethod
    def restored(cls, every: Sequence[Moments], others: int) -> "ViewMoments":
        """Return sums over 1 + `others` views from all their moments, in the order of `all`."""
        sums = cls.__new__(cls)
        sums.each, sums.shifts = list(every[: 1 + others]), list(every[1 + others : 1 + 2 * others])
        sums.centres = list(every[1 + 2 * others :])
        return sums

    @property
    def all(self) -> list[Moments]:
        """All moments."""
        return [*self.each, *self.shifts, *self.centres]

    @property
    def count(self) -> int:
        """Number of samples."""
        return self.each[0].count

    def update(self, views: Sequence[Shaped[Tensor, "n d"]]) -> None:
        """Add samples, given as one tensor per view, whose rows i are views of sample i; ValueError for NaN."""
        for moments, view in zip(self.each, views, strict=True):
            moments.update(view)
        if not self.shifts:
            return
        # Differences of close half-precision numbers are exact in float32, those of float32 in float64.
        first, *others = (view.to(torch.float64) for view in views)
        apart = [other - first for other in others]
        try:
            check_finite(apart)
        except ValueError:
            raise ValueError("the views differ by more than float64 can hold; give them in other units") from None
        for moments, shift in zip(self.shifts, apart, strict=True):
            moments.update(shift)
        if self.centres:
            drift = torch.stack(apart).sum(0) / len(views)
            self.centres[0].update(first + drift)
            self.centres[1].update(drift)

    def translate(self, offset: Float[Tensor, " d"]) -> None:
        """Add one vector to all views, which leaves their differences as they are."""
        for moments in (*self.each, *self.centres[:1]):
            moments.translate(offset)

    def merge(self, other: "ViewMoments") -> None:
        """Add the samples of another sum of the same dimension and number of views; a single view takes its first."""
        for own, added in zip(self.all, other.all if self.shifts else other.each[:1], strict=True):
            own.merge(added)

    def all_reduce(self, group: ProcessGroup | None = None) -> None:
        """Join the sums of all processes of a group: see `Moments.all_reduce`."""
        for moments in self.all:
            moments.all_reduce(group)

    def pairs(self, views: str) -> ContrastiveCovariance:
        """Return Sigma0 and Sigma1 for uniform weights alpha = 1/N (`contrastive_covariance`), averaged over views."""
        anchor, n = self.each[0], self.count
        shift = torch.stack([moments.second_moment for moments in self.shifts]).mean(0)
        data = 2 * anchor.covariance
        if views == "two-sided":
            apart = [torch.outer(m.mean - anchor.mean, m.mean - anchor.mean) for m in self.each[1:]]
            spread = [m.covariance + gap for m, gap in zip(self.each[1:], apart, strict=True)]
            data = anchor.covariance + torch.stack(spread).mean(0) - shift / n
        return ContrastiveCovariance(data, (1 - 1 / n) * shift)

    def correlation(self) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"]]:
        """Return the covariance S of a view and the covariance G between views, both symmetric, averaged over views.

        G needs no sums of its own, since Cov(x, x') + Cov(x', x) = Cov(x) + Cov(x') - Cov(x' - x).
        """
        first, *others = [moments.covariance for moments in self.each]
        other = torch.stack(others).mean(0)
        apart = torch.stack([moments.covariance for moments in self.shifts]).mean(0)
        view = (first + other) / 2
        return view, view - apart / 2

    def lda(self) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"]] | None:
        """Return the covariances between and within samples for three views or more, else None."""
        if not self.centres:
            return None
        means, drift = self.centres
        within = torch.stack([moments.second_moment for moments in self.shifts]).sum(0) / len(self.each)
        return means.covariance, within - drift.second_moment
