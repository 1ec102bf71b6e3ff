import json
import os
import re
import signal
import sys

import pytest
from click.testing import CliRunner
from helpers.programs import SMALL, refused
from helpers.waiting import PATIENCE, eventually, program

from dyncollapse.claims import CLAIMS, Measured
from dyncollapse.claims.check import claim
from dyncollapse.commands.main import main
from dyncollapse.simulation.report import report


def test_table_verdict_and_folder_are_shown(simulate, tmp_path):
    result = simulate("--aug-strength", 1.5)
    assert result.exit_code == 0, result.stderr
    for words in ("mode", "data var", "aug var", "rho", "sgd", "flow", "collapsed?", "dimension", "runs/simulate-0001"):
        assert words in result.stdout
    files = {path.name for path in (tmp_path / "runs/simulate-0001").iterdir()}
    assert files == {"run.json", "sgd.npz", "flow.npz", "spectrum.png"}


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
        (["--aug-strength", "much"], "'much' is not a valid float"),
        (["--aug-dim", "5"], "between 0 and --dim 4"),
        (["--batch-size", "65"], "--pool is 64 with --batch-size 65"),
        (["--steps", "0"], "--steps is 0"),
        (["--loss", "hinge"], "choose one of"),
        (["--views", "both"], "choose one of"),
        (["--loss", "ntxent", "--views", "one-sided"], "needs two-sided views"),
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
    assert len(result.stderr.splitlines()) == 1
    run = json.loads((tmp_path / "runs/simulate-0001/run.json").read_text())
    assert run["status"] == "diverged"
    assert run["dynamics"]["sgd"]["time"] > 0
    advised = result.stderr.split("; lr ")[1].split()[0]
    assert simulate("--lr", advised, "--aug-strength", 3, "--steps", 200).exit_code == 0


def test_ctrl_c_while_results_are_saved_loses_none(simulate, tmp_path, monkeypatch):
    def interrupted(outcome):
        os.kill(os.getpid(), signal.SIGINT)
        return report(outcome)

    # The forecast of a process's first command simulates and reports, too.
    monkeypatch.setattr("dyncollapse.sweeps.estimate.expected_seconds", lambda _configuration: 0.0)
    monkeypatch.setattr("dyncollapse.simulation.report.report", interrupted)
    result = simulate("--out", "mine", "--dynamics", "sgd")
    assert result.exit_code == 130
    assert result.stderr.endswith("Interrupted. What was recorded until then is in mine/\n")
    assert json.loads((tmp_path / "mine/run.json").read_text())["status"] == "finished"


def test_ctrl_c_before_there_are_results_leaves_no_folder(simulate, tmp_path, monkeypatch):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("dyncollapse.simulation.run.train", stop)
    monkeypatch.setattr("dyncollapse.simulation.report.save", stop)
    result = simulate("--out", "mine")
    assert (result.exit_code, result.stderr) == (130, "dyncollapse: Interrupted. Nothing was recorded.\n")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("name", ["a[/red]b", "[bold]x", "new\nline"])
def test_names_of_folders_are_shown_and_not_interpreted(simulate, name):
    shown = name.replace("\n", r"\n")
    last = simulate("--dynamics", "sgd", "--out", name).stdout.splitlines()[-1]
    assert last == f"Saved in {shown}/: run.json, sgd.npz, spectrum.png"
    assert shown in refused(simulate("--dynamics", "sgd", "--out", name))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--dynamics", "sgd", "--init-scale", 1e12), 1),
        (("--dynamics", "population", "--lr", 1e15), 0),
        (("--dynamics", "sgd", "--depth", 1000, "--steps", 1), 0),
    ],
)
def test_what_leaves_floating_point_has_a_report(simulate, tmp_path, options, code):
    result = simulate("--out", "mine", *options)
    assert result.exit_code == code, result.exception
    assert len(result.stderr.splitlines()) == code
    assert ("SGD diverged at step 1" in result.stderr) is (code == 1)
    assert (tmp_path / "mine/run.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(
    ("stage", "number"), [("sgd", signal.SIGINT), ("sgd", signal.SIGTERM), ("flow", signal.SIGINT)]
)
@pytest.mark.slow
def test_ctrl_c_saves_what_was_recorded(tmp_path, stage, number):
    sizes = {"sgd": ["--steps", "10000000"], "flow": ["--steps", "300", "--flow-batches", "20000"]}[stage]
    code = "import dyncollapse.runtime.progress as progress; progress.LOG_EVERY = 0.1; "
    code += "from dyncollapse.commands.main import main; main()"
    begun = {"sgd": r"^sgd: \d+%, about", "flow": "^flow: "}[stage]
    with program([sys.executable, "-c", code, "simulate", *SMALL, *sizes, "--out", "mine"], tmp_path) as (
        process,
        errors,
    ):
        eventually(lambda: re.search(begun, errors(), re.MULTILINE) or process.poll() is not None)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 130
    assert "Interrupted. What was recorded until then is in mine/" in errors()
    run = json.loads((tmp_path / "mine/run.json").read_text())
    assert run["status"] == "interrupted"
    assert run["dynamics"]["sgd"]["time"] > 0
    assert (tmp_path / "mine/sgd.npz").exists()


def test_help_names_every_setting():
    from dyncollapse.runtime.settings import option
    from dyncollapse.simulation.configuration import setting_names

    shown = CliRunner().invoke(main, ["simulate", "--help"]).output
    assert all(option(name) in shown for name in setting_names())


@claim("fine", "a source", "a number")
def fine():
    """This one holds."""
    return Measured(1.0, 2.0)


@claim("failing", "a source", "a number")
def failing():
    """This one does not."""
    return Measured(3.0, 2.0)


@claim("holding", "a source", "a number", expected=False)
def holding():
    """This one holds, and should not."""
    return Measured(1.0, 2.0)


@claim("crashing", "a source", "a number")
def crashing():
    """This one breaks down."""
    raise RuntimeError("[the control] moved")


@claim("numberless", "a source", "a number")
def numberless():
    """This one measures nothing."""
    return Measured(float("nan"), float("inf"))


@claim("stopped", "a source", "a number")
def stopped():
    """This one takes long enough for a Ctrl-C."""
    raise KeyboardInterrupt


@pytest.fixture
def verify(monkeypatch):
    def invoke(*options, claims=CLAIMS):
        monkeypatch.setattr("dyncollapse.claims.CLAIMS", tuple(claims))
        return CliRunner().invoke(main, ["verify", *options])

    return invoke


CONTRACT = {"name", "statement", "source", "measured", "bound", "holds", "expected"}


def test_verify_json_is_alone_on_stdout(verify):
    result = verify("--claim", "lemma-1", "--claim", "lemma-2", "--json")
    assert result.exit_code == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1
    printed = json.loads(result.stdout)
    assert list(printed) == ["claims"]
    assert [found["name"] for found in printed["claims"]] == ["lemma-1", "lemma-2"]
    for found in printed["claims"]:
        assert set(found) >= CONTRACT
        assert found["holds"] is found["expected"] is True
        assert 0 <= found["measured"] <= found["bound"]
    assert "2 of 2 claims behave as expected" in result.stderr


def test_verify_prints_a_table(verify):
    result = verify("--claim", "lemma-1", "--claim", "lemma-1")  # once, however often it is named
    assert result.exit_code == 0, result.stderr
    header, row, *rest = result.stdout.splitlines()
    assert header.split() == ["claim", "source", "measured", "bound", "holds", "as", "expected", "seconds"]
    assert row.split()[:3] == ["lemma-1", "Lemma", "1"]
    assert row.split()[-3:-1] == ["yes", "yes"]
    assert rest[0] == "1 of 1 claims behave as expected."
    assert not result.stderr


def test_verify_of_no_claim_in_particular_checks_all_and_explains_none(verify):
    result = verify(claims=[fine, fine])
    assert result.exit_code == 0, result.stderr
    assert "2 of 2 claims" in result.stdout
    assert "This one holds" not in result.stdout


def test_verify_of_a_wrong_statement_succeeds_and_explains(verify):
    result = verify("--claim", "theorem-2-as-stated")
    assert result.exit_code == 0, result.stderr
    told = " ".join(result.stdout.split())
    assert "theorem-2-as-stated does not hold, as expected" in told
    statement = next(c for c in CLAIMS if c.name == "theorem-2-as-stated")
    assert statement.statement in told
    assert statement.quantity in told
    assert statement.explanation in told


def test_unknown_claim_is_one_line_and_exit_2(verify):
    line = refused(verify("--claim", "lemma-1", "--claim", "lemma-99"))
    assert "--claim is lemma-99; the claims are lemma-1, lemma-2," in line


def test_claims_unlike_expected_exit_1_and_hide_no_other(verify):
    claims = [failing, crashing, holding, numberless, fine]
    result = verify(claims=claims)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ["dyncollapse: unlike expected: failing, crashing, holding, numberless"]
    rows = {line.split()[0]: line for line in result.stdout.splitlines()[1:6]}
    assert list(rows) == [candidate.name for candidate in claims]
    verdicts = {name: row.split()[-3:-1] for name, row in rows.items()}
    assert verdicts == {
        "failing": ["no", "NO"],
        "crashing": ["no", "NO"],
        "holding": ["yes", "NO"],
        "numberless": ["no", "NO"],
        "fine": ["yes", "yes"],
    }
    assert "crashing: RuntimeError: [the control] moved" in result.stdout
    assert "1 of 5 claims behave as expected." in result.stdout


def test_json_of_claims_that_break_down_has_no_numbers(verify):
    result = verify("--json", claims=[crashing, numberless, failing])
    assert result.exit_code == 1
    assert "NaN" not in result.stdout
    assert "Infinity" not in result.stdout
    broken, numberless_, failed = json.loads(result.stdout)["claims"]
    assert broken["measured"] is broken["bound"] is None
    assert "the control" in broken["error"]
    assert numberless_["measured"] is numberless_["bound"] is None
    assert "no number" in numberless_["error"]
    assert (failed["measured"], failed["bound"], failed["error"]) == (3.0, 2.0, None)
    assert not any(found["holds"] for found in (broken, numberless_, failed))
    assert "unlike expected: crashing, numberless, failing" in result.stderr


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_ctrl_c_prints_what_was_checked(verify, options):
    result = verify(*options, claims=[fine, failing, stopped, crashing])
    assert result.exit_code == 130
    assert result.stdout == ""  # half a table is no result
    assert "fine" in result.stderr
    assert "failing" in result.stderr
    assert "crashing" not in result.stderr
    assert result.stderr.splitlines()[-1] == "dyncollapse: Interrupted after 2 of 4 claims."


def test_ctrl_c_before_the_first_claim_is_done(verify):
    result = verify(claims=[stopped, fine])
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "dyncollapse: Interrupted after 0 of 2 claims."


def test_help_lists_the_commands():
    shown = CliRunner().invoke(main, ["--help"]).output
    assert "simulate" in shown
    assert "verify" in shown
    told = CliRunner().invoke(main, ["verify", "--help"]).output
    assert "--claim" in told
    assert "--json" in told
