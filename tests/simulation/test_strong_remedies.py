"""Weaker augmentation and lower weight decay: applied on either side of their number, each does what it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.remedies import POPULATION, aligned, drawn, fates, living, number, suggested

from dyncollapse import GaussianTask, rest_singular_values, simulate
from dyncollapse.simulation.build import build
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.remedies import remedies
from dyncollapse.simulation.run import run
from dyncollapse.simulation.strong_remedies import begins

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


def test_one_layer_lives_just_below_the_stated_weight_decay():
    settings = {"aug_strength": 0.5, "weight_decay": 1.2}
    before = simulate(**POPULATION, **settings)
    action, effect = suggested(before.outcome, "weight_decay")
    assert (number(action, "below"), number(effect, "first grows below")) == (0.5, 1.0)
    for decay, alive in ((0.49, 4), (0.51, 2), (0.99, 2), (1.01, 0)):
        after = simulate(**POPULATION, **settings | {"weight_decay": decay, "steps": 20_000})
        assert sum(after.outcome.ends["population"].singular_value.mean(0) > 0.05) == alive


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


def test_decayed_dimensions_without_room_need_width_too():
    settings = {"dim": 4, "weight_decay": 0.3, "aug_strength": 0.9}
    assert "widen" not in suggested(drawn(**settings), "Lower")[0]
    narrow = drawn(**settings, out_dim=2)
    assert fates(narrow) == ["alive", "alive", "decayed", "decayed"]
    assert "and widen the narrowest layer from 2 to 4 units" in suggested(narrow, "Lower")[0]


def test_modes_for_which_no_room_is_left_are_not_decayed():
    narrow = drawn(widths="8,3,8", weight_decay=0.01, aug_strength=0.3, init_scale=0.3)
    assert fates(narrow) == ["alive"] * 3 + ["structural"] * 5
    assert not [one for one in remedies(narrow) if "weight_decay" in one.action]


@pytest.mark.parametrize(("depth", "weight_decay"), [(1, 1e-6), (1, 1e-4), (2, 1e-7)])
def test_a_weight_decay_that_is_all_but_none_suppresses_nothing(depth, weight_decay):
    settings = {"depth": depth, "aug_strength": 0.3, "steps": 30}
    assert fates(aligned(1e-4, **settings)) == ["waiting"] * 4
    assert fates(aligned(1e-4, **settings, weight_decay=weight_decay)) == ["waiting"] * 4


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


@pytest.mark.parametrize(("dtype", "expected"), [("float64", [True, True, False]), ("float32", [True, False, False])])
def test_what_the_precision_of_the_weights_cannot_tell_from_zero_does_not_begin(dtype, expected):
    start = torch.tensor([1.0, 1e-9, 1e-17], dtype=torch.float64)
    assert begins(start, build(resolve({"dtype": dtype}))).tolist() == expected


@pytest.mark.parametrize("weight_decay", [1e-9, 1e-6, 1e-4])
def test_a_weight_decay_that_is_all_but_none_hardly_moves_the_strength_for_suppressed_dimensions(weight_decay):
    settings = {"dim": 4, "aug_dim": 3, "aug_strength": 10.0, "data_var": 0.2, "views": "two-sided"}
    plain, decayed = (
        number(suggested(drawn(**settings, steps=2000, weight_decay=w), "Weaken")[0], "strength of")
        for w in (0.0, weight_decay)
    )
    assert decayed == pytest.approx(plain, rel=0.05)


@pytest.mark.parametrize(("depth", "weight_decay"), [(2, 0.1), (3, 0.05)])
def test_deep_dead_dimensions_rest_above_zero_just_below_the_strength_beside_weight_decay(depth, weight_decay):
    settings = {"depth": depth, "weight_decay": weight_decay, "aug_dim": 4, "aug_strength": 1.5}
    action, effect = suggested(aligned(**settings), "Weaken")
    assert "from a start that is large enough" in effect
    for factor, lives in ((0.97, True), (1.03, False)):
        after = aligned(3.0, **settings | {"aug_strength": factor * number(action, "strength of"), "steps": 30_000})
        assert (living(after) == 4) == lives
    small = aligned(1e-4, **settings | {"aug_strength": 0.97 * number(action, "strength of"), "steps": 30_000})
    assert living(small) == 0


def test_no_strength_helps_deep_dimensions_beyond_the_critical_weight_decay():
    settings = {"depth": 2, "weight_decay": 2.0, "aug_dim": 4, "aug_strength": 1.5}
    _, effect = suggested(aligned(**settings), "Weaken")
    assert "No strength alone helps" in effect
    critical = number(effect, "without augmentation,")
    for factor, lives in ((0.97, True), (1.03, False)):
        after = aligned(3.0, **settings | {"aug_strength": 0.0, "weight_decay": factor * critical, "steps": 30_000})
        assert (living(after) == 4) == lives


def test_no_start_is_spoken_of_where_the_layers_are_to_be_widened():
    settings = {"dim": 8, "aug_dim": 8, "depth": 2, "loss": "dot", "aug_strength": 0.99, "weight_decay": 2.0}
    action, effect = suggested(drawn(**settings, out_dim=1, seed=70, steps=100), "Lower")
    assert "widen the narrowest layer from 1 to 8 units" in action
    assert "this start" not in effect
