"""Autocast and half-precision inputs do not lower the precision of losses, covariances or analyses."""

import pytest
import torch
from helpers.reference import normal

from dyncollapse import (
    GaussianTask,
    Monitor,
    Objective,
    alignment_matrix,
    alignment_report,
    barlow,
    barlow_normalised,
    blockwise_covariance,
    contrastive_covariance,
    covariance_spectrum,
    diagnose,
    dot_infonce,
    effective_negatives,
    gaussian_init,
    generalised_modes,
    imbalance,
    infonce,
    infonce_weights,
    modes,
    ntxent,
    population_force,
    population_loss,
    rankme,
    singular_value_velocities,
    spectral,
    train,
    vcreg,
    vicreg,
)
from dyncollapse.model.precision import exact_product, inside_autocast, outside_autocast

HALF = (torch.bfloat16, torch.float16)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
LOSSES = {
    "infonce": infonce,
    "infonce two-sided": lambda z, z_pos: infonce(z, z_pos, z_pos),
    "dot": dot_infonce,
    "dot two-sided": lambda z, z_pos: dot_infonce(z, z_pos, z_pos, 0.5),
    "ntxent": lambda z, z_pos: ntxent(z, z_pos, 0.5),
    "spectral": lambda z, z_pos: spectral(z, z_pos, z_pos),
    "vcreg": vcreg,
    "vicreg": vicreg,
    "barlow": barlow,
    "barlow-normalised": barlow_normalised,
    "weights": lambda z, z_pos: infonce_weights(z, z_pos)[..., 0, 1],
    "effective negatives": lambda z, z_pos: effective_negatives(infonce_weights(z, z_pos)),
    "covariance": lambda z, z_pos: contrastive_covariance(z, z_pos, infonce_weights(z, z_pos), z_pos).force.sum(
        (-2, -1)
    ),
}


def views(generator, device, *runs):
    z, noise = normal(generator, 2, *runs, 32, 16)
    return z.float().to(device), (z + 0.5 * noise).float().to(device)


def value_and_slopes(loss, z, z_pos):
    z, z_pos = z.clone().requires_grad_(), z_pos.clone().requires_grad_()
    value = loss(z, z_pos)
    value.sum().backward()
    return value.detach(), z.grad, z_pos.grad


@pytest.mark.parametrize("runs", [(), (2,)])
@pytest.mark.parametrize("half", HALF)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", LOSSES)
def test_autocast_changes_neither_value_nor_gradient(name, device, half, runs, generator):
    z, z_pos = views(generator, device, *runs)
    expected = value_and_slopes(LOSSES[name], z, z_pos)
    with torch.autocast(device, half):
        assert (z @ z.mT).dtype == half
        got = value_and_slopes(LOSSES[name], z, z_pos)  # with `backward` inside as well
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == torch.float32
        # The same float32 operations, but for how sums are fused: autocast itself is off by 1e-3 and more.
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("half", HALF)
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_inputs_are_computed_in_float32(name, half, generator):
    z, z_pos = (view.to(half) for view in views(generator, "cpu"))
    expected = value_and_slopes(LOSSES[name], z.float(), z_pos.float())
    got = value_and_slopes(LOSSES[name], z, z_pos)
    assert got[0].dtype == torch.float32
    torch.testing.assert_close(got[0], expected[0], rtol=1e-6, atol=1e-6)
    for slope, other in zip(got[1:], expected[1:], strict=True):
        assert slope.dtype == half
        # Rounded when it leaves each function: twice, and added up, where a case calls two.
        eps, size = 2 * torch.finfo(half).eps, max(float(other.abs().max()), torch.finfo(half).tiny)
        torch.testing.assert_close(slope.float(), other, rtol=eps, atol=eps * size)


@pytest.mark.parametrize("name", LOSSES)
def test_inputs_of_different_precision_are_computed_in_the_widest(name, generator):
    z, z_pos = views(generator, "cpu")
    assert LOSSES[name](z.double(), z_pos).dtype == torch.float64
    assert LOSSES[name](z, z_pos.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(
        LOSSES[name](z, z_pos.double()), LOSSES[name](z.double(), z_pos.double()), rtol=0, atol=0
    )


def test_losses_keep_more_than_half_precision_shows():
    # 4.456 in float32, 4.469 where bfloat16 rounds.
    generator = torch.Generator().manual_seed(0)
    z, noise = torch.randn(2, 256, 128, generator=generator)
    exact = ntxent(z.double(), (z + 1.5 * noise).double(), 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        assert float(ntxent(z, z + 1.5 * noise, 0.5)) == pytest.approx(float(exact), abs=1e-5)


@pytest.mark.parametrize("half", HALF)
def test_analyses_do_not_see_autocast(half, generator):
    z, z_pos = views(generator, "cpu")
    w1, w2 = (w.float() for w in gaussian_init([16, 16, 16], generator, scale=0.3))
    frame = torch.linalg.qr(normal(generator, 16, 16)).Q.float()
    covs = [frame @ torch.diag(torch.rand(16, generator=generator) + 0.1) @ frame.T for _ in range(2)]
    task = GaussianTask(*((c + c.T) / 2 for c in covs), "two-sided")
    pairs = task.sample(8, torch.Generator().manual_seed(3))

    def monitored():
        monitor = Monitor(seed=1)
        monitor.update(z, z_pos)
        return monitor.compute().ratios

    analyses = [
        lambda: blockwise_covariance(z, z_pos, z, z_pos, loss="ntxent").force,
        lambda: Objective().gradient((w1, w2), pairs)[0],
        lambda: Objective("dot", activation="relu").gradient((w1, w2), pairs)[0],
        lambda: train((w1, w2), pairs, lr=0.1, steps=3).product,
        lambda: task.sample(8, torch.Generator().manual_seed(3)).positive,
        lambda: population_loss(w1, task, Objective()),
        lambda: population_force(w1, task, Objective()),
        lambda: modes(task).ratio,
        lambda: generalised_modes(task)[0],
        lambda: alignment_matrix(w1, w2),
        lambda: alignment_report(w1, w2).sines,
        lambda: imbalance(w1, w2),
        lambda: singular_value_velocities(w1, w2),
        lambda: covariance_spectrum(z),
        lambda: rankme(z),
        lambda: diagnose(z, z_pos, loss="ntxent").ratios,
        monitored,
    ]
    for analyse in analyses:
        expected = analyse()
        with torch.autocast("cpu", half):
            got = analyse()
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_products_have_exact_second_derivatives_inside_autocast(generator):
    a, b = (normal(generator, 3, 3).requires_grad_() for _ in range(2))
    seen = []

    @outside_autocast
    def product(a, b):
        seen.append(inside_autocast())
        return exact_product(a, b)

    with torch.autocast("cpu", torch.bfloat16):
        assert torch.autograd.gradcheck(product, (a, b))
        assert torch.autograd.gradgradcheck(product, (a, b))
    assert all(seen)
    product(a, b)
    assert not seen[-1]
    assert not inside_autocast()


def test_objective_of_half_precision_networks_has_the_gradient_of_float32(generator):
    weights, pairs = gaussian_init([4, 4], generator, scale=0.5), GaussianTask.block(4, 2).sample(8, generator)
    narrow = tuple(w.bfloat16() for w in weights)
    expected = Objective().gradient(tuple(w.float() for w in narrow), pairs.to(torch.bfloat16).to(torch.float32))
    (slope,) = Objective().gradient(narrow, pairs.to(torch.bfloat16))
    assert slope.dtype == torch.bfloat16
    torch.testing.assert_close(slope.float(), expected[0], rtol=0.03, atol=0.03 * float(expected[0].abs().max()))
