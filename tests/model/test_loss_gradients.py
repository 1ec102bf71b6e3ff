"""Gradients with respect to embeddings equal automatic differentiation of the losses."""

import pytest
import torch
from helpers.gradients import assert_as_one
from helpers.reference import normal, problems
from hypothesis import given

from dyncollapse import (
    dot_gradients,
    dot_infonce,
    infonce,
    infonce_gradients,
    ntxent,
    ntxent_gradients,
    spectral,
    spectral_gradients,
)
from dyncollapse.model.loss_gradients import exponentials

LOSSES = {
    "infonce": (infonce, infonce_gradients),
    "dot": (dot_infonce, dot_gradients),
    "ntxent": (ntxent, ntxent_gradients),
    "spectral": (spectral, spectral_gradients),
}


def both(name, *embeddings):
    loss, gradients = LOSSES[name]
    leaves = [z.clone().requires_grad_() for z in embeddings]
    return gradients(*embeddings), torch.autograd.grad(loss(*leaves).sum(), leaves)


@pytest.mark.parametrize("name", LOSSES)
@given(problem=problems())
def test_gradients_on_the_embeddings_are_autograds(name, problem):
    x, x_pos, p, views = problem
    z, z_pos = x @ p.mT, x_pos @ p.mT
    # The positives as negatives are counted as a tensor of their own.
    given = (z, z_pos) if views == "one-sided" or name == "ntxent" else (z, z_pos, z_pos.clone())
    got, expected = both(name, *given)
    # Weights round with their logits; a row of ntxent's is divided by its length.
    size = 1 + float(max(z.abs().max(), z_pos.abs().max()))
    least = float(min(rows.norm(dim=-1).min() for rows in given)) if name == "ntxent" else 1.0
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13 * max(size**3, 1 / max(least, 1e-300)))


@pytest.mark.parametrize("name", ["infonce", "dot", "spectral"])
def test_negatives_have_a_gradient_of_their_own(name, generator):
    embeddings = [normal(generator, 2, 7, 3) for _ in range(3)]
    got, expected = both(name, *embeddings)
    assert len(got) == 3
    assert assert_as_one(got, expected, 1e-13) > 1e-3


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [1e-100, 1e-8, 1e3, 1e100])
def test_gradients_survive_any_norm(name, scale, generator):
    scale = min(scale, 1e70) if name == "spectral" else scale  # of fourth order
    got, expected = both(name, scale * normal(generator, 6, 3), scale * normal(generator, 6, 3))
    assert all(torch.isfinite(g).all() for g in got)
    assert_as_one(got, expected, 1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_vanishing_embeddings_do_not_move(name):
    zero = torch.zeros(5, 3, dtype=torch.float64)
    assert all(torch.equal(g, zero) for g in LOSSES[name][1](zero, zero))


def test_ntxent_keeps_its_digits_for_rows_of_any_length(generator):
    stretch = 10 ** torch.linspace(-290, 290, 6, dtype=torch.float64).unsqueeze(-1)
    z, z_pos = normal(generator, 6, 3), normal(generator, 6, 3)
    g, _ = ntxent_gradients(z * stretch, z_pos)
    torch.testing.assert_close(g * stretch, ntxent_gradients(z, z_pos)[0], rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1e-4, 0.002, 0.02, 0.1, 10.0])
def test_ntxents_gradients_survive_any_temperature(temperature, dtype, generator):
    z, z_pos = (normal(generator, 2, 6, 3).to(dtype) for _ in range(2))
    leaves = [rows.double().requires_grad_() for rows in (z, z_pos)]
    expected = torch.autograd.grad(ntxent(*leaves, temperature).sum(), leaves)
    got = [g.double() for g in ntxent_gradients(z, z_pos, temperature)]
    # Cosines round, and the temperature divides them.
    assert_as_one(got, expected, 100 * torch.finfo(dtype).eps * max(1, 1 / temperature))


def test_eq_2_ignores_a_large_common_offset(generator):
    # On a grid of 2^-10 the sum with 2^30 is exact.
    z, z_pos = ((normal(generator, 8, 3) * 2**10).round() / 2**10 for _ in range(2))
    far = infonce_gradients(z + 2.0**30, z_pos + 2.0**30)
    # Centring rounds the mean of 2^30, and weights round with logits of order 10.
    for one, other in zip(far, infonce_gradients(z, z_pos), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3, 1e150])
def test_exponentials_are_the_softmax_without_its_diagonal(scale, generator):
    logits = scale * normal(generator, 2, 6, 6)
    diagonal = torch.eye(6, dtype=torch.bool)
    expected = torch.softmax(logits * torch.tensor(2.0, dtype=torch.float64).log(), -1).masked_fill(diagonal, 0.0)
    e, share, r = exponentials(logits.clone())
    torch.testing.assert_close(share * e, expected, rtol=1e-12 * max(1.0, min(scale, 1e3)), atol=1e-300)
    torch.testing.assert_close(r, expected.sum(-1, keepdim=True), rtol=1e-12 * max(1.0, min(scale, 1e3)), atol=1e-300)
