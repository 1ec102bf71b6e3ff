"""Sweeps whose points name files of covariances, which are moved, changed and read from elsewhere."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.programs import refused

import dyncollapse
from dyncollapse import SettingError, Sweep, Workers, expand_grid
from dyncollapse.commands.main import main
from dyncollapse.simulation.task import task_of
from dyncollapse.sweeps.points import read_point

HERE = Workers(lambda: ThreadPoolExecutor(1), 1)
SMALL = {"dim": 4, "batch_size": 8, "pool": 0, "steps": 20, "runs": 1, "dynamics": ("sgd",)}


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with two covariances, in which the process works."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for number in (1, 2):
        np.save(f"c{number}.npy", number * np.eye(4))
    return folder


def sweep_of(*files, folder="grid", **given):
    return Sweep(folder, expand_grid({**SMALL, "data_cov": list(files), **given}))


def run(*files, **given):
    """Run points with these files of data covariances; return the sweep and what was told."""
    told, sweep = [], sweep_of(*files, **given)
    assert sweep.run(HERE, tell=told.append) == {}
    return sweep, told


def written(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("run.json")}


def test_results_are_read_from_any_folder_after_their_files_have_gone(work, tmp_path, monkeypatch):
    made, _ = run("c1.npy", "c2.npy")
    rows = made.table()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert Sweep.open("../work/grid").table() == rows
    for number in (1, 2):
        (work / f"c{number}.npy").unlink()
    found = Sweep.open(work / "grid")
    assert found.table() == rows
    assert found.points == made.points
    table = CliRunner().invoke(main, ["collect", str(work / "grid")])
    assert (len(table.stdout.splitlines()), table.stderr) == (3, "")


def test_a_moved_file_gives_the_point_that_is_finished(work):
    run("c1.npy", "c2.npy")
    before = written(work)
    (work / "c2.npy").rename("c3.npy")
    again, told = run("c1.npy", "c3.npy")
    assert (len(again.table()), told, written(work)) == (2, [], before)
    assert Sweep.open("grid").axes == {"data_cov": ["c1.npy", "c3.npy"]}


def test_a_folder_is_continued_from_elsewhere(work, tmp_path, monkeypatch):
    run("c1.npy", "c2.npy")
    before = written(work)
    monkeypatch.chdir(tmp_path)
    again, told = run("work/c1.npy", "work/c2.npy", folder="work/grid")
    assert (len(again.table()), told, written(work)) == (2, [], before)
    assert len(Sweep.open("work/grid").points) == 2


@pytest.mark.usefixtures("work")
def test_results_of_a_file_that_changed_stay_beside_the_new_ones():
    first, _ = run("c1.npy")
    np.save("c1.npy", 3 * np.eye(4))
    second, told = run("c1.npy")
    assert told == ["'c1.npy' changed since 1 point of the same settings; earlier results stay beside the new ones"]
    assert run("c1.npy")[1] == []
    both = Sweep.open("grid")
    assert list(both.points) == [*first.points, *second.points]
    assert both.table() == [*first.table(), *second.table()]
    assert len({row["sgd_loss"] for row in both.table()}) == 2


@pytest.mark.parametrize("gone", [False, True])
def test_no_result_bears_the_name_of_another_content(work, gone):
    planned = sweep_of("c1.npy", "c2.npy")
    np.save("c1.npy", 3 * np.eye(4))
    if gone:
        (work / "c1.npy").unlink()
    failures = planned.run(HERE)
    assert list(failures) == list(planned.points)[:1]
    (text,) = failures.values()
    assert text.startswith("--data-cov 'c1.npy' ")
    assert (
        "cannot be read: No such file" if gone else "--data-cov 'c1.npy' changed since this point was planned"
    ) in text
    assert len(planned.table()) == 1
    assert Sweep.open("grid").run(HERE) == failures  # also as part of the whole folder
    if not gone:
        run("c1.npy")
        assert Sweep.open("grid").run(HERE) == failures  # beside a point of the same settings


def test_a_report_of_other_settings_in_a_points_place_is_broken(work):
    made, _ = run("c1.npy", seed=[0, 1])
    first, second = made.points
    folder = work / "grid/points"
    (folder / first / "run.json").write_text((folder / second / "run.json").read_text())
    with pytest.raises(ValueError, match=r"\(its seed is 1, and that of this point 0\)"):
        read_point(folder / first, made.points[first])
    values = json.loads((folder / second / "run.json").read_text())
    values["config"]["data_cov"] = None
    (folder / second / "run.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"its data_cov is None, and that of this point 'c1\.npy'"):
        read_point(folder / second, made.points[second])


@pytest.mark.parametrize("name", ["../../elsewhere", "", "0123", "0123456789ABCDEF", "0123456789abcdef\n", None, 5])
def test_a_recorded_name_is_a_points_name_or_refused(work, name):
    run("c1.npy")
    plan = json.loads((work / "grid/sweep.json").read_text())
    plan["points"][0]["point"] = name
    (work / "grid/sweep.json").write_text(json.dumps(plan))
    assert "grid/sweep.json cannot be read (" in refused(CliRunner().invoke(main, ["collect", "grid"]))


def test_a_correlation_is_a_number_also_beside_a_file_of_its_name(work):
    given = {"views": "correlated", "view_corr": "0.5"}
    (name,) = sweep_of("c1.npy", **given).points
    np.save("0.5.npy", np.eye(4))
    (work / "0.5.npy").rename("0.5")
    assert list(sweep_of("c1.npy", **given).points) == [name]


UNSOUND = {
    "size": lambda: np.save("bad.npy", np.eye(3)),
    "NaN": lambda: np.save("bad.npy", np.full((4, 4), np.nan)),
    "negative": lambda: np.save("bad.npy", -np.eye(4)),
    "text": lambda: Path("bad.npy").write_text("1 0\n0 1\n"),
    "missing": lambda: None,
    "folder": lambda: Path("bad.npy").mkdir(),
}


@pytest.mark.parametrize("make", UNSOUND.values(), ids=UNSOUND)
@pytest.mark.parametrize("name", ["--data-cov", "--aug-cov", "--view-corr"])
def test_an_unsound_file_is_refused_before_anything_is_written(make, name, work):
    make()
    given = ["--views", "correlated", name, "0.5,bad.npy"] if name == "--view-corr" else [name, "c1.npy,bad.npy"]
    # The line of a matrix that is no covariance names the matrix, all others the option and its file.
    words = ["dyncollapse: "] if make is UNSOUND["negative"] else [f"{name} ", "bad.npy"]
    for more in ([], ["--dry-run"], ["--json"]):
        line = refused(CliRunner().invoke(main, ["sweep", "--dim", "4", *given, "--out", "grid", *more]))
        assert all(word in line for word in words)
        assert not (work / "grid").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data-cov", "a,b.npy"], "--data-cov 'a' cannot be read: No such file or directory"),
        (["--views", "correlated", "--view-corr", "0.5,1.5"], "--view-corr is 1.5; a correlation must be between -1"),
        (["--views", "correlated", "--view-corr", "c1.npy", "--aug-strength", "2,0.5"], "A - C of aug_cov A and noise"),
    ],
)
def test_matrices_that_do_not_fit_are_refused_before_anything_is_written(options, words, work):
    np.save("a,b.npy", np.eye(4))
    line = refused(CliRunner().invoke(main, ["sweep", "--dim", "4", "--aug-dim", "4", *options, "--out", "grid"]))
    assert words in line
    assert not (work / "grid").exists()


def test_python_refuses_unsound_files_as_well(work):
    with pytest.raises(SettingError, match=r"data_cov 'c3\.npy' cannot be read: No such file"):
        dyncollapse.sweep(out="grid", **{**SMALL, "data_cov": ["c1.npy", "c3.npy"]})
    assert not (work / "grid").exists()


@pytest.mark.usefixtures("work")
def test_each_combination_of_files_is_opened_once(monkeypatch):
    opened = []
    monkeypatch.setattr("dyncollapse.sweeps.matrices.task_of", lambda c: opened.append(c) or task_of(c))
    sweep_of("c1.npy", "c2.npy", seed=list(range(20)), aug_strength=[0.5, 1.0], dtype=["float32", "float64"])
    assert len(opened) == 4
    Sweep("grid", expand_grid({**SMALL, "seed": [0, 1]}))
    assert len(opened) == 4
