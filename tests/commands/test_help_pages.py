"""Pages of help: a question, options below headings with units and defaults, an example, and topics."""

import gc
import re
import shlex
import sys

import click
import pytest
from click.testing import CliRunner
from helpers.commands import PAGES

from dyncollapse.bridge.evaluation.options import EncoderOptions
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.commands.help_pages import GroupedCommand, grouped_option, imported
from dyncollapse.commands.help_pages import page as new_page
from dyncollapse.commands.main import main
from dyncollapse.commands.options import record_options
from dyncollapse.commands.topics import topic_names
from dyncollapse.runtime.records import settings_of
from dyncollapse.runtime.settings import option, renamed
from dyncollapse.simulation.configuration import Configuration


def page(words, width=400):
    shown = CliRunner().invoke(main, [*words.split(), "--help"], terminal_width=width, max_content_width=width)
    assert shown.exit_code == 0
    return shown.output


def headings(text):
    return [line.removesuffix(":") for line in text.splitlines() if re.fullmatch(r"[A-Z][a-z]+:", line)]


LAST = ["Example", "More"]


def test_headings_are_the_groups_of_the_settings():
    assert headings(page("simulate")) == ["Data", "Network", "Training", "Flow", "Pictures", "Output", *LAST]
    assert headings(page("sweep")) == [*("Data", "Network", "Training", "Flow", "Running", "Pictures", "Output", *LAST)]
    assert headings(page("bridge pretrain")) == [
        *("Data", "Augmentation", "Encoder", "Projector", "Loss", "Optimisation", "Run", *LAST)
    ]
    assert headings(page("bridge check")) == ["Images", "Runs", "Scale", "Output", *LAST]
    assert headings(page("collect")) == ["Options", *LAST]
    assert headings(page("")) == ["Options", "Commands", *LAST]


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
def test_every_page_begins_with_a_question_that_its_group_lists_whole(words):
    question, *rest = PAGES[words].help.split("\n\n")
    assert re.fullmatch(r"(Which|How|What|Does|Do) [^.?]*\?", question)
    assert len(question) <= 62  # beside the commands' names on a terminal of 80 columns
    assert page(words, width=80).splitlines()[2] == f"  {question}"
    assert rest or not words
    group, _, name = words.rpartition(" ")
    if words:
        assert re.search(rf"^  {name} +{re.escape(question)}$", page(group, width=80), re.MULTILINE)


@pytest.mark.parametrize("words", PAGES)
def test_every_page_ends_with_an_example_that_its_command_takes_and_topics_that_exist(words):
    text, example = page(words, width=80), PAGES[words].example
    assert all(len(line) <= 80 for line in text.splitlines())
    shown, _, topics = text.partition("Example:\n")[2].partition("\n\nMore:\n")
    assert shown == f"  {example}"
    told = " ".join(topics.split())
    assert told == f"dyncollapse help TOPIC explains {', '.join(PAGES[words].topics)}."
    assert PAGES[words].topics
    assert set(PAGES[words].topics) <= set(topic_names())
    program, *arguments = shlex.split(example)
    assert program == "dyncollapse"
    command = main
    while isinstance(command, click.Group):
        assert arguments[0] in command.list_commands(click.Context(command))
        command = command.get_command(click.Context(command), arguments.pop(0))
    if not isinstance(PAGES[words], click.Group):
        assert command is PAGES[words]
    command.make_context(command.name, arguments)


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


def test_a_command_is_imported_without_looking_for_garbage_which_is_looked_for_afterwards(tmp_path, monkeypatch):
    (tmp_path / "made_up_command.py").write_text("import gc\n\nCOLLECTED = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert not imported("made_up_command").COLLECTED
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
        gc.unfreeze()
        assert imported("made_up_command") is sys.modules["made_up_command"]
        assert gc.get_freeze_count() == 0  # what a program has made since then may be garbage
    finally:
        gc.unfreeze()
        sys.modules.pop("made_up_command", None)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_server_of_workers_starts_before_the_command_is_imported(workers, tmp_path, monkeypatch):
    (tmp_path / "made_up_work.py").write_text("def work(workers):\n    print(workers)\n")
    monkeypatch.syspath_prepend(tmp_path)
    begun = []
    monkeypatch.setattr(
        "dyncollapse.runtime.executors.begin_server", lambda: begun.append("made_up_work" in sys.modules)
    )
    command = new_page(
        "made_up_work:work", "", click.option("--workers", type=int), has_workers=lambda given: given["workers"] > 1
    )
    result = CliRunner().invoke(command, ["--workers", str(workers)])
    del sys.modules["made_up_work"]
    gc.unfreeze()
    assert result.output == f"{workers}\n"
    assert begun == [False] * (workers > 1)


def test_a_command_that_cannot_be_imported_leaves_the_search_for_garbage_as_it_was():
    with pytest.raises(ModuleNotFoundError):
        imported("no_such_command")
    assert gc.isenabled()
    gc.unfreeze()
