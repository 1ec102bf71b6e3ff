"""What only terminals get: sentences wrapped at words, and the completion of a shell."""

import io

import pytest
from click.shell_completion import BashComplete
from helpers.terminals import shown_on_terminal

from dyncollapse.commands.console import open_console
from dyncollapse.commands.main import main

SENTENCE = "Population limit at the end of population: not valid, since it takes more negatives than the batch has."


@pytest.mark.parametrize("terminal", [True, False])
def test_sentences_are_wrapped_at_words_on_terminals_only(terminal, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
    console = open_console(to_stderr=False)
    console.file = stream = io.StringIO()
    console.width = 40 if terminal else console.width
    console.print(SENTENCE, soft_wrap=True)
    lines = stream.getvalue().splitlines()
    assert " ".join(line.strip() for line in lines) == SENTENCE
    assert len(lines) == 1 or (terminal and max(map(len, lines)) <= 40)
    assert (len(lines) > 1) is terminal


def test_a_refusal_is_wrapped_at_words_on_a_narrow_terminal(tmp_path):
    command = ["-m", "dyncollapse", "simulate", "--aug-strength=-1"]
    code, lines = shown_on_terminal(command, tmp_path, 60)
    assert code == 2
    assert len(lines) == 2
    assert " ".join(lines) == "dyncollapse: --aug-strength is -1.0; it must be between 0 and 1e15"


@pytest.mark.parametrize(
    ("words", "begun", "expected"),
    [
        (["simulate"], "--aug-s", ["--aug-strength"]),
        (["simulate", "--loss"], "v", ["vcreg", "vicreg"]),
        (["simulate", "--dynamics"], "sgd,p", ["sgd,population"]),
        (["sweep", "--loss"], "infonce,spec", ["infonce,spectral"]),
        (["bridge", "pretrain", "--projector"], "low-rank-", ["low-rank-diagonal"]),
        ([], "sim", ["simulate"]),
    ],
)
def test_shells_complete_options_and_names(words, begun, expected):
    completions = BashComplete(main, {}, "dyncollapse", "_DYNCOLLAPSE_COMPLETE").get_completions(words, begun)
    assert [one.value for one in completions] == expected
