import math

import pytest
import scipy.integrate
import scipy.stats
import torch
from helpers.measures import SEEDS, close, moments, slow_effective_rank, tensor
from helpers.reference import normal, seeded

from dyncollapse.diagnostics.measures import effective_rank, participation_ratio, participation_ratio_unbiased, rankme
from dyncollapse.diagnostics.spectra import covariance_spectrum

# --- The published variants are not the same number


@pytest.mark.parametrize(("rank", "published"), [(1, 1.27), (16, 20.2), (360, 445)])
def test_epsilon_counts_dead_dimensions_as_partly_alive(rank, published):
    p = torch.zeros(2048, dtype=torch.float64)
    p[:rank] = 1 / rank
    close(effective_rank(p), rank, rtol=1e-12)
    shifted = p + 1e-5
    with_epsilon = float(torch.exp(-(shifted * shifted.log()).sum()))
    assert float(f"{with_epsilon:.3g}") == published
    # The epsilon of the paper is a hundred times smaller, and so is its error.
    shifted = p + 1e-7
    assert rank < float(torch.exp(-(shifted * shifted.log()).sum())) < rank * 1.0034


def test_centring_and_squaring_change_rankme(generator):
    # Orthonormal centred columns and a mean along a direction of its own: every variant in closed form.
    n, k, offset = 40, 5, 3.0
    basis = normal(generator, n, k)
    frame = torch.linalg.qr(basis - basis.mean(0)).Q
    sigma = tensor(5, 4, 3, 2, 1)
    z = torch.cat([frame * sigma, torch.full((n, 1), offset, dtype=torch.float64)], dim=1)
    mean_sigma = offset * math.sqrt(n)
    close(rankme(z), slow_effective_rank([*sigma.tolist(), mean_sigma]), rtol=1e-11)
    close(rankme(z - z.mean(0)), slow_effective_rank(sigma.tolist()), rtol=1e-11)
    close(effective_rank(covariance_spectrum(z)), slow_effective_rank(sigma.square().tolist()), rtol=1e-11)
    assert abs(float(rankme(z)) - float(rankme(z - z.mean(0)))) > 0.5


def marchenko_pastur_rankme(n, d):
    """Limit of RankMe for isotropic data: d exp(log E s - E[s log s] / E s) over the singular values s."""
    low, high = (1 - math.sqrt(d / n)) ** 2, (1 + math.sqrt(d / n)) ** 2

    def mean(f):
        return scipy.integrate.quad(lambda x: f(math.sqrt(x)) * math.sqrt((high - x) * (x - low)) / x, low, high)[0]

    size = mean(lambda _: 1)
    first = mean(lambda s: s) / size
    return d * math.exp(math.log(first) - mean(lambda s: s * math.log(s)) / size / first)


@pytest.mark.parametrize("seed", SEEDS)
def test_isotropic_samples_reach_the_ranks_of_random_matrices(seed):
    # Marchenko-Pastur: E l^2 / (E l)^2 = 1 + d/n, hence PR = n d / (n + d).
    d = 512
    for n, rounded in [(512, 412), (2048, 495)]:
        z = normal(seeded(seed), n, d)
        spectrum, fourth = moments(z)
        expected = marchenko_pastur_rankme(n, d)
        assert round(expected) == rounded
        close(rankme(z), expected, rtol=0.003)
        close(participation_ratio(spectrum), n * d / (n + d), rtol=0.01)
        # Relative standard error of the estimate of tr Sigma^2: sqrt(4 / n^2 + 8 / (n d)) = 0.7 % at n = d = 512.
        close(participation_ratio_unbiased(spectrum, n, fourth), d, rtol=4 * math.sqrt(4 / n**2 + 8 / (n * d)))
