"""Sample flow of two layers: ours against torchdiffeq's dopri5 on the same right-hand side written with autograd."""

import pytest
import torch
from torchdiffeq import odeint

from dyncollapse import GaussianTask, gaussian_init, infonce, sample_flow, stack_pairs
from dyncollapse.runtime.process import torch_threads

DIM, BATCH, BATCHES, UNTIL, RTOL = 16, 128, 8, 30.0, 1e-8
ATOL = RTOL / 100  # given to both; without one ours takes round-off of the start and some more steps

pytestmark = [pytest.mark.benchmark(group="sample flow"), pytest.mark.parametrize("runs", [1, 4])]


@pytest.fixture(autouse=True)
def one_core():
    with torch_threads(1):
        yield


def problem(runs):
    generator = torch.Generator().manual_seed(0)
    weights = gaussian_init([DIM] * 3, generator, (runs,))
    task = GaussianTask.block(DIM, DIM // 2, 1.5)
    return weights, stack_pairs([task.sample(BATCH, generator, (runs,)) for _ in range(BATCHES)])


def ours(runs):
    path = sample_flow(*problem(runs), UNTIL, rtol=RTOL, atol=ATOL)
    return path.final(), path.meta["evaluations"]


def autograd_dopri5(runs):
    weights, pairs = problem(runs)
    evaluations = 0

    def velocity(_t, layers):
        nonlocal evaluations
        evaluations += 1
        with torch.enable_grad():
            w1, w2 = (w.detach().requires_grad_() for w in layers)
            z, z_pos = (x @ w1.mT @ w2.mT for x in (pairs.anchor, pairs.positive))
            loss = infonce(z, z_pos).mean(0).sum()
        return tuple(-g for g in torch.autograd.grad(loss, (w1, w2)))

    path = odeint(
        velocity, weights, torch.tensor([0.0, UNTIL], dtype=torch.float64), rtol=RTOL, atol=ATOL, method="dopri5"
    )
    return tuple(layer[-1] for layer in path), evaluations


def test_sample_flow(benchmark, runs):
    layers, benchmark.extra_info["evaluations"] = benchmark.pedantic(ours, (runs,), rounds=3)
    expected, _ = autograd_dopri5(runs)
    for layer, other in zip(layers, expected, strict=True):
        # Two solvers at rtol 1e-8 over some hundred steps, on a flow whose growth multiplies early errors.
        torch.testing.assert_close(layer, other, rtol=1e-4, atol=1e-5)


def test_torchdiffeq_with_autograd(benchmark, runs):
    layers, benchmark.extra_info["evaluations"] = benchmark.pedantic(autograd_dopri5, (runs,), rounds=3)
    assert all(torch.isfinite(layer).all() for layer in layers)
