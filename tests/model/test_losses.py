import math

import pytest
import torch
from helpers import reference
from helpers.reference import EPS, VIEWS, normal, problems
from hypothesis import given

from dyncollapse import dot_infonce, infonce, infonce_weights, ntxent, spectral

FAST = {
    "infonce": infonce,
    "dot": dot_infonce,
    "ntxent": lambda z, z_pos, _negatives: ntxent(z, z_pos),
    "spectral": spectral,
}


def fast(name, z, z_pos, views):
    return FAST[name](z, z_pos, None if views == "one-sided" else z_pos)


def flat(*tensors):
    return zip(*(t.reshape(-1, *t.shape[-2:]) for t in tensors), strict=True)


@pytest.mark.parametrize("name", FAST)
@given(problem=problems())
def test_loss_equals_the_loops(name, problem):
    x, x_pos, p, views = problem
    z, z_pos = x @ p.mT, x_pos @ p.mT
    slow = [reference.loss(name, a, b, views) for a, b in flat(z, z_pos)]
    # Logits are sums of products of embeddings, over a temperature of 0.1: round-off is relative to their size.
    size = 1 + 10 * float(z_pos.abs().max() + z.abs().max()) ** (4 if name == "spectral" else 2)
    got = fast(name, z, z_pos, views)
    assert got.shape == x.shape[:-2]
    torch.testing.assert_close(got.flatten(), torch.stack(slow), rtol=0, atol=100 * EPS * size)


@given(problem=problems())
def test_weights_equal_the_loops(problem):
    x, x_pos, p, views = problem
    z, z_pos = x @ p.mT, x_pos @ p.mT
    slow = [reference.infonce_weights(a, b, views) for a, b in flat(z, z_pos)]
    got = infonce_weights(z, z_pos, None if views == "one-sided" else z_pos)
    size = 1 + float(z_pos.abs().max() + z.abs().max()) ** 2
    torch.testing.assert_close(got.reshape(-1, *got.shape[-2:]), torch.stack(slow), rtol=0, atol=100 * EPS * size)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("scale", [1e-100, 1e-8, 1.0, 1e8, 1e100])
def test_softmax_rows_sum_to_one(scale, views, generator):
    z, z_pos = scale * normal(generator, 2, 7, 3), scale * normal(generator, 2, 7, 3)
    alpha = infonce_weights(z, z_pos, None if views == "one-sided" else z_pos)
    assert (alpha >= 0).all()
    torch.testing.assert_close(alpha.sum(-1), torch.ones(2, 7, dtype=torch.float64), rtol=0, atol=10 * EPS)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("scale", [1e-100, 1e100])
@pytest.mark.parametrize("name", ["infonce", "dot", "ntxent"])
def test_losses_survive_any_norm(name, scale, views, generator):
    # Squared norms reach 1e+-200, inside float64's range; the spectral loss is of fourth order: see below.
    z = (scale * normal(generator, 6, 3)).requires_grad_()
    z_pos = scale * normal(generator, 6, 3)
    value, slow = fast(name, z, z_pos, views), reference.loss(name, z, z_pos, views)
    gradient, slow_gradient = (torch.autograd.grad(v, z)[0] for v in (value, slow))
    torch.testing.assert_close(value, slow, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, slow_gradient, rtol=0, atol=1e-11 * float(slow_gradient.abs().max()))


@pytest.mark.parametrize("scale", [1e-70, 1e70])
@pytest.mark.parametrize("shape", [(6, 3), (3, 6)])
def test_spectral_loss_survives_norms_whose_fourth_power_exists(scale, shape, generator):
    z, z_pos = scale * normal(generator, *shape), scale * normal(generator, *shape)
    torch.testing.assert_close(spectral(z, z_pos), reference.spectral(z, z_pos, "one-sided"), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("views", VIEWS)
def test_vanishing_embeddings_cannot_tell_pairs_apart(name, views):
    z = torch.zeros(5, 3, dtype=torch.float64, requires_grad=True)
    value = fast(name, z, torch.zeros(5, 3, dtype=torch.float64), views)
    assert float(value.detach()) == pytest.approx(0.0 if name == "spectral" else math.log(5), abs=10 * EPS)
    assert torch.isfinite(torch.autograd.grad(value, z)[0]).all()


@pytest.mark.parametrize("views", VIEWS)
def test_infonce_ignores_a_large_common_offset(views, generator):
    # On a grid of 2^-10 the sum with 2^30 is exact, so any difference would be the loss's own.
    z, z_pos = ((normal(generator, 8, 3) * 2**10).round() / 2**10 for _ in range(2))
    far, far_pos = z + 2.0**30, z_pos + 2.0**30
    torch.testing.assert_close(
        fast("infonce", far, far_pos, views), fast("infonce", z, z_pos, views), rtol=1e-13, atol=0
    )


def test_ntxent_ignores_the_norm_of_every_row(generator):
    z, z_pos = normal(generator, 6, 3), normal(generator, 6, 3)
    stretch = 10 ** torch.linspace(-290, 290, 6, dtype=torch.float64).unsqueeze(-1)
    torch.testing.assert_close(ntxent(z * stretch, z_pos / stretch), ntxent(z, z_pos), rtol=1e-12, atol=0)


def test_ntxent_keeps_a_zero_row_at_zero(generator):
    z, z_pos = normal(generator, 5, 3), normal(generator, 5, 3)
    z[2] = 0
    torch.testing.assert_close(ntxent(z, z_pos), reference.ntxent(z, z_pos, 0.1), rtol=1e-12, atol=0)


def test_ntxent_is_symmetric_in_the_views(generator):
    z, z_pos = normal(generator, 6, 3), normal(generator, 6, 3)
    torch.testing.assert_close(ntxent(z, z_pos), ntxent(z_pos, z), rtol=1e-13, atol=0)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("name", FAST)
def test_losses_are_blind_to_rotation_and_order(name, views, generator):
    z, z_pos = normal(generator, 7, 4), normal(generator, 7, 4)
    q, order = reference.rotation(generator, 4), torch.randperm(7, generator=generator)
    value = fast(name, z, z_pos, views)
    torch.testing.assert_close(fast(name, z @ q.T, z_pos @ q.T, views), value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fast(name, z[order], z_pos[order], views), value, rtol=1e-12, atol=1e-12)


def test_weights_follow_a_permutation(generator):
    z, z_pos = normal(generator, 7, 4), normal(generator, 7, 4)
    order = torch.randperm(7, generator=generator)
    alpha = infonce_weights(z, z_pos)
    torch.testing.assert_close(infonce_weights(z[order], z_pos[order]), alpha[order][:, order], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", FAST)
def test_view_conventions_differ(name, generator):
    z, z_pos = normal(generator, 6, 3), normal(generator, 6, 3)
    one, two = (float(fast(name, z, z_pos, views)) for views in VIEWS)
    assert (abs(one - two) > 1e-3) == (name != "ntxent")


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_temperature_divides_the_logits(temperature, generator):
    z, z_pos = normal(generator, 5, 3), normal(generator, 5, 3)
    torch.testing.assert_close(
        dot_infonce(z, z_pos, z_pos, temperature), reference.dot_infonce(z, z_pos, "two-sided", temperature)
    )
    torch.testing.assert_close(ntxent(z, z_pos, temperature), reference.ntxent(z, z_pos, temperature))
