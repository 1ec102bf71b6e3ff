import math

import pytest
from helpers.hostile_values import ESCAPES, shown_safely

from dyncollapse.runtime.settings import SettingError, option
from dyncollapse.simulation.command import as_options
from dyncollapse.simulation.configuration import Configuration, setting_names
from dyncollapse.simulation.presets import resolve
from dyncollapse.sweeps.grid import MOST_POINTS, axes_of, expand_grid, parse_values, point_hash
from dyncollapse.sweeps.points import as_configuration


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("depth", "1,2,3", [1, 2, 3]),
        ("depth", " 3 , 1 ", [3, 1]),
        ("depth", "1:7:4", [1, 3, 5, 7]),
        ("dim", "16:256:5:log", [16, 32, 64, 128, 256]),
        ("seed", "9223372036854775807", [2**63 - 1]),
        ("aug_strength", "0.1:3:30", [i / 10 for i in range(1, 31)]),
        ("aug_strength", "3:1:3", [3.0, 2.0, 1.0]),
        ("aug_strength", "0.1,1:3:5", [0.1, 1.0, 1.5, 2.0, 2.5, 3.0]),
        ("aug_strength", "1,0:2:3,1.0", [1.0, 0.0, 2.0]),
        ("lr", "1e-4:1:5:log", [1e-4, 1e-3, 1e-2, 0.1, 1.0]),
        ("loss", "infonce,dot,infonce", ["infonce", "dot"]),
    ],
)
def test_text_becomes_values_as_typed(name, text, values):
    assert parse_values(name, text) == values


def test_types_are_those_of_the_setting():
    assert [type(value) for value in parse_values("aug_strength", "1,2:3:2")] == [float] * 3
    assert [type(value) for value in parse_values("depth", "1.0,2:3:2")] == [int] * 3


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("depth", "1:2:3", "gives 1.5; depth takes whole numbers"),
        ("depth", "1.5", "takes whole numbers"),
        ("dim", "2:5:3:log", "takes whole numbers"),
        ("depth", "1,,2", "empty value"),
        ("depth", "", "empty value"),
        ("depth", "two", "is 'two', which is not a number"),
        ("aug_strength", "nan", "finite"),
        ("aug_strength", "0:inf:3", "finite"),
        ("aug_strength", "1e999999999", "finite"),
        ("aug_strength", "1e-999999999", "finite"),
        ("aug_strength", "1:2", "first:last:count"),
        ("aug_strength", "1:2:3:lin", "first:last:count"),
        ("aug_strength", "1:2:3:log:4", "first:last:count"),
        ("aug_strength", "1:2:1", "from 2 to"),
        ("aug_strength", "1:2:2.5", "whole"),
        ("aug_strength", "1:2:1e9", "from 2 to 200000"),
        ("aug_strength", "0:2:3:log", "above 0"),
        ("aug_strength", "1::3", "not a number"),
    ],
)
def test_text_that_is_no_list_is_reported_in_one_line(name, text, words):
    with pytest.raises(ValueError, match=words) as caught:
        parse_values(name, text)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(name)


def test_grid_has_every_combination_once():
    points = expand_grid({"aug_strength": [0.5, 1, 1.0], "depth": range(1, 4), "runs": 2, "bias": [1, True]})
    assert [(c.aug_strength, c.depth, c.runs) for c in points] == [(k, d, 2) for k in (0.5, 1.0) for d in (1, 2, 3)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"depht": [1]}, "there is no setting 'depht'"),
        ({"depth": []}, "depth has no values"),
        ({"depth": [1.5]}, "takes whole numbers"),
        ({"lr": ["fast"]}, "takes numbers"),
        ({"seed": None}, "seed is None; it takes whole numbers"),
        ({"bias": 2}, "bias is 2; it takes True or False"),
        ({"seed": range(2000), "steps": range(1, 1000)}, f"and at most {MOST_POINTS} are allowed"),
        ({"dim": [2, 8], "aug_dim": [1, 4]}, r"aug_dim is 4; .* \(in dim 2, aug_dim 4\)"),
        ({"dim": 2, "aug_dim": 4}, r"between 0 and dim 2$"),
    ],
)
def test_unusable_grids_are_reported_in_one_line(given, words):
    with pytest.raises(ValueError, match=words) as caught:
        expand_grid(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["dim", "lr", "loss", "dynamics", "case", "preset", "bias"])
def test_values_that_no_setting_takes_are_reported_shortly(name):
    for value in (10**5000, -(10**5000), "x" * 10**6, ESCAPES, [1], {}, b"x", ("sgd",) * 10**5, math.nan):
        with pytest.raises(SettingError) as caught:
            expand_grid({"preset": "authors-code"} | {name: [value, value]})
        assert len(str(caught.value)) < 700
        assert shown_safely(str(caught.value))
        assert "\n" not in str(caught.value)


def test_points_of_earlier_versions_lack_later_settings():
    for given in ({}, {"loss": "dot"}):
        values = resolve(given).as_dict()
        del values["invariance"]
        assert as_configuration(values) == resolve(given)


def test_name_of_a_point_is_that_of_its_settings():
    c = resolve({"aug_strength": 1.5})
    assert point_hash(c) == point_hash(Configuration()) == "23356547c4315463"  # results on disk are found by it
    assert point_hash(resolve({"aug_strength": 1})) == point_hash(resolve({"aug_strength": 1.0}))
    assert point_hash(resolve({"threads": 2, "out": "here"})) == point_hash(c)
    assert [point_hash(p) for p in expand_grid({"bias": 1, "temperature": None})] == [
        point_hash(resolve({"bias": True}))
    ]
    others = [{"seed": 1}, {"dtype": "float32"}, {"dynamics": ("sgd",)}, {"bias": True}, {"aug_strength": 1.5000001}]
    others += [{"loss": "vcreg"}, {"loss": "vcreg", "invariance": 2.0}, {"loss": "vicreg"}]
    assert len({point_hash(resolve(given)) for given in [{}, *others]}) == 9


def test_axes_are_what_varies_on_its_own():
    assert axes_of(expand_grid({"runs": 3})) == {}
    implied = {"dim": [8, 4], "loss": ["dot", "infonce"], "init": ["gaussian", "spectrum"]}
    assert axes_of(expand_grid(implied)) == {
        "dim": [4, 8],
        "loss": ["dot", "infonce"],
        "init": ["gaussian", "spectrum"],
    }
    assert axes_of(expand_grid({"dim": [8, 4], "aug_dim": [1, 2]})) == {"dim": [4, 8], "aug_dim": [1, 2]}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"dim": 32, "aug_dim": 8},
        {"dim": 8},
        {"loss": "ntxent", "bias": True, "aug_strength": 1 / 3},
        {"loss": "vcreg", "invariance": 0.25},
        {"preset": "authors-code", "case": 2, "dim": 8},
        {"init": "spectrum", "init_rate": 0.2, "dynamics": ("sgd", "population")},
    ],
)
def test_options_of_a_point_resolve_to_it(given):
    words = iter(as_options(resolve(given)).split())
    known = {option(name) for name in setting_names()} | {"--no-bias"}
    again = {}
    for word in words:
        assert word in known
        name = word[2:].replace("-", "_")
        if name == "bias":
            again[name] = True
        elif name == "dynamics":
            again[name] = tuple(next(words).split(","))
        else:
            (again[name],) = parse_values(name, next(words))
    assert resolve(again) == resolve(given)
