"""Not in the paper: two views drawn alike never have rho above 1, for any augmentation and encoder."""

from collections.abc import Callable

import torch
from torch import Tensor

from dyncollapse.claims.check import Measured, assume, claim
from dyncollapse.claims.paper_one_layer import ROUND_OFF
from dyncollapse.claims.sampling import SIGMAS
from dyncollapse.diagnostics.view_moments import ViewMoments
from dyncollapse.model.covariance import ContrastiveCovariance
from dyncollapse.model.initialisers import gaussian_init
from dyncollapse.model.networks import forward
from dyncollapse.theory.modes import relative_modes

DIM = 8
# Augmentations of images x (n, d): each draws one view of every image.
Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def _additive(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + 1.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)


def _multiplicative(x: Tensor, generator: torch.Generator) -> Tensor:
    """Gains of either sign, in mean 1 for the first half of the pixels and 0 for the second."""
    gain = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x * (gain + (torch.arange(x.shape[-1]) < x.shape[-1] // 2))


def _masking(x: Tensor, generator: torch.Generator) -> Tensor:
    return x * (torch.rand(x.shape, generator=generator, dtype=x.dtype) < 0.3)


def _shift(x: Tensor, generator: torch.Generator) -> Tensor:
    start = torch.randint(x.shape[-1], (len(x), 1), generator=generator)
    return x.gather(1, (start + torch.arange(x.shape[-1])) % x.shape[-1])


def _permutation(x: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.rand(len(x), x.shape[-1] // 2, generator=generator).argsort(1)
    return torch.cat([x[:, : -order.shape[1]], x.gather(1, x.shape[-1] - 1 - order)], dim=1)


AUGMENTATIONS: tuple[Augmentation, ...] = (_additive, _multiplicative, _masking, _shift, _permutation)


def _encoders(generator: torch.Generator) -> list[Callable[[Tensor], Tensor]]:
    """The pixels themselves, a linear encoder and a ReLU network."""
    weights = gaussian_init([DIM, 2 * DIM, DIM], generator, scale=0.3)
    return [lambda x: x, lambda x: forward(weights, x), lambda x: forward(weights, x, "relu")]


def _images(n: int, generator: torch.Generator) -> Tensor:
    """Skewed, correlated pixels that are far from Gaussian."""
    mix = torch.eye(DIM, dtype=torch.float64) + 0.3 * torch.rand(DIM, DIM, generator=generator, dtype=torch.float64)
    return torch.rand(n, DIM, generator=generator, dtype=torch.float64).pow(3) @ mix.T - 0.2


def _pairs(first: Tensor, second: Tensor) -> ContrastiveCovariance:
    """Difference covariances of negative and of positive pairs, as reports compute them."""
    moments = ViewMoments(first.shape[1], 1)
    moments.update((first, second))
    return moments.pairs("two-sided")


def _ratios(covariance: ContrastiveCovariance) -> tuple[Tensor, Tensor]:
    """Rho in ascending order and its directions, within the subspace of the embeddings."""
    least = 1e-10 * float(torch.linalg.matrix_norm(covariance.data, ord=2))
    return relative_modes(covariance.data, covariance.augmentation, least)


@claim("iid-views", "not in the paper (5c)", "largest rho - 1")
def iid_views() -> Measured:
    """Two views drawn independently from one distribution given the image never have rho above 1, in any space.

    The cross-covariance of the views is the covariance of E[view | image], which is positive semi-definite, so that
    gamma = 1 - rho lies in [0, 1]. This is checked exactly. 30 images have six equally likely views each, drawn once by
    additive noise, gains of either sign, masks, cyclic shifts or permutations of pixels. All 36 pairs of views of every
    image are enumerated, in pixels, behind a linear encoder and behind a ReLU network. The bound is round-off.
    Controls: with every cyclic shift enumerated, directions that lose all signal must have rho = 1; with antithetic
    views x + n and x - n, rho must exceed 1.
    """
    generator, kinds = torch.Generator().manual_seed(0), 6
    images, encoders, largest = _images(30, generator), _encoders(generator), []
    first, second = torch.cartesian_prod(torch.arange(kinds), torch.arange(kinds)).T
    for augment in AUGMENTATIONS:
        views = torch.stack([augment(images, generator) for _ in range(kinds)])
        for encode in encoders:
            z = encode(views)
            rho, _ = _ratios(_pairs(z[first].flatten(0, 1), z[second].flatten(0, 1)))
            assume(float(rho[0]) > -ROUND_OFF, "rho is not negative")
            largest.append(float(rho[-1]) - 1)
    shifts = torch.stack([images.roll(k, dims=1) for k in range(DIM)])
    first, second = torch.cartesian_prod(torch.arange(DIM), torch.arange(DIM)).T
    rho, _ = _ratios(_pairs(shifts[first].flatten(0, 1), shifts[second].flatten(0, 1)))
    emptied = int(((rho - 1).abs() < ROUND_OFF).sum())
    assume(emptied == DIM - 1, "all but one direction of shifted images lose their signal")
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    opposite, _ = _ratios(_pairs(images + noise, images - noise))
    assume(float(opposite[-1]) > 1.1, "antithetic views pass 1")
    return Measured(max(*largest, float(rho[-1]) - 1), ROUND_OFF)


def _least_gamma(first: Tensor, second: Tensor) -> tuple[float, float]:
    """The smallest gamma in standard errors, cross-validated between two halves, and the largest rho of all samples.

    One half of the samples gives the directions and the other gamma along them.
    """
    half = len(first) // 2
    _, directions = _ratios(_pairs(first[:half], second[:half]))
    a, b = ((z[half:] - z[half:].mean(0)) @ directions for z in (first, second))
    products = a * b
    scores = products.mean(0) / (products.std(0) / half**0.5)
    return float(scores.min()), float(_ratios(_pairs(first, second))[0][-1])


@claim("iid-views-sampled", "not in the paper (5c)", "smallest gamma, in standard errors")
def iid_views_sampled() -> Measured:
    """In samples of views drawn alike, gamma = 1 - rho falls below 0 by no more than its sampling error.

    4000 images with two fresh views each, for the five augmentations and three encoders of `iid-views`. One half of the
    samples gives the directions, and the other gives gamma with its standard error. Along a direction that has lost its
    signal a sampled rho falls on either side of 1 by chance; some must be above 1. Control: for antithetic views x + n
    and x - n the measured number must be far below the bound.
    """
    generator = torch.Generator().manual_seed(0)
    images, encoders = _images(4_000, generator), _encoders(generator)
    scores, ratios = [], []
    for augment in AUGMENTATIONS:
        first, second = (augment(images, generator) for _ in range(2))
        for encode in encoders:
            score, ratio = _least_gamma(encode(first), encode(second))
            scores.append(score)
            ratios.append(ratio)
    assume(max(ratios) > 1, "some sampled rho exceeds 1")
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    assume(_least_gamma(images + noise, images - noise)[0] < -2 * SIGMAS, "antithetic views have rho above 1")
    return Measured(min(scores), -SIGMAS, ">=")
