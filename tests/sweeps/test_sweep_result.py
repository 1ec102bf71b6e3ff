"""`dyncollapse.sweep` in Python: the command's table, its errors in one line, and pictures."""

import inspect
import json
import threading

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from threadpoolctl import threadpool_info

from dyncollapse import SettingError, Workers, sweep
from dyncollapse.commands.main import main
from dyncollapse.commands.pages.sweep import sweep as page
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.sweeps.options import WorkerOptions

SMALL = {"dim": 4, "runs": 1, "steps": 20, "dynamics": ("population",), "workers": 1}


@pytest.fixture(scope="module")
def result():
    return sweep(**SMALL, aug_strength=[0.5, 1.5, 3.0], depth=[1, 2])


def test_the_table_is_that_of_the_command(result, tmp_path):
    options = (
        "--dim 4 --runs 1 --steps 20 --dynamics population --aug-strength 0.5,1.5,3 --depth 1,2 --workers 1 --json"
    )
    printed = CliRunner().invoke(main, ["sweep", *options.split(), "--out", str(tmp_path / "grid")])
    theirs, mine = json.loads(printed.stdout), result.to_dict()
    assert set(theirs) == set(mine)
    for row in (*theirs["table"], *mine["table"]):
        row.pop("population_seconds")
    table = [{name: value for name, value in row.items() if value is not None} for row in mine["table"]]
    assert [{name: value for name, value in row.items() if value is not None} for row in theirs["table"]] == table
    assert (mine["folder"], mine["failures"]) == (None, [])


def test_names_and_defaults_are_those_of_the_command():
    known = {one.name: one for one in page.params}
    own = inspect.signature(sweep).parameters
    named = [name for name in own if name not in ("progress", "settings")]
    assert set(named) <= set(known)
    wanted = inspect.signature(WorkerOptions).parameters
    for name in wanted:
        assert own[name].default == wanted[name].default
    for name in set(known) - set(named) - {"dry_run", "as_json", "plot", "format", "help"}:
        assert name in inspect.signature(Configuration).parameters or name.startswith("as_")


def test_nothing_is_saved_unless_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert sweep(**SMALL, aug_strength=[0.5]).folder is None
    assert list(tmp_path.iterdir()) == []
    saved = sweep(**SMALL, aug_strength=[0.5], out="grid")
    assert (tmp_path / "grid" / "sweep.json").exists()
    assert sweep(**SMALL, aug_strength=[0.5, 1.0], out="grid").reports.keys() > saved.reports.keys()  # resumed


def test_progress_counts_points_and_this_process_keeps_its_threads():
    calls = []
    before = torch.get_num_threads(), threadpool_info()
    sweep(**SMALL, aug_strength=[0.5, 1.5], progress=lambda *call: calls.append(call))
    assert calls[-1] == ("points", 2, 2)
    assert before == (torch.get_num_threads(), threadpool_info())
    assert threading.active_count() == 1 or calls  # work is done at once, not in threads that stay


@pytest.mark.parametrize("values", [[0.5, 1.5], (0.5, 1.5), np.array([0.5, 1.5]), torch.tensor([0.5, 1.5])])
def test_values_come_as_lists_tuples_and_arrays(values):
    assert sweep(**SMALL, aug_strength=values).axes == {"aug_strength": [0.5, 1.5]}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"aug_strenght": [1.0]}, "there is no setting 'aug_strenght'"),
        ({"aug_strength": [1.0, -1.0]}, "aug_strength"),
        ({"aug_strength": []}, "no values"),
        ({"workers": 0}, "workers"),
        ({"workers": "two"}, "workers"),
        ({"executor": "cloud"}, "executor"),
        ({"slurm": "mem=1"}, "belongs to executor slurm"),
        ({"workers": Workers(lambda: None, 1), "executor": "dask"}, "give one of them"),
        ({"threads": [1, 2]}, "one value"),
        ({"device": "cuda:99"}, "device"),
    ],
)
def test_errors_are_one_line_before_anything_runs(settings, words):
    with pytest.raises(SettingError, match=words) as found:
        sweep(**SMALL | settings)
    assert "\n" not in str(found.value)


def test_points_that_fail_are_named_and_the_others_are_there():
    result = sweep(**SMALL | {"dynamics": ("sgd",), "lr": [0.1, 1e12], "weight_decay": 1.0})
    assert (len(result.reports), len(result.failures)) == (1, 1)
    assert "1 failed" in repr(result)
    assert "failed: " in result._repr_html_()
    assert len(result.to_pandas()) == 1


def test_pictures_take_axes_and_return_them(result):
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    assert result.plot_sweep(ax, depth=2) is ax
    assert ax.get_xlabel() == "aug-strength"
    assert len(ax.lines) >= 4
    ax = Figure().add_subplot()
    assert result.plot_spectrum(ax, over="depth", aug_strength=1.5) is ax
    assert [text.get_text() for text in ax.get_legend().texts] == ["depth 1", "depth 2"]
    assert len([one for one in result.figure("spectrum").axes if one.axison]) == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda result: result.plot_sweep(), "depth vary beside aug_strength"),
        (lambda result: result.plot_sweep(depth=7), "depth is 7; the points have"),
        (lambda result: result.plot_sweep(dim=4), "does not vary"),
        (lambda result: result.plot_spectrum(over="loss"), "over is 'loss'"),
        (lambda result: result.figure("paths"), "choose sweep or spectrum"),
    ],
)
def test_pictures_that_cannot_be_are_one_line(result, call, words):
    with pytest.raises(SettingError, match=words):
        call(result)


def test_one_setting_has_nothing_to_draw():
    with pytest.raises(SettingError, match="nothing to draw: no setting that varies"):
        sweep(**SMALL).plot_sweep()


def test_xarray_has_the_axes(result):
    data = result.to_xarray()
    assert dict(data.sizes) == {"aug_strength": 3, "depth": 2, "rank": 4}
