"""Figures vary: each script is a function and a command line with the same parameters, which refuse bad values."""

import inspect
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from helpers import forks
from helpers.pictures import faults
from matplotlib.figure import Figure

from dyncollapse import SettingError
from dyncollapse.runtime.records import settings_of
from dyncollapse.runtime.settings import option
from dyncollapse.simulation.configuration import Configuration

ROOT = Path(__file__).parent.parent
NAMES = sorted(
    path.stem for path in (ROOT / "figures").glob("*.py") if path.stem.startswith(("fig0", "fig1", "beyond_"))
)
SAME_NAME_OTHER_MEANING = {"aug_strength", "depth"}  # several values, where `simulate` takes one


@pytest.fixture(autouse=True)
def _beside_the_figures(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def drawing(name):
    return import_module(f"figures.{name}").draw


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_stated_once_with_help_and_range(name):
    draw = drawing(name)
    settings = settings_of(draw.parameters)
    assert settings
    assert set(draw.quick) <= set(settings)
    assert list(inspect.signature(draw).parameters) == ["quick", *settings]
    for one in settings.values():
        assert one.text.endswith((".", "!")), one.name
        assert one.range or one.choices or one.type not in (int, float, tuple) or one.part is str, one.name


@pytest.mark.parametrize("name", NAMES)
def test_names_are_those_of_simulate(name):
    known = settings_of(Configuration)
    for one in settings_of(drawing(name).parameters).values():
        if (same := known.get(one.name)) and one.name not in SAME_NAME_OTHER_MEANING:
            assert one.part is same.part, one.name


def test_a_figure_is_a_function():
    figure = drawing("fig06_singular_values")(dim=3, steps=30, flow_batches=2, aug_strength=0.1)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 4
    assert all(len(ax.lines) == 2 * 3 for ax in figure.axes)


# Small values, at which figures do not show what they assert.
ODD = {
    "fig03_strong_augmentation": {
        "aug_strength": (100.0,),
        "dim": 2,
        "steps": 20,
        "runs": 1,
        "flow_batches": 1,
        "lr": 1e-3,
    },
    "fig05_alignment": {"dim": 2, "steps": 20, "runs": 1, "time": 5.0},
    "fig06_singular_values": {"dim": 1, "steps": 1, "flow_batches": 1},
    "fig09_natural_images": {"temperature": 0.5},
    "fig11_depth": {"depth": tuple(range(1, 9)), "dim": 2, "steps": 20, "runs": 1, "pool": 0, "aug_strength": 2.0},
    "beyond_augmentations": {"images": 100, "step": 0.45},
    "beyond_byol": {"points": 2, "shares": (0.9,), "time": 5.0},
    "beyond_diagnostics": {"samples": 256},
    "beyond_escape": {"rho": (0.3,), "time": 10.0, "points": 2, "batch_size": 8},
    "beyond_limits": {"runs": 64, "pairs": 4096, "largest": 32},
    "beyond_losses": {"runs": 2, "coarse": 4},
    "beyond_order": {"lr": (0.5, 0.25), "depth": (1,), "dim": 2, "runs": 1, "time": 1.0},
    "beyond_order_of_rows": {"colours": "epochs"},
    "beyond_phase_diagram": {"points": 3, "time": 10.0, "runs": 1, "batch_size": 8},
    "beyond_pixels": {"directions": 8, "fewest": 2, "steps": 100, "batch_size": 16},
    "beyond_projector": {"runs": 2, "time": 25.0, "batch_size": 16, "lr": 0.2},
    "beyond_theorem2": {"dim": 2, "runs": 1, "time": 50.0},
    "beyond_weight_decay": {"step": 0.5, "points": 2, "coarse": 4, "runs": 2},
}
LONG_WHATEVER_THE_VALUES = {"fig07_projectors", "beyond_scaling"}  # they train encoders, and measure times


@pytest.mark.parametrize(
    ("name", "seed"), [("fig05_alignment", 2), ("fig06_singular_values", 2), ("beyond_theorem2", 1)]
)
def test_what_is_asserted_is_not_a_matter_of_the_seed(name, seed):
    result = drawing(name).result(quick=True, seed=seed)  # in fig05 a dimension waits in three of five runs
    assert not result.missed
    assert ("a dimension still waits" in result.caption) == (name == "fig05_alignment")


def test_odd_values_are_tried_of_every_figure():
    assert set(ODD) | LONG_WHATEVER_THE_VALUES == set(NAMES)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.slow
def test_odd_values_are_drawn_and_can_be_read(name):
    result = drawing(name).result(quick=True, **ODD[name])
    assert faults(result.figure) == []
    assert result.text.count("\n- ") == len(result.missed)
    assert not re.search(r"\[\[|\]\]|\{|\}", result.text)


def test_captions_follow_the_values():
    result = drawing("fig06_singular_values").result(dim=3, steps=30, flow_batches=2, seed=7)
    assert "d = 3" in result.text
    assert "seed 7" in result.text
    assert "Varied: --dim 3 --steps 30 --flow-batches 2 --seed 7." in result.text
    assert result.missed  # three dimensions are fewer than the four that have to grow
    assert all(f"- {line}" in result.text for line in result.missed)


def test_conclusions_are_left_out_where_claims_do_not_hold():
    caption = "Drawn: 3. [[All grow\nwith k.]] Seed 0.\n[[So it is.]] Time 1."
    result = import_module("figures.figure").Result(Figure(), [{"a": 1}], caption, "all grow")
    assert result.text == "Drawn: 3. All grow\nwith k. Seed 0.\nSo it is. Time 1.\nAsserted: all grow\n"
    varied = replace(result, changed="--k 1")
    assert varied.text.startswith("Drawn: 3. All grow\nwith k. Seed 0.\nSo it is. Time 1.\nVaried: --k 1.")
    missed = replace(varied, missed=("one shrinks",))
    assert missed.text.startswith("Drawn: 3. Seed 0.\nTime 1.\nVaried: --k 1.")
    assert missed.text.endswith("Here it does not hold:\n- one shrinks\n")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dim": 0}, "dim is 0; it must be between 1 and 256 dimensions"),
        ({"dims": 8}, "there is no setting 'dims'"),
        ({"aug_strength": (0.0, -1.0)}, "aug_strength is -1.0; it must be between 0 and 100"),
        ({"aug_strength": ()}, "aug_strength is empty"),
        ({"aug_strength": ("much",)}, "aug_strength is 'much'; it takes numbers"),
    ],
)
def test_bad_values_are_refused_in_one_line(given, said):
    with pytest.raises(SettingError) as refused:
        drawing("fig03_strong_augmentation")(**given)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "words",
    [
        ("--k", "0,-1"),
        ("--k", "0,a"),
        ("--k", ""),
        ("--k",),
        ("--dims", "3"),
        ("--dim", "3.5"),
        ("--dim", "8", "--aug-dim", "8"),
        ("--format", "gif"),
        ("surplus",),
    ],
)
def test_bad_options_give_one_line_and_exit_2(words):
    result = forks.run([str(ROOT / "figures" / "fig03_strong_augmentation.py"), *words])
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1


def test_help_explains_every_parameter():
    result = forks.run([str(ROOT / "figures" / "fig03_strong_augmentation.py"), "--help"])
    shown = " ".join(result.stdout.split())
    for one in settings_of(drawing("fig03_strong_augmentation").parameters).values():
        assert option(one.name) in shown
        assert one.text.replace("`aug_dim`", "--aug-dim").replace("`dim`", "--dim") in shown


def test_figures_import_as_modules_without_a_command_line():
    code = "from figures.fig11_depth import draw; print(callable(draw), draw.__doc__[:4])"
    result = forks.run(["-c", code], cwd=ROOT)
    assert result.stdout == "True Draw\n", result.stderr
