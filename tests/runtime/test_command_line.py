"""A command on a page gives the same settings again."""

import shlex
from pathlib import Path

import click
import pytest

from dyncollapse.bridge.evaluation.options import EncoderOptions
from dyncollapse.bridge.prediction.options import PredictOptions
from dyncollapse.commands.options import record_options
from dyncollapse.diagnostics.options import DiagnosisOptions
from dyncollapse.runtime.command_line import chosen, command_line

RECORDS = [
    DiagnosisOptions(loss="ntxent", temperature=0.25, svd=True, seed=7, space="a b; rm -rf '$HOME'"),
    PredictOptions("my photos", loss=("spectral", "byol"), train=True, lr=1e-7, features=Path("a 'run'")),
    EncoderOptions(Path("x.pth"), prefix_map=("a=b c", "d="), device="cuda:1", trust_checkpoint=True),
]


@pytest.mark.parametrize("given", RECORDS, ids=lambda one: type(one).__name__)
def test_options_of_a_record_are_read_back_alike(given):
    seen = []

    @click.command()
    @record_options(type(given))
    def command(options):
        seen.append(options)

    line = command_line("x", **chosen(given))
    words = shlex.split(line)
    assert words[:2] == ["dyncollapse", "x"]
    command.main(words[2:], standalone_mode=False)
    assert seen == [given]


def test_defaults_are_left_out():
    assert command_line("diagnose", "z.npy", **chosen(DiagnosisOptions())) == "dyncollapse diagnose z.npy"


@pytest.mark.parametrize("name", ["$(reboot)", "a;b", "a\nb", "\x1b[2J", "-rf", "~", "*"])
def test_a_name_stays_one_word(name):
    line = command_line("diagnose", name)
    assert line.isprintable()
    (*_, word) = words = shlex.split(line)
    assert len(words) == 3
    assert not word.startswith("-")
