import math

import pytest
import torch
from helpers import reference
from helpers.reference import EPS, normal, rotation

from dyncollapse import covariance_spectrum, mode_singular_values
from dyncollapse.diagnostics.moments import Moments
from dyncollapse.diagnostics.spectra import noise_floor


@pytest.mark.parametrize("n", [2, 3, 5, 40])
def test_spectrum_is_that_of_the_covariance(n, generator):
    z = normal(generator, 2, n, 4) + 3
    got = covariance_spectrum(z)
    for run in range(2):
        slow = torch.linalg.eigvalsh(reference.covariance(z[run])).flip(0)
        built_in = torch.linalg.eigvalsh(torch.cov(z[run].T, correction=0)).flip(0)
        for expected in (slow, built_in):
            torch.testing.assert_close(got[run], expected, rtol=0, atol=100 * EPS * float(expected[0]))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_fewer_samples_than_dimensions_leave_exact_zeros(n, generator):
    spectrum = covariance_spectrum(normal(generator, n, 6))
    assert not spectrum[n:].any()
    assert (spectrum[: n - 1] > 1e-3).all()
    # Centring costs one more, which only round-off, squared here, can hide.
    assert float(spectrum[n - 1]) < (100 * EPS) ** 2


def test_spectrum_descends_and_sums_to_the_variance(generator):
    z = normal(generator, 3, 20, 5)
    spectrum = covariance_spectrum(z)
    assert (spectrum.diff(dim=-1) <= 0).all()
    assert (spectrum >= 0).all()
    torch.testing.assert_close(spectrum.sum(-1), z.var(-2, correction=0).sum(-1), rtol=1e-12, atol=0)


def test_small_eigenvalues_keep_their_digits(generator):
    # Orthonormal centred columns times known deviations: eigenvalues of 1e-20 are far below eps of the largest.
    basis = normal(generator, 30, 3)
    frame = torch.linalg.qr(basis - basis.mean(0)).Q
    deviations = torch.tensor([1.0, 1e-5, 1e-10], dtype=torch.float64)
    spectrum = covariance_spectrum(frame * deviations @ torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(spectrum, deviations.square() / 30, rtol=1e-4, atol=0)


def test_spectrum_ignores_position_orientation_and_order(generator):
    z, q = normal(generator, 12, 4), rotation(generator, 4)
    spectrum = covariance_spectrum(z)
    order = torch.randperm(12, generator=generator)
    for other in (z + 10, z @ q.T, z[order]):
        torch.testing.assert_close(covariance_spectrum(other), spectrum, rtol=1e-11, atol=0)
    torch.testing.assert_close(covariance_spectrum(3 * z), 9 * spectrum, rtol=1e-12, atol=0)


def test_a_collapsed_cloud_has_no_variance():
    assert not covariance_spectrum(torch.ones(4, 3, dtype=torch.float64)).any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_spectrum_refuses_what_has_none(bad):
    with pytest.raises(ValueError, match=r"the spectrum of 1 sample\(s\) is not defined; give at least 2"):
        covariance_spectrum(torch.zeros(1, 3))
    z = torch.zeros(4, 3)
    z[2, 1] = bad
    with pytest.raises(ValueError, match="the embeddings hold NaN or infinity"):
        covariance_spectrum(z)


def test_one_group_of_all_directions_gives_the_singular_values(generator):
    p, q = normal(generator, 2, 5, 4), rotation(generator, 4)
    got = mode_singular_values(p, q, [[0, 1, 2, 3]])
    torch.testing.assert_close(got, torch.linalg.svdvals(p), rtol=1e-12, atol=1e-13)


def test_single_directions_give_column_norms(generator):
    p, q = normal(generator, 2, 5, 4), rotation(generator, 4)
    got = mode_singular_values(p, q, [[0], [1], [2], [3]])
    torch.testing.assert_close(got, (p @ q).norm(dim=-2), rtol=1e-12, atol=0)


def test_basis_of_a_group_does_not_matter(generator):
    p, q = normal(generator, 2, 5, 4), rotation(generator, 4)
    other = q.clone()
    other[:, 1:4] = q[:, 1:4] @ rotation(generator, 3)
    groups = [[0], [1, 2, 3]]
    got = mode_singular_values(p, q, groups)
    torch.testing.assert_close(mode_singular_values(p, other, groups), got, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(mode_singular_values(rotation(generator, 5) @ p, q, groups), got, rtol=1e-12, atol=1e-13)


def test_values_beyond_the_rank_are_zero(generator):
    p, q = normal(generator, 3, 2, 5), rotation(generator, 5)
    got = mode_singular_values(p, q, [[0, 1, 2], [3, 4]])
    assert got.shape == (3, 5)
    assert not got[:, 2].any()
    assert (got[:, [0, 1, 3, 4]] > 0).all()
    torch.testing.assert_close(got.square().sum(-1), p.square().sum((-2, -1)), rtol=1e-12, atol=0)


def planted(kind, n, d, rank, generator):
    """Rows in float64 that vary along `rank` directions, none of them a column."""
    frame = rotation(generator, d)[:rank]
    if kind == "unequal columns":
        frame = frame * torch.logspace(0, -1, d, dtype=torch.float64)
    scales = torch.arange(1, rank + 1, dtype=torch.float64) ** (-1.0 if kind == "steep" else 0.0)
    z = normal(generator, n, rank) * scales @ frame
    if kind == "unit length":
        z = z / z.norm(dim=1, keepdim=True)
    return z + 30 * normal(generator, d) if kind == "far from 0" else z


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["flat", "steep", "unequal columns", "unit length", "far from 0"])
@pytest.mark.parametrize(("n", "d", "rank"), [(64, 32, 8), (3000, 48, 24), (1000, 64, 60)])
def test_null_directions_lie_below_the_noise_floor_and_not_far(kind, n, d, rank, dtype, fast, generator):
    moments = Moments(d, fast=fast)
    moments.update(planted(kind, n, d, rank, generator).to(dtype))
    values = torch.linalg.eigvalsh(moments.covariance)
    floor, of_the_sums = (
        noise_floor(moments.second_moment.diagonal(), float(values[-1]), stored, fast=fast)
        for stored in (dtype, torch.int64)
    )
    null = values[: d - rank].abs()
    assert float(null.max()) < floor
    assert float(moments.spectrum()[rank]) < floor
    # What the sums' rounding leaves depends on the processor, and may be nothing; that of the stored values does not.
    if floor > of_the_sums:
        # Steep spectra and small columns leave less than the largest of them, which the floor goes by.
        assert float(null.median()) > floor / (3e4 if kind in {"steep", "unequal columns"} else 300)


@pytest.mark.parametrize("fast", [False, True])
def test_points_repeated_stay_below_the_noise_floor(fast, generator):
    # The worst case for sums: every addition rounds alike.
    points = normal(generator, 3, 16)
    moments = Moments(16, fast=fast)
    moments.update(points[torch.arange(1000) * 3 // 1000])
    values = torch.linalg.eigvalsh(moments.covariance)
    assert float(values[:14].abs().max()) < noise_floor(torch.zeros(16), float(values[-1]), torch.int64, fast=fast)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.seeds(3)
def test_quantisation_has_the_variance_that_the_floor_assumes(dtype, generator):
    # Log-uniform over whole binades, as the derivation has it: a quarter of the floor is the variance itself.
    z = torch.exp2(8 * torch.rand(200_000, 1, generator=generator, dtype=torch.float64) - 4)
    error = z.to(dtype).double() - z
    floor = noise_floor(z.square().mean(0), 0.0, dtype)
    assert float(error.square().mean()) == pytest.approx(floor / 4, rel=0.02, abs=0)


@pytest.mark.seeds(3)
def test_quantisation_below_the_normal_numbers_has_an_even_spacing(generator):
    z = 2.0**-16 * torch.rand(200_000, 1, generator=generator, dtype=torch.float64)
    error = z.to(torch.float16).double() - z
    floor = noise_floor(z.square().mean(0), 0.0, torch.float16)
    assert float(error.square().mean()) == pytest.approx(floor / 4, rel=0.05, abs=0)


def test_noise_floor_is_the_larger_of_its_parts():
    second = torch.tensor([1.0, 4.0], dtype=torch.float64)
    stored = 4 * (math.log(2) / 18) * (2.0**-7) ** 2 * 4
    assert noise_floor(second, 1.0, torch.bfloat16) == pytest.approx(stored)
    assert noise_floor(second, 1.0, torch.int64) == 16 * EPS
    assert noise_floor(second, 3.0, torch.float64) == 48 * EPS
    assert noise_floor(second, 1.0, torch.float32, fast=True) == 16 * 2.0**-23
    assert noise_floor(torch.ones(1024), 1.0, torch.int64) == 32 * EPS
    assert noise_floor(second, 0.0, torch.bool) == 0
