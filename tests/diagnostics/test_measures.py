import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from helpers.measures import COUNTS, MEASURES, SEEDS, close, moments, plain_alpha, slow_effective_rank, spectra, tensor
from helpers.reference import EPS, covariance, normal, rotation, seeded
from hypothesis import given, settings
from hypothesis import strategies as st

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
)
from dyncollapse.diagnostics.spectra import covariance_spectrum


def slow_participation_ratio(values):
    return sum(values) ** 2 / sum(value**2 for value in values)


@given(spectra())
@settings(max_examples=50, deadline=None)
def test_measures_of_a_spectrum_equal_the_definitions(spectrum):
    values = spectrum.tolist()
    close(effective_rank(spectrum), slow_effective_rank(values), rtol=1e-11)
    close(effective_rank(spectrum), math.exp(scipy.stats.entropy(values)), rtol=1e-11)
    close(participation_ratio(spectrum), slow_participation_ratio(values))
    close(intrinsic_dimension(spectrum), sum(values) / max(values))
    close(rankme_from_eigenvalues(spectrum), slow_effective_rank([math.sqrt(v) for v in values]), rtol=1e-11)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("n", "d"), [(1, 4), (7, 4), (4, 7), (30, 5)])
def test_rankme_is_that_of_numpy(n, d, seed):
    z = normal(seeded(seed), n, d) + 2
    sigma = np.linalg.svd(z.numpy(), compute_uv=False)
    close(rankme(z), math.exp(scipy.stats.entropy(sigma)), rtol=1e-11)
    second_moment = z.T @ z / n
    close(rankme_from_eigenvalues(torch.linalg.eigvalsh(second_moment)), rankme(z), rtol=1e-6)


# --- Identities of a rank


@pytest.mark.parametrize("measure", COUNTS)
@pytest.mark.parametrize("k", [1, 2, 7, 360])
def test_k_equal_values_count_as_k(measure, k):
    flat = torch.full((k,), 0.3, dtype=torch.float64)
    close(measure(flat), k, rtol=1e-11)
    close(measure(torch.cat([flat, flat.new_zeros(2048 - k)])), k, rtol=1e-11)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_an_isometry_of_k_dimensions_has_rank_k(k, generator):
    matrix = 5 * rotation(generator, 9)[:, :k] @ rotation(generator, 6)[:k]
    close(stable_rank(matrix), k)
    close(rankme(matrix), k, rtol=1e-11)


@given(spectra(least=2), st.floats(-150, 140), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
@pytest.mark.parametrize("measure", MEASURES)
def test_scale_order_and_appended_zeros_change_nothing(measure, spectrum, power, random):
    value = float(measure(spectrum))
    order = list(range(len(spectrum)))
    random.shuffle(order)
    assert math.isfinite(value)
    # A slope can be small beside the logarithms that cancel in it.
    for other in (spectrum * 10.0**power, spectrum[order], torch.cat([spectrum, tensor(0, 0, 0)])):
        close(measure(other), value, rtol=1e-9, atol=1e-12)


@given(spectra())
@settings(max_examples=100, deadline=None)
def test_renyi_ranks_are_ordered(spectrum):
    order = [intrinsic_dimension, participation_ratio, effective_rank]
    ranks = [1.0, *(float(measure(spectrum)) for measure in order), float((spectrum > 0).sum())]
    for lower, upper in itertools.pairwise(ranks):
        assert lower <= upper * (1 + 1e-12)
    # The square root flattens a spectrum: singular values count more than eigenvalues.
    assert ranks[3] <= float(rankme_from_eigenvalues(spectrum)) * (1 + 1e-12) <= ranks[4] * (1 + 1e-10)


@given(spectra(), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("measure", COUNTS)
def test_mixing_towards_the_mean_never_lowers_a_rank(measure, spectrum, part):
    mixed = (1 - part) * spectrum + part * spectrum.mean()
    assert float(measure(mixed)) >= float(measure(spectrum)) * (1 - 1e-11)


@given(spectra(least=2), st.floats(0, 1), st.data())
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("measure", COUNTS)
def test_taking_from_the_larger_of_two_never_lowers_a_rank(measure, spectrum, part, data):
    i, j = data.draw(st.permutations(range(len(spectrum))))[:2]
    moved = part * (spectrum[i] - spectrum[j]) / 2
    mixed = spectrum.clone()
    mixed[i], mixed[j] = spectrum[i] - moved, spectrum[j] + moved
    assert float(measure(mixed)) >= float(measure(spectrum)) * (1 - 1e-11)


@pytest.mark.parametrize("measure", MEASURES)
def test_runs_are_measured_one_by_one(measure, generator):
    spectrum = normal(generator, 2, 3, 8).square()
    got = torch.stack([torch.stack([measure(one) for one in row]) for row in spectrum])
    batched = alpha_req(spectrum, 1, 8, weighted=False) if measure is plain_alpha else measure(spectrum)
    assert batched.shape == (2, 3)
    close(batched, got)


def test_matrices_and_views_come_in_runs(generator):
    z, views = normal(generator, 2, 9, 4), normal(generator, 2, 3, 9, 4)
    for measure, runs in ((rankme, z), (stable_rank, z), (lidar, views)):
        close(measure(runs), torch.stack([measure(one) for one in runs]))
    spectrum, fourth = moments(z)
    one_by_one = [participation_ratio_unbiased(spectrum[run], 9, fourth[run]) for run in range(2)]
    close(participation_ratio_unbiased(spectrum, 9, fourth), torch.stack(one_by_one))


@pytest.mark.parametrize("measure", COUNTS)
@pytest.mark.parametrize("extreme", [1e-300, 1e300])
def test_extreme_units_neither_overflow_nor_vanish(measure, extreme):
    close(measure(tensor(1, 2, 3) * extreme), measure(tensor(1, 2, 3)))


def test_value_too_small_beside_the_largest_counts_as_none():
    tiny = tensor(1e200, 1e-200)
    for measure in COUNTS:
        close(measure(tiny), 1.0)
    assert alpha_req(tensor(1e200, 1e199, 1e-200), 1, 3).isfinite()


@pytest.mark.parametrize("measure", COUNTS)
def test_single_precision_stays_single(measure):
    got = measure(torch.tensor([3.0, 2.0, 1.0]))
    assert got.dtype == torch.float32
    close(got.double(), measure(tensor(3, 2, 1)), rtol=1e-6)


# --- Stable rank


@pytest.mark.parametrize("seed", SEEDS)
def test_stable_rank_is_a_ratio_of_norms(seed):
    w = normal(seeded(seed), 5, 8)
    norm = torch.linalg.matrix_norm
    close(stable_rank(w), float(norm(w) ** 2 / norm(w, ord=2) ** 2))
    close(stable_rank(rotation(seeded(seed), 5) @ w * 1e-200), stable_rank(w.T))
    z = w + 3
    close(stable_rank(z - z.mean(0)), intrinsic_dimension(covariance_spectrum(z)))
    close(intrinsic_dimension(torch.linalg.eigvalsh(covariance(z))), stable_rank(z - z.mean(0)))


# --- What is refused


@pytest.mark.parametrize("measure", MEASURES)
def test_spectra_that_are_none_are_refused_in_a_line(measure):
    for values, message in [
        ([], r"there are no values of the spectrum: the shape is \(0,\)"),
        ([0.0, 0.0], "the spectrum is zero: nothing varies, so no rank is defined"),
        ([1.0, math.nan], "the values of the spectrum hold NaN or infinity"),
        ([1.0, math.inf], "the values of the spectrum hold NaN or infinity"),
        ([1.0, -1e-9], "the spectrum holds -1e-09: negative, and not by round-off"),
        ([-1.0, -2.0], "the spectrum holds -2: negative, and not by round-off"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            measure(tensor(*values))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("measure", MEASURES)
def test_negative_round_off_counts_as_zero(measure):
    close(measure(tensor(3, 2, 1, -2 * EPS)), measure(tensor(3, 2, 1, 0)))


@pytest.mark.parametrize("measure", [rankme, stable_rank])
def test_matrices_without_a_rank_are_refused(measure):
    for shape in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match=r"there are no .*: the shape is"):
            measure(torch.zeros(shape))
    with pytest.raises(ValueError, match="the spectrum is zero"):
        measure(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        measure(torch.full((3, 2), math.nan))
