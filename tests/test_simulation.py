import json
import math

import pytest
import torch

from dyncollapse import Trajectory, end_to_end, mode_dimensions, relative_distance, train
from dyncollapse.configuration import resolve
from dyncollapse.report import report, reserve_folder, save
from dyncollapse.simulation import MOST_PAIRS, Outcome, batch_growth, build, escape_times, rest_values, run, verdict

SMALL = {"dim": 4, "aug_dim": 2, "batch_size": 16, "pool": 64, "steps": 30, "runs": 2, "flow_batches": 2}


def simulate(**given):
    return run(build(resolve({**SMALL, **given})), lambda *_: None, lambda _: None)


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


def test_run_folders_are_numbered_and_never_reused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [str(reserve_folder(None)) for _ in range(3)]
    assert names == ["runs/simulate-0001", "runs/simulate-0002", "runs/simulate-0003"]


def test_given_folder_must_be_new_or_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    assert reserve_folder(tmp_path / "empty") == tmp_path / "empty"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "run.json").touch()
    with pytest.raises(ValueError, match="already holds files"):
        reserve_folder(tmp_path / "full")
    with pytest.raises(ValueError, match="cannot be written"):
        reserve_folder(tmp_path / "full" / "run.json" / "below-a-file")


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


def test_mixed_dead_and_waiting_modes_of_a_deep_network_are_told_apart():
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


def test_a_mode_that_rests_low_is_not_said_to_wait():
    # Two-sided views have rho < 1, yet noise of variance 100 rests at sqrt(tau) / 101, below what counts.
    given = {"preset": "authors-code", "case": 1, "aug_strength": 100.0, "lr": 2e-5, "steps": 3000}
    verdict = report(simulate(**given, batch_size=64, dynamics=("sgd",)))["verdict"]
    assert "implicit-regularization" not in [d["mechanism"] for d in verdict["dimensions"]]


def test_closed_forms_are_not_given_for_relu():
    prediction = report(Outcome(build(resolve({**SMALL, "activation": "relu", "depth": 2}))))["prediction"]
    assert prediction["threshold"] is None
    assert all(mode["rest_singular_value"] is mode["escape_time"] is None for mode in prediction["modes"])


def test_ctrl_c_between_two_dynamics_is_recorded(monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("dyncollapse.simulation.stack_pairs", interrupt)
    kept = []
    with pytest.raises(KeyboardInterrupt):
        run(
            build(resolve(SMALL)),
            lambda *_: None,
            lambda outcome: kept.append((outcome.status, list(outcome.trajectories))),
        )
    assert kept == [("running", ["sgd"]), ("interrupted", ["sgd"])]


# Every direction is augmented, so that no mode grows without bound: the population limit holds for 128 pairs.
ESCAPING = {
    "dim": 4,
    "aug_dim": 4,
    "aug_strength": 0.3,
    "depth": 2,
    "batch_size": 128,
    "pool": 0,
    "lr": 0.1,
    "steps": 200,
    "runs": 6,
    "dynamics": ("sgd",),
}


@pytest.fixture(scope="module")
def escaping():
    return simulate(**ESCAPING)


def diagonal(outcome, *entries):
    """Make an outcome whose SGD has ended, without having moved, at one layer diag(entries), every run alike."""
    runs = outcome.simulation.configuration.runs
    weight = torch.diag(torch.tensor(entries, dtype=torch.float64)).expand(1, runs, -1, -1)
    path = Trajectory(torch.tensor([3.0]).double(), (weight,), torch.zeros(1, runs), (), {"seconds": 0.0})
    return Outcome(outcome.simulation, {"sgd": path})


def as_json(outcome):
    return json.loads(json.dumps(report(outcome), allow_nan=False))


def test_reported_dimensions_carry_fate_and_escape(escaping):
    dimensions = as_json(escaping)["verdict"]["dimensions"]
    assert {d["fate"] for d in dimensions} == {"alive", "waiting"}
    for d in dimensions:
        if d["fate"] == "waiting":
            assert d["escape_time"] > 20
            assert d["escape_step"] == round(d["escape_time"] / 0.1)
        else:
            assert d["escape_time"] is d["escape_step"] is None


def test_escape_steps_count_momentum():
    still = Outcome(build(resolve({**SMALL, "aug_strength": 0.4, "lr": 0.05, "momentum": 0.8})))
    *alive, waiting = as_json(diagonal(still, 1.0, 1.0, 1.0, 1e-3))["verdict"]["dimensions"]
    assert waiting["fate"] == "waiting"
    assert waiting["escape_time"] > 3.0  # it stands at t = 3
    assert waiting["escape_step"] == round(waiting["escape_time"] / (0.05 / (1 - 0.8)))
    assert all(d["escape_step"] is None for d in alive)


def test_dead_dimensions_have_no_escape():
    still = Outcome(build(resolve({**SMALL, "aug_strength": 2.5})))
    fates = [
        (d["fate"], d["escape_time"]) for d in as_json(diagonal(still, 1.0, 1.0, 1e-3, 0.0))["verdict"]["dimensions"]
    ]
    assert fates == [("alive", None)] * 2 + [("dead", None)] * 2


def test_a_network_that_is_zero_waits_for_ever():
    still = Outcome(build(resolve({**SMALL, "aug_strength": 0.4})))
    outcome = diagonal(still, 0.0, 0.0, 0.0, 0.0)
    found = as_json(outcome)
    for d in found["verdict"]["dimensions"]:
        assert (d["fate"], d["escape_time"], d["escape_step"]) == ("waiting", None, None)
    assert "waiting, never to escape" in found["verdict"]["sentence"]
    assert found["dynamics"]["sgd"]["population_limit"] == {
        "negatives_needed": 1.0,
        "valid": True,
        "effective_negatives": pytest.approx(16.0),
    }
    # One run at zero is enough for the geometric mean over runs.
    values = torch.tensor([[0.0] * 4, [1e-3] * 4], dtype=torch.float64)
    assert torch.isinf(escape_times(outcome.simulation, values)).all()


def test_a_start_that_underflows_to_zero_is_predicted_never_to_escape():
    given = {**SMALL, "depth": 30, "init_scale": 1e-15, "aug_strength": 0.4, "steps": 3, "dynamics": ("sgd",)}
    found = as_json(simulate(**given))
    assert found["dynamics"]["sgd"]["product_singular_values"] == [0.0] * 4
    assert [mode["escape_time"] for mode in found["prediction"]["modes"]] == [None] * 4
    assert [d["escape_time"] for d in found["verdict"]["dimensions"]] == [None] * 4


@pytest.mark.parametrize("n", [8, 128])
@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
def test_batch_growth_at_zero_is_the_closed_form(n, views):
    c = {"dim": 4, "aug_dim": 2, "aug_strength": 0.3, "batch_size": n, "runs": 4, "views": views}
    s = build(resolve(c))
    product = 1e-3 * end_to_end(s.weights)
    # 2 S - A and, two-sided, 2 (S + A) - 2 A; least augmented modes first.
    expected = (n - 1) / n * torch.tensor([1.0, 1.0, *([0.7] * 2 if views == "one-sided" else [1.0] * 2)])
    # 4096 pairs give it to 2.5 % (spread over seeds): five standard errors.
    torch.testing.assert_close(batch_growth(s, product), expected.double(), rtol=0.125, atol=0)


def test_batch_growth_fades_once_unaugmented_modes_have_separated_the_embeddings():
    s = build(resolve({**SMALL, "aug_strength": 0.3, "batch_size": 64, "pool": 0}))

    def growth(clean):
        product = torch.diag(torch.tensor([clean, clean, 1e-3, 1e-3], dtype=torch.float64)).expand(2, 4, 4)
        return batch_growth(s, product)[2:]

    assert (growth(1e-3) > 0.6).all()  # 0.69: 63/64 (2S - A)
    assert (growth(30.0) < 0.07).all()
    assert (growth(1000.0) < 1e-3).all()
    # So the forecast of what still waits grows as much, above what infinitely many samples would say.
    late = diagonal(Outcome(s), 30.0, 30.0, 1e-3, 1e-3)
    waits = [t - 3 for t in verdict(late).escapes[2:]]
    assert min(waits) > 10 * float(escape_times(s, torch.tensor([[30.0, 30.0, 1e-3, 1e-3]]).double())[2])


def test_no_batch_growth_for_other_losses():
    s = build(resolve({**SMALL, "preset": "authors-code"}))
    assert batch_growth(s, end_to_end(s.weights)) is None


def test_the_population_flow_is_judged_by_its_own_force():
    # Batches of 16 lose their grip once clean modes have separated; the population flow knows no batches.
    s = build(resolve({**SMALL, "aug_strength": 0.3}))
    sgd = diagonal(Outcome(s), 30.0, 30.0, 1e-3, 1e-3)
    population = Outcome(s, {"population": sgd.trajectories["sgd"]})
    values = torch.tensor([[30.0, 30.0, 1e-3, 1e-3]], dtype=torch.float64)
    assert verdict(population).escapes[2:] == (3.0 + escape_times(s, values)[2:]).tolist()
    assert verdict(population).escapes[2] < verdict(sgd).escapes[2]


def test_forecast_escapes_come_true(escaping):
    s, path = escaping.simulation, escaping.trajectories["sgd"]
    end, half = float(path.time[-1]), float(rest_values(s)[0]) / 2
    limit, horizon = 120.0, 250.0
    stream = s.task.stream(128, torch.Generator().manual_seed(99), (6,))
    more = train(path.final(), stream, lr=0.1, steps=round(horizon / 0.1), records=200)
    values = mode_dimensions(more.weights, s.task).singular_value
    ratios = []
    for r in range(6):
        alone = Trajectory(path.time, tuple(w[:, r : r + 1] for w in path.weights), path.loss[:, r : r + 1])
        for k, time in enumerate(verdict(Outcome(s, {"sgd": alone})).escapes):
            if time is not None and time - end < limit:
                assert float(values[0, r, k]) < half
                grown = (values[:, r, k] > half).nonzero()
                ratios.append(float(more.time[grown[0]]) / (time - end) if len(grown) else math.inf)
    assert len(ratios) >= 3
    assert min(ratios) > 0.5
    assert max(ratios) < 2


@pytest.mark.parametrize(
    ("given", "effective"),
    [
        ({}, True),
        ({"views": "two-sided"}, True),
        ({"preset": "authors-code", "case": 2}, False),
        ({"loss": "spectral", "lr": 0.01}, False),
    ],
)
def test_population_limit_is_reported_where_it_has_a_closed_form(given, effective):
    found = as_json(simulate(**given))
    for name in ("sgd", "flow"):
        limit = found["dynamics"][name]["population_limit"]
        assert set(limit) == {"negatives_needed", "valid", "effective_negatives"}
        needed, counted = limit["negatives_needed"], limit["effective_negatives"]
        assert isinstance(limit["valid"], bool)
        assert not limit["valid"] or 10 * needed <= 16
        assert (1 <= counted <= 16) if effective else counted is None


@pytest.mark.parametrize("given", [{"loss": "ntxent"}, {"activation": "relu", "depth": 2}])
def test_no_population_limit_is_reported_without_a_closed_form(given):
    found = as_json(simulate(**given))
    assert all(found["dynamics"][name]["population_limit"] is None for name in ("sgd", "flow"))
    assert found["sgd_vs_population"] is None


def test_effective_negatives_of_huge_batches_are_not_counted():
    still = Outcome(build(resolve({**SMALL, "batch_size": MOST_PAIRS + 1, "pool": 0, "aug_strength": 0.4})))
    limit = as_json(diagonal(still, 1.0, 1.0, 1.0, 1.0))["dynamics"]["sgd"]["population_limit"]
    assert limit["effective_negatives"] is None
    assert limit["valid"] is True


def test_sgd_is_compared_with_the_population_flow_where_both_ran():
    outcome = simulate(dynamics=("sgd", "population"))
    found = as_json(outcome)["sgd_vs_population"]
    distance = relative_distance(outcome.trajectories["sgd"], outcome.trajectories["population"])[1].mean(-1)
    assert found["relative_distance"] == float(distance.max()) > 0
    assert found["at_end"] == float(distance[-1])
    assert found["until_time"] == pytest.approx(3.0)
    assert report(outcome)["sgd_vs_flow"] is None

    population = outcome.trajectories["population"]
    one_run = Trajectory(population.time, (population.weights[0][:, :1],), population.loss[:, :1], (), population.meta)
    interrupted = Outcome(outcome.simulation, {"sgd": outcome.trajectories["sgd"], "population": one_run})
    assert as_json(interrupted)["sgd_vs_population"] is None
    for name in ("sgd", "population"):
        alone = Outcome(outcome.simulation, {name: outcome.trajectories[name]})
        assert as_json(alone)["sgd_vs_population"] is None


def test_a_very_deep_and_tiny_start_never_escapes_and_is_saved(tmp_path):
    outcome = simulate(dynamics=("sgd",), depth=20, init_scale=1e-10, steps=3)
    save(outcome, tmp_path)
    found = json.loads((tmp_path / "run.json").read_text())
    assert {d["escape_time"] for d in found["verdict"]["dimensions"]} == {None}
    assert {mode["escape_time"] for mode in found["prediction"]["modes"]} == {None}


@pytest.mark.parametrize("loss", ["infonce", "dot", "spectral"])
def test_losses_of_all_dynamics_are_on_one_scale(loss):
    # Near zero each loss is its value there, log N for a softmax: the population's too.
    found = report(simulate(dynamics=("sgd", "population"), loss=loss, init_scale=1e-6, steps=2, pool=0, lr=1e-3))
    ends = [found["dynamics"][name]["loss"] for name in ("sgd", "population")]
    assert ends[1] == pytest.approx(ends[0], abs=1e-6)
