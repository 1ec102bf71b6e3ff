"""Simulations of BYOL and SimSiam: what runs, what the verdict claims, and what is refused."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.simulation import SMALL, as_json, simulate

from dyncollapse import Fate, Mechanism, SettingError, byol_rest
from dyncollapse.simulation.build import build
from dyncollapse.simulation.dimensions import Dimensions
from dyncollapse.simulation.distillation import judge_distilled, rest_of, self_distillation
from dyncollapse.simulation.presets import resolve
from dyncollapse.sweeps.grid import expand_grid, point_hash
from dyncollapse.sweeps.packing import train_together

ALL = {"dynamics": ("sgd", "flow", "population")}


@pytest.mark.parametrize(
    "given",
    [
        {"loss": "simsiam", **ALL},
        {"loss": "byol", "predictor_rate": 2.0, "target_momentum": 0.9, "momentum": 0.5, "weight_decay": 0.1, **ALL},
        {"loss": "byol", "depth": 3, "hidden_dim": 5, "out_dim": 3, **ALL},
        {"loss": "simsiam", "activation": "relu", "depth": 2, "dynamics": ("sgd", "flow")},
        {"loss": "simsiam", "views": "one-sided", "dtype": "float32"},
    ],
)
def test_all_dynamics_run_and_report(given):
    outcome = simulate(**given)
    values = as_json(outcome)
    assert outcome.status == "finished"
    assert list(values["dynamics"]) == list(outcome.simulation.configuration.dynamics)
    assert values["prediction"]["threshold"] is None
    for path in outcome.trajectories.values():
        assert path.predictor is not None
        assert bool(path.target) == (given["loss"] == "byol")
        assert not torch.equal(path.product[0], path.product[-1])


def test_prediction_is_that_of_the_theory():
    outcome = simulate(loss="simsiam", weight_decay=0.02, predictor_rate=2.0)
    task = outcome.simulation.task
    rest = byol_rest(task, 0.02, predictor_rate=2.0)
    found = [mode["rest_singular_value"] for mode in as_json(outcome)["prediction"]["modes"]]
    assert found == pytest.approx(rest.encoder.tolist())


@pytest.mark.parametrize("loss", ["simsiam", "byol"])
def test_weight_decay_kills_the_augmented_modes_of_the_population(loss):
    # Critical decay: 0.125 without augmentation and 0.0156 with it.
    outcome = simulate(
        loss=loss, weight_decay=0.03, aug_strength=3.5, init_scale=0.5, steps=3000, lr=0.3, dynamics=("population",)
    )
    assert outcome.verdict.fates == [Fate.ALIVE] * 2 + [Fate.DECAYED] * 2
    assert outcome.verdict.mechanism is Mechanism.DECAY
    assert outcome.verdict.sentence == (
        "2 of 4 dimensions collapsed: 2 by weight decay 0.03 (above its critical value for 2)."
    )
    sigma = outcome.ends["population"].singular_value.mean(0)
    rest = rest_of(outcome.simulation.configuration, outcome.simulation.task)
    torch.testing.assert_close(sigma, rest.encoder, rtol=1e-5, atol=1e-5)


def judged(values, room=4, **given):
    c = resolve({**SMALL, "loss": "simsiam", **given})
    task = build(c).task
    rest = rest_of(c, task)
    ratio = 1 - rest.signal / rest.view_var
    sigma = torch.tensor(values, dtype=torch.float64)
    end = Dimensions(sigma, rest.signal, rest.view_var - rest.signal, ratio, "two-sided")
    return judge_distilled(c, end, rest, 10.0, room=room, outputs=4)


def test_without_decay_all_collapsed_modes_wait():
    verdict = judged([1.0, 1.0, 1e-3, 1e-4])
    assert verdict.fates == [Fate.ALIVE, Fate.ALIVE, Fate.WAITING, Fate.WAITING]
    assert all(10 < time < math.inf for time in verdict.escapes[2:])
    assert "implicit regularization" in verdict.sentence
    assert judged([1.0, 1.0, 1e-3, 1e-4], target_momentum=0.5, loss="byol").escapes == [None] * 4


def test_with_decay_a_mode_below_its_basin_is_lost_unless_a_lower_one_lives():
    rest = [0.95, 0.95, 0.2, 0.2]
    below = judged([0.95, 0.95, 0.2, 1e-3], weight_decay=0.02)
    assert below.fates == [Fate.ALIVE] * 3 + [Fate.DECAYED]
    assert "from this start for 1" in below.sentence
    assert judged([0.95, 1e-3, 0.2, 0.2], weight_decay=0.02).fates[1] is Fate.WAITING
    assert judged(rest, weight_decay=0.02).sentence == "No dimension of 4 collapsed."


def test_modes_beyond_the_width_are_structural():
    verdict = judged([0.95, 0.95, 0.0, 0.0], room=2, weight_decay=0.02)
    assert verdict.fates == [Fate.ALIVE] * 2 + [Fate.STRUCTURAL] * 2
    assert judged([0.95, 0.95, 0.0, 0.0], room=2).fates == verdict.fates
    beyond = judged([0.95, 0.95, 0.0, 0.0], room=2, weight_decay=0.1)  # above the critical decay of both
    assert beyond.fates[2:] == [Fate.DECAYED] * 2


def test_relu_networks_leave_the_cause_open():
    c = resolve({**SMALL, "loss": "simsiam", "activation": "relu", "depth": 2})
    end = Dimensions(*[torch.tensor([1.0, 1e-5]).double()] * 4, "two-sided")
    verdict = judge_distilled(c, end, None, 1.0, room=4, outputs=4)
    assert verdict.fates == [Fate.ALIVE, Fate.UNEXPLAINED]


def test_target_momentum_is_that_of_a_step():
    c = resolve({"loss": "byol", "lr": 0.2, "momentum": 0.5, "target_momentum": 0.9})
    assert self_distillation(c).target_rate * 0.2 / (1 - 0.5) == pytest.approx(0.1)
    assert self_distillation(resolve({"loss": "byol"})).target_rate == pytest.approx(0.1)
    assert self_distillation(resolve({"loss": "dot"})) is None
    assert resolve({"loss": "byol"}).views == "two-sided"


def test_points_of_a_pack_are_what_they_are_alone():
    given = {**SMALL, "dynamics": ("sgd",)}
    points = expand_grid({**given, "loss": "byol", "weight_decay": 0.01, "seed": [0, 1]})
    simulations = [build(point) for point in points]
    for point, path in zip(points, train_together(simulations), strict=True):
        alone = simulate(**{**given, "loss": "byol", "weight_decay": 0.01, "seed": point.seed}).trajectories["sgd"]
        torch.testing.assert_close(path.predictor, alone.predictor, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(path.target[0], alone.target[0], rtol=1e-12, atol=1e-12)


def test_points_keep_the_names_that_they_had_before_these_settings():
    point = resolve(SMALL)
    assert point_hash(point) == point_hash(replace(point, weight_decay=0.0, predictor_rate=None))
    assert point_hash(point) != point_hash(replace(point, weight_decay=0.1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"predictor_rate": 2.0}, "predictor_rate is 2.0, but loss infonce has none"),
        ({"loss": "simsiam", "target_momentum": 0.9}, "target_momentum is 0.9, but loss simsiam has none"),
        ({"loss": "byol", "bias": True}, "without biases"),
        ({"loss": "byol", "temperature": 0.1}, "temperature is 0.1, but loss byol has none"),
        ({"loss": "byol", "invariance": 2.0}, "invariance is 2.0, but loss byol has none"),
        ({"loss": "byol", "target_momentum": 1.0}, "target_momentum"),
        ({"loss": "byol", "activation": "relu", "depth": 2, **ALL}, "dynamics population is for linear layers"),
        ({"weight_decay": -0.1}, "weight_decay"),
    ],
)
def test_refuses_settings_that_contradict_each_other(given, message):
    with pytest.raises(SettingError, match=message):
        resolve(given)


def test_weight_decay_acts_in_every_dynamics_of_other_losses():
    plain, decayed = (simulate(loss="spectral", weight_decay=w, steps=100, **ALL) for w in (0.0, 0.3))
    for name, path in decayed.trajectories.items():
        assert float(path.product[-1].norm()) < 0.95 * float(plain.trajectories[name].product[-1].norm())
