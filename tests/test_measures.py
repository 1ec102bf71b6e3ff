import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import EPS, covariance, normal, rotation

from dyncollapse.measures import (
    alpha_req,
    effective_rank,
    intrinsic_dimension,
    lidar,
    lidar_from_covariances,
    participation_ratio,
    participation_ratio_unbiased,
    rankme,
    rankme_from_eigenvalues,
    stable_rank,
    unbiased_traces,
)
from dyncollapse.spectra import covariance_spectrum

# Every measure of a spectrum that counts: k equal values give k.
COUNTS = [effective_rank, participation_ratio, intrinsic_dimension, rankme_from_eigenvalues]
SEEDS = range(3)


def plain_alpha(spectrum):
    return alpha_req(spectrum, first=1, last=max(len(spectrum), 2), weighted=False)


MEASURES = [*COUNTS, plain_alpha]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(got, expected, rtol=1e-12, atol=0.0):
    expected = torch.as_tensor(expected, dtype=torch.float64).expand(got.shape)
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)


@st.composite
def spectra(draw, least=1):
    """Values from 1e-8 to 1e8, some of them exactly 0, at least `least` of them not."""
    powers = draw(st.lists(st.floats(-8, 8), min_size=least, max_size=12))
    zeros = draw(st.integers(0, 3))
    values = [10**power for power in powers] + [0.0] * zeros
    return tensor(*draw(st.permutations(values)))


# --- The definitions once more, slow and obvious


def slow_effective_rank(values):
    total, entropy = sum(values), 0.0
    for value in values:
        if value > 0:
            entropy -= value / total * math.log(value / total)
    return math.exp(entropy)


def slow_participation_ratio(values):
    return sum(values) ** 2 / sum(value**2 for value in values)


def slow_alpha(values, first, last, weighted):
    points = [(j, v) for j, v in enumerate(sorted(values, reverse=True), 1) if first <= j <= last and v > 0]
    rows = np.array([[math.log(j), 1.0] for j, _ in points])
    logs = np.array([math.log(v) for _, v in points])
    roots = np.array([1 / math.sqrt(j) if weighted else 1.0 for j, _ in points])
    return -np.linalg.lstsq(rows * roots[:, None], logs * roots, rcond=None)[0][0]


def slow_lidar(views, delta):
    v, n, d = views.shape
    centres = [sum(views[j, i] for j in range(v)) / v for i in range(n)]
    mean = sum(centres) / n
    between, within = np.zeros((d, d)), delta * np.eye(d)
    for i in range(n):
        between += np.outer(centres[i] - mean, centres[i] - mean) / n
        for j in range(v):
            within += np.outer(views[j, i] - centres[i], views[j, i] - centres[i]) / (n * v)
    values, vectors = np.linalg.eigh(within)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    return slow_effective_rank(np.linalg.eigvalsh(root @ between @ root).clip(0))


def slow_traces(z):
    """The two U-statistics: averages over four samples that all differ."""
    squared_trace, trace_of_square, count = 0.0, 0.0, 0
    for i, j, k, m in itertools.permutations(range(len(z)), 4):
        one, two = z[i] - z[j], z[k] - z[m]
        squared_trace += float(one @ one) * float(two @ two) / 4
        trace_of_square += float(one @ two) ** 2 / 4
        count += 1
    return squared_trace / count, trace_of_square / count


def moments(z):
    """What a stream keeps: the covariance spectrum and the mean fourth power of the distance to the mean."""
    fourth = (z - z.mean(-2, keepdim=True)).square().sum(-1).square().mean(-1)
    return covariance_spectrum(z), fourth


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


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_alpha_is_that_of_a_least_squares_solver(seed, weighted):
    values = normal(seeded(seed), 130).exp()
    for first, last in [(6, 100), (1, 130), (11, 50), (100, 101)]:
        expected = slow_alpha(values.tolist(), first, last, weighted)
        close(alpha_req(values, first, last, weighted), expected, rtol=1e-9)
    close(alpha_req(values), slow_alpha(values.tolist(), 6, 100, True), rtol=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("v", "n", "d"), [(2, 12, 3), (5, 4, 6), (3, 30, 4)])
def test_lidar_is_the_effective_rank_of_the_lda_matrix(v, n, d, seed):
    views = normal(seeded(seed), 1, n, d) + 0.5 * normal(seeded(seed + 10), v, n, d)
    close(lidar(views), slow_lidar(views.numpy(), 1e-4), rtol=1e-9)
    close(lidar(views, delta=0.3), slow_lidar(views.numpy(), 0.3), rtol=1e-9)


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


# --- Gradients: they carry error bars


@given(spectra(least=2))
@settings(max_examples=50, deadline=None)
@pytest.mark.parametrize("measure", MEASURES)
def test_gradient_is_finite_at_zeros_and_blind_to_scale(measure, spectrum):
    spectrum = spectrum.clone().requires_grad_()
    (slope,) = torch.autograd.grad(measure(spectrum), spectrum)
    assert slope.isfinite().all()
    # Euler: a measure of degree 0 does not change along the spectrum itself.
    terms = slope * spectrum.detach()
    assert abs(float(terms.sum())) <= 1e-10 * (1 + float(terms.abs().sum()))


@pytest.mark.parametrize("measure", [effective_rank, rankme_from_eigenvalues, plain_alpha])
def test_zeros_have_no_gradient_where_it_would_be_infinite(measure):
    full = tensor(3, 0, 2, 0.5, 0).requires_grad_()
    bare = tensor(3, 2, 0.5).requires_grad_()
    (with_zeros,) = torch.autograd.grad(measure(full), full)
    (without,) = torch.autograd.grad(measure(bare), bare)
    close(with_zeros[[0, 2, 3]], without)
    assert with_zeros[[1, 4]].tolist() == [0, 0]


def test_participation_ratio_has_its_true_gradient_at_zero():
    spectrum = tensor(3, 0, 1).requires_grad_()
    (slope,) = torch.autograd.grad(participation_ratio(spectrum), spectrum)
    close(slope, [2 * 4 / 10 - 2 * 16 * value / 100 for value in (3, 0, 1)])


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("seed", SEEDS)
def test_gradient_equals_finite_differences(measure, seed):
    spectrum = (normal(seeded(seed), 6).abs() + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(measure, spectrum)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_of_matrices_equal_finite_differences(seed):
    z, views = normal(seeded(seed), 7, 3).requires_grad_(), normal(seeded(seed), 3, 5, 2).requires_grad_()
    for measure, at in ((rankme, z), (stable_rank, z), (lidar, views)):
        assert torch.autograd.gradcheck(measure, at)
    spectrum, fourth = moments(z.detach())
    assert torch.autograd.gradcheck(
        lambda eigenvalues, moment: participation_ratio_unbiased(eigenvalues, 7, moment),
        (spectrum.requires_grad_(), fourth.requires_grad_()),
    )


def test_gradient_of_rankme_is_finite_for_dead_dimensions(generator):
    z = torch.cat([normal(generator, 9, 3), torch.zeros(9, 2, dtype=torch.float64)], dim=1).requires_grad_()
    (slope,) = torch.autograd.grad(rankme(z), z)
    assert slope.isfinite().all()


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


# --- LiDAR


@pytest.mark.parametrize("d", [1, 4, 9])
def test_isotropic_covariances_have_full_lidar(d):
    identity = torch.eye(d, dtype=torch.float64)
    for delta in (0, 1e-4, 10):
        close(lidar_from_covariances(2 * identity, 0.3 * identity, delta), d)


@pytest.mark.parametrize("seed", SEEDS)
def test_lidar_of_commuting_covariances_is_that_of_the_ratios(seed):
    q, between, within = rotation(seeded(seed), 6), tensor(9, 4, 1, 0.1, 0, 0), tensor(1, 2, 3, 4, 5, 6)
    got = lidar_from_covariances(q @ between.diag() @ q.T, q @ within.diag() @ q.T, delta=0.5)
    close(got, slow_effective_rank((between / (within + 0.5)).tolist()), rtol=1e-11)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_linear_map_leaves_lidar_alone_without_delta(seed):
    generator = seeded(seed)
    views = normal(generator, 1, 20, 4) + 0.3 * normal(generator, 3, 20, 4)
    mixed = views @ normal(generator, 4, 4)
    close(lidar(mixed, delta=0), lidar(views, delta=0), rtol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_order_position_and_rotation_leave_lidar_alone(seed):
    generator = seeded(seed)
    views = normal(generator, 1, 20, 5) + 0.3 * normal(generator, 4, 20, 5)
    samples, q = torch.randperm(20, generator=generator), rotation(generator, 5)
    value = lidar(views)
    for other in (views[[2, 0, 3, 1]], views[:, samples], views + 10, views @ q.T):
        close(lidar(other), value, rtol=1e-10)
    # delta has the unit of a squared embedding, and is the only scale there is.
    close(lidar(100 * views, delta=1e-4 * 100**2), value, rtol=1e-10)
    assert float(lidar(views / 100)) != pytest.approx(float(value), rel=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_lidar_finds_the_planted_dimensions(seed):
    # k of 12 directions tell samples apart; RankMe also counts the loud ones that do not.
    generator, n, v, d, k = seeded(seed), 2000, 40, 12, 4
    signal = torch.zeros(1, n, d, dtype=torch.float64)
    signal[..., :k] = 10 * normal(generator, 1, n, k)
    views = signal + normal(generator, v, n, d) * torch.cat([torch.ones(k), 10 * torch.ones(d - k)])
    # In expectation: signal over noise, and everywhere the noise 1/(v - 1) of a mean of v views.
    expected = slow_effective_rank([(100 + 1 / v) * v / (v - 1)] * k + [1 / (v - 1)] * (d - k))
    close(lidar(views), expected, rtol=0.01)
    assert k < float(lidar(views)) < k + 0.1
    assert float(rankme(views.flatten(0, 1))) > 11
    isotropic = normal(generator, 1, n, d) + 0.1 * normal(generator, v, n, d)
    close(lidar(isotropic), d, rtol=0.01)


def test_lidar_survives_collapse_beside_loud_noise(generator):
    # W^-1 blows up the round-off of a null direction of B to far more than round-off of what is left.
    direction = rotation(generator, 3)
    between = direction @ torch.diag(tensor(1, 0, 0)) @ direction.T
    within = direction @ torch.diag(tensor(1e6, 0, 0)) @ direction.T
    got = float(lidar_from_covariances(between, within, 1e-4))
    assert 1 <= got < 1.02


def test_lidar_refuses_what_it_cannot_tell_apart(generator):
    views = normal(generator, 3, 5, 2)
    for bad, shape in ((views[:1], "1 view(s) of 5 sample(s)"), (views[:, :1], "3 view(s) of 1 sample(s)")):
        with pytest.raises(ValueError, match="LiDAR needs 2 views and 2 samples or more") as error:
            lidar(bad)
        assert shape in str(error.value)
    with pytest.raises(ValueError, match="the spectrum is zero"):
        lidar(views[:, :1].expand(3, 5, 2))
    with pytest.raises(ValueError, match="not positive definite; raise delta"):
        lidar(views[:1].expand(2, 5, 2), delta=0)
    assert lidar(views[:1].expand(2, 5, 2)).isfinite()
    with pytest.raises(ValueError, match="the embeddings hold NaN or infinity"):
        lidar(views * math.inf)
    identity = torch.eye(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="negative, and not by round-off"):
        lidar_from_covariances(-identity, identity)
    with pytest.raises(ValueError, match=r"shape \(2, 2\) and \(1, 2\)"):
        lidar_from_covariances(identity, identity[:1])
    with pytest.raises(ValueError, match="entries of the covariance within samples hold NaN"):
        lidar_from_covariances(identity, identity * math.nan)


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
