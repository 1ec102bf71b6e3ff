import json
import os
import re
import signal

import pytest
from click.testing import CliRunner
from helpers.forks import running
from helpers.programs import SMALL, changed, messages, refused
from helpers.waiting import PATIENCE, eventually

from dyncollapse.commands.main import main
from dyncollapse.simulation.report import report

pytestmark = pytest.mark.usefixtures("sketched")


def test_table_verdict_and_folder_are_shown(simulate, tmp_path):
    result = simulate("--aug-strength", 1.5)
    assert result.exit_code == 0, result.stderr
    for words in ("mode", "data var", "aug var", "rho", "sgd", "flow", "collapsed?", "dimension", "runs/simulate-0001"):
        assert words in result.stdout
    files = {path.name for path in (tmp_path / "runs/simulate-0001").iterdir()}
    assert files == {"run.json", "sgd.npz", "flow.npz", "spectrum.png", "report.html"}


def test_json_is_alone_on_stdout(simulate, tmp_path):
    result = simulate("--json", "--out", tmp_path / "here")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed == json.loads((tmp_path / "here/run.json").read_text())
    assert "Saved in" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--aug-strength", "-1"], "--aug-strength is -1.0"),
        (["--aug-strength", "nan"], "--aug-strength is nan"),
        (["--aug-strength", "much"], "--aug-strength is 'much'; it takes a number"),
        (["--aug-dim", "5"], "between 0 and --dim 4"),
        (["--batch-size", "65"], "--pool is 64 with --batch-size 65"),
        (["--steps", "0"], "--steps is 0"),
        (["--loss", "hinge"], "choose one of"),
        (["--views", "both"], "choose one of"),
        (["--loss", "ntxent", "--views", "one-sided"], "it needs --views two-sided"),
        (["--temperature", "0.5"], "the infonce loss has none"),
        (["--device", "cuda:99"], "this machine offers cpu"),
        (["--dynamics", "population", "--activation", "relu"], "no closed form"),
        (["--runs", "1000000", "--pool", "1000000"], "this simulation takes at least"),
        (["--dim", "10000000"], "between 1 and 10000"),
        (["--nonsense"], "No such option"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(simulate, tmp_path, options, words):
    assert words in refused(simulate(*options))
    assert not list(tmp_path.rglob("run.json"))


def test_existing_run_folder_is_refused_before_any_work(simulate, tmp_path):
    assert simulate("--out", "mine").exit_code == 0
    before = (tmp_path / "mine/run.json").read_bytes()
    result = simulate("--out", "mine")
    assert result.exit_code == 2
    assert "mine already holds files; name a new folder" in result.stderr
    assert (tmp_path / "mine/run.json").read_bytes() == before


def test_unwritable_folder_is_refused(simulate, tmp_path):
    (tmp_path / "file").touch()
    result = simulate("--out", "file/below")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_divergence_exits_1_names_step_and_rate_and_keeps_the_record(simulate, tmp_path):
    result = simulate("--lr", 5, "--aug-strength", 3, "--steps", 200)
    assert result.exit_code == 1
    assert "diverged at step" in result.stderr
    assert len(messages(result.stderr)) == 1
    run = json.loads((tmp_path / "runs/simulate-0001/run.json").read_text())
    assert run["status"] == "diverged"
    assert run["dynamics"]["sgd"]["time"] > 0
    advised = result.stderr.split("; lr ")[1].split()[0]
    assert simulate("--lr", advised, "--aug-strength", 3, "--steps", 200, "--dynamics", "sgd").exit_code == 0


def test_ctrl_c_while_results_are_saved_loses_none(simulate, tmp_path, monkeypatch):
    def interrupted(outcome):
        os.kill(os.getpid(), signal.SIGINT)
        return report(outcome)

    # The forecast of a process's first command simulates and reports, too.
    monkeypatch.setattr("dyncollapse.sweeps.estimate.expected_seconds", lambda _configuration: 0.0)
    monkeypatch.setattr("dyncollapse.simulation.report.report", interrupted)
    result = simulate("--out", "mine", "--dynamics", "sgd")
    assert result.exit_code == 130
    assert result.stderr.endswith("Interrupted. The results so far are in mine/\n")
    assert json.loads((tmp_path / "mine/run.json").read_text())["status"] == "finished"


def test_ctrl_c_before_there_are_results_leaves_no_folder(simulate, tmp_path, monkeypatch):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("dyncollapse.simulation.run.train", stop)
    monkeypatch.setattr("dyncollapse.commands.simulate.save", stop)
    result = simulate("--out", "mine")
    assert result.exit_code == 130
    assert messages(result.stderr) == ["dyncollapse: Interrupted. Nothing was recorded."]
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("name", ["a[/red]b", "[bold]x", "new\nline"])
def test_names_of_folders_are_shown_and_not_interpreted(simulate, name):
    shown = name.replace("\n", r"\n")
    last = simulate("--dynamics", "sgd", "--out", name).stdout.splitlines()[-1]
    assert last == f"Saved in {shown}/: run.json, sgd.npz, spectrum.png, report.html"
    assert shown in refused(simulate("--dynamics", "sgd", "--out", name))


@pytest.mark.drawn
@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--dynamics", "sgd", "--init-scale", 1e12, "--depth", 6), 1),
        (("--dynamics", "sgd", "--init-scale", 1e12), 0),
        (("--dynamics", "population", "--lr", 1e15), 0),
        (("--dynamics", "sgd", "--depth", 1000, "--steps", 1), 0),
    ],
)
def test_what_leaves_floating_point_has_a_report(simulate, tmp_path, options, code):
    result = simulate("--out", "mine", *options)
    assert result.exit_code == code, result.exception
    assert len(messages(result.stderr)) == code
    assert ("SGD diverged at step 1" in result.stderr) is (code == 1)
    assert (tmp_path / "mine/run.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(
    ("stage", "number"), [("sgd", signal.SIGINT), ("sgd", signal.SIGTERM), ("flow", signal.SIGINT)]
)
@pytest.mark.slow
def test_ctrl_c_saves_what_was_recorded(tmp_path, stage, number):
    sizes = {"sgd": ["--steps", "1000000"], "flow": ["--steps", "300", "--flow-batches", "4000"]}[stage]
    code = "import dyncollapse.runtime.progress as progress; progress.LOG_EVERY = 0.1; "
    code += "from dyncollapse.commands.main import main; main()"
    begun = {"sgd": r"^sgd: \d+%, about", "flow": "^flow: "}[stage]
    with running(["-c", code, "simulate", *changed(SMALL, *sizes), "--out", "mine"], tmp_path) as (process, errors):
        eventually(lambda: re.search(begun, errors(), re.MULTILINE) or process.poll() is not None)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 130
    assert "Interrupted. The results so far are in mine/" in errors()
    run = json.loads((tmp_path / "mine/run.json").read_text())
    assert run["status"] == "interrupted"
    assert run["dynamics"]["sgd"]["time"] > 0
    assert (tmp_path / "mine/sgd.npz").exists()


def test_help_names_every_setting():
    from dyncollapse.runtime.settings import option
    from dyncollapse.simulation.configuration import setting_names

    shown = CliRunner().invoke(main, ["simulate", "--help"]).output
    assert all(option(name) in shown for name in setting_names())


@pytest.mark.drawn
def test_pictures_are_chosen_with_their_format(simulate, tmp_path):
    result = simulate("--depth", 2, "--plot", "paths,alignment", "--format", "pdf", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert "sgd.npz, flow.npz, paths.pdf, alignment.pdf" in result.stdout
    for name in ("paths", "alignment"):
        assert (tmp_path / "run" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert not (tmp_path / "run" / "spectrum.png").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--plot", "alignment"],
            "--plot alignment is of two layers, and the network has one; raise --depth, or drop it",
        ),
        (["--plot", "paths,paths"], "--plot is 'paths,paths'; name one or more pictures, each once"),
        (["--plot", "path"], "--plot"),
        (["--plot", ""], "--plot"),
        (["--format", "jpg"], "--format"),
    ],
)
def test_pictures_that_cannot_be_drawn_are_refused(options, words, simulate, tmp_path):
    result = simulate(*options, "--out", tmp_path / "run")
    assert words in refused(result)
    assert not (tmp_path / "run").exists()
