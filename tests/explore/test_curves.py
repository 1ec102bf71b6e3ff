"""What the page shows equals the closed forms of `dyncollapse.theory`, and the flows of `simulate`."""

import math
import re

import pytest
import torch

from dyncollapse import (
    GaussianTask,
    collapse_threshold,
    escape_time,
    growth_rates,
    mode_forces,
    rest_singular_values,
    simulate,
)
from dyncollapse.explore.controls import CONTROLS, configuration_of
from dyncollapse.explore.curves import moments, phases, view_of
from dyncollapse.explore.running import record
from dyncollapse.explore.texts import caveats, summary, table
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.report import report

SETTINGS = [
    {"dim": 6, "aug_strength": 0.8},
    {"dim": 6, "aug_strength": 2.0, "depth": 2, "init_scale": 0.3},
    {
        "dim": 4,
        "aug_dim": 4,
        "loss": "spectral",
        "views": "two-sided",
        "aug_strength": 0.4,
        "depth": 3,
        "init_scale": 0.3,
    },
    {"dim": 4, "loss": "dot", "views": "two-sided", "temperature": 0.2, "lr": 0.01},
    {"dim": 4, "loss": "vcreg", "invariance": 2.0, "weight_decay": 0.05},
    {"dim": 4, "loss": "barlow", "views": "two-sided"},
]


def task_of(c: Configuration) -> GaussianTask:
    return GaussianTask.block(c.dim, c.aug_dim, c.aug_strength, c.data_var, c.views)


@pytest.mark.parametrize("values", SETTINGS)
def test_the_numbers_of_modes_are_the_closed_forms(values):
    c = configuration_of(values)
    view, task = view_of(c), task_of(c)
    rows = view.rows(moments(c.lr, c.steps)[-1])
    loss = {"loss": c.loss, "temperature": c.temperature, "invariance": c.invariance}
    rest = rest_singular_values(task, **loss, weight_decay=c.weight_decay, depth=c.depth).tolist()
    shown = [math.inf if row["rest_singular_value"] is None else row["rest_singular_value"] for row in rows]
    assert shown == pytest.approx(rest)
    assert [row["rho"] for row in rows] == pytest.approx([0.0] * (c.dim - c.aug_dim) + [rows[-1]["rho"]] * c.aug_dim)
    assert view.prediction["threshold"] == collapse_threshold(
        c.data_var, c.views, c.loss, invariance=c.invariance, weight_decay=c.weight_decay
    )
    if not c.weight_decay:
        x0 = growth_rates(task, **loss).tolist()
        scale = [1 / math.sqrt(s) for s in mode_forces(task, **loss).view_var.tolist()]
        if c.loss == "infonce":
            scale = [1 / math.sqrt(c.data_var)] * c.dim
        wanted = [
            escape_time(row["start"], min(p, s), x, c.depth) for row, p, x, s in zip(rows, rest, x0, scale, strict=True)
        ]
        assert [math.inf if row["escape_time"] is None else row["escape_time"] for row in rows] == pytest.approx(wanted)


@pytest.mark.parametrize("values", SETTINGS)
def test_curves_start_at_the_start_and_end_at_rest(values):
    c = configuration_of({**values, "steps": 30_000})
    view = view_of(c)
    path = view.closed
    assert torch.allclose(path.values[0], view.start)
    assert float(path.time[0]) == 0
    assert set(view.times.tolist()) <= set(path.time.tolist())
    for k, mode in enumerate(view.prediction["modes"]):
        rest, escape = mode["rest_singular_value"], mode["escape_time"]
        if rest and escape is not None and escape < 0.1 * float(path.time[-1]):
            assert float(path.values[-1, k]) == pytest.approx(rest, rel=1e-6)
        if rest == 0:
            assert float(path.values[-1, k]) < float(view.start[k])


@pytest.mark.parametrize("name", ["sgd", "population"])
@pytest.mark.parametrize(
    "values", [SETTINGS[0], SETTINGS[1] | {"runs": 2}, {"dim": 4, "loss": "byol", "views": "two-sided"}]
)
def test_records_are_those_of_the_command(values, name):
    c = configuration_of({**values, "steps": 300, "batch_size": 16})
    view = view_of(c)
    view = type(view)(view.simulation, {name: record(c, name)})
    settings = {key: value for key, value in c.as_dict().items() if value is not None}
    result = simulate(**settings | {"dynamics": ("sgd", "population")})
    time = moments(c.lr, c.steps)[-1]
    wanted = result.to_dict()["dynamics"][name]["product_singular_values"]
    found = view.recorded(name)
    assert sorted(found.values[-1].tolist(), reverse=True) == pytest.approx(wanted)
    assert [row[name] for row in view.rows(time)] == pytest.approx(found.values[-1].tolist())
    alone = Outcome(result.outcome.simulation, {name: result.trajectories[name]})
    assert view.outcome.verdict.sentence == alone.verdict.sentence
    assert report(alone)["verdict"]["sentence"] in summary(view)[-1]
    assert torch.equal(found.time, view.times)


@pytest.mark.parametrize("values", SETTINGS)
def test_the_phase_diagram_is_that_of_single_modes(values):
    c = configuration_of(values)
    view = view_of(c)
    found = phases(view)
    assert float(found.strengths[-1]) == CONTROLS["aug_strength"].values[-1]
    for place in (0, 7, -1):
        k = float(found.strengths[place])
        one = GaussianTask.block(1, 1, k, c.data_var, c.views)
        forces = mode_forces(one, c.loss, c.temperature, c.invariance)
        dying = float(forces.rest_variance(c.weight_decay, c.depth)[0]) == 0
        assert math.isinf(float(found.escapes[place])) is dying
        assert bool(found.sizes[-1, place] < found.start) is dying or float(found.escapes[place]) == 0
        if not dying:  # at its escape it has grown to about the size at which it saturates, or is there at the start
            assert float(found.sizes[-1, place]) ** 2 * float(forces.view_var) > 0.2 * min(
                1.0, float(forces.rest_variance(c.weight_decay, c.depth)[0])
            )
    mode = next(one for one in view.prediction["modes"] if one["aug_var"])
    nearest = int((found.strengths - c.aug_strength).abs().argmin())
    assert (mode["escape_time"] is None) is math.isinf(float(found.escapes[nearest]))
    assert found.threshold == view.prediction["threshold"]


def test_correlated_views_move_the_phase_diagram():
    c = configuration_of({"dim": 4, "views": "correlated", "view_corr": -1.0})
    found = phases(view_of(c))
    dead = found.escapes.isinf()
    assert bool(dead.any())
    assert not bool(dead[0])
    assert phases(view_of(configuration_of({"dim": 4, "aug_dim": 0}))) is None


def test_correlated_views_have_their_threshold():
    values = {"dim": 4, "views": "correlated", "view_corr": -0.5, "aug_strength": 2.0}
    view = view_of(configuration_of(values))
    found = phases(view)
    assert found.threshold == view.prediction["threshold"] == 1.0  # s + c k = 0
    assert torch.equal(found.escapes.isinf(), found.strengths >= 1.0)
    assert summary(view)[0] == "Threshold: augmented modes die from k = 1 on. Here k = 2."


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"loss": "spectral", "views": "two-sided"}, "none: in closed form, modes survive any augmentation variance"),
        ({"views": "correlated", "view_corr": 0.5}, "none: in closed form, modes survive any augmentation variance"),
        ({"depth": 2, "weight_decay": 0.01}, "not computed for these settings"),
        ({"loss": "byol", "views": "two-sided"}, "not computed for these settings"),
        ({"loss": "vicreg"}, "not computed for these settings"),
    ],
)
def test_a_threshold_is_denied_only_where_there_is_none(values, said):
    assert summary(view_of(configuration_of(values)))[0] == f"Threshold: {said}."


@pytest.mark.parametrize(
    "values",
    [
        {"dim": 4, "out_dim": 1},
        {"dim": 2, "out_dim": 1, "runs": 8},  # each mode is without an output in some run
        {"dim": 4, "out_dim": 1, "loss": "simsiam", "views": "two-sided"},
    ],
)
def test_narrow_networks_have_a_phase_diagram(values):
    # Not every start leaves the augmented modes without an output.
    views = [view_of(configuration_of({**values, "seed": seed})) for seed in range(8)]
    assert any(bool((view.start[view.simulation.task.aug_cov.diagonal() > 0] == 0).all()) for view in views)
    for view in views:
        found = phases(view)
        lowest, highest = (float(one) for one in view.simulation.weights[0].aminmax())
        assert 0 < found.start <= 2 * max(-lowest, highest)
        assert not bool(found.escapes.isnan().any())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, ["infinite batch", "aligned layers near zero", "start from what faster modes leave of each mode in P(0)"]),
        ({"depth": 2}, ["balanced and aligned"]),
        ({"depth": 2, "weight_decay": 0.01}, ["zero is stable, too"]),
        ({"out_dim": 5}, ["The network is only 5 wide"]),
        ({"loss": "ntxent", "views": "two-sided"}, ["No closed forms: ntxent has no population limit in closed form"]),
        ({"loss": "vicreg"}, ["No closed forms: vicreg"]),
        ({"loss": "byol", "views": "two-sided"}, ["paths between them are not", "byol takes longer"]),
        ({"aug_strength": 1.0}, ["8 of 16 have rho = 1"]),
    ],
)
def test_what_does_not_hold_is_said(values, said):
    found = caveats(view_of(configuration_of(values)))
    assert all(any(one in line for line in found) for one in said)
    assert ("No closed forms" in found[0]) is not any("Closed forms assume" in line for line in found)
    plain = caveats(view_of(configuration_of({})))
    assert all(line not in plain for line in found if any(one in line for one in said)) or not values


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dim": 2, "aug_dim": 1, "aug_strength": 2.0}, r"1 mode escapes at t = \S+ \(step \S+\), in closed form\."),
        ({"dim": 3, "aug_dim": 1, "aug_strength": 2.0}, r"2 modes escape between t = .+ and t = .+, in closed form\."),
    ],
)
def test_one_mode_escapes_at_a_time_and_several_between_two(values, said):
    lines = summary(view_of(configuration_of(values)))
    assert any(re.fullmatch(said, line) for line in lines), lines


def test_the_population_limit_is_spoken_of_where_its_flow_is():
    c = configuration_of({"dim": 4, "batch_size": 8, "steps": 300})
    view = view_of(c)
    assert not any("Population limit" in line for line in caveats(view))
    with_flow = type(view)(view.simulation, {"population": record(c, "population")})
    (line,) = [line for line in caveats(with_flow) if "Population limit" in line]
    assert "N = 8" in line
    assert "<" not in "".join(summary(with_flow))
    assert 'data-column="population"' in table(with_flow, 30.0)
    assert table(with_flow, 30.0).count("alive") == table(with_flow, 30.0).count("dead") == 2
