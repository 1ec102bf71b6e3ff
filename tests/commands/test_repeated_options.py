"""An option that takes a list and is given more than once: the last one counts, which is said, and how to give all."""

import pytest
from click.testing import CliRunner
from helpers.programs import SMALL

from dyncollapse.commands.main import main

LR = "--lr is given 2 times, and the last one counts; for all values write --lr 0.1,0.2"
SEED = "--seed is given 3 times, and the last one counts; for all values write --seed 1,2,3,4"


def run(words, *arguments):
    return CliRunner().invoke(main, [*words.split(), *map(str, arguments)])


@pytest.mark.parametrize(("given", "told"), [("--lr 0.1 --lr 0.2", LR), ("--seed 1,2 --seed=3 --seed 4", SEED)])
def test_the_last_list_counts_and_the_others_are_told_of(given, told):
    result = run("sweep", *SMALL, *given.split(), "--dry-run", "--out", "grid")
    assert result.exit_code == 0
    assert f"dyncollapse: warning: {told}\n" in result.stderr
    assert "1 point" in result.stdout + result.stderr


def test_names_in_a_list_are_told_of_too(tmp_path):
    result = run(
        "simulate", *SMALL, "--dynamics", "sgd", "--dynamics", "population", "--out", tmp_path / "run", "--json"
    )
    assert result.exit_code == 0
    assert "for all values write --dynamics sgd,population" in result.stderr


def test_single_values_and_switches_are_overridden_as_everywhere(tmp_path):
    given = ["--lr", "0.1", "--lr", "0.2", "--bias", "--no-bias", "--dynamics", "population", "--out", tmp_path / "run"]
    result = run("simulate", *SMALL, *given)
    assert result.exit_code == 0
    assert "is given" not in result.stderr


def test_options_of_which_every_value_counts_are_no_matter():
    result = run("verify", "--claim", "lemma-1", "--claim", "lemma-2")
    assert result.exit_code == 0
    assert "is given" not in result.stderr


def test_values_in_the_advice_are_short_and_printable():
    result = run("sweep", *SMALL, "--seed", "\x1b[31m", "--seed", "0" * 300 + "1", "--dry-run", "--out", "grid")
    (line,) = [line for line in result.stderr.splitlines() if "is given" in line]
    assert r"--seed \x1b[31m,000" in line
    assert len(line) < 250
