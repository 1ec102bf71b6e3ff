"""Remedies of simulations as mathematics: each is applied, on either side of its number, and must do what it says."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from dyncollapse import GaussianTask, Objective, growth_rates, population_flow, rest_singular_values, simulate
from dyncollapse.simulation.build import build
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.prediction import delay_of_steps
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.remedies import remedies
from dyncollapse.simulation.run import run
from dyncollapse.simulation.strong_remedies import begins
from dyncollapse.simulation.verdict import rho_decides_fate

NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
POPULATION = {"dim": 4, "runs": 2, "dynamics": ("population",)}


def aligned(scale: float = 0.1, **settings) -> Outcome:
    """A population flow whose layers are multiples of the identity: aligned and balanced."""
    configuration = resolve(POPULATION | {"runs": 1} | settings)
    simulation = build(configuration)
    size = scale ** (1 / configuration.depth)
    layer = size * torch.eye(configuration.dim, dtype=torch.float64)[None]
    return run(replace(simulation, weights=(layer,) * configuration.depth), lambda *_: None, lambda _: None)


def suggested(outcome: Outcome, word: str) -> tuple[str, str]:
    """The text of the remedy whose action has this word, and its effect."""
    (found,) = [one for one in remedies(outcome) if word in one.action]
    return found.action, found.effect


def number(text: str, before: str) -> float:
    """The number behind these words."""
    found = re.search(before + " " + NUMBER, text)
    assert found, text
    return float(found[1])


def fates(outcome: Outcome) -> list[str]:
    assert outcome.verdict is not None
    return [str(fate) for fate in outcome.verdict.fates]


DEADLY = [
    {"loss": "infonce", "aug_strength": 1.5},
    {"loss": "infonce", "aug_strength": 3.0, "data_var": 1.0, "depth": 2},
    {"loss": "vcreg", "invariance": 2.0, "aug_strength": 2.0},
    {"loss": "vcreg", "invariance": 3.0, "views": "two-sided", "aug_strength": 2.0, "depth": 3},
    {"loss": "infonce", "aug_strength": 1.0, "weight_decay": 0.3},
    {"loss": "infonce", "views": "correlated", "view_corr": "-0.8", "aug_strength": 2.0},
]


@pytest.mark.parametrize("settings", DEADLY)
def test_dead_dimensions_grow_just_below_the_strength_and_die_just_above(settings):
    action, _ = suggested(aligned(**settings), "Weaken")
    strength = number(action, "strength of")
    for factor, side in ((0.98, False), (1.02, True)):
        after = aligned(1e-3, **settings | {"aug_strength": factor * strength, "steps": 200})
        p = after.trajectories["population"].singular_values[:, 0, -1]
        assert (p[-1] < p[0]) == side  # the value of the dead dimension
        assert bool({"dead", "decayed"} & set(fates(after))) == side


@pytest.mark.parametrize("settings", DEADLY)
def test_at_half_that_strength_they_are_alive_at_the_stated_value_and_time(settings):
    settings = settings | {"lr": 0.01}
    _, effect = suggested(aligned(**settings), "Weaken")
    half, rest, step = (number(effect, text) for text in ("strength of", "rest at", r"\(step"))
    early, later, last = (
        aligned(**settings | {"aug_strength": half, "steps": steps}) for steps in (int(step), 4 * int(step), 30_000)
    )
    at_time, at_rest = (float(one.ends["population"].singular_value[0, -1]) for one in (early, last))
    assert at_rest == pytest.approx(rest, rel=1e-2)  # three digits, and the rest of the flow
    assert at_time == pytest.approx(rest / 2**0.5, rel=2e-2)
    assert "dead" not in fates(last)
    assert fates(later) == ["alive"] * 4  # before dimensions without augmentation, which grow for ever, dwarf them


def test_several_strengths_are_named():
    torch.manual_seed(0)
    outcome = aligned(aug_strength=2.0)
    task = GaussianTask(outcome.simulation.task.data_cov, torch.diag(torch.tensor([0, 0, 2, 4.0]).double()))
    both = run(replace(outcome.simulation, task=task), lambda *_: None, lambda _: None)
    action, effect = suggested(both, "Weaken")
    assert "strength of 0.5 " in action  # 4 falls to 1 at a quarter of the strength 2
    assert "The first grows below a strength of 1." in effect


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


def test_one_layer_lives_just_below_the_stated_weight_decay():
    settings = {"aug_strength": 0.5, "weight_decay": 1.2}
    before = simulate(**POPULATION, **settings)
    action, effect = suggested(before.outcome, "weight_decay")
    assert (number(action, "below"), number(effect, "first grows below")) == (0.5, 1.0)
    for decay, living in ((0.49, 4), (0.51, 2), (0.99, 2), (1.01, 0)):
        after = simulate(**POPULATION, **settings | {"weight_decay": decay, "steps": 20_000})
        assert sum(after.outcome.ends["population"].singular_value.mean(0) > 0.05) == living


@pytest.mark.parametrize(("depth", "scale"), [(2, 0.2), (3, 0.3), (2, 1.0)])
def test_deep_layers_live_just_below_the_stated_weight_decay_from_this_start(depth, scale):
    settings = {"depth": depth, "aug_strength": 0.5, "aug_dim": 4, "weight_decay": 0.9, "steps": 2000}
    before = aligned(scale, **settings)
    assert fates(before) == ["decayed"] * 4
    action, effect = suggested(before, "weight_decay")
    here, anywhere = number(action, "below"), number(effect, "enough,")
    assert here <= anywhere * 1.01
    for factor, fate in ((0.97, "alive"), (1.03, "decayed")):
        assert fates(aligned(scale, **settings | {"weight_decay": factor * here, "steps": 20_000})) == [fate] * 4
    # A start at the rest point without decay lives up to the larger threshold.
    for factor, fate in ((0.97, "alive"), (1.03, "decayed")):
        large = float(rest_singular_values(before.simulation.task).max())
        assert fates(aligned(large, **settings | {"weight_decay": factor * anywhere, "steps": 20_000})) == [fate] * 4


def test_simsiam_has_a_rest_point_just_below_the_stated_weight_decay():
    settings = {"loss": "simsiam", "aug_strength": 0.5, "aug_dim": 4, "weight_decay": 0.3}
    critical = number(suggested(aligned(**settings), "weight_decay")[0], "below")
    for factor, alive in ((0.97, 4), (1.05, 0)):
        after = aligned(1.0, **settings | {"weight_decay": factor * critical, "steps": 20_000})
        assert fates(after).count("alive") == alive


@pytest.mark.parametrize("weight_decay", [0.0, 1e-4])
def test_suppressed_dimensions_count_at_rest_just_below_the_stated_strength(weight_decay):
    settings = {"views": "two-sided", "aug_dim": 4, "steps": 20_000, "weight_decay": weight_decay}
    before = aligned(aug_strength=2e4, **settings)
    assert set(fates(before)) == {"suppressed"}
    action, _ = suggested(before, "Weaken")
    strength = number(action, "strength of")
    assert before.verdict is not None
    for factor, counts in ((0.98, True), (1.02, False)):
        task = GaussianTask.block(4, 4, factor * strength, 0.5, "two-sided")
        rest = rest_singular_values(task, weight_decay=weight_decay)
        assert bool((rest > before.verdict.threshold).all()) == counts


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


def test_non_commuting_covariances_have_the_threshold_and_no_rest_value(tmp_path, generator):
    import numpy as np

    mixed = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    np.save(tmp_path / "data.npy", (mixed @ mixed.T / 4 + 0.2 * torch.eye(4)).numpy())
    np.save(tmp_path / "aug.npy", np.diag([0.0, 1.0, 9.0, 16.0]))
    files = {"data_cov": str(tmp_path / "data.npy"), "aug_cov": str(tmp_path / "aug.npy")}
    before = simulate(runs=2, dynamics=("population",), steps=3000, **files)
    action, effect = suggested(before.outcome, "Weaken")
    share = number(action, "below")
    assert "rest at" not in effect
    for factor, dead in ((0.97, 0), (1.03, 1)):
        np.save(tmp_path / "less.npy", np.diag([0.0, 1.0, 9.0, 16.0]) * share * factor)
        after = simulate(
            runs=2, dynamics=("population",), steps=3000, **files | {"aug_cov": str(tmp_path / "less.npy")}
        )
        assert [str(fate) for fate in after.verdict.fates].count("dead") == dead


# Networks in which augmentation keeps modes at zero for which there is no room either.
NARROW = [
    {"widths": "4,2", "aug_dim": 2, "aug_strength": 1.5},
    {"dim": 4, "out_dim": 1, "aug_dim": 1},
    {"dim": 4, "depth": 2, "hidden_dim": 2, "aug_strength": 1.5, "init_scale": 0.5},
    {"widths": "5,2,5", "aug_dim": 1, "init_scale": 0.5},
]


def drawn(**settings) -> Outcome:
    """The population flow of one network with a Gaussian start."""
    configuration = resolve({"runs": 1, "dynamics": ("population",), "steps": 3000} | settings)
    return run(build(configuration), lambda *_: None, lambda _: None)


def living(outcome: Outcome) -> int:
    """How many dimensions a network has at its end."""
    return int((outcome.ends["population"].singular_value[0] > 1e-2).sum())


@pytest.mark.parametrize("settings", NARROW)
def test_dead_dimensions_without_room_need_both_width_and_weaker_augmentation(settings):
    before = drawn(**settings)
    assert "dead" in fates(before)
    action, effect = suggested(before, "Weaken")
    assert "by t =" not in effect  # nobody knows when: what has no room does not start
    weaker = {"aug_strength": 0.5 * number(action, "strength of")}
    own, wanted = (int(number(action, word)) for word in ("layer from", r"layer from \d+ to"))
    sizes = {"dim": before.simulation.task.dim, "depth": before.simulation.configuration.depth}
    sizes |= {"init_scale": 0.5, "aug_dim": before.simulation.configuration.aug_dim}
    sizes |= {"hidden_dim": wanted} if sizes["depth"] > 1 else {}
    assert living(drawn(**settings | weaker)) == own
    assert living(drawn(**sizes | weaker)) == wanted == before.simulation.task.dim


@pytest.mark.parametrize("scale", [1e-3, 0.1, 0.5])
@pytest.mark.parametrize("steps", [1, 30, 100, 300])
def test_a_network_with_room_for_all_is_not_to_be_widened(steps, scale):
    # Also while some of the dead ones are not small yet.
    square = drawn(dim=6, aug_dim=3, aug_strength=2.0, steps=steps, init_scale=scale)
    assert not [one for one in remedies(square) if "iden" in one.action]


def test_decayed_dimensions_without_room_need_width_too():
    settings = {"dim": 4, "weight_decay": 0.3, "aug_strength": 0.9}
    assert "widen" not in suggested(drawn(**settings), "Lower")[0]
    narrow = drawn(**settings, out_dim=2)
    assert fates(narrow) == ["alive", "alive", "decayed", "decayed"]
    assert "and widen the narrowest layer from 2 to 4 units" in suggested(narrow, "Lower")[0]


@pytest.mark.parametrize("runs", [1, 8])
def test_a_projector_keeps_nothing_of_what_does_not_start(runs):
    narrow = drawn(widths="5,3", runs=runs)  # in some runs a dead mode lies outside of what the first layer passes on
    assert "dead" in fates(narrow)
    assert all(number(one.effect, "rest at") > 1e-6 for one in remedies(narrow) if "projector" in one.action)


def test_modes_for_which_no_room_is_left_are_not_decayed():
    narrow = drawn(widths="8,3,8", weight_decay=0.01, aug_strength=0.3, init_scale=0.3)
    assert fates(narrow) == ["alive"] * 3 + ["structural"] * 5
    assert not [one for one in remedies(narrow) if "weight_decay" in one.action]


@pytest.mark.parametrize(("depth", "weight_decay"), [(1, 1e-6), (1, 1e-4), (2, 1e-7)])
def test_a_weight_decay_that_is_all_but_none_suppresses_nothing(depth, weight_decay):
    settings = {"depth": depth, "aug_strength": 0.3, "steps": 30}
    assert fates(aligned(1e-4, **settings)) == ["waiting"] * 4
    assert fates(aligned(1e-4, **settings, weight_decay=weight_decay)) == ["waiting"] * 4


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


@pytest.mark.parametrize(
    "settings",
    [
        {"dim": 8, "loss": "simsiam", "aug_strength": 1.5, "weight_decay": 0.01},
        {"dim": 8, "loss": "spectral", "aug_strength": 0.45, "weight_decay": 0.04, "depth": 2, "init_scale": 0.25}
        | {"seed": 2},
    ],
)
def test_no_bound_is_named_that_the_run_respects(settings):
    outcome = drawn(**settings, dynamics=("sgd",), lr=0.1)
    assert "decayed" in fates(outcome)
    (found,) = [one for one in remedies(outcome) if "weight_decay" in one.action or "init_scale" in one.action]
    assert "below" not in found.action
    assert "init_scale" in found.action


def test_no_projector_is_advised_where_living_modes_take_all_units():
    assert [one for one in remedies(drawn(widths="8,8")) if "projector" in one.action]
    assert not [one for one in remedies(drawn(widths="8,4")) if "projector" in one.action]


def test_lowering_the_weight_decay_as_well_takes_room_for_what_that_frees():
    outcome = drawn(widths="8,3", weight_decay=1.2, aug_strength=1.5, steps=500)
    assert "widen the narrowest layer from 3 to 8 units" in suggested(outcome, "Weaken")[0]


def test_dead_dimensions_without_data_are_not_said_to_grow(tmp_path):
    data, noise = ([1.0, 1, 0.5, 0.5, 0, 0], [0, 0, 1.5, 1.5, 1.5, 1.5])
    for name, values in (("data", data), ("noise", noise)):
        np.save(tmp_path / f"{name}.npy", np.diag(values))
    covariances = {"data_cov": str(tmp_path / "data.npy"), "aug_cov": str(tmp_path / "noise.npy")}
    outcome = drawn(**covariances, widths="6,4", steps=8, init_scale=1.0)
    dead = {k for k, fate in enumerate(fates(outcome)) if fate == "dead"}
    assert dead <= {4, 5}  # the two others are not small yet
    for one in remedies(outcome):
        assert "they grow" not in one.effect
        assert "it grows" not in one.effect
        assert "widen" not in one.action


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


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("lr", [0.001, 0.1, 1.0])
def test_the_delay_of_steps_is_that_of_steps(lr, momentum):
    c, rate, count = resolve({"lr": lr, "momentum": momentum}), 0.5, 20_000
    weight, velocity, grown = 1.0, 0.0, 0.0
    for step in range(count):
        velocity = momentum * velocity + rate * weight
        weight += lr * velocity
        grown += np.log(weight) if step >= count // 2 else 0.0  # once the slower root has died out
        weight, velocity = 1.0, velocity / weight
    by_time = rate * lr / (1 - momentum) * (count - count // 2)
    assert delay_of_steps(c, rate) == pytest.approx(by_time / grown, rel=1e-9)
    assert delay_of_steps(c, rate) >= 1
    assert delay_of_steps(c, 1e-12) == pytest.approx(1, abs=1e-6)


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


@pytest.mark.parametrize(("dtype", "expected"), [("float64", [True, True, False]), ("float32", [True, False, False])])
def test_what_the_precision_of_the_weights_cannot_tell_from_zero_does_not_begin(dtype, expected):
    start = torch.tensor([1.0, 1e-9, 1e-17], dtype=torch.float64)
    assert begins(start, build(resolve({"dtype": dtype}))).tolist() == expected
