import csv
import io
import json
import os
import re
import signal

import pytest
from click.testing import CliRunner
from helpers import forks
from helpers.programs import changed, refused
from helpers.waiting import PATIENCE, eventually

from dyncollapse.commands.main import main
from dyncollapse.runtime.files import write_json
from dyncollapse.runtime.progress import duration
from dyncollapse.runtime.settings import option
from dyncollapse.simulation.configuration import setting_names
from dyncollapse.sweeps.sweep import FAILURES

pytestmark = pytest.mark.usefixtures("sketched")

SMALL = ["--dim", "4", "--batch-size", "8", "--pool", "32", "--steps", "20", "--runs", "2", "--dynamics", "sgd"]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *options: CliRunner().invoke(
        main, ["sweep", *changed([*SMALL, "--workers", "1", "--out", "here"], *options)]
    )


def collect(*options):
    return CliRunner().invoke(main, ["collect", *map(str, options)])


@pytest.mark.drawn
def test_sweep_shows_a_row_per_point_and_draws(sweep, tmp_path):
    result = sweep("--aug-strength", "0.5:3:3", "--depth", "1,2")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["point", "aug", "strength", "depth", "collapsed", "mechanism"]
    assert [line.split()[1:3] for line in lines[1:7]] == [[k, d] for k in ("0.5", "1.75", "3") for d in "12"]
    assert lines[7:] == ["6 of 6 points are finished.", "Saved in here/: points/, sweep.json, sweep.png, report.html"]
    assert (tmp_path / "here/sweep.png").stat().st_size > 1000
    assert "6 of 6 points" in result.stderr
    again = sweep("--aug-strength", "0.5:3:3", "--depth", "1,2")
    assert again.stdout == result.stdout


def test_collect_gives_the_table_as_csv_and_parquet(sweep, tmp_path):
    assert sweep("--seed", "0,1").exit_code == 0
    result = collect("here")
    assert result.exit_code == 0
    assert result.stderr == ""
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["seed"] for row in rows] == ["0", "1"]
    assert float(rows[0]["sgd_sigma_1"]) > 0
    assert collect("here", "--out", "table.csv").exit_code == 0
    assert (tmp_path / "table.csv").read_text() == result.stdout
    told = collect("here", "--out", "table.parquet")
    assert (told.stdout, told.stderr) == ("", "2 points in table.parquet\n")


def test_failures_are_listed_with_the_command_that_repeats_them(sweep):
    result = sweep("--aug-strength", "0.5,1e6", "--seed", "3")
    assert result.exit_code == 1
    assert "1 of 2 points are finished" in result.stdout
    lines = [line for line in result.stderr.splitlines() if line]
    assert "SGD diverged at step" in lines[-3]
    assert lines[-1] == "dyncollapse: 1 of 2 points failed; the same command tries them again"
    repeated = CliRunner().invoke(main, lines[-2].split()[1:])
    assert repeated.exit_code == 1
    assert "SGD diverged at step" in repeated.stderr
    told = collect("here")
    assert told.exit_code == 0
    assert len(told.stdout.splitlines()) == 2
    assert "SGD diverged" in told.stderr
    assert "1 of 2 points are not finished" in told.stderr


def test_collect_names_a_broken_point_and_leaves_it_out(sweep, tmp_path):
    sweep("--seed", "0,1")
    report = sorted((tmp_path / "here/points").glob("*/run.json"))[0]
    report.write_text("{")
    result = collect("here")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2
    assert str(report.relative_to(tmp_path)) in result.stderr
    assert "the next sweep runs it again" in result.stderr
    again = sweep("--seed", "0,1")
    assert again.exit_code == 0
    assert "it is run again" in again.stderr
    assert "2 of 2 points are finished" in again.stdout


@pytest.mark.parametrize("failing", [False, True])
def test_a_picture_that_cannot_be_drawn_hides_nothing(sweep, tmp_path, failing):
    assert sweep("--aug-strength", "0.5").exit_code == 0
    (tmp_path / "here/sweep.png").unlink(missing_ok=True)
    (tmp_path / "here/sweep.png").mkdir()
    result = sweep("--aug-strength", "0.5,1e6" if failing else "0.5,1")
    assert result.exit_code == (1 if failing else 0)
    assert f"{2 - failing} of 2 points are finished" in result.stdout
    assert "Saved in here/: points/, sweep.json, report.html\n" in result.stdout
    assert ("SGD diverged at step" in result.stderr) is failing
    assert "dyncollapse: warning: here/sweep.png could not be written (Is a directory)\n" in result.stderr
    assert ("1 of 2 points failed" in result.stderr.splitlines()[-1]) is failing


def test_a_plan_that_goes_while_the_sweep_runs_is_no_traceback(sweep, tmp_path, monkeypatch):
    def write(path, content):
        if path.name == FAILURES:  # the last that a sweep writes
            (tmp_path / "here/sweep.json").unlink()
        else:
            write_json(path, content)

    monkeypatch.setattr("dyncollapse.sweeps.sweep.write_json", write)
    result = sweep("--seed", "0,1")
    assert result.exit_code == 0
    assert "2 of 2 points are finished" in result.stdout
    assert "sweep.png could not be drawn (here holds no sweep.json; name the folder of a sweep)" in result.stderr


@pytest.mark.parametrize("name", ["a[/red]b", "[bold]x", "new\nline", "\x1b[31mred"])
def test_names_of_folders_are_shown_and_not_interpreted(sweep, name, tmp_path):
    shown = name.replace("\n", r"\n").replace("\x1b", r"\x1b")
    result = sweep("--seed", "0,1", "--out", name)
    assert result.stdout.splitlines()[-1] == f"Saved in {shown}/: points/, sweep.json, sweep.png, report.html"
    assert (tmp_path / name / "sweep.json").exists()
    (tmp_path / name / "sweep.json").unlink()
    assert refused(collect(name)) == f"dyncollapse: {shown} holds no sweep.json; name the folder of a sweep"


def test_a_folder_that_cannot_be_looked_into_is_told(sweep):
    line = refused(sweep("--seed", "0,1", "--dry-run", "--out", "a" * 300))
    assert line.endswith("cannot be used (File name too long); name another, or make it accessible")
    assert "is no folder (File name too long); name the folder of a sweep" in refused(collect("a" * 300))


def test_a_table_for_a_closed_stdout_is_refused(sweep, tmp_path):
    assert sweep("--seed", "0,1").exit_code == 0
    # Python has no stream for a descriptor that is closed when it starts.
    code = "import os, sys; os.close(1); sys.stdout = None; from dyncollapse.commands.main import main; main()"
    result = forks.run(["-c", code, "collect", "here"], cwd=tmp_path)
    assert (result.returncode, result.stderr) == (
        1,
        "dyncollapse: standard output is closed; name a file with --out\n",
    )


def test_json_is_alone_on_stdout(sweep):
    result = sweep("--aug-strength", "0.5,1e6", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["folder"], found["points"]) == ("here", 2)
    assert [row["aug_strength"] for row in found["table"]] == [0.5]
    assert [lost["config"]["aug_strength"] for lost in found["failures"]] == [1e6]
    assert "diverged" in found["failures"][0]["failure"]


def test_dry_run_tells_points_packs_and_an_estimate_and_writes_nothing(sweep, tmp_path):
    result = sweep("--aug-strength", "0.5:3:6", "--depth", "1,2", "--pack", "8", "--dry-run")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "12 points: 6 --aug-strength x 2 --depth; 0 finished"
    assert [line.split() for line in lines[2:4]] == [["2", "4", "8"], ["2", "2", "4"]]
    assert re.match(r"Roughly .* s on 1 worker and .* GiB per worker\. Nothing was written\.", lines[4])
    assert not list(tmp_path.iterdir())
    assert sweep("--aug-strength", "0.5,1").exit_code == 0
    numbers = json.loads(sweep("--aug-strength", "0.5:3:6", "--dry-run", "--json").stdout)
    assert (numbers["points"], numbers["finished"]) == (6, 2)
    assert sum(pack["points"] for pack in numbers["packs"]) == 4
    assert 0 < numbers["seconds"] < 60
    assert "Nothing is left to run." in sweep("--aug-strength", "0.5,1", "--dry-run").stdout


@pytest.mark.parametrize("dynamics", ["flow", "population", "sgd,flow,population"])
def test_estimate_knows_every_dynamics(sweep, dynamics):
    result = sweep("--dynamics", dynamics, "--seed", "0,1", "--dry-run", "--json")
    assert 0 < json.loads(result.stdout)["seconds"] < 60


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--aug-strength", "0.1:3"], "first:last:count"),
        (["--aug-strength", "1:2:1e7"], "from 2 to 200000"),
        (["--aug-strength", "nan"], "finite"),
        (["--aug-strength", ""], "empty value"),
        (["--aug-strength", "-1:1:3"], "--aug-strength is -1.0; it must be between 0 and 1e15 (in --aug-strength -1)"),
        (["--depth", "1.5"], "whole numbers"),
        (["--depth", "1:1000:1000", "--seed", "1:1001:1001"], "the grid has 1001000 points"),
        (["--dim", "2,8", "--aug-dim", "4"], "(in --dim 2)"),
        (["--loss", "infonce,hinge"], "(in --loss hinge)"),
        (["--loss", "dot,infonce", "--temperature", "0.5"], "the infonce loss has none"),
        (["--preset", "paper,authors-code"], "choose one of paper, authors-code"),
        (["--dynamics", "sgd,flood"], "choose one of sgd, flow, population"),
        (["--device", "cpu,cuda:99"], "this machine offers cpu"),
        (["--threads", "0"], "--threads is 0"),
        (["--workers", "0"], "--workers"),
        (["--executor", "cloud"], "choose one of local, dask, slurm"),
        (["--scheduler", "tcp://1.2.3.4:5"], "--scheduler belongs to --executor dask"),
        (["--slurm", "time=5"], "--slurm belongs to --executor slurm"),
        (["--executor", "slurm", "--slurm", "time"], "write key=value"),
        (["--out", "file"], "file is a file"),
        (["--out", "file/below"], "cannot be written"),
        (["--out", "full"], "holds thesis.tex and no sweep.json"),
        (["--nonsense"], "No such option"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_bad_input_is_one_line_and_exit_2(sweep, tmp_path, options, words, dry):
    if dry and options[-1] == "file/below":
        pytest.skip("a dry run does not write")
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").touch()
    assert words in refused(sweep(*options, *dry))
    assert not (tmp_path / "here").exists()


def test_out_is_required():
    result = CliRunner().invoke(main, ["sweep"])
    assert result.exit_code == 2
    assert "--out is not given; it names this: Folder of the sweep" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nowhere"], "nowhere is no folder (No such file or directory); name the folder of a sweep"),
        (["here", "--out", "table.xlsx"], "neither .csv nor .parquet"),
        (["here", "--out", "nowhere/table.csv"], "there is no folder nowhere; create it"),
    ],
)
def test_collect_tells_bad_input_in_one_line(sweep, options, words):
    sweep()
    assert words in refused(collect(*options))


def test_every_setting_is_an_option_of_sweep():
    shown = CliRunner().invoke(main, ["sweep", "--help"]).output
    assert all(option(name) in shown for name in setting_names() if name != "out")


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.slow
def test_ctrl_c_tells_how_far_it_came_and_the_same_command_goes_on(tmp_path, monkeypatch):
    command = ["-m", "dyncollapse", "sweep", *changed(SMALL, "--steps", "1500", "--seed", "1:8:8")]
    command += ["--pack", "1", "--workers", "2", "--out", "here"]
    with forks.running(command, tmp_path, start_new_session=True) as (process, errors):
        eventually(lambda: list(tmp_path.glob("here/points/[!.]*")) or process.poll() is not None)
        os.killpg(process.pid, signal.SIGINT)  # to the whole foreground, as a terminal does
        assert process.wait(PATIENCE) == 130
    line = errors().splitlines()[-1]  # on a slow machine, lines of progress stand before it
    assert "Traceback" not in errors()
    done = int(re.search(r"Interrupted\. (\d+) of 8 points are done; the same command continues", line)[1])
    assert 1 <= done < 8
    assert len(list(tmp_path.glob("here/points/[!.]*/run.json"))) == done
    monkeypatch.chdir(tmp_path)
    again = CliRunner().invoke(main, command[2:])
    assert again.exit_code == 0, again.stderr
    assert "8 of 8 points are finished" in again.stdout


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.1234, "0.12 s"), (42.4, "42 s"), (150, "2.5 min"), (7200, "2 h"), (1e7, "116 days")]
)
def test_times_are_told_as_people_do(seconds, words):
    assert duration(seconds) == words


@pytest.mark.drawn
def test_spectra_of_all_points_are_drawn_in_one_picture(sweep, tmp_path):
    result = sweep("--aug-strength", "0.5,3", "--depth", "1,2", "--plot", "spectrum,sweep", "--format", "svg")
    assert result.stdout.splitlines()[-1] == "Saved in here/: points/, sweep.json, spectrum.svg, sweep.svg, report.html"
    drawn = (tmp_path / "here/spectrum.svg").read_text()
    assert all(words in drawn for words in ("aug-strength 0.5", "aug-strength 3", "depth 1", "depth 2"))
    (tmp_path / "here/sweep.json").unlink()
    refused = sweep("--plot", "spectrum,spectrum")
    assert (refused.exit_code, "--plot is 'spectrum,spectrum'" in refused.stderr) == (2, True)
