"""Folders of runs and sweeps that hold anything: one line each, exit code 2, and nothing that reaches a terminal."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.bridge import small
from helpers.hostile_values import ESCAPES, FILES, VALUES, places, replaced, shown_safely
from helpers.programs import refused
from helpers.waiting import little_work

from dyncollapse import Sweep, expand_grid
from dyncollapse.bridge.evaluation.check_pictures import draw_check
from dyncollapse.bridge.evaluation.paper_tables import compare
from dyncollapse.bridge.evaluation.pictures import draw_curves
from dyncollapse.bridge.training.run_folder import find_runs, read_run
from dyncollapse.bridge.training.training_log import TrainingLog, read_monitor
from dyncollapse.commands.main import main
from dyncollapse.runtime.dispatch import Workers
from dyncollapse.runtime.files import read_json, write_json
from dyncollapse.sweeps.points import read_point
from dyncollapse.sweeps.tables import as_row

FACTS = {"data": "photos", "images": 1000, "representation_dim": 4, "embedding_dim": 4, "steps": 10}
SPACE = {
    "measures": {"rankme": 3.0, "effective_rank": 2.0, "participation_ratio": None},
    "verdict": {"collapsed": 1, "mechanism": "none", "threshold": 0.1},
    "spectrum": [1.0, 0.5, 0.2, 0.1],
    "noise_floor": 1e-9,
}
CONTENT = {
    "config.json": {"recipe": small().as_dict(), "facts": FACTS},
    "probes.json": [{"method": "sgd", "dimensions": 4, "top1": 50.0, "error": 1.0, "step": 10}],
    "diagnosis.json": {"spaces": {"representation": SPACE, "embedding": SPACE}, "config": {"split": "t", "views": "v"}},
}
LOG = {"step": 10, "loss": 1.0, "lr": 0.1}
MONITOR = {"step": 10, "embedding_effective_rank": 2.0, "embedding_spectrum": [1.0, 0.5], "embedding_mechanism": "none"}


def run_folder(folder):
    folder.mkdir()
    for name, content in CONTENT.items():
        write_json(folder / name, content)
    (folder / "log.jsonl").write_text(json.dumps(LOG) + "\n")
    (folder / "monitor.jsonl").write_text(json.dumps(MONITOR) + "\n")
    return folder


DRAWN = {"spectrum", "noise_floor", "threshold", "loss", "embedding_spectrum", "embedding_effective_rank"}


def use(folder, changed):
    """The table of a run's folder in which something was changed, after pictures of what they show."""
    run = read_run(folder)
    compared = compare([run])
    json.dumps(compared, allow_nan=False)
    monitor = read_monitor(folder / "monitor.jsonl")
    if DRAWN & {*changed}:
        draw_check([run])
        draw_curves(run.log, monitor)
    return compared


def one_safe_line(error):
    message = str(error)
    assert len(message) < 1000
    assert shown_safely(message)
    assert "\n" not in message


@pytest.mark.parametrize("name", [*CONTENT, "log.jsonl"])
@pytest.mark.parametrize("text", FILES.values(), ids=FILES.keys())
def test_a_file_of_a_run_that_is_something_else_is_one_line(name, text, tmp_path):
    folder = run_folder(tmp_path / "run")
    (folder / name).write_text(text + "\n" + text if name == "log.jsonl" else text, encoding="utf-8")
    empty = (name, text) in {("probes.json", "[]"), ("log.jsonl", ""), ("diagnosis.json", "null")}
    if empty and text != "null":  # a run without probes or lines is one that has just begun
        return
    with little_work(5):
        line = refused(CliRunner().invoke(main, ["bridge", "table", str(folder)]))
    assert f"cannot be read as a run ({name}" in line or f"{name} line" in line
    one_safe_line(line)


@pytest.mark.parametrize("name", CONTENT)
def test_a_value_of_another_kind_anywhere_in_a_run_is_one_line_or_a_value_of_the_table(name, tmp_path):
    folder = run_folder(tmp_path / "run")
    sound, refusals = use(folder, ()), 0
    for path in places(CONTENT[name]):
        for kind, value in VALUES.items():
            (folder / name).write_text(json.dumps(replaced(CONTENT[name], path, value)))
            try:
                found = use(folder, path)
            except ValueError as error:
                one_safe_line(error)
                refusals += 1
            else:
                assert found == sound or not isinstance(value, dict | list), (path, kind)
                assert [row.keys() for row in found["rows"]] == [row.keys() for row in sound["rows"]]
    assert refusals > len([*places(CONTENT[name])]) * len(VALUES) / 2


@pytest.mark.parametrize(("name", "line"), [("log.jsonl", LOG), ("monitor.jsonl", MONITOR)])
def test_a_value_of_another_kind_in_a_log_is_one_line_or_changes_nothing(name, line, tmp_path):
    folder = run_folder(tmp_path / "run")
    sound, refusals = use(folder, ()), 0
    for path in places(line):
        for value in VALUES.values():
            (folder / name).write_text(json.dumps(replaced(line, path, value)) + "\n")
            try:
                assert use(folder, path) == sound
            except ValueError as error:
                one_safe_line(error)
                refusals += 1
    assert refusals > len([*places(line)]) * len(VALUES) / 2


def test_a_log_is_cut_without_a_change_to_what_stays(tmp_path):
    log = TrainingLog(tmp_path / "monitor.jsonl")
    kept = '{"step": 1, "embedding_samples": 7, "embedding_effective_rank": 1.50}'
    log.path.write_text(f'{kept}\n{{"step": 2}}\n{{"step": 3')
    log.cut(1)
    assert log.path.read_text() == f"{kept}\n"
    log.path.write_text(f'{{"step": \n{kept}\n')
    with pytest.raises(ValueError, match=r"monitor\.jsonl line 1 is no JSON"):
        log.cut(1)


def test_a_table_shows_the_good_runs_and_names_the_others(tmp_path):
    for name in ("good", "bad", f"worse {ESCAPES[:-1]}"):
        run_folder(tmp_path / name)
    (tmp_path / "bad" / "config.json").write_text("[]")
    (tmp_path / f"worse {ESCAPES[:-1]}" / "log.jsonl").write_text('{"step": "x"}\n')
    result = CliRunner().invoke(main, ["bridge", "table", str(tmp_path)])
    assert result.exit_code == 0
    assert "nonlinear, 2 layers" in result.stdout
    bad, worse = result.stderr.splitlines()
    assert "bad cannot be read as a run (config.json: Expected `object`, got `array`)" in bad
    assert "worse red\\x1b[31m" in worse
    assert shown_safely(result.stdout + result.stderr)
    with pytest.raises(ValueError, match="cannot be read as a run"):
        find_runs([tmp_path])
    shutil.rmtree(tmp_path / "good")
    assert "nor can 1 others" in refused(CliRunner().invoke(main, ["bridge", "table", str(tmp_path)]))


# --- Sweeps


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept") / "sweep"
    grid = expand_grid({"dim": 4, "batch_size": 8, "pool": 16, "steps": 4, "runs": 1, "dynamics": ("sgd", "flow")})
    assert Sweep(folder, grid).run(Workers(lambda: ThreadPoolExecutor(1), 1)) == {}
    return folder


def collect(folder):
    with little_work(5):
        result = CliRunner().invoke(main, ["collect", str(folder)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert shown_safely(result.stdout + result.stderr)
    assert len(result.stderr) < 2000
    return result


@pytest.mark.parametrize("text", FILES.values(), ids=FILES.keys())
def test_files_of_a_sweep_that_are_something_else_are_one_line(text, swept, tmp_path):
    folder = shutil.copytree(swept, tmp_path / "sweep")
    (run,) = folder.glob("points/*/run.json")
    (folder / "failures.json").write_text(text)
    assert collect(folder).exit_code == 0
    run.write_text(text)
    result = collect(folder)
    assert (result.exit_code, len(result.stderr.splitlines())) == (0, 2)
    assert "is not the report of a finished point" in result.stderr
    (folder / "sweep.json").write_text(text)
    assert "sweep.json cannot be read" in refused(collect(folder))


def test_a_value_of_another_kind_anywhere_in_a_point_is_one_line_or_changes_nothing(swept, tmp_path):
    folder = shutil.copytree(swept, tmp_path / "sweep")
    (path,) = folder.glob("points/*/run.json")
    report = read_json(path)
    ((name, configuration),) = Sweep.open(folder).points.items()
    read, refusals = {"config", "dynamics", "prediction", "verdict", "sgd_vs_flow", "sgd_vs_population", "status"}, 0
    for place in places({key: report[key] for key in read}):
        if not set(place) & {"embedding_spectrum", "dimensions", "modes", "versions"}:
            for value in VALUES.values():
                path.write_text(json.dumps(replaced(report, place, value)))
                try:
                    as_row(name, configuration, read_point(path.parent, configuration))
                except ValueError as error:
                    one_safe_line(error)
                    refusals += 1
    assert refusals > 100


def test_escapes_in_a_failure_are_shown(swept, tmp_path):
    folder = shutil.copytree(swept, tmp_path / "sweep")
    (name,) = Sweep.open(folder).points
    shutil.rmtree(folder / "points" / name)
    write_json(folder / "failures.json", {name: ESCAPES})
    assert "failed: " in collect(folder).stderr


def test_grids_are_counted_before_they_are_expanded():
    def refusal(*options):
        return refused(CliRunner().invoke(main, ["sweep", "--out", "x", *options]))

    with little_work(5):
        assert "the grid has 8000000000000000 points" in refusal(
            *(f"--{n}=1:2:200000" for n in ("lr", "seed", "data-var"))
        )
        assert "the grid has" in refusal("--lr", ",".join(["1:2:200000"] * 2000))
        with pytest.raises(ValueError, match="more than 200000 values"):
            expand_grid({"seed": range(10**30)})
        assert "which has more than 100 digits" in refusal("--lr", "0." + "3" * 100_000 + ":1:9")
    assert not Path("x").exists()
