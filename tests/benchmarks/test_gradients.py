"""One gradient of a sample flow, 8 batches of 128 pairs in 16 dimensions: in closed form and by autograd.

Eq. 2 without biases is the yardstick: its fast form is as old as the project.
"""

import pytest
import torch

from dyncollapse import GaussianTask, Objective, gaussian_init, uniform_biases
from dyncollapse.model.network_gradients import automatic_gradient

DIM, BATCH, BATCHES = 16, 128, 8

pytestmark = pytest.mark.benchmark(group="gradients", disable_gc=True)


def start(depth, bias):
    generator = torch.Generator().manual_seed(0)
    pairs = GaussianTask.block(DIM, DIM // 2, 1.5, views="two-sided").sample(BATCH, generator, (BATCHES,))
    widths = [DIM] * (depth + 1)
    return gaussian_init(widths, generator, (), 0.3), pairs, uniform_biases(widths, generator) if bias else ()


def test_eq_2(benchmark):
    weights, pairs, _ = start(1, bias=False)
    with torch.inference_mode():
        benchmark(Objective().gradient, weights, pairs)


@pytest.mark.parametrize(("depth", "bias"), [(1, True), (2, False)])
@pytest.mark.parametrize("loss", ["infonce", "dot", "ntxent", "spectral"])
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_closed_form(benchmark, loss, depth, bias, activation):
    with torch.inference_mode():
        benchmark(Objective(loss, activation=activation).gradient, *start(depth, bias))


@pytest.mark.parametrize(("depth", "bias"), [(1, True), (2, False)])
@pytest.mark.parametrize("loss", ["infonce", "dot", "ntxent", "spectral"])
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_autograd(benchmark, loss, depth, bias, activation):
    value = Objective(loss, activation=activation).value
    benchmark(automatic_gradient, value, lambda v, p: torch.autograd.grad(v.sum(), p), *start(depth, bias))


@pytest.mark.parametrize(("depth", "bias"), [(1, True), (2, False)])
@pytest.mark.parametrize("loss", ["infonce", "dot", "ntxent", "spectral"])
def test_curvature_along_a_direction(benchmark, loss, depth, bias):
    weights, pairs, biases = start(depth, bias)
    direction = [torch.ones_like(p) for p in (*weights, *biases)]
    benchmark(Objective(loss).curvature(weights, pairs, biases), direction)
