import json
import math

import numpy as np
import pytest
import torch
from helpers.simulation import SMALL, as_json, diagonal, simulate

from dyncollapse import Trajectory, end_to_end, mode_dimensions, train
from dyncollapse.simulation.build import build
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.prediction import batch_growth, escape_times, outlook
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.report import save

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
    # Each further step multiplies the weight by the larger root, and the flow would by exp(0.6 * 0.05 / 0.2).
    growth = np.log(np.roots([1, -(1 + 0.8 + 0.05 * 0.6), 0.8]).max())
    assert waiting["escape_step"] == round(3 / 0.25 + (waiting["escape_time"] - 3) * 0.6 / growth)
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
    assert torch.isinf(escape_times(outcome.simulation, outlook(outcome.simulation), values)).all()


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
    waits = [t - 3 for t in late.verdict.escapes[2:]]
    assert min(waits) > 10 * float(escape_times(s, outlook(s), torch.tensor([[30.0, 30.0, 1e-3, 1e-3]]).double())[2])


def test_no_batch_growth_for_other_losses():
    s = build(resolve({**SMALL, "preset": "authors-code"}))
    assert batch_growth(s, end_to_end(s.weights)) is None


def test_the_population_flow_is_judged_by_its_own_force():
    # Batches of 16 lose their grip once clean modes have separated; the population flow knows no batches.
    s = build(resolve({**SMALL, "aug_strength": 0.3}))
    sgd = diagonal(Outcome(s), 30.0, 30.0, 1e-3, 1e-3)
    population = Outcome(s, {"population": sgd.trajectories["sgd"]})
    values = torch.tensor([[30.0, 30.0, 1e-3, 1e-3]], dtype=torch.float64)
    assert population.verdict.escapes[2:] == (3.0 + escape_times(s, outlook(s), values)[2:]).tolist()
    assert population.verdict.escapes[2] < sgd.verdict.escapes[2]


@pytest.mark.slow
def test_forecast_escapes_come_true(escaping):
    s, path = escaping.simulation, escaping.trajectories["sgd"]
    end, half = float(path.time[-1]), float(outlook(s).rest[0]) / 2
    limit, horizon = 120.0, 250.0
    stream = s.task.stream(128, torch.Generator().manual_seed(99), (6,))
    more = train(path.final(), stream, lr=0.1, steps=round(horizon / 0.1), records=200)
    values = mode_dimensions(more.weights, s.task).singular_value
    ratios = []
    for r in range(6):
        alone = Trajectory(path.time, tuple(w[:, r : r + 1] for w in path.weights), path.loss[:, r : r + 1])
        for k, time in enumerate(Outcome(s, {"sgd": alone}).verdict.escapes):
            if time is not None and time - end < limit:
                assert float(values[0, r, k]) < half
                grown = (values[:, r, k] > half).nonzero()
                ratios.append(float(more.time[grown[0]]) / (time - end) if len(grown) else math.inf)
    assert len(ratios) >= 3
    assert min(ratios) > 0.5
    assert max(ratios) < 2


def test_a_very_deep_and_tiny_start_never_escapes_and_is_saved(tmp_path):
    outcome = simulate(dynamics=("sgd",), depth=20, init_scale=1e-10, steps=3)
    save(outcome, tmp_path)
    found = json.loads((tmp_path / "run.json").read_text())
    assert {d["escape_time"] for d in found["verdict"]["dimensions"]} == {None}
    assert {mode["escape_time"] for mode in found["prediction"]["modes"]} == {None}
