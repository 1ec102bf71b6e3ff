"""An option that is given more than once: every value counts, or the command is refused."""

import click
import pytest
from click.testing import CliRunner
from helpers.commands import PAGES
from helpers.programs import refused

from dyncollapse.commands.main import main

COMMANDS = {words: command for words, command in PAGES.items() if not isinstance(command, click.Group)}
# Options of which every value counts.
REPEATED = {"--claim", "--prefix-map", "--positives"}


def options(command):
    """Options that take a value, and switches that are on or off."""
    found = [one for one in command.params if isinstance(one, click.Option)]
    return [one for one in found if not one.is_flag or one.secondary_opts]


def run(words, *arguments):
    return CliRunner().invoke(main, [*words.split(), *arguments])


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_is_given_once_or_keeps_every_value(words):
    for one in options(COMMANDS[words]):
        name = max(one.opts, key=len)
        if name in REPEATED:
            assert one.multiple
            continue
        given = [name, name] if one.is_flag else [f"{name}=1", name, "2"]
        line = refused(run(words, *given))
        assert f"{name} is given 2 times; " in line


@pytest.mark.parametrize(
    ("words", "given", "told"),
    [
        ("sweep", "--lr 0.1 --lr 0.2", "--lr is given 2 times; write its values in one list: --lr 0.1,0.2; "),
        (
            "sweep",
            "--steps 0,5 --steps=20 --steps 3",
            "--steps is given 3 times; write its values in one list: --steps 0,5,20,3; ",
        ),
        ("sweep", "--widths 4,4 --widths 5,5", "--widths is given 2 times; give it once; "),
        ("simulate", "--lr 0.1 --lr 0.2", "--lr is given 2 times; give it once; "),
        ("simulate", "--bias --no-bias", "--bias is given 2 times; give it once; "),
        ("simulate", "--plot paths --plot alignment", "write its values in one list: --plot paths,alignment; "),
        ("bridge probe", "--method sgd --classifier sgd", "--classifier is given 2 times; give it once; "),
    ],
)
def test_advice_fits_the_option(words, given, told):
    assert told in refused(run(words, *given.split()))


def test_values_in_the_advice_are_short_and_printable():
    line = refused(run("sweep", "--lr", "\x1b[31m", "--lr", "0" * 500))
    assert r"--lr \x1b[31m,000" in line
    assert len(line) < 250


@pytest.mark.parametrize("given", [["--lr", "1", "--lr", "2", "--help"], ["--json", "--json", "--help"]])
def test_help_is_shown_all_the_same(given):
    assert run("sweep", *given).exit_code == 0
