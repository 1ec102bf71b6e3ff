"""What a command says about its input on stderr: in time, and not before a refusal, which is one line."""

import os
import time

import click
import pytest
from click.testing import CliRunner
from helpers.constants import set_constant

from dyncollapse.commands.shared import OneLineErrors, fail, note, say, warn


def output(*acts):
    """Exit code, stdout and stderr of a command that does these, of a function and its arguments each."""

    @click.group(cls=OneLineErrors)
    def group():
        pass

    @group.command()
    def command():
        for act, *arguments in acts:
            act(*arguments)

    done = CliRunner().invoke(group, ["command"])
    return done.exit_code, done.stdout, done.stderr


NOTE = (note, "skipped: a\x1b.png")
SHOWN = "skipped: a\\x1b.png\n"


def interrupt():
    raise KeyboardInterrupt


def no_file():
    os.stat("/nowhere/at/all")


def misuse():
    raise click.UsageError("no such option")


@pytest.mark.parametrize("refusal", [(fail, 2, "no"), (no_file,), (misuse,)], ids=["refused", "no file", "misused"])
def test_a_refusal_is_one_line(refusal):
    code, stdout, stderr = output(NOTE, NOTE, refusal)
    assert (code, stdout) == (2, "")
    assert len(stderr.splitlines()) == 1
    assert stderr.startswith("dyncollapse: ")


@pytest.mark.parametrize(
    ("end", "code", "last"),
    [
        ((say, "done", True), 0, "done\n"),
        ((fail, 1, "diverged"), 1, "dyncollapse: diverged\n"),
        ((warn, "odd"), 0, "dyncollapse: warning: odd\n"),
        ((interrupt,), 130, "dyncollapse: Interrupted.\n"),
        ((str,), 0, ""),
    ],
    ids=["done", "failed", "warned", "interrupted", "silent"],
)
def test_any_other_end_shows_notes_and_in_their_order(end, code, last):
    say_both = lambda text, err: say(text, err=err)  # noqa: E731
    end = (say_both, *end[1:]) if end[0] is say else end
    found, _, stderr = output(NOTE, end)
    assert (found, stderr.lstrip("\n")) == (code, SHOWN + last)  # click ends the line on which ^C stands


def test_notes_of_long_work_are_shown_while_it_goes_on(monkeypatch):
    set_constant(monkeypatch, "commands.shared.HELD_BACK", 0.05)
    code, _, stderr = output(NOTE, (time.sleep, 0.5), NOTE, (fail, 2, "no"))
    assert (code, stderr) == (2, SHOWN + SHOWN + "dyncollapse: no\n")


def test_a_command_begins_without_the_notes_of_another():
    output(NOTE, (fail, 2, "no"))
    assert output((say_nothing,))[2] == ""


def say_nothing():
    pass
