"""Sliders of the page make configurations, and the command line that it shows makes the same ones."""

import shlex
from dataclasses import replace

import pytest
from click.testing import CliRunner

from dyncollapse.commands.main import main
from dyncollapse.explore.controls import CHOICES, CONTROLS, START, command, configuration_of, needed
from dyncollapse.explore.running import flow_of
from dyncollapse.runtime.settings import SettingError
from dyncollapse.simulation.presets import resolve
from dyncollapse.sweeps.grid import expand_grid

SETTINGS = [
    {},
    {"aug_strength": 0.85, "depth": 3, "weight_decay": 0.01, "seed": 3},
    {"dim": 10, "aug_dim": 7, "out_dim": 4, "hidden_dim": 6, "depth": 2, "init_scale": 0.3},
    {"loss": "dot", "views": "two-sided", "temperature": 0.2, "init": "spectrum", "init_rate": 0.2, "init_scale": 1.0},
    {"loss": "vcreg", "invariance": 2.0, "views": "correlated", "view_corr": -0.5},
    {"loss": "ntxent", "views": "two-sided", "init_scale": 1.0, "batch_size": 32},
    {"loss": "byol", "views": "two-sided", "lr": 0.05, "steps": 1000, "runs": 3},
]


@pytest.mark.parametrize("values", SETTINGS)
@pytest.mark.parametrize("with_sgd", [False, True])
def test_the_command_gives_exactly_this_configuration(values, with_sgd, monkeypatch):
    made = configuration_of(values)
    given = {}
    monkeypatch.setattr("dyncollapse.commands.simulate.simulate", lambda **settings: given.update(settings))
    program, *words = shlex.split(command(made, with_sgd=with_sgd))
    assert program == "dyncollapse"
    assert CliRunner().invoke(main, words).exit_code == 0
    settings = {name: value for name, value in given.items() if value is not None and hasattr(made, name)}
    assert resolve(settings | {"out": None}) == replace(made, dynamics=(*(("sgd",) * with_sgd), *made.dynamics))


@pytest.mark.parametrize("name", CONTROLS)
def test_every_value_of_a_slider_is_allowed(name):
    values = CONTROLS[name].values
    assert list(values) == sorted(set(values))
    others = {
        "view_corr": {"views": "correlated"},
        "temperature": {"loss": "dot", "views": "two-sided"},
        "invariance": {"loss": "vcreg"},
        "init_rate": {"init": "spectrum"},
    }
    for value in (values[0], values[-1]):
        made = configuration_of({**others.get(name, {}), name: value})
        assert getattr(made, name) == (f"{value:g}" if name == "view_corr" else value)


def test_sliders_start_at_the_defaults_of_the_command():
    (standard,) = expand_grid({})
    assert {name: START[name] for name in CONTROLS if name != "runs"} == {
        name: getattr(standard, name) for name in CONTROLS if name != "runs"
    }
    assert all(START[name] in CONTROLS[name].values for name in CONTROLS if START[name] is not None)


@pytest.mark.parametrize("loss", CHOICES["loss"])
def test_every_loss_has_a_flow_that_it_is_allowed(loss):
    values = {"loss": loss, "views": "two-sided", "temperature": 0.5, "invariance": 2.0}
    made = configuration_of(values)
    assert made.dynamics == (flow_of(loss),)
    has = needed(loss, "two-sided", 1, "gaussian")
    assert (made.temperature == 0.5) is ("temperature" in has)
    assert (made.invariance == 2.0) is ("invariance" in has)


def test_what_contradicts_is_refused_in_one_line():
    with pytest.raises(SettingError, match="views"):
        configuration_of({"loss": "ntxent", "views": "one-sided"})
