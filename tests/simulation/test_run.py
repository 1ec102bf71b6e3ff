import json
import math

import pytest
import torch
from helpers.simulation import SMALL, simulate

from dyncollapse import Trajectory, relative_distance
from dyncollapse.commands.simulate import print_outcome
from dyncollapse.simulation.build import build
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.report import report, save
from dyncollapse.simulation.run import run


def test_report_keeps_the_contract():
    outcome = simulate(dynamics=("sgd", "flow", "population"))
    found = json.loads(json.dumps(report(outcome), allow_nan=False))
    assert set(found) >= {"config", "prediction", "dynamics", "sgd_vs_flow", "verdict"}
    assert found["config"]["seed"] == 0
    assert set(found["config"]["versions"]) == {"dyncollapse", "python", "numpy", "scipy", "torch"}
    assert found["prediction"]["threshold"] == 1.0
    assert len(found["prediction"]["modes"]) == 4
    assert {"data_var", "aug_var", "rho", "rest_singular_value", "escape_time"} <= set(found["prediction"]["modes"][0])
    for name in ("sgd", "flow", "population"):
        dynamics = found["dynamics"][name]
        assert len(dynamics["product_singular_values"]) == 4
        assert math.isclose(dynamics["time"], 0.1 * 30)
        assert math.isfinite(dynamics["loss"])
        assert dynamics["seconds"] > 0
    assert found["sgd_vs_flow"]["relative_distance"] > 0
    assert found["verdict"]["mechanism"] in {"none", "strong-augmentation", "implicit-regularization", "both"}
    assert found["verdict"]["collapsed"] == sum(d["collapsed"] for d in found["verdict"]["dimensions"])


def test_reported_numbers_are_those_of_the_trajectories():
    outcome = simulate()
    found = report(outcome)
    sgd, flow = outcome.trajectories["sgd"], outcome.trajectories["flow"]
    assert found["dynamics"]["sgd"]["product_singular_values"] == sgd.singular_values[-1].mean(0).tolist()
    assert found["sgd_vs_flow"]["at_end"] == float(relative_distance(sgd, flow)[1][-1].mean())
    assert torch.equal(sgd.time, flow.time)
    assert torch.equal(sgd.weights[0][0], flow.weights[0][0])  # the same start


def test_same_seed_same_bits_and_another_seed_others():
    first, second, other = (simulate(seed=seed, dynamics=("sgd",)).trajectories["sgd"] for seed in (3, 3, 4))
    assert torch.equal(first.weights[0], second.weights[0])
    assert not torch.equal(first.weights[0], other.weights[0])


@pytest.mark.parametrize(
    "given",
    [
        {"preset": "authors-code", "case": 1},
        {"preset": "authors-code", "case": 2},
        {"loss": "ntxent"},
        {"loss": "spectral", "lr": 0.01},
        {"loss": "vcreg", "invariance": 0.5, "bias": True},
        {"loss": "vicreg", "views": "two-sided", "dtype": "float32"},
        {"loss": "barlow", "depth": 2},
        {"loss": "barlow-normalised", "activation": "relu", "depth": 2},
        {"activation": "relu", "depth": 2},
        {"depth": 3, "momentum": 0.5},
        {"dtype": "float32", "pool": 0},
        {"dim": 1, "aug_dim": 1},
    ],
)
def test_every_kind_of_simulation_runs_and_moves(given):
    outcome = simulate(**given)
    for path in outcome.trajectories.values():
        assert torch.isfinite(path.weights[0]).all()
        assert not torch.equal(path.weights[0][0], path.weights[0][-1])
    json.dumps(report(outcome), allow_nan=False)


def test_bias_of_the_authors_first_case_is_trained():
    path = simulate(preset="authors-code", case=1).trajectories["sgd"]
    assert len(path.biases) == 1
    assert not torch.equal(path.biases[0][0], path.biases[0][-1])


@pytest.mark.parametrize(("strength", "collapsed", "mechanism"), [(2.5, 2, "strong-augmentation"), (0.1, 0, "none")])
def test_verdict_follows_the_threshold(strength, collapsed, mechanism):
    outcome = simulate(aug_strength=strength, steps=600, batch_size=64, pool=1000, dynamics=("sgd",))
    verdict = report(outcome)["verdict"]
    assert (verdict["collapsed"], verdict["mechanism"]) == (collapsed, mechanism)


def test_one_vanishing_dimension_counts_although_it_is_the_largest():
    verdict = report(simulate(dim=1, aug_dim=1, aug_strength=3.0, steps=300, dynamics=("sgd",)))["verdict"]
    assert (verdict["collapsed"], verdict["mechanism"]) == (1, "strong-augmentation")


def test_small_start_without_augmentation_waits():
    verdict = report(simulate(depth=3, init_scale=0.02, aug_strength=0.0, dynamics=("sgd",)))["verdict"]
    assert (verdict["collapsed"], verdict["mechanism"]) == (4, "implicit-regularization")


def test_save_writes_whole_files_that_load(tmp_path):
    outcome = simulate()
    save(outcome, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "sgd.npz", "flow.npz"}
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "finished"
    loaded = Trajectory.load(tmp_path / "sgd.npz")
    assert torch.equal(loaded.weights[0], outcome.trajectories["sgd"].weights[0])


def test_report_of_nothing_recorded_has_no_verdict():
    found = report(Outcome(build(resolve(SMALL))))
    assert found["verdict"] is None
    assert found["dynamics"] == {}


DEEP = {
    "dim": 16,
    "batch_size": 128,
    "runs": 3,
    "lr": 0.02,
    "steps": 1500,
    "depth": 3,
    "dynamics": ("sgd",),
    "pool": 1000,
}


def test_mixed_dead_and_waiting_modes_of_a_deep_network_are_distinguished():
    # Small singular vectors of a deep product mix clean and augmented inputs; the modes must not.
    verdict = report(simulate(**DEEP, aug_dim=8, aug_strength=1.2))["verdict"]
    mechanisms = [dimension["mechanism"] for dimension in verdict["dimensions"]]
    assert mechanisms[8:] == ["strong-augmentation"] * 8
    assert "implicit-regularization" in mechanisms[:8]
    assert "strong-augmentation" not in mechanisms[:8]
    assert verdict["mechanism"] == "both"


def test_at_the_threshold_itself_augmentation_is_the_cause():
    verdict = report(simulate(depth=3, init_scale=0.02, aug_strength=1.0, dynamics=("sgd",)))["verdict"]
    assert [d["mechanism"] for d in verdict["dimensions"]] == ["implicit-regularization"] * 2 + [
        "strong-augmentation"
    ] * 2


@pytest.mark.slow
def test_a_mode_that_rests_low_is_not_said_to_wait():
    # Two-sided views have rho < 1, yet noise of variance 100 rests at sqrt(tau) / 101, below what counts.
    given = {"preset": "authors-code", "case": 1, "aug_strength": 100.0, "lr": 2e-5, "steps": 3000}
    verdict = report(simulate(**given, batch_size=64, dynamics=("sgd",)))["verdict"]
    assert "implicit-regularization" not in [d["mechanism"] for d in verdict["dimensions"]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({"aug_strength": 1.0}, 2),
        ({"data_var": 0.15, "aug_strength": 0.1 + 0.2}, 2),  # which is 0.30000000000000004
        ({"data_var": 0.05, "aug_strength": 0.1, "aug_dim": 4}, 4),
        ({"aug_strength": 0.999}, 0),
        ({"aug_strength": 1.001}, 0),
        ({"aug_strength": 1.0, "views": "two-sided"}, 0),
        ({"aug_strength": 1e9, "views": "two-sided"}, 0),
        ({"aug_strength": 1.0, "loss": "spectral"}, 0),  # has no threshold
    ],
)
def test_modes_exactly_at_the_threshold_are_counted_and_named(given, count, dtype, capsys):
    outcome = simulate(**{"dynamics": ("sgd",), "dtype": dtype, "steps": 1, "lr": 1e-15, **given})
    found = report(outcome)
    assert found["prediction"]["at_threshold"] == count
    modes = found["prediction"]["modes"]
    assert sum(mode["rho"] == 1 and mode["rest_singular_value"] == 0 for mode in modes) == count
    print_outcome(outcome, found, to_stderr=False)
    said = f"Modes at the threshold: {count} of 4 have rho = 1 up to round-off."
    assert (said in capsys.readouterr().out) == bool(count)


RELU = {"activation": "relu", "depth": 2}


@pytest.mark.parametrize(
    ("loss", "more"),
    [("vicreg", {}), ("barlow-normalised", {})]
    + [(loss, RELU) for loss in ("vcreg", "vicreg", "barlow", "barlow-normalised")],
)
def test_no_cause_is_named_where_it_is_not_known_which_dimensions_a_loss_lets_live(loss, more):
    # One mode has rho = 3, one 0; the weights end as they started, small along both inputs.
    given = {"loss": loss, "aug_strength": 3.0, "aug_dim": 2, "steps": 1, "lr": 1e-15, "dynamics": ("sgd",), **more}
    found = report(simulate(**{"init_scale": 1e-3, **given}))
    assert found["prediction"]["threshold"] is None
    assert all(mode["rest_singular_value"] is mode["escape_time"] is None for mode in found["prediction"]["modes"])
    assert {one["fate"] for one in found["verdict"]["dimensions"]} <= {"alive", "unexplained"}
    assert found["verdict"]["mechanism"] in ("none", "unknown")
    if loss != "barlow-normalised":  # it has no scale
        assert found["verdict"]["collapsed"] == 4
        assert "for a cause that is open (which dimensions this loss lets live is not" in found["verdict"]["sentence"]


def test_width_is_a_cause_under_every_loss():
    found = report(simulate(loss="vcreg", out_dim=1, aug_strength=0.0, steps=400, lr=0.05, dynamics=("sgd",)))
    assert [one["fate"] for one in found["verdict"]["dimensions"]].count("structural") == 3
    assert found["verdict"]["mechanism"] == "width"


def test_closed_forms_are_not_given_for_relu():
    prediction = report(Outcome(build(resolve({**SMALL, "activation": "relu", "depth": 2}))))["prediction"]
    assert prediction["threshold"] is None
    assert all(mode["rest_singular_value"] is mode["escape_time"] is None for mode in prediction["modes"])


def test_ctrl_c_between_two_dynamics_is_recorded(monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("dyncollapse.simulation.run.stack_pairs", interrupt)
    kept = []
    with pytest.raises(KeyboardInterrupt):
        run(
            build(resolve(SMALL)),
            lambda *_: None,
            lambda outcome: kept.append((outcome.status, list(outcome.trajectories))),
        )
    assert kept == [("running", ["sgd"]), ("interrupted", ["sgd"])]
