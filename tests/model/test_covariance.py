import pytest
import torch
from helpers import reference
from helpers.reference import EPS, VIEWS, normal, problems
from hypothesis import given

from dyncollapse import contrastive_covariance, infonce, infonce_weights


def contrast(x, x_pos, p, views):
    negatives = None if views == "one-sided" else x_pos
    z, z_pos = x @ p.mT, x_pos @ p.mT
    alpha = infonce_weights(z, z_pos, None if views == "one-sided" else z_pos)
    return alpha, contrastive_covariance(x, x_pos, alpha, negatives)


def reach(x, x_pos):
    return float(max((x - x.mean(-2, keepdim=True)).abs().max(), (x_pos - x.mean(-2, keepdim=True)).abs().max()))


@given(problem=problems())
def test_gradient_of_infonce_is_minus_p_times_x(problem):
    x, x_pos, p, views = problem
    force = contrast(x, x_pos, p, views)[1].force
    p = p.clone().requires_grad_()
    z, z_pos = x @ p.mT, x_pos @ p.mT
    (gradient,) = torch.autograd.grad(infonce(z, z_pos, None if views == "one-sided" else z_pos).sum(), p)
    size = float(p.detach().abs().max()) * reach(x, x_pos) ** 2
    torch.testing.assert_close(gradient, -p.detach() @ force, rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize("views", VIEWS)
def test_gradient_of_the_loops_is_minus_p_times_x(views, generator):
    x, x_pos, p = normal(generator, 6, 4), normal(generator, 6, 4), normal(generator, 3, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(reference.infonce(x @ p.T, x_pos @ p.T, views), p)
    force = contrast(x, x_pos, p.detach(), views)[1].force
    assert float(gradient.norm()) > 1e-3
    torch.testing.assert_close(gradient, -p.detach() @ force, rtol=1e-12, atol=1e-12)


@given(problem=problems())
def test_both_sides_equal_sums_of_outer_products(problem):
    x, x_pos, p, views = problem
    alpha, got = contrast(x, x_pos, p, views)
    d, n = x.shape[-1], x.shape[-2]
    triples = zip(*(t.reshape(-1, n, t.shape[-1]) for t in (x, x_pos, alpha)), strict=True)
    slow = [reference.contrastive_covariance(*triple, views) for triple in triples]
    atol = 100 * EPS * n * reach(x, x_pos) ** 2
    for side, expected in zip((got.data, got.augmentation), zip(*slow, strict=True), strict=True):
        torch.testing.assert_close(side.reshape(-1, d, d), torch.stack(expected), rtol=0, atol=atol)
    torch.testing.assert_close(got.force, got.data - got.augmentation, rtol=0, atol=0)


@given(problem=problems())
def test_both_sides_are_symmetric_and_psd(problem):
    x, x_pos, p, views = problem
    got = contrast(x, x_pos, p, views)[1]
    # Sigma0 is a difference of Gram matrices: its zero eigenvalues come out at the round-off of those.
    tolerance = 100 * EPS * x.shape[-2] * reach(x, x_pos) ** 2
    for side in (got.data, got.augmentation):
        torch.testing.assert_close(side, side.mT, rtol=0, atol=tolerance)
        assert float(torch.linalg.eigvalsh(side).min()) >= -tolerance
        assert float(side.diagonal(dim1=-2, dim2=-1).sum(-1).min()) > 0


@given(problem=problems())
def test_linear_maps_of_the_inputs_map_both_sides(problem):
    x, x_pos, p, views = problem
    alpha, got = contrast(x, x_pos, p, views)
    m = p[(0,) * (p.ndim - 2)]
    mapped = contrastive_covariance(x @ m.T, x_pos @ m.T, alpha, None if views == "one-sided" else x_pos @ m.T)
    atol = 1000 * EPS * x.shape[-2] * (float(m.abs().max()) * reach(x, x_pos)) ** 2
    torch.testing.assert_close(mapped.data, m @ got.data @ m.T, rtol=0, atol=atol)
    torch.testing.assert_close(mapped.augmentation, m @ got.augmentation @ m.T, rtol=0, atol=atol)


@pytest.mark.parametrize("views", VIEWS)
def test_a_common_offset_changes_nothing(views, generator):
    # On a grid of 2^-10 the sum with 2^20 is exact.
    x, x_pos = ((normal(generator, 8, 3) * 2**10).round() / 2**10 for _ in range(2))
    p = normal(generator, 3, 3)
    near, far = contrast(x, x_pos, p, views)[1], contrast(x + 2.0**20, x_pos + 2.0**20, p, views)[1]
    # z = x P^T rounds at 2^20 eps, which moves the weights by as much.
    torch.testing.assert_close(far.force, near.force, rtol=0, atol=1e3 * 2**20 * EPS)


@pytest.mark.parametrize("views", VIEWS)
def test_order_of_the_samples_changes_nothing(views, generator):
    x, x_pos, p = normal(generator, 9, 3), normal(generator, 9, 3), normal(generator, 3, 3)
    order = torch.randperm(9, generator=generator)
    there, here = contrast(x[order], x_pos[order], p, views)[1], contrast(x, x_pos, p, views)[1]
    torch.testing.assert_close(there.force, here.force, rtol=1e-12, atol=1e-13)


def test_equal_weights_give_twice_the_sample_covariance(generator):
    x, x_pos = normal(generator, 8, 3), normal(generator, 8, 3)
    alpha, got = contrast(x, x_pos, torch.zeros(3, 3, dtype=torch.float64), "one-sided")
    assert torch.equal(alpha, torch.full((8, 8), 1 / 8, dtype=torch.float64))
    torch.testing.assert_close(got.data, 2 * reference.covariance(x), rtol=1e-12, atol=1e-13)
    moved = sum(torch.outer(row, row) for row in x_pos - x) / 8
    torch.testing.assert_close(got.augmentation, 7 / 8 * moved, rtol=1e-12, atol=1e-13)


def test_augmentation_side_keeps_digits_when_the_positive_takes_all(generator):
    x, x_pos = normal(generator, 5, 3), normal(generator, 5, 3)
    alpha = torch.full((5, 5), 1e-30, dtype=torch.float64).fill_diagonal_(1.0)
    moved = sum(4e-30 * torch.outer(row, row) for row in x_pos - x) / 5
    torch.testing.assert_close(contrastive_covariance(x, x_pos, alpha).augmentation, moved, rtol=1e-12, atol=1e-43)


def test_without_augmentation_its_side_vanishes(generator):
    x = normal(generator, 6, 3)
    got = contrast(x, x.clone(), normal(generator, 3, 3), "one-sided")[1]
    assert not got.augmentation.any()
    assert float(torch.linalg.eigvalsh(got.data)[0]) > 0


def test_the_weights_are_left_alone(generator):
    x, x_pos, alpha = normal(generator, 5, 3), normal(generator, 5, 3), torch.rand(5, 5, generator=generator).double()
    before = alpha.clone()
    contrastive_covariance(x, x_pos, alpha)
    assert torch.equal(alpha, before)
