"""Commands are known by their pages; what they run is imported when it is called."""

import inspect
import re
import shlex
import subprocess
import sys
from importlib import import_module

import click
import pytest
from click.testing import CliRunner
from helpers.commands import PAGES

from dyncollapse.commands.help_pages import grouped_option, page
from dyncollapse.commands.main import main

COUNTED = """
print("imported")
def hello(name): print("hello", name)
"""
# Each page of help, and the group's own ones, in one interpreter: modules that stay away from the first stay away.
EVERY_PAGE = """
import sys
from click.testing import CliRunner
from dyncollapse.commands.main import main
for words in {pages!r}:
    result = CliRunner().invoke(main, [*words.split(), "--help"])
    assert result.exit_code == 0, (words, result.output)
for words in ("help", "help collapse", "help simulate", "help bridge pretrain"):
    result = CliRunner().invoke(main, words.split())
    assert result.exit_code == 0, (words, result.output)
result = CliRunner().invoke(main, ["sweep", "--out", "x", "--executor", "cloud"])
assert result.exit_code == 2, result.output
print(*sorted({{"torch", "numpy", "scipy", "matplotlib", "rich", "timm"}} & set(sys.modules)))
"""


def test_no_page_of_help_imports_torch():
    code = EVERY_PAGE.format(pages=list(PAGES))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "\n", "")


@pytest.mark.parametrize("words", [words for words, one in PAGES.items() if not isinstance(one, click.Group)])
def test_the_function_of_a_page_is_there_and_takes_its_options(words, monkeypatch):
    module, _, name = PAGES[words].runs.partition(":")
    function, given = getattr(import_module(module), name), {}
    assert function.__doc__
    assert name.rstrip("_") == words.split()[-1]
    monkeypatch.setattr(f"{module}.{name}", given.update)
    result = CliRunner().invoke(main, shlex.split(PAGES[words].example)[1:])
    assert result.exit_code == 0, result.output
    assert given
    inspect.signature(function).bind(**given)


def test_a_function_is_imported_when_its_command_is_called(tmp_path, monkeypatch):
    (tmp_path / "counted.py").write_text(COUNTED)
    monkeypatch.syspath_prepend(tmp_path)
    command = page("counted:hello", "Who is there?", click.option("--name"))
    call = CliRunner().invoke
    assert "Who is there?" in call(command, ["--help"]).stdout
    assert call(command, ["--name", "you"]).stdout == "imported\nhello you\n"
    assert call(command, ["--name", "me"]).stdout == "hello me\n"


def test_an_earlier_name_of_an_option_is_taken_and_not_shown():
    @click.command()
    @grouped_option("--colour", former="--color", metavar="NAME", help="Of the wall.")
    def paint(colour):
        click.echo(colour)

    call = CliRunner().invoke
    assert [call(paint, [name, "red"]).stdout for name in ("--colour", "--color")] == ["red\n"] * 2
    assert re.search(r"--colour NAME  Of the wall\.\n", call(paint, ["--help"]).stdout)
    assert "--color " not in call(paint, ["--help"]).stdout
    shown = call(main, ["bridge", "probe", "--help"]).stdout
    assert "--classifier logistic|sgd" in shown
    assert "--method" not in shown


@pytest.mark.parametrize(("words", "near"), [(["simulat"], "simulate"), (["bridge", "pretrian"], "bridge pretrain")])
def test_a_slip_names_the_command_that_was_meant(words, near):
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert f"No such command '{words[-1]}'" in result.stderr
    assert f"did you mean main {near}?" in result.stderr
