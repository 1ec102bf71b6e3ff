import pytest
import reference
import torch
from reference import EPS, normal, rotation

from dyncollapse import covariance_spectrum, mode_singular_values


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
