"""Remedies of simulations as mathematics: each is applied, on either side of its number, and must do what it says."""

import numpy as np
import pytest
import torch
from helpers.remedies import POPULATION, aligned, drawn, fates, number, suggested

from dyncollapse import GaussianTask, Objective, growth_rates, population_flow, simulate
from dyncollapse.simulation.remedies import remedies
from dyncollapse.simulation.verdict import rho_decides_fate


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_waiting_dimensions_have_escaped_by_the_stated_step(depth):
    settings = {"depth": depth, "aug_strength": 0.3, "lr": 0.02, "steps": 20, "aug_dim": 4}
    before = aligned(scale=1e-3, **settings)
    assert fates(before) == ["waiting"] * 4
    step = int(number(suggested(before, "Train until")[0], "step"))
    after = aligned(scale=1e-3, **settings | {"steps": step})
    assert fates(after) == ["alive"] * 4


@pytest.mark.parametrize("depth", [2, 3])
def test_twice_the_initial_scale_escapes_at_the_stated_time(depth):
    settings = {"depth": depth, "aug_strength": 0.3, "steps": 20, "aug_dim": 4}
    _, effect = suggested(aligned(scale=1e-3, **settings), "twice the scale")
    then, now = number(effect, "about t ="), number(effect, "instead of t =")
    assert now / then == pytest.approx(4 ** (depth - 1), rel=0.02)  # (2^L)^(2 - 2/L)
    after = aligned(scale=1e-3 * 2**depth, **settings | {"steps": int(10 * then)})
    assert fates(after) == ["alive"] * 4


def test_more_outputs_than_inputs_cannot_help_and_fewer_lose_nothing():
    settings = POPULATION | {"aug_strength": 0.5, "steps": 5000}
    more = simulate(**settings, out_dim=6)
    action, effect = suggested(more.outcome, "out_dim")
    assert number(action, "Keep") == 4
    assert effect.startswith("2 outputs cannot vary")
    assert simulate(**settings, out_dim=4).remedies == ()


def test_inputs_that_never_vary_feed_no_output(tmp_path):
    import numpy as np

    for name, strength in (("data", 1.0), ("aug", 0.5)):
        np.save(tmp_path / f"{name}.npy", np.diag([strength, strength, 0.0, 0.0]))
    files = {"data_cov": str(tmp_path / "data.npy"), "aug_cov": str(tmp_path / "aug.npy")}
    found = simulate(runs=1, steps=3000, dynamics=("population",), **files)
    action, effect = suggested(found.outcome, "out_dim")
    assert action.startswith("Keep 2 outputs or fewer")
    assert effect.startswith("2 outputs cannot vary")
    assert simulate(runs=1, steps=3000, dynamics=("population",), **files, out_dim=2).verdict.count == 0


def test_the_stated_width_has_room_for_all():
    settings = POPULATION | {"aug_strength": 0.5, "aug_dim": 4, "steps": 5000}
    narrow = simulate(**settings, depth=2, hidden_dim=2)
    width = int(number(suggested(narrow.outcome, "Widen")[0], "to"))
    after = simulate(**settings, depth=2, hidden_dim=width)
    assert [str(fate) for fate in after.verdict.fates] == ["alive"] * 4


def test_hidden_layers_of_relu_networks_are_widened():
    narrow = simulate(dim=3, out_dim=6, depth=3, activation="relu", runs=1, steps=5, dynamics=("sgd",))
    assert "from 3 to 6 units" in suggested(narrow.outcome, "Widen")[0]


def test_one_relu_layer_with_few_outputs_has_a_report_under_simsiam():
    settings = {"dim": 3, "out_dim": 1, "depth": 1, "runs": 1, "steps": 5, "dynamics": ("sgd",), "loss": "simsiam"}
    assert simulate(**settings, activation="relu").to_dict()["verdict"]["embedding_dim"] == 1


@pytest.mark.parametrize("loss", ["infonce", "dot", "vcreg", "barlow"])
def test_one_relu_layer_is_linear_and_has_a_report(loss):
    settings = {"dim": 3, "depth": 1, "runs": 1, "steps": 5, "dynamics": ("sgd",), "loss": loss}
    found, linear = (simulate(**settings, activation=one).to_dict()["dynamics"]["sgd"] for one in ("relu", "linear"))
    assert found["population_limit"] == linear["population_limit"]


def test_a_projector_keeps_the_stated_value_of_dead_dimensions():
    start = 0.2
    before = aligned(start, aug_strength=3.0)
    kept = number(suggested(before, "projector")[1], "rest at")
    eye = torch.eye(4, dtype=torch.float64)
    times = torch.linspace(0, 400, 5, dtype=torch.float64)
    path = population_flow((start * eye[None], start / 2 * eye[None]), before.simulation.task, times)
    encoder, projector = path.final()
    assert float(encoder[0, -1, -1]) == pytest.approx(kept, rel=0.02)
    assert float(projector[0, -1, -1]) < 1e-3  # the embedding has collapsed


def test_the_representation_is_named_for_what_it_keeps():
    outcome = simulate(**POPULATION, depth=2, aug_strength=3.0, init_scale=0.5, steps=3000).outcome
    _, effect = suggested(outcome, "representation")
    kept = number(effect, "keeps")
    path = outcome.trajectories["population"]
    values = torch.linalg.svdvals(path.final()[0]).mean(0)
    assert kept == int((values > 1e-2 * values.max()).sum()) - fates(outcome).count("alive")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"loss": "vicreg", "aug_strength": 3.0, "steps": 200, "dynamics": ("sgd",)}, "Run twice"),
        ({"activation": "relu", "depth": 2, "aug_strength": 2.0, "steps": 200, "dynamics": ("sgd",)}, "Weaken"),
        ({"aug_strength": 2.0, "weight_decay": 2.0}, "Weaken"),
        ({"loss": "byol", "views": "correlated", "view_corr": "-1", "aug_strength": 2.0}, "Weaken"),
    ],
)
def test_where_no_closed_form_holds_a_number_is_an_estimate_or_missing(settings, word):
    _, effect = suggested(simulate(**POPULATION | settings).outcome, word)
    assert "rest at" not in effect


def test_a_healthy_run_has_no_remedy_and_every_remedy_is_json():
    assert simulate(**POPULATION, aug_strength=0.5).remedies == ()
    found = simulate(**POPULATION).to_dict()["remedies"]
    assert [set(one) for one in found] == [{"try", "effect", "source", "kind"}] * 2
    assert not any("`" in text for one in found for text in one.values())


@pytest.mark.parametrize("scale", [1e-3, 0.1, 0.5])
@pytest.mark.parametrize("steps", [1, 30, 100, 300])
def test_a_network_with_room_for_all_is_not_to_be_widened(steps, scale):
    # Also while some of the dead ones are not small yet.
    square = drawn(dim=6, aug_dim=3, aug_strength=2.0, steps=steps, init_scale=scale)
    assert not [one for one in remedies(square) if "iden" in one.action]


@pytest.mark.parametrize("runs", [1, 8])
def test_a_projector_keeps_nothing_of_what_does_not_start(runs):
    narrow = drawn(widths="5,3", runs=runs)  # in some runs a dead mode lies outside of what the first layer passes on
    assert "dead" in fates(narrow)
    assert all(number(one.effect, "rest at") > 1e-6 for one in remedies(narrow) if "projector" in one.action)


@pytest.mark.parametrize("loss", ["spectral", "dot"])
@pytest.mark.parametrize(("views", "decides"), [("one-sided", False), ("two-sided", True)])
def test_rho_does_not_decide_where_each_direction_with_data_grows(loss, views, decides):
    objective = Objective(loss, 0.5 if loss == "dot" else None)
    assert rho_decides_fate(objective, views) == decides
    task = GaussianTask.block(2, 2, 3.0, views=views)  # rho = 3 for one-sided views
    assert bool((growth_rates(task, loss, objective.temperature) > 0).all())
    relu = {"dim": 4, "activation": "relu", "depth": 2, "aug_strength": 3.0, "loss": loss, "views": views}
    end = fates(drawn(**relu, steps=5, init_scale=1e-3, dynamics=("sgd",), lr=0.001))
    assert decides or not {"dead", "suppressed"} & set(end)


def test_no_projector_is_advised_where_living_modes_take_all_units():
    assert [one for one in remedies(drawn(widths="8,8")) if "projector" in one.action]
    assert not [one for one in remedies(drawn(widths="8,4")) if "projector" in one.action]


@pytest.mark.parametrize(("temperature", "aug_strength", "steps"), [(0.1, 30.0, 400), (10.0, 1.5, 1000)])
def test_the_fate_of_modes_under_ntxent_is_open_below_rho_1(temperature, aug_strength, steps):
    settings = {"dim": 4, "aug_dim": 2, "aug_strength": aug_strength, "runs": 2, "loss": "ntxent"}
    settings |= {"temperature": temperature, "dynamics": ("sgd",)}
    short, long = (drawn(**settings, steps=n) for n in (steps, 2 * steps))
    assert not rho_decides_fate(short.simulation.objective, "two-sided")
    end = long.ends["sgd"]
    small, before = (one.ends["sgd"].singular_value[:, 3].mean() for one in (long, short))
    assert float(end.ratio[0, 3]) < 1  # and yet it decays
    assert small < before / 2
    assert fates(long)[3] == "unexplained"
    assert not [one for one in remedies(long) if one.kind != "check" and "steps" in one.action]


@pytest.mark.parametrize("settings", [{"loss": "infonce", "aug_strength": 0.3}, {"loss": "simsiam"}])
def test_a_representation_that_has_decayed_is_not_recommended(settings):
    gone = drawn(dim=4, depth=2, weight_decay=0.5, steps=500, runs=2, dynamics=("sgd",), **settings)
    assert fates(gone) == ["decayed"] * 4
    assert not [one for one in remedies(gone) if "representation" in one.action]


def test_steps_too_small_for_any_training_are_to_be_raised_and_not_the_batches():
    tiny = {"loss": "spectral", "views": "two-sided", "lr": 1e-13, "steps": 3, "init_scale": 1e-3}
    actions = " ".join(one.action for one in remedies(drawn(dim=4, runs=1, dynamics=("population",), **tiny)))
    assert "Raise `lr`" in actions
    assert "batch_size" not in actions


@pytest.mark.parametrize(("momentum", "lr", "steps"), [(0.99, 0.1, 8), (0.9, 0.1, 10), (0.0, 1.0, 3)])
def test_the_step_of_the_last_escape_allows_for_large_steps_and_momentum(momentum, lr, steps):
    settings = {"dim": 4, "runs": 4, "aug_strength": 0.5, "init_scale": 1e-6, "dynamics": ("sgd",), "lr": lr}
    early = drawn(**settings, momentum=momentum, steps=steps)
    assert fates(early) == ["waiting"] * 4
    latest = int(number(suggested(early, "Train until")[0], "until step"))
    # Forces fade on the way, which delays the last a little more.
    assert "waiting" in fates(drawn(**settings, momentum=momentum, steps=int(0.7 * latest)))
    assert "waiting" not in fates(drawn(**settings, momentum=momentum, steps=int(1.1 * latest)))


@pytest.mark.parametrize("loss", ["byol", "simsiam", "infonce"])
def test_a_direction_with_neither_data_nor_noise_lacks_inputs(loss, tmp_path):
    np.save(tmp_path / "data.npy", np.diag([1.0, 0.5, 0.0, 0.0]))
    np.save(tmp_path / "aug.npy", np.diag([0.0, 0.5, 0.5, 0.0]))
    files = {"data_cov": str(tmp_path / "data.npy"), "aug_cov": str(tmp_path / "aug.npy")}
    outcome = drawn(dim=4, loss=loss, runs=2, dynamics=("sgd",), steps=1000, views="one-sided", **files)
    assert outcome.verdict is not None
    assert "1 for want of inputs" in outcome.verdict.sentence
    assert not [one for one in remedies(outcome) if "augmentation" in one.action]


def test_weight_decay_is_among_the_open_causes_where_it_is_on():
    open_ = drawn(
        dim=4, runs=2, activation="relu", depth=2, aug_dim=2, aug_strength=0.2, weight_decay=0.5, steps=500,
        dynamics=("sgd",),
    )  # fmt: skip
    assert set(fates(open_)) == {"unexplained"}
    assert open_.verdict is not None
    assert "decayed" in open_.verdict.sentence
    _, told = suggested(open_, "without weight decay")
    assert "weight decay" in told or "holds at zero" in told


def test_no_augmentation_is_halved_where_there_is_none():
    outcome = drawn(
        dim=4, aug_dim=0, runs=2, loss="vicreg", steps=30, init="spectrum", init_rate=3.0, dynamics=("sgd",)
    )
    assert "unexplained" in fates(outcome)
    assert not [one for one in remedies(outcome) if "augmentation" in one.action]


def test_a_flow_is_not_delayed_by_steps():
    settings = {"dim": 4, "runs": 1, "aug_strength": 0.5, "init_scale": 1e-4, "momentum": 0.99}
    early = drawn(**settings, dynamics=("population",), steps=1)
    latest = int(number(suggested(early, "Train until")[0], "until step"))
    assert "waiting" not in fates(drawn(**settings, dynamics=("population",), steps=latest + 1))
    assert early.verdict is not None
    assert latest == pytest.approx(max(time for time in early.verdict.escapes if time) / 10, abs=1)  # lr / (1 - m) = 10


@pytest.mark.parametrize("dynamics", ["population", "sgd"])
@pytest.mark.parametrize(("dim", "out_dim", "depth", "seed"), [(3, 2, 2, 93), (4, 2, 1, 0), (4, 3, 2, 1), (6, 3, 1, 2)])
def test_a_mode_without_an_output_yet_is_not_said_to_wait_for_ever(dim, out_dim, depth, seed, dynamics):
    settings = {"dim": dim, "out_dim": out_dim, "depth": depth, "seed": seed, "aug_dim": dim - 1, "aug_strength": 1.0}
    outcome = drawn(**settings, steps=30, dynamics=(dynamics,))
    waiting = [one for one in outcome.verdict.dimensions if str(one.fate) == "waiting"]
    assert "never" not in outcome.verdict.sentence
    assert all(one.escape_time is None or np.isfinite(one.escape_time) for one in waiting)
    assert not any(one.action.startswith("Raise") for one in remedies(outcome))


def test_the_start_is_not_said_to_give_times_that_the_run_contradicts():
    settings = {
        "dim": 3,
        "aug_dim": 2,
        "depth": 2,
        "loss": "dot",
        "views": "two-sided",
        "aug_strength": 0.5,
        "seed": 26,
    }
    outcome = drawn(**settings, steps=100)
    _, effect = suggested(outcome, "twice the scale")
    assert "4 times as early" in effect
    assert "how much earlier is open" in effect
    assert "t =" not in effect


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dynamics": ("sgd",)}, "at the present force"),
        ({"dynamics": ("population",)}, "with infinite batches"),
        ({"dynamics": ("sgd",), "weight_decay": 1e-9}, "with infinite batches"),
    ],
)
@pytest.mark.parametrize("depth", [1, 2])
def test_the_force_of_an_escape_is_named(settings, words, depth):
    outcome = drawn(dim=4, aug_dim=4, aug_strength=0.3, steps=30, init_scale=1e-4, depth=depth, **settings)
    assert f"{words})" in outcome.verdict.sentence
    _, effect = suggested(outcome, "Train until")
    assert f"{words}{', for aligned layers' if depth > 1 else ''}." in effect
