"""Pretraining: one process and two."""

import json
import os
import socket
from dataclasses import replace

import pytest
import torch
from helpers import bridge_worker
from helpers.bridge import ALONE, states, three_steps
from helpers.forks import run_together
from torch import nn

from dyncollapse.bridge import GlobalBatchNorm, Process, build_encoder
from dyncollapse.bridge.training.checkpoints import load_checkpoint, newest
from dyncollapse.bridge.training.distributed import synchronise_norms
from dyncollapse.bridge.training.training_log import read_log, read_monitor

# --- Several processes


def launch(out, count, cases):
    """The work in `count` processes, joined as torchrun does it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    ranks = [{**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    command = ["-W", "error", bridge_worker.__file__, out, json.dumps(cases)]
    run_together(*(command for _ in ranks), envs=ranks)


@pytest.mark.slow
def test_two_processes_have_the_loss_gradients_and_statistics_of_one(tmp_path):
    cases = {head: {"projector": head, "batch_size": 64} for head in ("mlp", "linear", "random-subvector")}
    bridge_worker.work(tmp_path, cases)  # alone
    launch(tmp_path, 2, cases)
    for head in cases:
        one, *two = (torch.load(tmp_path / f"{head}-{name}.pt") for name in ("1-0", "2-0", "2-1"))
        for other in two:
            torch.testing.assert_close(other["loss"], one["loss"], rtol=1e-6, atol=0)
            assert other["gradients"].keys() == one["gradients"].keys()
            for name, gradient in one["gradients"].items():
                # float32 in the loss and its softmax, float64 in the network.
                error = (other["gradients"][name] - gradient).norm() / gradient.norm().clamp_min(1e-3)
                assert float(error) < 1e-6, name
            for name, value in one["state"].items():
                torch.testing.assert_close(other["state"][name], value, rtol=1e-9, atol=1e-12)
    logs = [read_log(tmp_path / f"run-{count}" / "log.jsonl")[-1] for count in (1, 2)]
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], rel=1e-4)
    monitors = [read_monitor(tmp_path / f"run-{count}" / "monitor.jsonl") for count in (1, 2)]
    for one, other in zip(*monitors, strict=True):
        assert one["representation_samples"] == other["representation_samples"]
        assert one["representation_effective_rank"] == pytest.approx(other["representation_effective_rank"], rel=1e-2)
    weights = [states(tmp_path / f"run-{count}")["model"]["backbone.conv1.weight"] for count in (1, 2)]
    # Two violent first steps in float32 multiply rounding: conv1 moves by 0.6 of itself, the runs part by 0.6 % of it.
    moved = weights[0] - build_encoder(three_steps(), 1).state_dict()["backbone.conv1.weight"]
    assert float((weights[0] - weights[1]).norm() / moved.norm()) < 0.03
    assert len(load_checkpoint(newest(tmp_path / "run-2")).states["random"]) == 2


def test_processes_share_a_batch_evenly_or_not_at_all():
    two = [replace(ALONE, rank=rank, count=2) for rank in range(2)]
    assert [process.share(8) for process in two] == [slice(0, 4), slice(4, 8)]
    with pytest.raises(ValueError, match="batch_size is 9, which 2 processes cannot share evenly; try 8"):
        two[0].share(9)


def test_shared_norms_keep_parameters_statistics_and_mode(generator):
    network = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4, eps=1e-3, momentum=0.3), nn.ReLU()))
    network(torch.randn(8, 3, generator=generator))
    before, parameters = {n: v.clone() for n, v in network.state_dict().items()}, list(network.parameters())
    frozen = network.eval()(torch.ones(2, 3))
    shared = synchronise_norms(network, Process(0, 2, torch.device("cpu")))
    (norm,) = (module for module in shared.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    assert type(norm) is GlobalBatchNorm
    assert (norm.eps, norm.momentum, norm.training) == (1e-3, 0.3, False)
    assert all(one is other for one, other in zip(shared.parameters(), parameters, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in shared.state_dict().items())
    assert torch.equal(shared(torch.ones(2, 3)), frozen)
    assert type(synchronise_norms(nn.BatchNorm2d(3), Process(0, 2, torch.device("cpu")))) is GlobalBatchNorm
    alone = nn.BatchNorm1d(3)
    assert synchronise_norms(alone, ALONE) is alone


def test_a_norm_without_a_shared_form_is_refused():
    with pytest.raises(ValueError, match="a BatchNorm3d cannot share its statistics between processes on the CPU"):
        synchronise_norms(nn.Sequential(nn.BatchNorm3d(2)), Process(0, 2, torch.device("cpu")))
