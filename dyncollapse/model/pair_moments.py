"""Second moments of positive pairs, given or measured: all that most population limits need to know of the data."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from jaxtyping import Float, Num
from torch import Generator, Tensor

from dyncollapse.model._drawing import symmetric_root
from dyncollapse.model.array_arguments import array_fields, takes_arrays
from dyncollapse.model.conversion import as_tensor
from dyncollapse.model.covariance_checks import check_covariance, check_same_kind, check_symmetric, round_off
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.pairs import check_views


@array_fields
@dataclass(frozen=True, eq=False)
class PairMoments:
    """Covariances of positive pairs (x, x') of any distribution, in place of a `GaussianTask`.

    Closed forms, population flows and claims take it wherever they take a `GaussianTask`. For the losses spectral, dot,
    vcreg and barlow they then hold for any distribution with these moments; for infonce they hold for Gaussian pairs
    and are an approximation for others.

    Attributes:
        view_cov: S_e (d, d), the covariance of a point as the loss sees it: of the anchors for one-sided views, of both
            views together for two-sided ones.
        difference_cov: A_e (d, d), the second moment E[(x - x')(x - x')^T].
        shared: G (d, d), the symmetric part of the covariance E[x x'^T]; S_e - A_e / 2 for two-sided views. Its
            eigenvalues may be negative.
        views: "one-sided", where anchors and negatives are clean, or "two-sided", where both views are drawn alike.
        samples: The number of pairs behind the moments; None for exact ones.
        means: Means (d,) of the anchors and of the positives that were measured; None for exact moments.

    Raises:
        ValueError: For matrices that are not finite, square, symmetric and, but for G, PSD, or that differ in size,
            precision or device, and for moments that no pair can have.

    References:
        docs/explanation/one-axis.md.

    Examples:
        >>> views = torch.eye(2, dtype=torch.float64)
        >>> moments = PairMoments.from_covariances(views, torch.diag(torch.tensor([0.75, -0.5])).double())
        >>> moments.difference_cov.diagonal().tolist()  # 2 (S_e - G)
        [0.5, 3.0]
    """

    view_cov: Float[Tensor, "d d"]
    difference_cov: Float[Tensor, "d d"]
    shared: Float[Tensor, "d d"]
    views: str = "two-sided"
    samples: int | None = None
    means: tuple[Float[Tensor, " d"], Float[Tensor, " d"]] | None = None

    def __post_init__(self) -> None:
        """Check the moments and the view convention."""
        check_views(self.views)
        check_covariance("view_cov", self.view_cov)
        check_same_kind("difference_cov", self.difference_cov, self.view_cov, "view_cov")
        check_same_kind("shared", self.shared, self.view_cov, "view_cov")
        check_covariance("difference_cov", self.difference_cov)
        check_symmetric("shared", self.shared)
        if self.views == "two-sided":
            # Views that are opposite leave a sum of 0, with the round-off of its parts.
            slack = 8 * round_off(self.view_cov) * torch.eye(len(self.view_cov)).to(self.view_cov)
            check_covariance("view_cov + shared", self.view_cov + self.shared + slack)

    @classmethod
    @takes_arrays
    def from_covariances(
        cls,
        view_cov: Float[Tensor, "d d"],
        cross_cov: Float[Tensor, "d d"],
        views: str = "two-sided",
        positive_cov: Float[Tensor, "d d"] | None = None,
    ) -> Self:
        """Build the moments from the covariance of a view and that between the views.

        Args:
            view_cov: V (d, d) of a view; of the clean anchors for one-sided views.
            cross_cov: R (d, d) = E[x x'^T] between both views of a pair; its symmetric part is used.
            views: The view convention.
            positive_cov: Covariance (d, d) of the positives of one-sided views; two-sided views share V.

        Returns:
            Exact moments.

        Raises:
            ValueError: As for the class, and for a `positive_cov` that is missing, or given for two-sided views.

        Examples:
            >>> V = torch.eye(1)
            >>> PairMoments.from_covariances(V, 0.25 * V).difference_cov.item()
            1.5
        """
        check_views(views)
        if (positive_cov is None) != (views == "two-sided"):
            given = "not given" if positive_cov is None else "given"
            raise ValueError(f"positive_cov is {given} with {views} views; one-sided views need it, others have none")
        check_covariance("view_cov", view_cov)
        check_same_kind("cross_cov", cross_cov, view_cov, "view_cov")
        shared = (cross_cov + cross_cov.T) / 2
        other = view_cov if positive_cov is None else positive_cov
        check_same_kind("positive_cov", other, view_cov, "view_cov")
        difference = view_cov + other - 2 * shared
        return cls(view_cov, difference, shared, views)

    @classmethod
    def from_pairs(cls, x: Num[Tensor, "n d"], x_pos: Num[Tensor, "n d"], views: str = "two-sided") -> Self:
        """Measure the moments of positive pairs.

        Args:
            x: One view, a row per sample; the clean anchors for one-sided views.
            x_pos: The other view of the same samples, row by row.
            views: The view convention.

        Returns:
            Moments of n pairs, in float64, about the common mean of both views (one-sided: that of the anchors).

        Raises:
            ValueError: For shapes that differ, fewer than two pairs, and numbers that are not finite.

        Examples:
            >>> x = torch.tensor([[1.0], [-1.0]])
            >>> moments = PairMoments.from_pairs(x, -x)  # the views are opposite
            >>> moments.view_cov.item(), moments.shared.item()
            (1.0, -1.0)
        """
        return cls.from_batches([(x, x_pos)], views)

    @classmethod
    def from_batches(
        cls, batches: Iterable[tuple[Num[Tensor, "n d"], Num[Tensor, "n d"]]], views: str = "two-sided"
    ) -> Self:
        """Measure the moments of a stream of positive pairs, in one pass and constant memory.

        Args:
            batches: Batches of pairs (x, x'), each view (n, d).
            views: The view convention.

        Returns:
            Moments of all pairs; see `from_pairs`.

        Raises:
            ValueError: As `from_pairs`, and for batches of different dimensions.

        Examples:
            >>> halves = [(torch.ones(1, 1), torch.ones(1, 1)), (-torch.ones(1, 1), -torch.ones(1, 1))]
            >>> PairMoments.from_batches(halves).view_cov.item()
            1.0
        """
        check_views(views)
        sums: _Sums | None = None
        for x, x_pos in batches:
            x, x_pos = _rows(x), _rows(x_pos)
            if x.shape != x_pos.shape or (sums is not None and x.shape[1] != len(sums.origin)):
                raise ValueError(
                    f"a batch has views of shapes {tuple(x.shape)} and {tuple(x_pos.shape)}; give both views of the "
                    "same samples, of one dimension everywhere"
                )
            if len(x):
                sums = sums or _Sums(x, views)
                sums.add(x, x_pos)
        if sums is None or sums.count < 2:
            raise ValueError(f"{0 if sums is None else sums.count} pairs have no covariance; give at least 2")
        moments, means = sums.moments()
        return cls(*moments, views, sums.count, means)

    @classmethod
    def from_images(
        cls,
        images: Tensor | Iterable[Tensor],
        augment: Callable[[Tensor, Generator], Tensor],
        generator: Generator,
        views: str = "two-sided",
        draws: int = 1,
    ) -> Self:
        """Measure the moments of images under an augmentation, without keeping the views.

        Args:
            images: Images (n, ...), or an iterable of such batches.
            augment: Draws a view of each image of a batch, (n, ...) in any shape, with the given generator.
            generator: Seeds the augmentation.
            views: "two-sided" draws both views; for "one-sided" the image itself is the anchor.
            draws: Pairs drawn of each image.

        Returns:
            Moments of the flattened views.

        Raises:
            ValueError: As `from_batches`, and for fewer than one draw.

        Examples:
            >>> images = torch.randn(1000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
            >>> def mask(batch, generator):
            ...     return batch * torch.randint(0, 2, batch.shape, generator=generator)
            >>> moments = PairMoments.from_images(images, mask, torch.Generator().manual_seed(1), draws=20)
            >>> [round(value, 1) for value in (moments.shared.diagonal() / moments.view_cov.diagonal()).tolist()]
            [0.5, 0.5, 0.5, 0.5]
        """
        if draws < 1:
            raise ValueError(f"draws is {draws}; draw at least one pair of each image")

        def pairs() -> Iterable[tuple[Tensor, Tensor]]:
            for batch in [images] if isinstance(images, Tensor) else images:
                for _ in range(draws):
                    anchor = batch if views == "one-sided" else augment(batch, generator)
                    yield anchor.flatten(1), augment(batch, generator).flatten(1)

        return cls.from_batches(pairs(), views)

    def merged(self, other: "PairMoments") -> "PairMoments":
        """Moments of the pairs behind both.

        Args:
            other: Measured moments of other pairs, in the same inputs.

        Returns:
            Their union's.

        Raises:
            ValueError: For exact moments, and those of other dimensions or another view convention.

        Examples:
            >>> a, b = (PairMoments.from_pairs(x, x) for x in torch.randn(2, 8, 3, generator=torch.Generator()))
            >>> a.merged(b).samples
            16
        """
        if self.means is None or other.means is None or self.samples is None or other.samples is None:
            raise ValueError("exact moments have no samples to add; merge moments that were measured")
        if (self.dim, self.views) != (other.dim, other.views):
            raise ValueError(
                f"moments of {self.dim} inputs, {self.views}, and of {other.dim}, {other.views}, have no union"
            )
        count = self.samples + other.samples
        own, their = self.samples / count, other.samples / count
        view, difference, shared = (
            own * a + their * b
            for a, b in (
                (self.view_cov, other.view_cov),
                (self.difference_cov, other.difference_cov),
                (self.shared, other.shared),
            )
        )
        step, step_pos = (b - a for a, b in zip(self.means, other.means, strict=True))
        if self.views == "two-sided":
            step = step_pos = (step + step_pos) / 2
        view = view + own * their * torch.outer(step, step)
        shared = shared + own * their * _symmetrised(torch.outer(step, step_pos))
        anchor, positive = (own * a + their * b for a, b in zip(self.means, other.means, strict=True))
        return PairMoments(view, difference, shared, self.views, count, (anchor, positive))

    @takes_arrays
    def within(self, frame: Float[Tensor, "d q"]) -> "PairMoments":
        """Moments of the coordinates frame^T x, as of the largest principal components.

        Args:
            frame: q columns.

        Returns:
            Moments in q dimensions.

        Examples:
            >>> PairMoments.from_covariances(torch.eye(3), torch.eye(3) / 2).within(torch.eye(3)[:, :1]).dim
            1
        """
        view, difference, shared = (
            _symmetrised(frame.T @ cov @ frame) for cov in (self.view_cov, self.difference_cov, self.shared)
        )
        means = None if self.means is None else (frame.T @ self.means[0], frame.T @ self.means[1])
        return PairMoments(view, difference, shared, self.views, self.samples, means)

    @property
    def dim(self) -> int:
        """The input dimension d."""
        return self.view_cov.shape[-1]

    @property
    def data_cov(self) -> Float[Tensor, "d d"]:
        """S of independent noise with the same moments (`equivalent`): G two-sided, S_e one-sided."""
        return self.equivalent[0]

    @property
    def aug_cov(self) -> Float[Tensor, "d d"]:
        """A of independent noise with the same moments (`equivalent`): A_e / 2 two-sided, A_e one-sided."""
        return self.equivalent[1]

    @cached_property
    def equivalent(self) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"]]:
        """(S, A) of independent noise with the same S_e and A_e. Eigenvalues of S may be below 0."""
        if self.views == "one-sided":
            return self.view_cov, self.difference_cov
        return self.shared, self.difference_cov / 2

    @property
    def seen(self) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"]]:
        """(S_e, A_e)."""
        return self.view_cov, self.difference_cov

    @cached_property
    def seen_root(self) -> Float[Tensor, "d d"]:
        """The symmetric square root of S_e."""
        return symmetric_root(self.view_cov)

    def to(self, dtype: torch.dtype, device: torch.device | None = None) -> "PairMoments":
        """Return the same moments in another precision, and on another device if one is given."""
        view, difference, shared = (m.to(device, dtype) for m in (self.view_cov, self.difference_cov, self.shared))
        means = None if self.means is None else (self.means[0].to(device, dtype), self.means[1].to(device, dtype))
        return PairMoments(view, difference, shared, self.views, self.samples, means)

    def gaussian_task(self) -> GaussianTask:
        """Gaussian pairs with these moments, to draw samples from.

        Returns:
            A task with the same S_e, A_e and G.

        Raises:
            ValueError: For one-sided views whose positive is more than the anchor and independent noise (G is not S_e).

        Examples:
            >>> moments = PairMoments.from_covariances(torch.eye(2), -0.5 * torch.eye(2))  # negatively correlated views
            >>> pairs = moments.gaussian_task().sample(10_000, torch.Generator().manual_seed(0))
            >>> round((pairs.anchor * pairs.positive).mean().item(), 1)
            -0.5
        """
        if self.views == "two-sided":
            return GaussianTask(torch.zeros_like(self.view_cov), self.view_cov, self.views, self.shared)
        if float((self.shared - self.view_cov).abs().max()) > 1e-6 * float(self.view_cov.abs().max()):
            raise ValueError(
                "the covariance between anchors and positives differs from that of the anchors: the positives are more "
                "than anchors with independent noise, and GaussianTask draws no such pairs; use two-sided views"
            )
        return GaussianTask(self.view_cov, self.difference_cov, self.views)


Task = GaussianTask | PairMoments
"""What closed forms and population flows know of the data: its distribution, or two moments of it."""


class _Sums:
    """Running sums over pairs, about the mean of the first batch, which loses no digits to a common offset."""

    def __init__(self, first: Tensor, views: str) -> None:
        self.count, self.one_sided, self.origin = 0, views == "one-sided", first.mean(0)
        dim = len(self.origin)
        self.anchor, self.positive = first.new_zeros(dim), first.new_zeros(dim)
        self.points, self.middle, self.difference = (first.new_zeros(dim, dim) for _ in range(3))

    def add(self, x: Tensor, x_pos: Tensor) -> None:
        """Add pairs (n, d)."""
        x, x_pos, shift = x - self.origin, x_pos - self.origin, x - x_pos
        middle = (x + x_pos) / 2
        self.middle.addmm_(middle.T, middle)
        self.difference.addmm_(shift.T, shift)
        if self.one_sided:
            self.points.addmm_(x.T, x)
        self.anchor += x.sum(0)
        self.positive += x_pos.sum(0)
        self.count += len(x)

    def moments(self) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return S_e, A_e and G, and the means of both views; E[x x'^T + x' x^T] / 2 = E[m m^T] - A_e / 4."""
        anchor, positive = self.anchor / self.count, self.positive / self.count
        difference, middle = (_symmetrised(m) / self.count for m in (self.difference, self.middle))
        if self.one_sided:
            view = _symmetrised(self.points) / self.count - torch.outer(anchor, anchor)
            shared = middle - difference / 4 - _symmetrised(torch.outer(anchor, positive))
        else:
            mean = (anchor + positive) / 2
            centred = middle - torch.outer(mean, mean)
            view, shared = centred + difference / 4, centred - difference / 4
        return (view, difference, shared), (anchor + self.origin, positive + self.origin)


def _symmetrised(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2


def _rows(values: Tensor) -> Tensor:
    rows = as_tensor(values, "views").to(torch.float64)
    if rows.ndim != 2:
        raise ValueError(f"views have shape {tuple(rows.shape)}; give a row per sample, (n, d)")
    if not torch.isfinite(rows).all():
        raise ValueError("the views hold NaN or infinity; give finite numbers")
    return rows
