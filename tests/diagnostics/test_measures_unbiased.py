import itertools
import math

import pytest
import torch
from helpers.measures import SEEDS, close, moments, tensor
from helpers.reference import EPS, normal, seeded

from dyncollapse.diagnostics.measures import participation_ratio_unbiased, unbiased_traces


def slow_traces(z):
    """The two U-statistics: averages over four samples that all differ."""
    squared_trace, trace_of_square, count = 0.0, 0.0, 0
    for i, j, k, m in itertools.permutations(range(len(z)), 4):
        one, two = z[i] - z[j], z[k] - z[m]
        squared_trace += float(one @ one) * float(two @ two) / 4
        trace_of_square += float(one @ two) ** 2 / 4
        count += 1
    return squared_trace / count, trace_of_square / count


# --- Unbiased participation ratio


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("n", "d"), [(4, 1), (4, 3), (5, 2), (7, 3)])
def test_unbiased_traces_are_the_u_statistics(n, d, seed):
    z = normal(seeded(seed), n, d).exp() + 5
    spectrum, fourth = moments(z)
    squared_trace, trace_of_square = unbiased_traces(spectrum, n, fourth)
    expected = slow_traces(z)
    close(squared_trace, expected[0], rtol=1e-10)
    close(trace_of_square, expected[1], rtol=1e-10)
    close(participation_ratio_unbiased(spectrum, n, fourth), expected[0] / expected[1], rtol=1e-10)


def test_unbiased_traces_average_to_the_truth_over_every_sample():
    # A skew population of three points: all 3^n samples, each with its probability; no Monte Carlo error.
    points, weights = tensor(0, 0, 1, 0, 3, 2).reshape(3, 2), tensor(0.5, 0.3, 0.2)
    mean = weights @ points
    sigma = sum(w * torch.outer(p - mean, p - mean) for w, p in zip(weights, points, strict=True))
    for n in (4, 5):
        averages = [0.0, 0.0]
        for choice in itertools.product(range(3), repeat=n):
            # Samples of one repeated point have estimates of 0 and no spectrum.
            if len(set(choice)) > 1:
                spectrum, fourth = moments(points[list(choice)])
                estimates = unbiased_traces(spectrum, n, fourth)
                chance = float(weights[list(choice)].prod())
                averages = [a + chance * float(e) for a, e in zip(averages, estimates, strict=True)]
        close(tensor(*averages), [float(sigma.trace()) ** 2, float((sigma @ sigma).trace())], rtol=1e-12)


@pytest.mark.parametrize("n", [5, 40])
def test_unbiased_traces_within_their_standard_error(n):
    # Skew data with a mean, 4000 samples of size n: the averages are off by less than 4 standard errors.
    deviations = tensor(1, 2, 0.5)
    rate = torch.rand(4000, n, 3, generator=seeded(n), dtype=torch.float64)
    z = 7 - rate.log() * deviations
    spectrum, fourth = moments(z)
    truth = (deviations.square().sum() ** 2, deviations.pow(4).sum())
    naive = (spectrum.sum(-1).square(), spectrum.square().sum(-1))
    for estimate, plain, true in zip(unbiased_traces(spectrum, n, fourth), naive, truth, strict=True):
        error = float(estimate.std()) / math.sqrt(len(estimate))
        assert abs(float(estimate.mean() - true)) < 4 * error
        if n == 5:
            # What the test could have missed: the plug-in is off by more.
            assert abs(float(plain.mean() - true)) > 4 * float(plain.std()) / math.sqrt(len(plain))


@pytest.mark.parametrize("power", [-130, 0, 130])
def test_unbiased_ratio_has_no_unit(power, generator):
    spectrum, fourth = moments(normal(generator, 10, 4))
    value = participation_ratio_unbiased(spectrum, 10, fourth)
    scale = 10.0 ** (power / 2)
    close(participation_ratio_unbiased(spectrum * scale, 10, fourth * scale**2), value)
    close(participation_ratio_unbiased(torch.cat([spectrum, tensor(0, 0)]), 10, fourth), value)


def test_samples_without_a_shared_direction_have_no_finite_dimension():
    # Orthonormal samples: every difference of two is orthogonal to that of two others.
    spectrum, fourth = moments(torch.eye(6, dtype=torch.float64))
    close(unbiased_traces(spectrum, 6, fourth)[1], 0.0, atol=10 * EPS)
    # One sample away from a heap: of four different samples, two are always equal.
    lone, lone_fourth = moments(torch.eye(6, dtype=torch.float64)[[0, 1, 1, 1, 1, 1]])
    for few in ((spectrum, 6, fourth), (lone, 6, lone_fourth)):
        with pytest.raises(ValueError, match="0 to round-off: 6 samples share no direction; give more"):
            participation_ratio_unbiased(*few)


def test_unbiased_ratio_refuses_what_no_sample_has():
    spectrum, fourth = tensor(2, 1), tensor(9)[0]
    assert participation_ratio_unbiased(spectrum, 9, fourth).isfinite()
    with pytest.raises(ValueError, match="need 4 samples or more, got 3"):
        participation_ratio_unbiased(spectrum, 3, fourth)
    # Below the squared variance, or so far above that tr Sigma^2 would come out negative.
    for factor in (0.99, 5):
        with pytest.raises(ValueError, match="no 9 samples have this spectrum and fourth moment"):
            participation_ratio_unbiased(spectrum, 9, factor * fourth)
    with pytest.raises(ValueError, match="the fourth moments hold NaN"):
        participation_ratio_unbiased(spectrum, 9, fourth * math.nan)
