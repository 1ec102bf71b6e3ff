import math

import numpy as np
import pytest
import torch
from helpers.measures import SEEDS, close, tensor
from helpers.reference import normal, seeded

from dyncollapse.diagnostics.measures import alpha_req
from dyncollapse.diagnostics.spectra import covariance_spectrum


def slow_alpha(values, first, last, weighted):
    points = [(j, v) for j, v in enumerate(sorted(values, reverse=True), 1) if first <= j <= last and v > 0]
    rows = np.array([[math.log(j), 1.0] for j, _ in points])
    logs = np.array([math.log(v) for _, v in points])
    roots = np.array([1 / math.sqrt(j) if weighted else 1.0 for j, _ in points])
    return -np.linalg.lstsq(rows * roots[:, None], logs * roots, rcond=None)[0][0]


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_alpha_is_that_of_a_least_squares_solver(seed, weighted):
    values = normal(seeded(seed), 130).exp()
    for first, last in [(6, 100), (1, 130), (11, 50), (100, 101)]:
        expected = slow_alpha(values.tolist(), first, last, weighted)
        close(alpha_req(values, first, last, weighted), expected, rtol=1e-9)
    close(alpha_req(values), slow_alpha(values.tolist(), 6, 100, True), rtol=1e-10)


# --- alpha-ReQ


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.5])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("d", [16, 128, 2048])
def test_a_power_law_has_its_exponent(d, weighted, alpha):
    law = torch.arange(1, d + 1, dtype=torch.float64) ** -alpha
    for first, last in [(6, 100), (1, d), (3, 5)]:
        close(alpha_req(7 * law, first, last, weighted), alpha, rtol=1e-11, atol=1e-12)


def test_alpha_sees_only_its_ranks():
    law = torch.arange(1, 201, dtype=torch.float64) ** -1.5
    law[:5] *= 100
    law[100:] /= 100
    close(alpha_req(law), 1.5, rtol=1e-11)
    assert float(alpha_req(law, first=1)) > 1.6
    assert float(alpha_req(law, last=150)) > 1.6


def test_alpha_ends_where_the_spectrum_does(generator):
    # 30 samples in 64 dimensions: 29 eigenvalues, one that centring leaves at round-off and 34 exact zeros.
    spectrum = covariance_spectrum(normal(generator, 30, 64))
    assert 0 < float(spectrum[29]) < 1e-25
    close(alpha_req(spectrum), slow_alpha(spectrum[:29].tolist(), 6, 100, True), rtol=1e-10)
    pair = torch.stack([spectrum, covariance_spectrum(normal(generator, 80, 64))])
    close(alpha_req(pair), torch.stack([alpha_req(one) for one in pair]))


def test_alpha_refuses_a_slope_of_one_point():
    law = tensor(4, 2, 1, 0.5, 0.25, 0.1, 0)
    with pytest.raises(ValueError, match=r"ranks 6 to 100 hold 1 non-zero eigenvalue\(s\); a slope needs 2"):
        alpha_req(law)
    with pytest.raises(ValueError, match=r"ranks 6 to 100 hold 0 non-zero eigenvalue\(s\)"):
        alpha_req(law[:3])
    for first, last in [(0, 5), (3, 3), (4, 2)]:
        with pytest.raises(ValueError, match=f"got first={first}, last={last}"):
            alpha_req(law, first, last)
