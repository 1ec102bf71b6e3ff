"""Shared by claims on second moments: small populations of pairs, far from Gaussian, whose moments are exact."""

import torch
from torch import Tensor

from dyncollapse.model.pair_moments import PairMoments
from dyncollapse.model.pairs import Pairs


def exchangeable(first: Tensor, second: Tensor) -> Pairs:
    """Every pair in both orders, centred: a population (2 n, d) whose two views have one distribution of mean zero."""
    anchors, positives = torch.cat([first, second]), torch.cat([second, first])
    mean = anchors.mean(0)
    return Pairs(anchors - mean, positives - mean, "two-sided")


def skewed_pairs(n: int, dim: int, generator: torch.Generator, opposed: float = 0.0) -> Pairs:
    """An exchangeable population with skewed signal, noise of either view and a part that both have with opposite sign.

    Args:
        n: Pairs drawn, of which the population has twice as many.
        dim: Input dimension; no covariance is diagonal, and they do not commute.
        generator: Draws everything.
        opposed: Size of the opposite part in the last direction; above about 1 the views are negatively correlated.

    Returns:
        The population.
    """
    mixes = [
        torch.eye(dim, dtype=torch.float64) + 0.4 * torch.randn(dim, dim, generator=generator, dtype=torch.float64)
        for _ in range(3)
    ]
    signal = torch.rand(n, dim, generator=generator, dtype=torch.float64).pow(3) @ mixes[0].T * 3
    noise = torch.rand(2, n, dim, generator=generator, dtype=torch.float64) - 0.5
    noise = noise * torch.linspace(0.5, 2.0, dim, dtype=torch.float64) @ mixes[1].T
    apart = torch.rand(n, generator=generator, dtype=torch.float64).sub(0.5).outer(mixes[2][-1]) * 4 * opposed
    return exchangeable(signal + noise[0] + apart, signal + noise[1] - apart)


def moments_of(pairs: Pairs) -> PairMoments:
    """Moments of a population."""
    return PairMoments.from_pairs(pairs.anchor, pairs.positive, pairs.views)


def masked_views(images: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs of views of images (n, d) whose pixels are masked independently, each with probability 1/2.

    Args:
        images: n images of d pixels.

    Returns:
        First and second views (n 4^d, d), all equally likely.
    """
    dim = images.shape[1]
    masks = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=images.dtype)] * dim).view(-1, dim)
    views = images[:, None] * masks
    first, second = torch.cartesian_prod(torch.arange(len(masks)), torch.arange(len(masks))).T
    return views[:, first].flatten(0, 1), views[:, second].flatten(0, 1)


def unlike(a: Tensor, b: Tensor) -> float:
    """Largest entry of a difference, relative to the largest of b."""
    return float((a - b).abs().max() / b.abs().max())
