"""Pages of help: options below headings, units and defaults, an example that the command takes."""

import re
import shlex

import click
import pytest
from click.testing import CliRunner

from dyncollapse.bridge.evaluation.options import EncoderOptions
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.commands.help_pages import EXAMPLES, GroupedCommand, grouped_option
from dyncollapse.commands.main import main
from dyncollapse.commands.shared import record_options
from dyncollapse.runtime.records import settings_of
from dyncollapse.runtime.settings import option, renamed
from dyncollapse.simulation.configuration import Configuration


def pages(command=main, words=()):
    """Every command and group by its words."""
    yield " ".join(words), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from pages(command.get_command(context, name), (*words, name))


PAGES = dict(pages())


def page(words, width=400):
    shown = CliRunner().invoke(main, [*words.split(), "--help"], terminal_width=width, max_content_width=width)
    assert shown.exit_code == 0
    return shown.output


def headings(text):
    return [line.removesuffix(":") for line in text.splitlines() if re.fullmatch(r"[A-Z][a-z]+:", line)]


def test_headings_are_the_groups_of_the_settings():
    assert headings(page("simulate")) == ["Data", "Network", "Training", "Flow", "Output", "Example"]
    assert headings(page("sweep")) == ["Data", "Network", "Training", "Flow", "Running", "Output", "Example"]
    assert headings(page("bridge pretrain")) == [
        *("Data", "Augmentation", "Encoder", "Projector", "Loss", "Optimisation", "Run", "Example")
    ]
    assert headings(page("collect")) == ["Options", "Example"]
    assert headings(page("")) == ["Options", "Commands", "Example"]


@pytest.mark.parametrize(("words", "record"), [("simulate", Configuration), ("bridge pretrain", Recipe)])
def test_every_setting_is_shown_once_below_its_group_with_its_default_and_unit(words, record):
    parts = re.split(r"^([A-Z][a-z]+):\n", page(words), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    for setting in settings_of(record).values():
        if not setting.text:
            continue
        found = [
            (group, " ".join(entry.split()))
            for group, text in sections.items()
            for entry in re.split(r"^  (?=-)", text, flags=re.MULTILINE)
            if re.match(rf"{option(setting.name)}[ /]", entry)
        ]
        assert [group for group, _ in found] == [setting.group.capitalize()], setting.name
        assert renamed(setting.text, option) in found[0][1]
        assert found[0][1].endswith(f" [{renamed(setting.standard, option)}]")


@pytest.mark.parametrize("words", PAGES)
def test_every_page_ends_with_an_example_that_its_command_takes(words):
    lines = page(words, width=80).splitlines()
    assert lines[-2:] == ["Example:", f"  {EXAMPLES[words]}"]
    assert len(lines[-1]) <= 80
    program, *arguments = shlex.split(EXAMPLES[words])
    assert program == "dyncollapse"
    command = main
    while isinstance(command, click.Group):
        assert arguments[0] in command.list_commands(click.Context(command))
        command = command.get_command(click.Context(command), arguments.pop(0))
    if not isinstance(PAGES[words], click.Group):
        assert command is PAGES[words]
    command.make_context(command.name, arguments)


def test_examples_are_of_the_commands():
    assert EXAMPLES.keys() == PAGES.keys()


def test_options_without_a_group_come_last_and_arguments_nowhere():
    @click.command(cls=GroupedCommand, rest="other")
    @click.argument("room")
    @record_options(EncoderOptions, only=["checkpoint"])
    @click.option("--plain")
    @grouped_option("--late", group="water")
    @grouped_option("--wide", group="size")
    def bath(**_given):
        """A bath."""

    shown = CliRunner().invoke(bath, ["--help"]).output
    assert headings(shown) == ["Encoder", "Water", "Size", "Other"]
    assert shown.count("ROOM") == shown.count("[required]") == 1
