import numpy as np
import pytest
import torch
from helpers.reference import random_covariance

from dyncollapse import layer_values_at_rest, probe_cost
from dyncollapse.simulation.build import build
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.report import report
from dyncollapse.simulation.representation import probe_costs, representation_dimensions
from dyncollapse.simulation.run import run


def outcome_of(**settings):
    simulation = build(resolve({"runs": 2, "pool": 0, "dynamics": ("population",), "steps": 4000} | settings))
    return run(simulation, lambda *_: None, lambda _: None)


def test_a_dead_embedding_mode_leaves_a_living_representation():
    found = outcome_of(dim=4, aug_dim=4, aug_strength=1.5, depth=2, init_scale=0.4)
    path = found.trajectories["population"]
    assert [str(fate) for fate in found.verdict.fates] == ["dead"] * 4
    kept = representation_dimensions(found.simulation, path).singular_value
    start = found.simulation.weights
    # All modes are dead alike: what remains is the positive part of the conserved C, whatever the alignment.
    imbalance = torch.linalg.eigvalsh(start[0] @ start[0].mT - start[1].mT @ start[1])
    expected, _ = layer_values_at_rest(torch.zeros(8).double(), imbalance.flatten())
    found_values = kept.sort(-1).values
    torch.testing.assert_close(found_values, expected.reshape(2, 4).sort(-1).values, rtol=0, atol=0.02)
    values = report(found)["dynamics"]["population"]
    assert values["representation_probe_cost"] < 0.7 < 0.99 < values["probe_cost"]


def test_the_price_of_each_mode_is_the_closed_form():
    found = outcome_of(dim=4, aug_dim=2, aug_strength=0.5, loss="spectral", ridge=0.3)
    end = found.ends["population"]
    share, whole = probe_costs(found.simulation, found.trajectories["population"].final())
    expected = probe_cost(end.data_var, end.singular_value.square() * end.data_var, 0.3)
    torch.testing.assert_close(share, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(whole, expected.mean(-1), rtol=1e-6, atol=1e-9)


def test_the_price_is_that_of_a_ridge_probe_without_common_modes(tmp_path, generator):
    for name in "SA":
        np.save(tmp_path / f"{name}.npy", (0.2 * torch.eye(3).double() + random_covariance(generator, 3)).numpy())
    files = {"data_cov": str(tmp_path / "S.npy"), "aug_cov": str(tmp_path / "A.npy")}
    found = outcome_of(**files, ridge=0.05, runs=1)
    simulation, weights = found.simulation, found.trajectories["population"].final()
    x = simulation.task.clean((200_000,), generator)
    z = x @ weights[0][0].T
    solved = torch.linalg.solve(z.T @ z / len(z) + 0.05 * torch.eye(3).double(), z.T @ x / len(z))
    missed = float((x - z @ solved).square().mean(0).sum() / x.square().mean(0).sum())
    # Moments of n samples are off by sqrt(2 / n) relative, and there are three directions.
    assert float(probe_costs(simulation, weights)[1]) == pytest.approx(missed, rel=5 * (6 / 2e5) ** 0.5)


def test_relu_networks_have_no_price():
    found = outcome_of(dim=4, aug_dim=2, depth=2, activation="relu", dynamics=("sgd",), steps=20)
    assert "probe_cost" not in report(found)["dynamics"]["sgd"]


def test_a_share_that_round_off_leaves_is_not_negative():
    settings = {"dim": 4, "depth": 3, "seed": 7, "steps": 2480, "runs": 1, "dynamics": ("population",)}
    found = run(build(resolve(settings)), lambda *_: None, lambda _: None)  # mode 1 was left with -3e-17
    share, _ = probe_costs(found.simulation, found.trajectories["population"].final())
    assert float(share.min()) >= 0
