"""Measure pairs of views, and find the directions that they share: rho and gamma, each with its sampling error."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyncollapse.diagnostics.shared_signal import (
    SAMPLES_PER_DIRECTION,
    family_margin,
    largest_directions,
    shared_signal,
)
from dyncollapse.model.pair_moments import PairMoments

KEPT = 4096  # pairs that are kept for sampling errors: these then have 1 % of error themselves
# Share of the variance of views up to which their difference is round-off: the luma of a grey pixel is 0.9999 of it.
UNCHANGED = 1e-7
LEAST = 2 * SAMPLES_PER_DIRECTION  # pairs from which on a direction can be tested


@dataclass(frozen=True, eq=False)
class Measured:
    """Moments of pairs of views, and some of the pairs.

    Attributes:
        moments: Second moments about the mean.
        first: One view of the kept pairs, centred.
        second: The other view of the same pairs.

    Examples:
        >>> x = torch.tensor([[1.0], [3.0]])
        >>> measured = Measured.centred(PairMoments.from_pairs(x, x), x, x)
        >>> measured.samples, measured.first.tolist()
        (2, [[-1.0], [1.0]])
    """

    moments: PairMoments
    first: Float[Tensor, "r d"]
    second: Float[Tensor, "r d"]

    @classmethod
    def centred(cls, moments: PairMoments, first: Float[Tensor, "r d"], second: Float[Tensor, "r d"]) -> "Measured":
        """Pairs about the mean of both views, and one-sided ones about that of the anchors, as the moments are."""
        assert moments.means is not None
        anchor, positive = moments.means
        mean = anchor if moments.views == "one-sided" else (anchor + positive) / 2
        return cls(moments, first - mean, second - mean)

    @property
    def samples(self) -> int:
        """Number of pairs behind the moments."""
        return self.moments.samples or 0

    def within(self, frame: Float[Tensor, "d q"]) -> "Measured":
        """The same in the coordinates frame^T x."""
        return Measured(self.moments.within(frame), self.first @ frame, self.second @ frame)


def measure_pairs(pairs: Iterable[tuple[Tensor, Tensor]], views: str, count: int, seed: int = 0) -> Measured:
    """Measure pairs in one pass, in float64.

    Args:
        pairs: Batches of both views, each (b, d).
        views: The view convention.
        count: About how many pairs there are; of more than KEPT, as many are kept at random.
        seed: Of the choice of pairs that are kept.

    Returns:
        The moments about the mean of both views (one-sided: that of the anchors), and about KEPT pairs at most.

    Raises:
        ValueError: For fewer than 8 pairs, views without variance, and pairs of equal views. One line.

    Examples:
        >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> measured = measure_pairs([(x, -x)], "two-sided", 100)
        >>> measured.samples, measured.first.shape
        (100, torch.Size([100, 3]))
    """
    kept: list[tuple[Tensor, Tensor]] = []
    generator = torch.Generator().manual_seed(seed)

    def noted() -> Iterator[tuple[Tensor, Tensor]]:
        for x, x_pos in pairs:
            # Each pair is kept with one probability, whatever the order of the images, which may be that of classes.
            chosen = torch.rand(len(x), generator=generator) * count < KEPT
            kept.append((x[chosen], x_pos[chosen]))
            yield x, x_pos

    moments = PairMoments.from_batches(noted(), views)
    if (moments.samples or 0) < LEAST:
        raise ValueError(f"there are {moments.samples} images, too few to measure a correlation; give at least {LEAST}")
    largest = float(moments.view_cov.diagonal().max())
    if largest == 0:
        raise ValueError("all views are alike, without any variance; give images that differ")
    if float(moments.difference_cov.diagonal().max()) <= UNCHANGED * largest:
        raise ValueError("both views of every image are equal: the augmentation changes none of these images")
    first, second = (torch.cat(rows).to(torch.float64) for rows in zip(*kept, strict=True))
    return Measured.centred(moments, first, second)


@dataclass(frozen=True, eq=False)
class Directions:
    """The directions of largest variance, turned so that views and differences of pairs are both uncorrelated.

    Attributes:
        frame: Orthonormal principal directions (d, q) of the views, largest variance last; all else lies in their span.
        measured: What was measured, in the coordinates of `frame`.
        vectors: U (d, q) with U^T S_e U = I and U^T A_e U = 2 diag(rho); S_e U are the patterns that carry them.
        rho: Augmentation ratio of each, ascending.
        error: Standard error of rho, and of gamma = 1 - rho, by the delta method.
        shared: Whether the sequential test finds shared signal along it (gamma > 0). One-sided: whether rho is below 1
            beyond its error; the views may be correlated where it is not.
        opposed: Whether gamma is below 0 beyond its error.
        explained: Correlation that sampling alone reaches in directions without shared signal.
        share: Share of the variance of the views that the frame holds.

    Examples:
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.randn(2000, 2, generator=g) * torch.tensor([1.0, 0.0])
        >>> views = tuple(x + torch.randn(2000, 2, generator=g) for _ in range(2))
        >>> found = find_directions(measure_pairs([views], "two-sided", 2000), most=2)
        >>> found.shared.tolist(), [round(gamma, 1) for gamma in found.gamma.abs().tolist()]
        ([True, False], [0.5, 0.0])
    """

    frame: Float[Tensor, "d q"]
    measured: Measured
    vectors: Float[Tensor, "d q"]
    rho: Float[Tensor, " q"]
    error: Float[Tensor, " q"]
    shared: Bool[Tensor, " q"]
    opposed: Bool[Tensor, " q"]
    explained: float
    share: float

    @property
    def gamma(self) -> Float[Tensor, " q"]:
        """1 - rho, descending: for two-sided views their correlation along each direction."""
        return 1 - self.rho

    @property
    def count(self) -> int:
        """Number of directions q."""
        return len(self.rho)

    @property
    def patterns(self) -> Float[Tensor, "d q"]:
        """What the inputs look like along each direction, unit vectors: S_e u / |S_e u|."""
        inner = self.measured.moments.view_cov @ (self.frame.T @ self.vectors)
        patterns = self.frame @ inner
        return patterns / torch.linalg.vector_norm(patterns, dim=0).clamp_min(1e-300)


def find_directions(measured: Measured, most: int, *, alike: bool = False) -> Directions:
    """Find the directions of pairs and test which of them share signal.

    Args:
        measured: Moments and pairs.
        most: Number of directions, at most. A quarter of the pairs bounds it, too: of more, a test sees nothing.
        alike: Whether both views are independent draws of one distribution given the image. Then gamma >= 0 is certain,
            and no direction is opposed, whatever the sample says.

    Returns:
        The directions, least augmented first.

    References:
        docs/explanation/one-axis.md; docs/how-to/choose-an-augmentation.md.

    Examples:
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.randn(4000, 3, generator=g) * torch.tensor([1.0, 1.0, 0.0])
        >>> views = [x + 0.5 * torch.randn(4000, 3, generator=g) for _ in range(2)]
        >>> found = find_directions(measure_pairs([tuple(views)], "two-sided", 4000), most=3)
        >>> found.shared.tolist(), [round(value, 1) for value in found.gamma[:2].tolist()]
        ([True, True, False], [0.8, 0.8])
    """
    frame, share = principal_frame(measured, most)
    inner = measured.within(frame)
    rho, turn = _ratios(inner.moments)
    first, second = inner.first @ turn, inner.second @ turn
    one_sided = inner.moments.views == "one-sided"
    error = correlation_error(first, second, 1 - rho, inner.samples, by_product=False, one_sided=one_sided)
    identity = torch.eye(len(rho), dtype=rho.dtype)
    if inner.moments.views == "two-sided":
        tested = shared_signal(
            inner.moments.view_cov, inner.moments.shared, identity, inner.samples, inner.first, inner.second
        )
        shared = torch.arange(len(rho)) < tested.positive
        opposed = torch.arange(len(rho)) >= len(rho) - (0 if alike else tested.negative)
        explained = tested.explained
    else:
        margin = family_margin(len(rho)) * error
        shared, opposed, explained = 1 - rho > margin, rho - 1 > margin, 0.0
    return Directions(frame, inner, frame @ turn, rho, error, shared, opposed, explained, share)


def principal_frame(measured: Measured, most: int) -> tuple[Float[Tensor, "d q"], float]:
    """The principal directions of the views that can be tested, largest variance last, and their share of variance."""
    variances, vectors = torch.linalg.eigh(measured.moments.view_cov)
    seen = variances > len(variances) * torch.finfo(variances.dtype).eps * variances[-1]
    frame = largest_directions(vectors[:, seen], measured.samples)[:, -most:]
    return frame, float(variances[-frame.shape[1] :].sum() / variances.clamp_min(0).sum())


def _ratios(moments: PairMoments) -> tuple[Float[Tensor, " q"], Float[Tensor, "q q"]]:
    """Solve A_e u = 2 rho S_e u, with U^T S_e U = I and rho ascending; S_e is invertible."""
    variances, turn = torch.linalg.eigh(moments.view_cov)
    white = turn / variances.sqrt()
    values, turned = torch.linalg.eigh(white.T @ moments.difference_cov @ white)
    return values / 2, white @ turned


def correlation_error(
    first: Float[Tensor, "n r"],
    second: Float[Tensor, "n r"],
    value: Float[Tensor, " r"],
    samples: int,
    *,
    by_product: bool,
    one_sided: bool,
) -> Float[Tensor, " r"]:
    """Standard errors of correlations gamma = 1 - rho along given directions, by the delta method.

    Args:
        first: Scores y of one view, with variance 1 in all pairs.
        second: Scores y' of the other view.
        value: Gamma in all pairs.
        samples: Number of all pairs, which may be more than the rows given.
        by_product: Whether gamma is E y y' / E y^2 (losses that see G), rather than 1 - E (y - y')^2 / (2 E y^2).
        one_sided: Whether E y^2 is that of the first view, not of both.

    Returns:
        The errors. They hold for a direction chosen beforehand; the test of `find_directions` allows for the choice.

    Examples:
        >>> y = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
        >>> error = correlation_error(y, y, torch.ones(1), 500, by_product=True, one_sided=False)
        >>> error.item()  # equal views have gamma = 1 without error
        0.0
    """
    power = first.square() if one_sided else (first.square() + second.square()) / 2
    shared = first * second if by_product else power - (first - second).square() / 2
    return (shared - value * power).std(0) / samples**0.5
