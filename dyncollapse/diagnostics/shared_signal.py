"""Count the directions in which two views of the same samples are correlated: their shared signal.

The canonical correlations gamma of two views solve G v = gamma S v, with S the covariance of a view and G the
symmetrised covariance between views. Two views drawn alike and independently given the image have gamma >= 0, and
gamma = 0 in every direction that the augmentation has emptied.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from jaxtyping import Float, Real
from scipy.special import chdtrc, digamma, polygamma
from torch import Tensor

from dyncollapse.diagnostics.conversion import Numbers, as_rows

# Probability that the test counts one direction too many: small, so that a verdict does not change with the seed.
LEVEL = 1e-3
# A test of q directions needs q samples for its determinants. With four samples per direction it still has power: it
# detects 24 of 40 correlations of 0.5 with 400 samples of 100 dimensions.
SAMPLES_PER_DIRECTION = 4
# 0.999 quantile of the Tracy-Widom law of order 1, whose tail is tabulated (Bejan 2005).
TRACY_WIDOM_999 = 3.27


@dataclass(frozen=True, eq=False)
class SharedSignal:
    """Correlations of two views, and how many of them are not explained by sampling.

    Attributes:
        correlations: Canonical correlations in the tested directions, in descending order of magnitude.
        positive: Lower bound on the number of positive ones, at the confidence 1 - LEVEL.
        negative: Lower bound on the number of negative ones.
        explained: Correlation that sampling alone reaches along the most correlated of the other directions.
    """

    correlations: Float[Tensor, " q"]
    positive: int
    negative: int
    explained: float

    @property
    def tested(self) -> int:
        """Number of tested directions."""
        return len(self.correlations)

    def as_values(self) -> dict[str, Any]:
        """Return all fields as plain JSON values."""
        counts = {"tested": self.tested, "positive": self.positive, "negative": self.negative}
        return counts | {"explained": self.explained, "correlations": self.correlations.tolist()}


def signal_rank(z: Real[Numbers, "n d"], z_pos: Real[Numbers, "n d"]) -> int:
    """Return a lower bound on the number of directions in which two views are positively correlated.

    It counts canonical correlations by a sequential likelihood-ratio test at the level 0.1 %: the strongest is removed
    until the rest may be zero. With fewer than 4 d samples it tests the n / 4 directions of largest variance. Samples
    must be independent of each other; they may have heavy tails, and a scale that both views share.

    Args:
        z: One view, a row per sample.
        z_pos: The other view of the same samples, row by row.

    Returns:
        A whole number from 0 to d. It grows with n towards the true number, and exceeds it with a probability of 0.1 %.
        Where a few samples hold most of the variance along a direction it may count more: under flips alone, up to 3 of
        31 antisymmetric directions of small digit images (docs/results.md).

    Raises:
        ValueError: For shapes that differ, fewer than 8 samples, or entries that are not finite real numbers.

    References:
        Bartlett 1941 and Lawley 1959 (sequential tests of canonical correlations); Muirhead 1982, sections 8.2 and
        11.3 (likelihood-ratio test of equal covariances and its moments).

    Examples:
        >>> g = torch.Generator().manual_seed(0)
        >>> signal = torch.randn(1000, 8, generator=g).double() * torch.tensor([1.0] * 3 + [0.0] * 5)
        >>> views = [signal + torch.randn(1000, 8, generator=g) for _ in range(2)]
        >>> signal_rank(*views)
        3
    """
    z, z_pos = as_rows(z, "views"), as_rows(z_pos, "views")
    if z.ndim != 2 or z.shape != z_pos.shape:
        raise ValueError(f"views have shapes {tuple(z.shape)} and {tuple(z_pos.shape)}; give two of one shape, (n, d)")
    if len(z) < 2 * SAMPLES_PER_DIRECTION:
        raise ValueError(f"{len(z)} samples are too few to test a correlation; give at least 8")
    first, second = (view.to(torch.float64) - view.to(torch.float64).mean(0) for view in (z, z_pos))
    if not (torch.isfinite(first).all() and torch.isfinite(second).all()):
        raise ValueError("the views hold NaN or infinity")
    largest = float(max(first.abs().max(), second.abs().max())) or 1.0
    first, second = first / largest, second / largest  # squares of very small numbers would vanish
    cov = (first.mT @ first + second.mT @ second) / (2 * len(z))
    cross = first.mT @ second / len(z)
    variances, frame = torch.linalg.eigh(cov)
    kept = variances > len(cov) * torch.finfo(torch.float64).eps * variances[-1]
    frame = largest_directions(frame[:, kept], len(z))
    if not frame.shape[1]:
        return 0
    return shared_signal(cov, (cross + cross.mT) / 2, frame, len(z), first, second).positive


def largest_directions(frame: Float[Tensor, "d q"], samples: int) -> Float[Tensor, "d k"]:
    """Return as many of the last columns of `frame`, which ascend in variance, as the samples can test."""
    return frame[:, max(0, frame.shape[1] - samples // SAMPLES_PER_DIRECTION) :]


def shared_signal(
    cov: Float[Tensor, "d d"],
    cross: Float[Tensor, "d d"],
    frame: Float[Tensor, "d q"],
    samples: int,
    first: Float[Tensor, "r d"],
    second: Float[Tensor, "r d"],
) -> SharedSignal:
    """Test the correlations of two views inside the span of `frame`.

    If the rest of q directions is uncorrelated, the sum and the difference of the views have one covariance there, and
    -log det(1 - Gamma^2) is the likelihood ratio of two equal covariances of n samples each, whose mean and variance
    are known for every n and q. A scale that both views of a sample share, or tails that are heavy in both, makes
    correlations vary more than independent samples do, by the factor of `_inflation`: n is divided by it.

    Args:
        cov: S, the covariance of a view, averaged over both.
        cross: G, the symmetrised covariance between the views.
        frame: q independent columns whose span is tested; S must not vanish there.
        samples: n, behind both covariances.
        first: Rows of one view, centred, for the inflation; all or a sample of them.
        second: The same rows of the other view.

    Returns:
        Counts of positive and negative correlations, and what sampling explains. With too few samples to test
        anything both counts are 0 and `explained` is 1.
    """
    gamma, canonical = _canonical(cov, cross, frame)
    order = gamma.abs().argsort(descending=True)
    gamma, canonical = gamma[order], canonical[:, order]
    inflation = _inflation(first @ canonical, second @ canonical)
    # The statistic of the directions from the k-th on, for every k.
    statistics = -torch.log1p(-gamma.square()).flip(0).cumsum(0).flip(0)
    k, q, effective = 0, len(gamma), 0.0
    while k < q:
        effective = (samples - 1 - k) / float(inflation[k])
        if effective < q - k + 1 or tail_probability(float(statistics[k]), effective, q - k) > LEVEL:
            break
        k += 1
    explained = noise_correlation(effective, q - k) if k < q else 0.0
    return SharedSignal(gamma, int((gamma[:k] > 0).sum()), _negative(gamma[:k], q, samples, inflation), explained)


def _negative(gamma: Float[Tensor, " k"], tested: int, samples: int, inflation: Float[Tensor, " q"]) -> int:
    """Count the correlations that are more negative than those of uncorrelated directions.

    Strong correlations push the others down, by 1 / (2 n gamma) each (second-order perturbation of sample canonical
    correlations). An uncorrelated direction then has a sample correlation below 0.
    """
    count = 0
    for j, value in enumerate(gamma.tolist()):
        if value >= 0:
            continue
        stronger = gamma[gamma > -value]
        n = (samples - 1 - j) / float(inflation[j])
        shown = noise_correlation(n, max(1, tested - len(stronger))) + float((1 / stronger).sum()) / (2 * n)
        count += value < -shown
    return count


def count_positive(
    cov: Float[Tensor, "d d"],
    cross: Float[Tensor, "d d"],
    frame: Float[Tensor, "d q"],
    samples: int,
    first: Float[Tensor, "r d"],
    second: Float[Tensor, "r d"],
) -> int:
    """Count positive correlations one after the other, until the next may be that of an uncorrelated direction.

    `shared_signal` counts correlations that differ from 0. This count is about their sign, and bounds the number of
    positive ones even if many are negative.

    Args:
        cov: S, the covariance of a view, averaged over both.
        cross: G, the symmetrised covariance between the views.
        frame: q independent columns whose span is tested; S must not vanish there.
        samples: n, behind both covariances.
        first: Rows of one view, centred, for the inflation; all or a sample of them.
        second: The same rows of the other view.

    Returns:
        A lower bound.
    """
    gamma, canonical = _canonical(cov, cross, frame)
    inflation = _inflation(first @ canonical, second @ canonical)
    for k, value in enumerate(gamma.tolist()):
        if value <= noise_correlation((samples - 1 - k) / float(inflation[k]), len(gamma) - k):
            return k
    return len(gamma)


def _canonical(
    cov: Float[Tensor, "d d"], cross: Float[Tensor, "d d"], frame: Float[Tensor, "d q"]
) -> tuple[Float[Tensor, " q"], Float[Tensor, "d q"]]:
    """Return the correlations inside the span of a frame, descending, and their directions with variance 1."""
    variances, turn = torch.linalg.eigh(frame.mT @ cov @ frame)
    white = frame @ turn / variances.sqrt()
    gamma, turn = torch.linalg.eigh(white.mT @ cross @ white)
    return gamma.flip(0).clamp(-1, 1), (white @ turn).flip(1)


def _inflation(first: Float[Tensor, "r q"], second: Float[Tensor, "r q"]) -> Float[Tensor, " q"]:
    """Return the factor by which squared sampling errors of correlations exceed those of independent Gaussian scores.

    There is one factor for every k, of the scores from the k-th on. Under independence E s_i^2 s'_j^2 = 1 for scores of
    variance 1, whatever their tails. It is estimated over all i and j, where a scale common to all directions raises
    it, and over i = j, minus the 2 gamma^2 that a Gaussian correlation adds. The statistic sums squared errors over
    pairs i <= j of directions. The factor is the root mean square over these pairs, since a few large errors skew the
    sum.
    """

    def from_each_on(values: Tensor) -> Tensor:
        return values.flip(-1).cumsum(-1).flip(-1)

    a, b = (from_each_on(scores.square()) for scores in (first, second))
    overall = (a * b).mean(0) / (a.mean(0) * b.mean(0))
    power = first.square().mean(0) * second.square().mean(0)
    gamma_squared = (first * second).mean(0).square() / power
    own = (first * second).square().mean(0) / power - 2 * gamma_squared
    q = torch.arange(len(own), 0, -1, dtype=own.dtype, device=own.device)
    factor = (((from_each_on(own) / q).square() * 2 + overall.square() * (q - 1)) / (q + 1)).sqrt()
    return torch.where(torch.isfinite(factor), factor, math.inf).clamp_min(1.0)


def tail_probability(statistic: float, n: float, q: int) -> float:
    """Return the probability that n samples of q uncorrelated directions give at least this -log det(1 - Gamma^2).

    A gamma law with the exact mean and variance: log |W| of a Wishart matrix of m samples is a sum of independent
    log chi-squares, and the ratio is independent of the pooled covariance.
    """
    place = torch.arange(q, dtype=torch.float64).numpy()
    own, pooled = (n - place) / 2, (2 * n - place) / 2
    mean = 2 * float((digamma(pooled) - digamma(own)).sum()) - 2 * q * math.log(2)
    variance = 2 * float(polygamma(1, own).sum()) - 4 * float(polygamma(1, pooled).sum())
    return float(chdtrc(2 * mean**2 / variance, 2 * statistic * mean / variance))


def noise_correlation(n: float, q: int) -> float:
    """Return the largest correlation among q uncorrelated directions that n samples exceed in 0.1 % of draws.

    (1 + gamma) / 2 is the largest root of a double Wishart problem with n samples on either side.

    Args:
        n: Number of samples, perhaps divided by an inflation.
        q: Number of directions.

    Returns:
        The correlation; 1 if there are too few samples.

    References:
        Johnstone 2008 (Tracy-Widom limit of the largest root).
    """
    if n < q + 1:
        return 1.0
    total = 2 * n - 1
    angle = 2 * math.asin(math.sqrt((q - 0.5) / total))
    other = 2 * math.asin(math.sqrt((n - 0.5) / total))
    centre = 2 * math.log(math.tan((angle + other) / 2))
    scale = (16 / total**2 / (math.sin(angle + other) ** 2 * math.sin(angle) * math.sin(other))) ** (1 / 3)
    return math.tanh((centre + TRACY_WIDOM_999 * scale) / 2)


def family_margin(count: int) -> float:
    """Return the number of standard errors that none of `count` estimates exceeds, except with probability LEVEL."""
    return NormalDist().inv_cdf(1 - LEVEL / (2 * max(1, count)))
