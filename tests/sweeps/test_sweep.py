import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from helpers import forks
from helpers.waiting import eventually
from threadpoolctl import threadpool_info, threadpool_limits

from dyncollapse import Sweep, Trajectory, Workers, dask_workers, expand_grid, local_workers, slurm_workers
from dyncollapse.dynamics.training import train
from dyncollapse.simulation.build import build
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.run import run
from dyncollapse.sweeps.points import Point, read_point, run_pack, save_point
from dyncollapse.sweeps.tables import as_dataset, columns_of, to_frame, write_csv, write_table

SMALL = {"dim": 4, "aug_dim": 2, "batch_size": 8, "pool": 32, "steps": 20, "runs": 2, "dynamics": ("sgd",)}
HERE = Workers(lambda: ThreadPoolExecutor(1), 1)  # this process: quick, and open to what a test injects


def sweep(folder, **given):
    return Sweep(folder, expand_grid({**SMALL, "aug_strength": [0.5, 1.5, 3.0], **given}))


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def names(folder):
    return names_in(folder / "points")


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize("threads", [1, 2])
def test_workers_multiply_matrices_on_no_more_threads_than_they_have(tmp_path, threads):
    with threadpool_limits(3, "blas"):
        run_pack([Point.of(resolve({**SMALL, "dynamics": ("population",), "threads": threads}))], tmp_path)
        assert blas_threads() == {threads}


def test_points_are_saved_as_simulate_saves_them(tmp_path):
    done = []
    found = sweep(tmp_path, dynamics=("sgd", "flow"), flow_batches=2)
    assert found.run(HERE, most_runs=6, progress=lambda *counts: done.append(counts)) == {}
    assert done == [(0, 3), (3, 3)]
    assert names(tmp_path) == set(found.points)
    for name, c in found.points.items():
        folder = tmp_path / "points" / name
        assert {path.name for path in folder.iterdir()} == {"run.json", "sgd.npz", "flow.npz"}
        alone = run(build(c), lambda *_: None, lambda _: None).trajectories
        for dynamics, path in alone.items():
            saved = Trajectory.load(folder / f"{dynamics}.npz")
            assert torch.allclose(saved.weights[0], path.weights[0], rtol=1e-12, atol=1e-14)
    assert {name for name in os.listdir(tmp_path) if not name.startswith(".")} == {
        "points",
        "sweep.json",
        "failures.json",
    }


def test_finished_points_are_not_run_again_and_another_grid_is_added(tmp_path):
    sweep(tmp_path).run(HERE)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("run.json")}
    wider = sweep(tmp_path, aug_strength=[3.0, 4.0], seed=[0, 1])
    done = []
    wider.run(HERE, progress=lambda *counts: done.append(counts))
    assert done[0] == (1, 4)
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    everything = Sweep.open(tmp_path)
    assert len(everything.points) == len(everything.table()) == 6
    assert everything.axes == {"aug_strength": [0.5, 1.5, 3.0, 4.0], "seed": [0, 1]}


@pytest.mark.parametrize("kind", ["local", "dask", "submitit"])
@pytest.mark.slow
def test_every_executor_gives_the_same_results(kind, tmp_path):
    start = {
        "local": lambda: local_workers(2),
        "dask": lambda: dask_workers(1),  # each imports PyTorch; two are tried elsewhere
        "submitit": lambda: slurm_workers(tmp_path / "slurm", 1, cluster="local"),
    }
    found = sweep(tmp_path)
    # Two packs; with submitit one, as each is a job that imports PyTorch, and two jobs are tried elsewhere.
    assert found.run(start[kind](), most_runs=6 if kind == "submitit" else 4) == {}
    assert len(found.table()) == 3
    reference = sweep(tmp_path / "reference")
    reference.run(HERE)
    for row, expected in zip(found.table(), reference.table(), strict=True):
        assert row["sgd_sigma_1"] == pytest.approx(expected["sgd_sigma_1"], rel=1e-12)


def test_a_point_that_diverges_fails_alone(tmp_path):
    found = sweep(tmp_path, aug_strength=[0.5, 1e6, 3.0])
    failures = found.run(HERE, most_runs=6)
    (guilty,) = (name for name, c in found.points.items() if c.aug_strength == 1e6)
    assert list(failures) == [guilty]
    assert "SGD diverged at step" in failures[guilty]
    assert names(tmp_path) == set(found.points) - {guilty}
    assert found.failures() == failures
    assert found.run(HERE) == failures  # it is tried again


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    found = sweep(tmp_path)
    full = {list(found.points)[1]}
    savez = __import__("numpy").savez

    def disk(file, **arrays):
        if any(name in str(file.name) for name in full):
            file.write(b"half")
            raise OSError(28, "No space left on device")
        savez(file, **arrays)

    monkeypatch.setattr("numpy.savez", disk)
    failures = found.run(HERE, most_runs=6)
    assert failures == dict.fromkeys(full, "sgd.npz could not be written (No space left on device)")
    assert names(tmp_path) == set(found.points) - full  # neither the point nor a partial folder
    full.clear()
    assert found.run(HERE) == found.failures() == {}
    assert len(found.table()) == 3


def test_a_disk_that_is_full_between_two_files_leaves_no_point(tmp_path, monkeypatch):
    found = sweep(tmp_path)
    monkeypatch.setattr(
        "dyncollapse.simulation.report.write_json", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    assert len(found.run(HERE)) == 3
    assert names(tmp_path) == set()


class Killing:
    """Pickles to a worker, and kills it when it takes up a point of this strength, as often as files say."""

    def __init__(self, folder, lives):
        self.folder, self.lives = folder, lives

    def __call__(self, points, folder, workers):
        for point in points:
            if point.configuration.aug_strength == 1.5 and len(list(self.folder.glob("death-*"))) < self.lives:
                (self.folder / f"death-{time.monotonic_ns()}").touch()
                run_pack([p for p in points if p.configuration.aug_strength < 1.5], folder, workers)
                (folder / ".mine.partial").mkdir(exist_ok=True)
                os.kill(os.getpid(), signal.SIGKILL)
        return run_pack(points, folder, workers)


@pytest.mark.parametrize("lives", [1, 99])
@pytest.mark.slow
def test_a_killed_worker_loses_nothing_else(lives, tmp_path, monkeypatch):
    found = sweep(tmp_path / "sweep", seed=[0, 1])
    monkeypatch.setattr("dyncollapse.sweeps.sweep.run_pack", Killing(tmp_path, lives))
    failures = found.run(local_workers(2), most_runs=6)
    deaths = len(list(tmp_path.glob("death-*")))
    if lives == 1:
        assert failures == {}
        assert deaths == 1
    else:
        assert {found.points[name].aug_strength for name in failures} == {1.5}
        assert all("its worker died twice" in text for text in failures.values())
        assert len(failures) == 2
    assert len(found.table()) == 6 - len(failures)
    monkeypatch.undo()
    assert found.run(local_workers(2)) == {}
    assert names(tmp_path / "sweep") == set(found.points)
    assert len(found.table()) == 6


def test_what_a_worker_of_a_killed_run_leaves_meanwhile_is_removed(tmp_path, monkeypatch):
    def beside(points, folder, workers):
        (folder / ".a-point.a-number.partial").mkdir(exist_ok=True)
        return run_pack(points, folder, workers)

    monkeypatch.setattr("dyncollapse.sweeps.sweep.run_pack", beside)
    found = sweep(tmp_path / "sweep")
    assert found.run(HERE) == {}
    assert names(tmp_path / "sweep") == set(found.points)


PROGRAM = """
import sys
from dyncollapse import Sweep, expand_grid, local_workers
if __name__ == "__main__":
    settings = {"dim": 4, "batch_size": 8, "pool": 32, "steps": 1000, "dynamics": ("sgd",), "seed": range(8)}
    Sweep(sys.argv[1], expand_grid(settings)).run(local_workers(2), most_runs=8)
"""


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_and_frees_its_folder(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    folder = tmp_path / "sweep"
    process = forks.start([tmp_path / "program.py", folder])
    try:
        eventually(lambda: list(folder.glob("points/[!.]*")) or process.poll() is not None)
        with pytest.raises(ValueError, match=f"in use by process {process.pid} on "):
            sweep(folder).run(HERE)
    finally:
        process.kill()
        process.wait()
    found = Sweep.open(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("run.json") if ".partial" not in str(path)}
    assert 1 <= len(before) < 8
    assert found.run(HERE) == {}
    assert len(found.table()) == 8
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    assert names(folder) == set(found.points)


def test_two_workers_that_finish_one_point_agree(tmp_path):
    c = resolve(SMALL)
    (first,) = run_pack([Point.of(c)], tmp_path)
    assert first.failure is None
    (tmp_path / first.name / "sgd.npz").unlink()  # to see that it is not written again
    save_point(Point.of(c).name, run(build(c), lambda *_: None, lambda _: None), tmp_path)
    assert run_pack([Point.of(c)], tmp_path)[0].failure is None
    assert {path.name for path in (tmp_path / first.name).iterdir()} == {"run.json"}
    assert names_in(tmp_path) == {first.name}


def test_threads_beyond_all_reason_are_a_failure_of_the_point(tmp_path):
    (result,) = run_pack([Point.of(resolve({**SMALL, "threads": 1000}))], tmp_path)
    assert result.failure.startswith("--threads is 1000; it must be between 1 and ")


@pytest.mark.parametrize(
    ("given", "workers", "each"), [(None, 1, 8), (None, 3, 2), (None, 20, 1), (None, None, 1), (2, 1, 2), (1, 1, 1)]
)
@pytest.mark.parametrize("points", [1, 2])
def test_workers_share_the_cores(points, given, workers, each, tmp_path, monkeypatch):
    seen = []

    def trained(*runs, threads, **settings):
        seen.append((threads, torch.get_num_threads()))
        return train(*runs, **settings)

    for place in ("dyncollapse.simulation.run.train", "dyncollapse.sweeps.packing.train"):
        monkeypatch.setattr(place, trained)
    monkeypatch.setattr("dyncollapse.runtime.process.cores", lambda: 8)
    pack = [Point.of(resolve({**SMALL, "threads": given, "seed": seed})) for seed in range(points)]
    assert [result.failure for result in run_pack(pack, tmp_path, workers)] == [None] * points
    assert seen == [(each, given or 1)]


def test_few_packs_leave_each_worker_more_cores(tmp_path, monkeypatch):
    seen = []

    def noted(pack, folder, workers):
        seen.append(workers)
        return run_pack(pack, folder)

    monkeypatch.setattr("dyncollapse.sweeps.sweep.run_pack", noted)
    for count in (2, 5, None):
        workers = Workers(lambda: ThreadPoolExecutor(1), count)
        sweep(tmp_path / str(count), aug_strength=[0.5, 1.5, 3.0], depth=[1]).run(workers, most_runs=2)
    assert seen == [2] * 3 + [3] * 3 + [None] * 3


@pytest.mark.parametrize("name", [".sweep.json.0123.partial", ".failures.json.0123.partial", "points/.a.0123.partial"])
def test_what_a_kill_leaves_before_there_is_a_plan_blocks_nothing(tmp_path, name):
    (tmp_path / "points").mkdir()
    (tmp_path / name).write_text("{")
    found = sweep(tmp_path, aug_strength=[0.5])
    found.check_folder()
    assert found.run(HERE) == {}
    assert not (tmp_path / name).exists()
    assert {path.name for path in tmp_path.iterdir()} == {"points", "sweep.json", "failures.json"}


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    (result,) = run_pack([Point.of(resolve(SMALL))], tmp_path / "elsewhere")
    assert "must be on a file system that all workers share" in result.failure


def test_a_worker_that_saves_elsewhere_is_noticed(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr("dyncollapse.sweeps.sweep.run_pack", lambda pack, **_: run_pack(pack, tmp_path / "elsewhere"))
    failures = sweep(tmp_path / "sweep").run(HERE)
    assert len(failures) == 3
    assert all("the folder must be on a file system that all share" in text for text in failures.values())


@pytest.mark.parametrize("wrong", ["{", "", "[]", '{"status": "finished"}', "running", "of another point"])
def test_a_broken_point_is_run_again_with_a_word(wrong, tmp_path):
    found = sweep(tmp_path)
    found.run(HERE)
    name, other = list(found.points)[:2]
    report = tmp_path / "points" / name / "run.json"
    whole = report.read_text()
    if wrong == "running":
        wrong = whole.replace('"finished"', '"running"')
    elif wrong == "of another point":
        wrong = (tmp_path / "points" / other / "run.json").read_text()
    report.write_text(wrong)
    assert len(found.table()) == 2
    assert list(found.reports()[1]) == [name]
    notes = []
    assert found.run(HERE, tell=notes.append) == {}
    assert len(notes) == 1
    assert str(report) in notes[0]
    assert "run again" in notes[0]
    assert read_point(report.parent, found.points[name])["status"] == "finished"


BENT = {
    "config": lambda found: found.update(config=[]),
    "verdict": lambda found: found.update(verdict={}),
    "prediction": lambda found: found.update(prediction={}),
    "modes": lambda found: found["prediction"].update(modes=[{}]),
    "distance": lambda found: found.update(sgd_vs_flow=5),
    "no distance": lambda found: found.pop("sgd_vs_flow"),
    "no dynamics": lambda found: found.update(dynamics={}),
    "null for sgd": lambda found: found.update(dynamics={"sgd": None}),
    "no spectrum": lambda found: found["dynamics"]["sgd"].update(product_singular_values=None),
    "NaN": lambda found: found["dynamics"]["sgd"].update(product_singular_values=[float("nan")] * 4),
}


@pytest.mark.parametrize("bend", BENT.values(), ids=BENT)
def test_a_report_that_no_table_could_take_is_broken(bend, tmp_path):
    found = sweep(tmp_path, aug_strength=[0.5])
    found.run(HERE)
    (report,) = tmp_path.rglob("run.json")
    values = json.loads(report.read_text())
    bend(values)
    report.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"run\.json is not the report of a finished point"):
        read_point(report.parent, *found.points.values())
    assert found.table() == []
    assert found.run(HERE) == {}
    assert len(found.table()) == 1


@pytest.mark.parametrize("kind", ["file", "link", "nesting"])
def test_what_stands_in_the_place_of_a_point_is_removed(kind, tmp_path):
    found = sweep(tmp_path / "sweep", aug_strength=[0.5])
    found.run(HERE)
    (report,) = (tmp_path / "sweep").rglob("run.json")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    if kind == "nesting":
        report.write_text("[" * 100_000)
    else:
        shutil.rmtree(report.parent)
        report.parent.touch() if kind == "file" else report.parent.symlink_to(tmp_path / "elsewhere")
    assert found.run(HERE) == {}
    assert len(found.table()) == 1
    assert names_in(tmp_path / "elsewhere") == {"kept"}


@pytest.mark.parametrize("content", ["null", "5", '["x"]', "{", "[" * 100_000])
def test_failures_that_cannot_be_read_are_none(content, tmp_path):
    found = sweep(tmp_path)
    tmp_path.joinpath("failures.json").write_text(content)
    assert found.failures() == {}


def test_unusable_folders_are_reported_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    (tmp_path / "broken" / "points").mkdir(parents=True)
    (tmp_path / "broken" / "sweep.json").write_text("{")
    (tmp_path / "bent").mkdir()
    (tmp_path / "bent" / "sweep.json").write_text('{"points": [{"config": []}]}')
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "sweep.json").write_text('{"points": []}')
    for name, words in (
        ("file", "is a file"),
        ("mine", "holds thesis.tex and no sweep.json"),
        ("broken", "remove it"),
        ("bent", "remove it"),
        ("empty", r"empty/sweep\.json cannot be read \(it has no points\); remove it and sweep again"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            sweep(tmp_path / name).run(HERE)
        assert "\n" not in str(caught.value)
    assert names_in(tmp_path / "mine") == {"thesis.tex"}
    (tmp_path / "broken" / "sweep.json").unlink()
    assert sweep(tmp_path / "broken").run(HERE) == {}
    for name, words in (
        ("mine", r"holds no sweep\.json"),
        ("nowhere", "is no folder"),
        ("empty", r"empty/sweep\.json cannot be read \(it has no points\); remove it"),
    ):
        with pytest.raises(ValueError, match=words):
            Sweep.open(tmp_path / name)


def test_settings_that_do_not_fit_together_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match=r"the infonce loss has none.* \(in aug_strength 0.5\)"):
        sweep(tmp_path / "new", temperature=[0.5])
    with pytest.raises(ValueError, match="at least one point"):
        Sweep(tmp_path / "new", [])
    assert not (tmp_path / "new").exists()


def test_packs_keep_every_worker_busy_and_leave_out_what_is_done(tmp_path):
    found = sweep(tmp_path, seed=list(range(8)))
    assert [len(pack) for pack in found.packs()] == [24]
    assert [len(pack) for pack in found.packs(workers=3)] == [2] * 12
    assert [len(pack) for pack in found.packs(workers=100)] == [1] * 24
    assert [len(pack) for pack in found.packs(most_runs=6)] == [3] * 8
    assert found.packs(list(found.points)) == []


def test_table_has_settings_and_results(tmp_path):
    found = sweep(tmp_path, aug_dim=2, dim=[3, 4])
    found.run(HERE)
    rows = found.table()
    assert [(row["aug_strength"], row["dim"]) for row in rows] == [(k, d) for d in (3, 4) for k in (0.5, 1.5, 3.0)]
    report = json.loads((tmp_path / "points" / rows[-1]["point"] / "run.json").read_text())
    assert rows[-1]["collapsed"] == report["verdict"]["collapsed"]
    assert rows[-1]["collapse_threshold"] == 1.0
    assert [row["at_threshold"] for row in rows] == [0] * 6
    values = report["dynamics"]["sgd"]["product_singular_values"]
    assert [rows[-1][f"sgd_sigma_{i}"] for i in range(1, 5)] == values
    assert "sgd_sigma_4" not in rows[0]
    assert columns_of(rows)[-4:] == [f"sgd_sigma_{i}" for i in range(1, 5)]


def test_table_files_say_the_same(tmp_path):
    from pyarrow import parquet

    found = sweep(tmp_path / "sweep", dim=[3, 4], aug_dim=2)
    found.run(HERE)
    rows = found.table()
    write_table(rows, tmp_path / "table.parquet")
    write_table(rows, tmp_path / "table.csv")
    columns = columns_of(rows)
    table = parquet.read_table(tmp_path / "table.parquet")
    assert table.column_names == columns
    assert table.to_pylist() == [{name: row.get(name) for name in columns} for row in rows]
    header, *lines = (tmp_path / "table.csv").read_text().splitlines()
    assert header.split(",") == columns
    assert [float(line.split(",")[columns.index("sgd_loss")]) for line in lines] == [row["sgd_loss"] for row in rows]
    with pytest.raises(ValueError, match=r"neither \.csv nor \.parquet"):
        write_table(rows, tmp_path / "table.xlsx")
    with (tmp_path / "none.csv").open("w") as file:
        write_csv([], file)


def test_data_frame_has_the_rows_of_the_table_and_nan_where_a_row_has_no_value(tmp_path):
    import pandas

    found = sweep(tmp_path, dim=[3, 4], aug_dim=2)
    found.run(HERE)
    frame, rows = found.to_pandas(), found.table()
    assert list(frame.columns) == columns_of(rows)
    wanted = pandas.DataFrame(rows)[columns_of(rows)]
    empty = [name for name in wanted if wanted[name].isna().all()]  # NaN as well, which can be compared with numbers
    pandas.testing.assert_frame_equal(frame, wanted.astype(dict.fromkeys(empty, float)))
    assert frame.sgd_sigma_4.isna().tolist() == [row["dim"] == 3 for row in rows]
    assert list(to_frame([]).columns) == ["point"]


def test_xarray_of_a_sweep_that_has_not_begun_has_axes_alone(tmp_path):
    data = sweep(tmp_path, seed=[0, 1]).to_xarray()
    assert dict(data.sizes) == {"aug_strength": 3, "seed": 2}
    assert not data.data_vars


def test_xarray_has_the_axes_of_the_grid_and_nan_where_nothing_is_finished(tmp_path):
    found = sweep(tmp_path, aug_strength=[0.5, 1e6], depth=[1, 2], loss=["infonce", "dot"], lr=0.01)
    found.run(HERE)
    data = found.to_xarray()
    assert dict(data.sizes) == {"aug_strength": 2, "depth": 2, "loss": 2, "rank": 4}
    assert data.attrs["batch_size"] == 8
    assert "temperature" not in data.attrs
    for row in found.table():
        cell = data.sel(aug_strength=row["aug_strength"], depth=row["depth"], loss=row["loss"])
        assert float(cell.collapsed) == row["collapsed"]
        assert str(cell.mechanism.values) == row["mechanism"]
        assert cell.sgd_sigma.values.tolist() == [row[f"sgd_sigma_{i}"] for i in range(1, 5)]
    lost = data.sel(aug_strength=1e6, depth=1, loss="infonce")
    assert lost.sgd_sigma.isnull().all()
    assert len(found.table()) < 8


def test_points_that_are_no_grid_are_not_forced_into_one(tmp_path):
    points = expand_grid({**SMALL, "seed": [0, 1], "depth": [1, 2]})[:3]
    found = Sweep(tmp_path, points)
    with pytest.raises(ValueError, match="3 points are not every combination of 2 depth, 2 seed; use table"):
        as_dataset(found.points, found.axes, [])


MISSING = {
    "xarray": lambda found: found.to_xarray(),
    "pandas": lambda found: found.to_pandas(),
    "pyarrow": lambda _found: write_table([], Path("table.parquet")),
}


@pytest.mark.parametrize("module", MISSING)
def test_missing_extra_is_reported_in_one_line(module, tmp_path, monkeypatch):
    monkeypatch.setattr("dyncollapse.runtime.extras.find_spec", lambda name: None if name == module else 1)
    with pytest.raises(ValueError, match=rf"needs {module}: .*pip install 'dyncollapse\[tables\]'"):
        MISSING[module](sweep(tmp_path))
