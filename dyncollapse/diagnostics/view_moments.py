"""Sums over several views of the same samples, from which their contrastive covariances follow."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributed import ProcessGroup

from dyncollapse.diagnostics.finite import check_finite
from dyncollapse.diagnostics.moments import Moments
from dyncollapse.model.covariance import ContrastiveCovariance


class ViewMoments:
    """`Moments` of every view, of what the other views add to the first, and from three views on of their mean.

    `each` holds every view's, the first one's in front; `shifts` those of every other view less the first, which would
    drown if they were taken as differences of covariances; `centres` those of the views' mean and of that mean less
    the first view.
    """

    def __init__(self, dim: int, others: int, *, fast: bool = False, device: torch.device | str = "cpu") -> None:
        """Start empty, for rows of dimension `dim` and so many other views."""
        counts = (1 + others, others, 2 if others > 1 else 0)
        self.each, self.shifts, self.centres = (
            [Moments(dim, fast=fast, device=device) for _ in range(count)] for count in counts
        )

    @property
    def all(self) -> list[Moments]:
        """Every sum kept."""
        return [*self.each, *self.shifts, *self.centres]

    @property
    def count(self) -> int:
        """Samples seen."""
        return self.each[0].count

    def update(self, views: Sequence[Shaped[Tensor, "n d"]]) -> None:
        """Add samples, one tensor per view, row i of each a view of sample i. Raises ValueError for NaN."""
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
        """Move all views by the same vector; their differences stay."""
        for moments in (*self.each, *self.centres[:1]):
            moments.translate(offset)

    def merge(self, other: "ViewMoments") -> None:
        """Add the samples that another of the same dimension and number of views has seen."""
        for own, added in zip(self.all, other.all, strict=True):
            own.merge(added)

    def all_reduce(self, group: ProcessGroup | None = None) -> None:
        """Give every process of the group the sums over all their samples; see `Moments.all_reduce`."""
        for moments in self.all:
            moments.all_reduce(group)

    def pairs(self, views: str) -> ContrastiveCovariance:
        """Sigma0 and Sigma1 with alpha = 1 / N (`contrastive_covariance`), mean over the other views."""
        anchor, n = self.each[0], self.count
        shift = torch.stack([moments.second_moment for moments in self.shifts]).mean(0)
        data = 2 * anchor.covariance
        if views == "two-sided":
            apart = [torch.outer(m.mean - anchor.mean, m.mean - anchor.mean) for m in self.each[1:]]
            spread = [m.covariance + gap for m, gap in zip(self.each[1:], apart, strict=True)]
            data = anchor.covariance + torch.stack(spread).mean(0) - shift / n
        return ContrastiveCovariance(data, (1 - 1 / n) * shift)

    def correlation(self) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"]]:
        """Covariance S of a view and covariance G between views, both symmetric, mean over the other views.

        Cov(x, x') + Cov(x', x) = Cov(x) + Cov(x') - Cov(x' - x), so that G comes without sums of its own.
        """
        first, *others = [moments.covariance for moments in self.each]
        other = torch.stack(others).mean(0)
        apart = torch.stack([moments.covariance for moments in self.shifts]).mean(0)
        view = (first + other) / 2
        return view, view - apart / 2

    def lda(self) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"]] | None:
        """Covariance between the samples' mean views and within their views, from three views on."""
        if not self.centres:
            return None
        means, drift = self.centres
        within = torch.stack([moments.second_moment for moments in self.shifts]).sum(0) / len(self.each)
        return means.covariance, within - drift.second_moment
