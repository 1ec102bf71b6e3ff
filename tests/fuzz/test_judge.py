"""What the fuzz takes for a violation, on results made by hand and on commands that do wrong."""

import json

import click
import pytest

from dyncollapse.commands.main import main
from fuzz.campaign import minimised
from fuzz.options import commands
from fuzz.runner import Outcome, Try, judge
from fuzz.world import BASES

REFUSED = b"dyncollapse: --dim is 0; give at least 1\n"
FINE = {
    "code": 0,
    "seconds": 0.1,
    "memory": 0,
    "stopped": "",
    "interrupted": False,
    "left_running": 0,
    "stdout": b"done\n",
    "stderr": b"",
}
TRACEBACK = b'Traceback (most recent call last):\n  File "/x/dyncollapse/a.py", line 3, in f\n    g()\nKeyError: 1\n'


def judged(after=(), arguments=("simulate",), large=False, **given):
    before = {"here": False}
    tried = Try("options", arguments, large=large)
    return judge(tried, FINE | given, before, before | dict.fromkeys(after, False))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"code": 2, "stdout": b"", "stderr": REFUSED},
        {"code": 1, "stderr": b"dyncollapse: diverged\n"},
        {"code": 0, "after": ("here/out/run.json",)},
        {"code": 2, "stdout": b"", "stderr": b"dyncollapse: what there is is in out/\n", "after": ("here/out/log",)},
        {"code": 0, "arguments": ("simulate", "--json"), "stdout": b"{}\n"},
    ],
)
def test_what_commands_promise_is_no_violation(given):
    assert judged(**given).violations == {}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("traceback", {"code": 1, "stderr": TRACEBACK}),
        ("exit", {"code": 3}),
        ("exit", {"code": -11}),
        ("line", {"code": 2, "stdout": b"", "stderr": b""}),
        ("line", {"code": 2, "stdout": b"", "stderr": b"first\n" + REFUSED}),
        ("line", {"code": 2, "stdout": b"", "stderr": b"Error: no\n"}),
        ("stdout", {"code": 2, "stderr": REFUSED}),
        ("control", {"stdout": b"\x1b[31mred\n"}),
        ("control", {"stderr": b"a\rb\n"}),
        ("control", {"stdout": "\x9b31m".encode()}),
        ("warning", {"stderr": b"/lib/site-packages/x.py:3: UserWarning: odd\n  odd()\n"}),
        ("time", {"stopped": "time", "interrupted": True, "code": 130}),
        ("idle", {"stopped": "idle", "code": -9}),
        ("memory", {"memory": 2 << 30}),
        ("processes", {"stopped": "processes", "code": -9}),
        ("running", {"left_running": 1}),
        ("partial", {"after": ("here/out/run.json.partial",)}),
        ("left", {"code": 2, "stdout": b"", "stderr": REFUSED, "after": ("here/out/run.json",)}),
        ("json", {"arguments": ("simulate", "--json"), "stdout": b'{"loss": NaN}\n'}),
    ],
)
def test_each_violation_is_named(name, given):
    assert [*judged(**given).violations] == [name]


def test_large_work_may_take_long_where_ctrl_c_ends_it():
    stopped = {"stopped": "time", "interrupted": True, "code": 130, "large": True}
    assert judged(**stopped).slow
    assert judged(**stopped).violations == {}
    assert not judged(**stopped | {"interrupted": False}).slow


def test_every_command_has_a_valid_use_to_start_from():
    assert set(dict(commands(main))) == set(BASES)
    assert all(isinstance(command, click.Command) for _, command in commands(main))


def test_a_try_is_made_smaller_while_the_fault_stays():
    class Faulty:
        def run(self, tried, _bound):
            wrong = "--lr" in tried.arguments and ("flip", "a") in tried.steps
            return Outcome(1, 0.0, 0, "", "", False, {"exit": "3"} if wrong else {})

    tried = Try("options", ("simulate", "--dim", "4", "--lr", "--json"), steps=(("flip", "a"), ("cut", "b")))
    smallest = minimised(Faulty(), tried, "exit: 3", 1.0)
    assert smallest.arguments == ("simulate", "--lr")
    assert smallest.steps == (("flip", "a"),)
    assert json.loads(tried.as_json())["arguments"] == list(tried.arguments)
