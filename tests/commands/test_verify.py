"""`dyncollapse verify` as a user types it."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner
from helpers.constants import set_constant
from helpers.programs import messages, refused

from dyncollapse.claims import CLAIMS, Measured
from dyncollapse.claims.check import claim, run_check
from dyncollapse.commands.main import main
from dyncollapse.runtime.dispatch import Workers
from dyncollapse.runtime.process import cores


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
        set_constant(monkeypatch, "claims.run.CLAIMS", tuple(claims))
        here = () if "--workers" in options else ("--workers", "1")  # other processes know no claims made up here
        return CliRunner().invoke(main, ["verify", *options, *here])

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
    assert messages(result.stderr) == []


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


def test_wrong_statements_are_named_together(verify):
    result = verify("--claim", "theorem-2-as-stated", "--claim", "coordinate-losses")
    assert result.exit_code == 0, result.stderr
    told = " ".join(result.stdout.split())
    assert "theorem-2-as-stated, coordinate-losses do not hold, as expected" in told


def test_unknown_claim_is_one_line_and_exit_2(verify):
    line = refused(verify("--claim", "lemma-1", "--claim", "lemma-99"))
    assert "--claim is lemma-99; did you mean lemma-" in line


def test_claims_unlike_expected_exit_1_and_hide_no_other(verify):
    claims = [failing, crashing, holding, numberless, fine]
    result = verify(claims=claims)
    assert result.exit_code == 1
    assert messages(result.stderr) == ["dyncollapse: unlike expected: failing, crashing, holding, numberless"]
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


@pytest.fixture
def started(monkeypatch):
    """Threads in place of processes, and how many were asked for each time."""
    counts = []

    def local_workers(count):
        counts.append(count)
        return Workers(lambda: ThreadPoolExecutor(count), count)

    monkeypatch.setattr("dyncollapse.claims.run.local_workers", local_workers)
    return counts


QUICK = [candidate for candidate in CLAIMS if candidate.name in ("lemma-1", "lemma-2", "lemma-2-psd", "lemma-3")]


def test_all_claims_are_checked_on_all_cores_and_one_claim_here(started, monkeypatch):
    monkeypatch.setattr("dyncollapse.claims.run.cores", lambda: 3)
    set_constant(monkeypatch, "claims.run.CLAIMS", tuple(QUICK))
    assert CliRunner().invoke(main, ["verify"]).exit_code == 0
    assert started == [3]
    assert CliRunner().invoke(main, ["verify", "--claim", "lemma-1", "--claim", "lemma-2"]).exit_code == 0
    assert started == [3]


def test_no_more_workers_than_claims(verify, started):
    assert verify("--workers", str(cores() + 1), "--claim", "lemma-1", "--claim", "lemma-2").exit_code == 0
    assert started == [2]


def test_workers_change_neither_numbers_nor_order(verify, started):
    shown = [json.loads(verify("--json", "--workers", n, claims=QUICK).stdout)["claims"] for n in ("1", "4")]
    assert started == [4]
    for claims in shown:
        for found in claims:
            del found["seconds"]
    assert shown[0] == shown[1]
    assert [found["name"] for found in shown[1]] == [candidate.name for candidate in QUICK]


@pytest.mark.parametrize("count", ["1", "2"])
def test_claims_are_shown_in_the_order_in_which_they_are_named(verify, started, count):
    named = ["lemma-3", "lemma-1", "lemma-2"]
    result = verify("--json", "--workers", count, *(word for name in named for word in ("--claim", name)))
    assert [found["name"] for found in json.loads(result.stdout)["claims"]] == named
    assert started == ([2] if count == "2" else [])


def test_ctrl_c_keeps_what_workers_have_checked_in_the_order_of_the_claims(verify, started, monkeypatch):
    def checked_backwards(chosen, _workers):
        yield from map(run_check, [chosen[2], chosen[0]])
        raise KeyboardInterrupt

    monkeypatch.setattr("dyncollapse.commands.verify.check_claims", checked_backwards)
    result = verify("--workers", "2", claims=QUICK)
    assert started == [2]
    assert result.exit_code == 130
    rows = [line.split()[0] for line in result.stderr.splitlines()]
    assert rows.index("lemma-1") < rows.index("lemma-2-psd")
    assert result.stderr.splitlines()[-1] == "dyncollapse: Interrupted after 2 of 4 claims."


@pytest.mark.parametrize("count", ["0", "100000"])
def test_workers_that_cannot_be_are_one_line_and_exit_2(verify, count):
    assert "--workers" in refused(verify("--workers", count))
