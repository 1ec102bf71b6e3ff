"""SGD steps of an ensemble: ours against a plain PyTorch loop and against the arithmetic that no program can leave out.

Every entry does the same number of run-steps, so the ratios between them are ratios per run and step.
"""

import pytest
import torch
from torch import nn

from dyncollapse.bridge.real_scale.ensembles import (
    AUG_DIM,
    AUG_STRENGTH,
    BATCH,
    DATA_VAR,
    DIM,
    LR,
    ensemble,
    floor,
)
from dyncollapse.runtime.process import torch_threads

RUNS, STEPS = 64, 400
THREADS = 2
RUNS_ON_GPU = 4096

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

pytestmark = pytest.mark.benchmark(group="SGD")


@pytest.fixture(autouse=True)
def two_cores():
    with torch_threads(THREADS):
        yield


def plain_loop(steps):
    """One run as most people would write it: Gram matrix, logsumexp, backward, torch's SGD."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Linear(DIM, DIM, bias=False)
    nn.init.normal_(network.weight, std=0.1, generator=generator)
    optimiser = torch.optim.SGD(network.parameters(), lr=LR)
    own = torch.eye(BATCH, dtype=torch.bool)
    for _ in range(steps):
        x = DATA_VAR**0.5 * torch.randn(BATCH, DIM, generator=generator)
        noise = AUG_STRENGTH**0.5 * torch.randn(BATCH, AUG_DIM, generator=generator)
        x_pos = torch.cat([x[:, : DIM - AUG_DIM], x[:, DIM - AUG_DIM :] + noise], dim=1)
        z, z_pos = network(x), network(x_pos)
        squares = z.square().sum(1)
        distances = squares[:, None] + squares - 2 * z @ z.T
        positive = (z - z_pos).square().sum(1)
        logits = -torch.where(own, positive[:, None], distances) / 2
        loss = (torch.logsumexp(logits, dim=1) + positive / 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.weight.detach()


def test_ensemble(benchmark):
    path = benchmark.pedantic(ensemble, (RUNS, STEPS), rounds=10, warmup_rounds=1)
    assert torch.isfinite(path.product).all()


def test_single_run(benchmark):
    path = benchmark.pedantic(ensemble, (1, RUNS * STEPS), rounds=3, warmup_rounds=1)
    assert torch.isfinite(path.product).all()


def test_plain_pytorch_loop(benchmark):
    assert torch.isfinite(benchmark.pedantic(plain_loop, (RUNS * STEPS,), rounds=3, warmup_rounds=1)).all()


def test_floor(benchmark):
    assert torch.isfinite(benchmark.pedantic(floor, (RUNS, STEPS), rounds=10, warmup_rounds=1)).all()


@needs_gpu
def test_ensemble_on_a_gpu(benchmark):
    path = benchmark.pedantic(
        ensemble, (RUNS_ON_GPU, STEPS, "cuda"), rounds=5, warmup_rounds=1
    )  # its end waits for the GPU
    assert torch.isfinite(path.product).all()


@needs_gpu
def test_floor_on_a_gpu(benchmark):
    def finished(steps):
        return floor(RUNS_ON_GPU, steps, "cuda").cpu()

    assert torch.isfinite(benchmark.pedantic(finished, (STEPS,), rounds=5, warmup_rounds=1)).all()
