"""The boundary between library and command line: parameters' names in messages become the running command's options."""

import logging

import click
import pytest
from click.testing import CliRunner
from helpers.hostile_values import ESCAPES, shown_safely
from helpers.programs import refused

from dyncollapse.bridge.evaluation.embed_options import EmbedOptions
from dyncollapse.commands.help_pages import GroupedCommand
from dyncollapse.commands.options import record_options
from dyncollapse.commands.shared import OneLineErrors, as_options, bad_input
from dyncollapse.diagnostics.options import DiagnosisOptions
from dyncollapse.runtime.settings import SettingError, quoted


@pytest.fixture
def raising():
    """A command that raises an error, and what it says of it."""

    def call(error):
        @click.command()
        @click.argument("file")
        @click.option("--batch-size", type=int)
        @click.option("--pack", "-p", "most_runs", type=int)
        @click.option("--bias/--no-bias")
        def command(**_given):
            with bad_input():
                raise error

        return refused(CliRunner().invoke(command, ["z.npy"])).removeprefix("dyncollapse: ")

    return call


@pytest.mark.parametrize("kind", [SettingError, ValueError])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("`batch_size` is 1; give 2", "--batch-size is 1; give 2"),
        ("lower `batch_size` or `most_runs`", "lower --batch-size or --pack"),
        ("`bias` has no closed form", "--bias has no closed form"),
        ("`file` holds no array", "FILE holds no array"),
        ("drop the options `batch_`...", "drop the options --batch-..."),
        ("nothing is named here", "nothing is named here"),
    ],
)
def test_parameters_are_named_as_the_running_commands_options(raising, kind, text, told):
    assert raising(kind(text)) == told


def test_a_name_that_the_command_has_not_is_no_option(raising):
    assert raising(SettingError("lower `pool` or `batch_size`")) == "lower pool or --batch-size"
    assert raising(ValueError("`pool` is code; lower `batch_size`")) == "`pool` is code; lower --batch-size"


def test_texts_of_users_name_no_option_and_do_nothing_to_the_terminal(raising):
    told = raising(ValueError(f"`batch_size` is {quoted('`bias`' + ESCAPES)}"))
    assert told.startswith("--batch-size is ''bias'red")
    assert shown_safely(told)


def test_outside_of_a_command_settings_are_options_and_other_errors_are_left():
    assert as_options(SettingError("lower `pool`")) == "lower --pool"
    assert as_options(ValueError("lower `pool`")) == "lower `pool`"


@pytest.fixture
def ask():
    """Options of a record on a command, and the record that it makes of them."""

    def call(*arguments, only=None):
        made = []

        @click.command()
        @record_options(DiagnosisOptions, "wanted", only=only)
        @click.option("--key")
        def command(wanted, **given):
            made.append(wanted)
            assert list(given) == ["key"]

        result = CliRunner().invoke(command, arguments)
        return made[0] if made else refused(result)

    return call


def test_a_record_is_made_of_the_options_given(ask):
    assert ask() == DiagnosisOptions()
    assert ask("--views", "one-sided", "--sample", "9", "--no-svd", "--fast") == DiagnosisOptions(
        views="one-sided", sample=9, fast=True
    )
    assert ask("--loss", "dot", only=("views", "loss")) == DiagnosisOptions(loss="dot")


def test_two_records_of_one_command_take_their_own_options():
    made = []

    @click.command()
    @record_options(EmbedOptions, "first", only=("split",))
    @record_options(DiagnosisOptions, "second", only=("views", "space"))
    def command(first, second):
        made.extend([first, second])

    given = ["--split", "train", "--views", "one-sided", "--space", "r"]
    assert CliRunner().invoke(command, given).exit_code == 0
    assert made == [EmbedOptions(split="train"), DiagnosisOptions(views="one-sided", space="r")]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--sample", "1"), "--sample is 1; it must be between 2 and 1e9 rows"),
        (("--temperature", "nan"), "--temperature is nan; it must be between 1e-15 and 1e15"),
        (("--views", "both"), "--views is 'both'; choose one of one-sided, two-sided"),
        (("--seed", "9" * 40), "--seed is a number of more than 38 digits; it must be between 0 and 2^63 - 1"),
    ],
)
def test_what_a_record_refuses_is_told_in_options(ask, arguments, told):
    assert ask(*arguments) == f"dyncollapse: {told}"


def test_that_functions_are_compiled_is_said_once():
    @click.command(cls=GroupedCommand)
    def compiles():
        for name in ("one", "other"):
            logging.getLogger("dyncollapse.runtime.compiled").info("compiling %s", name)

    group = OneLineErrors("made-up", commands={"compiles": compiles})
    result = CliRunner().invoke(group, ["compiles"])
    assert result.stdout == ""
    assert result.stderr == "Compiling functions for this machine, once: that takes half a minute to a minute in all\n"
    assert not logging.getLogger("dyncollapse.runtime.compiled").handlers
