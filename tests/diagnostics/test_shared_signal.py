"""The number of correlated directions is never overstated, for any size and tails, and found where it can be."""

import math

import pytest
import torch
from helpers.reference import normal, rotation, seeded
from scipy.stats import chi2, kstest

from dyncollapse import diagnose, signal_rank
from dyncollapse.diagnostics.shared_signal import family_margin, noise_correlation, shared_signal, tail_probability


def views(seed, n, signal, tails="normal"):
    """Two views drawn alike given the image, in mixed directions."""
    g, d = seeded(seed), len(signal)
    noise = normal(g, 2, n, d)
    if tails == "one scale per sample":
        noise = noise * (0.7 * normal(g, n, 1)).exp()
    elif tails == "student":
        noise = noise / (normal(g, 2, n, 3).square().mean(-1).sqrt().unsqueeze(-1))
    turn = rotation(g, d)
    shared = normal(g, n, d) * torch.tensor(signal, dtype=torch.float64)
    return [(shared + one) @ turn for one in noise]


TAILS = ("normal", "one scale per sample", "student")


@pytest.mark.parametrize("tails", TAILS)
@pytest.mark.parametrize("n", [24, 60, 300])
@pytest.mark.parametrize("signal", [[0.0] * 12, [2.0] * 3 + [0.0] * 9, [3.0, 1.0, 0.5, 0.3] + [0.0] * 8])
def test_the_bound_is_never_above_the_truth(tails, n, signal):
    truth = sum(value > 0 for value in signal)
    found = [signal_rank(*views(seed, n, signal, tails)) for seed in range(20)]
    # A chance of 0.1 % each, if tails are normal; one of 20 is a chance of 2 %.
    assert sum(count > truth for count in found) <= (0 if tails == "normal" else 1), found


@pytest.mark.parametrize(("n", "least"), [(300, 14), (400, 20), (1500, 38), (4000, 40)])
def test_the_bound_reaches_the_truth_with_samples(n, least):
    # Correlations of 1/2 in 40 of 100 directions; the classical test at 5 % finds 16, 20, 39 and 40 of them.
    found = signal_rank(*views(0, n, [1.0] * 40 + [0.0] * 60))
    assert least <= found <= 40


@pytest.mark.seeds(3)
def test_negative_correlations_are_no_signal(generator):
    z = normal(generator, 2000, 6)
    other = torch.cat([0.8 * z[:, :2], -0.8 * z[:, 2:4], 0 * z[:, 4:]], 1) + 0.6 * normal(generator, 2000, 6)
    assert signal_rank(z, other) == 2
    found = diagnose(z, other).signal
    assert (found.positive, found.negative, found.tested) == (2, 2, 6)
    explained = found.explained
    assert 0 < explained < 0.2
    assert found.correlations.abs().tolist() == sorted(found.correlations.abs().tolist(), reverse=True)


@pytest.mark.parametrize(("n", "q"), [(20, 1), (20, 12), (100, 5), (100, 80)])
def test_chances_are_uniform_where_nothing_is_correlated(n, q):
    """The likelihood ratio of two equal covariances, against its exact mean and variance at every size."""
    chances = []
    for seed in range(300):
        total, difference = (normal(seeded(1000 * half + seed), n, q) for half in (1, 2))
        a, b = total.mT @ total, difference.mT @ difference
        statistic = 2 * torch.logdet((a + b) / 2) - torch.logdet(a) - torch.logdet(b)
        chances.append(tail_probability(float(statistic), n, q))
    assert kstest(chances, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("n", "q"), [(50, 5), (200, 40), (1000, 40)])
def test_noise_stays_below_the_correlation_it_is_said_to_explain(n, q):
    largest = []
    for seed in range(200):
        total, difference = (normal(seeded(1000 * half + seed), n, q) for half in (1, 2))
        root = torch.linalg.cholesky(total.mT @ total + difference.mT @ difference)
        white = torch.linalg.solve_triangular(root, total.mT, upper=False)
        largest.append(2 * float(torch.linalg.matrix_norm(white, ord=2)) ** 2 - 1)
    explained = noise_correlation(n, q)
    # 0.1 % of draws lie above: of 200, two with a chance of 2 %. The median lies within a fifth of it at these sizes.
    assert sum(value > explained for value in largest) <= 1
    assert explained < 1.9 * sorted(largest)[100]


def test_the_same_in_any_units_and_coordinates(generator):
    z, other = views(1, 200, [1.0] * 4 + [0.0] * 6)
    mixed = normal(generator, 10, 10) + 4 * torch.eye(10, dtype=torch.float64)
    for scale in (1e-120, 1.0, 1e120):
        assert signal_rank(scale * z @ mixed, scale * other @ mixed) == signal_rank(z, other) == 4
    assert signal_rank(z + 1e3, other - 1e3) == 4
    assert signal_rank(other, z) == 4
    repeated = [torch.cat([view, view[:, :5]], 1) for view in (z, other)]
    assert signal_rank(*repeated) == 4  # columns that say nothing new


def test_views_alike_share_everything_and_constants_nothing(generator):
    z = normal(generator, 200, 5)
    assert signal_rank(z, z) == 5
    assert signal_rank(torch.ones(20, 3), torch.ones(20, 3)) == 0


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ((10, 3), (10, 4), "shapes"),
        ((7, 3), (7, 3), "7 samples are too few"),
        ((3,), (3,), "shapes"),
    ],
)
def test_what_cannot_be_tested_is_refused(first, second, told):
    with pytest.raises(ValueError, match=told):
        signal_rank(torch.zeros(first), torch.zeros(second))
    with pytest.raises(ValueError, match="NaN or infinity"):
        signal_rank(torch.full((10, 2), math.nan), torch.zeros(10, 2))


def test_too_few_samples_count_nothing(generator):
    z = normal(generator, 6, 5)
    eye = torch.eye(5, dtype=torch.float64)
    found = shared_signal(eye, 0.5 * eye, eye, 6, z, z)
    assert (found.positive, found.negative, found.explained) == (0, 0, 1.0)


def test_a_family_of_estimates_keeps_its_level():
    # P(max |z_k| > margin) = 1 - (1 - p)^k for independent ones, p the chance of one.
    for count in (1, 7, 1000):
        one = float(chi2.sf(family_margin(count) ** 2, 1))
        assert 0.9e-3 < 1 - (1 - one) ** count <= 1e-3
