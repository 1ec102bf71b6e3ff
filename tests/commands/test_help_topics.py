"""`dyncollapse help`: every topic is half a screen of plain text, and leads on."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from helpers.commands import PAGES
from helpers.programs import refused

from dyncollapse.commands.help_pages import HelpPage
from dyncollapse.commands.main import main
from dyncollapse.commands.topics import EXPLAINED_IN, topic_names
from dyncollapse.diagnostics.intervals import DEFINITIONS
from dyncollapse.diagnostics.verdict import Fate, Mechanism
from dyncollapse.model.choices import DYNAMICS, VIEWS
from dyncollapse.simulation.configuration import PRESETS

DOCS = Path(__file__).parent.parent.parent / "docs"
TOPICS = ("causes", "checkpoints", "collapse", "folders", "formats", "grids", "losses", "measures", "presets", "rho")
TOPICS += ("settings-files", "spaces", "time", "views")
LINES = 25


def shown(*words):
    result = CliRunner().invoke(main, ["help", *words])
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_these_are_the_topics():
    assert tuple(topic_names()) == TOPICS


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_fits_half_a_screen_and_ends_with_its_page(name):
    lines = shown(name).splitlines()
    assert len(lines) <= LINES
    assert all(len(line) <= 80 and line == line.rstrip() for line in lines)
    assert re.fullmatch(r"[A-Z][^.]*", lines[0])
    assert lines[1] == ""
    assert re.fullmatch(r"Page: docs/[a-z-]+/[a-z-]+\.md", lines[-1])


@pytest.mark.skipif(not (DOCS / "explanation").is_dir(), reason="the pages are not in folders yet")
@pytest.mark.parametrize("name", TOPICS)
def test_the_page_of_a_topic_is_there(name):
    assert (DOCS.parent / shown(name).splitlines()[-1].removeprefix("Page: ")).is_file()


@pytest.mark.parametrize("name", TOPICS)
def test_what_a_topic_names_is_there_and_some_command_names_the_topic(name):
    text = shown(name)
    for other in re.findall(r"dyncollapse help ([a-z -]+)(?:,|$)", text, re.MULTILINE):
        assert other in TOPICS or other in PAGES, other
    assert any(name in one.topics for one in PAGES.values() if isinstance(one, HelpPage))
    options = {flag for one in PAGES.values() for part in one.params for flag in (*part.opts, *part.secondary_opts)}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text)) <= options


@pytest.mark.parametrize(
    "line",
    [
        line
        for name in TOPICS
        for line in re.findall(r"dyncollapse (?!help)[a-z].*", shown(name))
        if not re.match(r"dyncollapse\[", line)
    ],
)
def test_commands_in_topics_are_taken(line):
    words, command = shlex.split(line)[1:], main
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(command), words.pop(0))
    command.make_context(command.name, words)


def test_topics_name_all_that_they_are_about():
    assert all(re.search(rf"^  {fate} ", shown("collapse"), re.MULTILINE) for fate in Fate)
    assert all(re.search(rf"^  {name} ", shown("measures"), re.MULTILINE) for name in DEFINITIONS)
    assert all(re.search(rf"^  {name} ", shown("views"), re.MULTILINE) for name in (*VIEWS, "clean"))
    assert all(re.search(rf"^  {name} ", shown("presets"), re.MULTILINE) for name in PRESETS)
    assert ",".join(DYNAMICS) in shown("time")


@pytest.mark.parametrize(("topic", "word"), [(topic, word) for topic, words in EXPLAINED_IN.items() for word in words])
def test_a_word_leads_to_the_topic_that_explains_it(topic, word):
    assert shown(*word.split()) == shown(word.capitalize()) == shown(topic)
    assert word == word.lower()
    assert word not in TOPICS
    assert sum(word in words for words in EXPLAINED_IN.values()) == 1


def test_every_word_of_a_verdict_and_every_measure_leads_to_a_topic():
    assert all(shown(fate) == shown("collapse") for fate in Fate)
    assert all(shown(name) == shown("measures") for name in DEFINITIONS)
    known = {word for words in EXPLAINED_IN.values() for word in words} | set(TOPICS)
    assert {str(one) for one in Mechanism} - known == {"none", "both", "unknown"}
    for word in ("embedding", "representation", "projector", "normalised", "NT-Xent", "monitor", "two-sided", "Sigma0"):
        assert shown(word).count("\n") > 10


def test_without_words_topics_and_commands_are_listed():
    lines = shown().splitlines()
    assert all(len(line) <= 80 for line in lines)
    for name in (*TOPICS, *filter(None, PAGES)):
        assert any(line.startswith(f"  {name}  ") for line in lines), name


@pytest.mark.parametrize("words", [words for words in PAGES if words])
def test_a_commands_page_is_that_of_its_help(words):
    asked = CliRunner().invoke(main, [*words.split(), "--help"], prog_name="dyncollapse")
    assert CliRunner().invoke(main, ["help", *words.split()], prog_name="dyncollapse").stdout == asked.stdout


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("colapse",), "did you mean collapse"),
        (("Views",), "did you mean views"),
        (("bridge", "pretrian"), "did you mean bridge pretrain"),
        (("collapse", "rho"), "did you mean collapse"),
        (("qqq",), f"choose one of {', '.join(TOPICS)}"),
        (("\x1b[31m",), "choose one of"),
        (("../topics/rho",), "dyncollapse help lists all"),
    ],
)
def test_an_unknown_topic_names_near_ones(words, near):
    assert near in refused(CliRunner().invoke(main, ["help", *words]))
