"""Rank measures as published, on spectra whose ranks are known in closed form."""

import math

import numpy as np
import torch
from torch import Tensor

from dyncollapse.claims.check import Measured, assume, claim
from dyncollapse.claims.paper_one_layer import ROUND_OFF, relative_error
from dyncollapse.claims.sampling import SIGMAS, largest_deviation
from dyncollapse.diagnostics.lidar import lidar
from dyncollapse.diagnostics.measures import (
    alpha_req,
    effective_rank,
    intrinsic_dimension,
    participation_ratio,
    participation_ratio_unbiased,
    rankme,
    rankme_from_eigenvalues,
    stable_rank,
    unbiased_traces,
)
from dyncollapse.diagnostics.spectra import covariance_spectrum
from dyncollapse.diagnostics.view_moments import ViewMoments

# Length and quotients of geometric spectra 1, q, q^2, ..., whose sums, sums of squares and entropy are elementary.
LENGTH, QUOTIENTS = 12, (0.3, 0.7, 0.95)


def _geometric(q: float) -> Tensor:
    return q ** torch.arange(LENGTH, dtype=torch.float64)


def _geometric_rank(q: float) -> float:
    """Exponential of the entropy of a geometric spectrum: of p_j = q^j (1 - q) / (1 - q^n), with the mean of j."""
    n = LENGTH
    mean = q / (1 - q) - n * q**n / (1 - q**n)
    return math.exp(math.log((1 - q**n) / (1 - q)) - mean * math.log(q))


def _matrix(values: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """A matrix with these singular values in random directions."""
    shapes = ((rows, len(values)), (len(values), len(values)))
    u, v = (torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64))[0] for shape in shapes)
    return u * values @ v.T


@claim("effective-rank", "Roy and Vetterli 2007", "largest relative error")
def effective_rank_known() -> Measured:
    """The effective rank of a spectrum is the exponential of the entropy of its normalised values.

    Geometric spectra of 12 values with quotients 0.3, 0.7 and 0.95 are compared with their entropy in closed form. A
    flat spectrum of 12 values followed by 5 zeros, which add nothing, must have the rank 12. The bound is round-off.
    """
    errors = [abs(float(effective_rank(_geometric(q))) / _geometric_rank(q) - 1) for q in QUOTIENTS]
    flat = torch.cat([torch.ones(LENGTH), torch.zeros(5)]).to(torch.float64)
    return Measured(max(*errors, abs(float(effective_rank(flat)) / LENGTH - 1)), ROUND_OFF)


@claim("rankme", "Garrido et al. 2023 (Eq. 1)", "largest relative error")
def rankme_known() -> Measured:
    """RankMe is the effective rank of the singular values of the embeddings, which are not centred.

    50 embeddings in 12 dimensions with geometric singular values in random directions. RankMe, computed from the
    embeddings and from the eigenvalues of their second moment, is compared with the entropy in closed form. The bound
    is round-off. Control: with a common offset the centred embeddings must have another rank. The published epsilon of
    1e-7 is left out.
    """
    generator, errors = torch.Generator().manual_seed(0), []
    for q in QUOTIENTS:
        z = _matrix(_geometric(q), 50, generator)
        moments = torch.linalg.svdvals(z).square() / len(z)
        errors += [abs(float(r) / _geometric_rank(q) - 1) for r in (rankme(z), rankme_from_eigenvalues(moments))]
    shifted = z + 1.0
    centred = rankme(shifted - shifted.mean(0))
    assume(abs(float(rankme(shifted) / centred) - 1) > 0.1, "an offset changes the rank")
    return Measured(max(errors), ROUND_OFF)


@claim("participation-ratio", "convention (beyond the paper, 5i)", "largest relative error")
def participation_ratio_known() -> Measured:
    """The participation ratio of a geometric spectrum is (1 - q^n)(1 + q) / ((1 - q)(1 + q^n)).

    Spectra as for `effective-rank`. The bound is round-off.
    """
    n, errors = LENGTH, []
    for q in QUOTIENTS:
        expected = (1 - q**n) * (1 + q) / ((1 - q) * (1 + q**n))
        errors.append(abs(float(participation_ratio(_geometric(q))) / expected - 1))
    return Measured(max(errors), ROUND_OFF)


@claim("participation-unbiased", "Himeno and Yamada 2014", "largest deviation of a mean, in standard errors")
def participation_unbiased() -> Measured:
    """(tr Sigma)^2 and tr Sigma^2 are estimated without bias from n samples of any distribution.

    20000 draws of 6 samples in 3 dimensions from a skewed distribution of unknown mean (mixtures of exponential
    variables): the means of both estimates are compared with the true values. Control: the same two expressions of the
    sample covariance must be rejected. `participation_ratio_unbiased` must be the first estimate over the second.
    """
    n, draws, generator = 6, 20_000, torch.Generator().manual_seed(0)
    mix = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    uniform = torch.rand(draws, n, 3, generator=generator, dtype=torch.float64)
    z, sigma = -torch.log1p(-uniform) @ mix.T, mix @ mix.T  # exponential numbers have variance 1
    fourth = (z - z.mean(1, keepdim=True)).square().sum(-1).square().mean(-1)
    spectrum = covariance_spectrum(z)
    found = torch.stack(unbiased_traces(spectrum, n, fourth), dim=-1)
    true = torch.stack([sigma.trace().square(), sigma.square().sum()])
    naive = torch.stack([spectrum.sum(-1).square(), spectrum.square().sum(-1)], dim=-1)
    assume(largest_deviation(naive, true) > SIGMAS, "the bias of the sample covariance is seen")
    ratio = participation_ratio_unbiased(spectrum[0], n, fourth[0])
    assume(abs(float(ratio * found[0, 1] / found[0, 0]) - 1) < ROUND_OFF, "the ratio is the first over the second")
    return Measured(largest_deviation(found, true), SIGMAS)


@claim("stable-rank", "Rudelson and Vershynin 2007", "largest relative error")
def stable_rank_known() -> Measured:
    """The stable rank of a matrix is |W|_F^2 / |W|_2^2: (1 - q^2n) / (1 - q^2) for geometric singular values.

    Matrices of 20 rows in random directions. The intrinsic dimension of their Gram matrices, tr C / |C|_2, must be the
    same number. The bound is round-off.
    """
    generator, errors = torch.Generator().manual_seed(0), []
    for q in QUOTIENTS:
        w = _matrix(_geometric(q), 20, generator)
        expected = (1 - q ** (2 * LENGTH)) / (1 - q**2)
        found = (stable_rank(w), intrinsic_dimension(torch.linalg.eigvalsh(w.T @ w).clamp(min=0)))
        errors += [abs(float(rank) / expected - 1) for rank in found]
    return Measured(max(errors), ROUND_OFF)


@claim("alpha-req", "Agrawal et al. 2022", "largest difference of exponents")
def alpha_req_known() -> Measured:
    """The exponent of alpha-ReQ is minus the slope of log l_j against log j from rank 6 to 100, with weights 1 / j.

    An exact power law of exponent 1.3, and one with a random factor in each of its 120 eigenvalues, for which NumPy's
    weighted `polyfit` gives the slope. Control: without weights that slope must be another. The bound is round-off.
    """
    ranks = torch.arange(1, 121, dtype=torch.float64)
    exact, generator = ranks**-1.3, torch.Generator().manual_seed(0)
    noisy = (exact * torch.exp(0.1 * torch.randn(120, generator=generator, dtype=torch.float64))).sort().values.flip(0)
    x, y = (np.log(values[5:100].numpy()) for values in (ranks, noisy))
    # polyfit weighs distances, not their squares.
    slope, plain = (float(np.polyfit(x, y, 1, w=w)[0]) for w in (np.exp(-x / 2), np.ones_like(x)))
    assume(abs(slope - plain) > 1e-3, "weights change the slope")
    errors = (float(alpha_req(exact)) - 1.3, float(alpha_req(noisy)) + slope)
    return Measured(max(map(abs, errors)), ROUND_OFF)


@claim("lidar", "Thilak et al. 2024", "largest relative error")
def lidar_known() -> Measured:
    """LiDAR is the effective rank of W^(-1/2) B W^(-1/2): B between samples, W within a sample's views plus delta I.

    Two views mu_i + e_i and mu_i - e_i of 60 samples, with mu and e orthogonal to each other and to constants: both
    covariances are then diagonal in one frame, and the ratio of B to W is geometric, so that its rank is known. The
    bound is ten times the round-off of the other measures, because W has to be inverted.
    """
    generator, errors, delta, n = torch.Generator().manual_seed(0), [], 1e-4, 60
    for q in QUOTIENTS:
        ones = torch.ones(n, 1, dtype=torch.float64)
        columns = torch.cat([ones, torch.randn(n, 2 * LENGTH, generator=generator, dtype=torch.float64)], dim=1)
        basis = torch.linalg.qr(columns)[0][:, 1:] * n**0.5
        frame = torch.linalg.qr(torch.randn(LENGTH, LENGTH, generator=generator, dtype=torch.float64))[0]
        within = torch.linspace(0.5, 2.0, LENGTH, dtype=torch.float64)
        means = basis[:, :LENGTH] * ((within + delta) * _geometric(q)).sqrt() @ frame.T
        rest = basis[:, LENGTH:] * within.sqrt() @ frame.T
        found = lidar(torch.stack([means + rest, means - rest]), delta)
        errors.append(abs(float(found) / _geometric_rank(q) - 1))
    return Measured(max(errors), 1e-11)


@claim("covariance-eigenvalues", "convention (beyond the paper, 5i)", "relative difference")
def covariance_eigenvalues() -> Measured:
    """Eigenvalues of the embedding covariance are sigma^2 / N, sigma being singular values of the centred embeddings.

    The paper's spectra show the logarithm of the eigenvalues, while most rank measures are defined on the singular
    values; the slopes differ by a factor of two. Both routes are computed for 200 correlated embeddings. The bound is
    round-off.
    """
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(200, 6, generator=generator, dtype=torch.float64) @ torch.randn(
        6, 6, generator=generator, dtype=torch.float64
    )
    eigenvalues = torch.linalg.eigvalsh(torch.cov(z.T, correction=0)).flip(-1)
    return Measured(relative_error(covariance_spectrum(z), eigenvalues), ROUND_OFF)


@claim("streamed-moments", "by definition", "relative error of covariances")
def streamed_moments() -> Measured:
    """Sums over batches, merged, give the covariances of all rows: of a view, of pairs, between and within samples.

    Three views of 90 samples, whose mean is a hundred times their spread, go into two accumulators: batches of 40 and
    20 into one and the rest into the other. Merged, they are compared with the definitions on all rows. Centring costs
    at most the two digits of the mean.
    """
    generator = torch.Generator().manual_seed(0)
    centres = 100 + torch.randn(90, 4, generator=generator, dtype=torch.float64)
    views = centres + 0.3 * torch.randn(3, 90, 4, generator=generator, dtype=torch.float64)
    whole, rest = ViewMoments(4, 2), ViewMoments(4, 2)
    for moments, start, stop in ((whole, 0, 40), (whole, 40, 60), (rest, 60, 90)):
        moments.update(list(views[:, start:stop]))
    whole.merge(rest)
    covariances = [torch.cov(view.T, correction=0) for view in views]
    shifts = [view - views[0] for view in views[1:]]
    shift = sum(gap.T @ gap for gap in shifts) / 180
    means, within = views.mean(0), (views - views.mean(0)).flatten(0, 1)
    pairs, lda = whole.pairs("one-sided"), whole.lda()
    assert lda is not None  # as there are three views
    checks = (
        (whole.each[1].covariance, covariances[1]),
        (pairs.data, 2 * covariances[0]),
        (pairs.augmentation, (1 - 1 / 90) * shift),
        (lda[0], torch.cov(means.T, correction=0)),
        (lda[1], within.T @ within / 270),
    )
    return Measured(max(relative_error(got, expected) for got, expected in checks), 100 * ROUND_OFF)
