"""Groups list their commands without importing them, by the commands' own words."""

import click
import pytest
from click.testing import CliRunner

from dyncollapse.commands import bridge, main
from dyncollapse.commands.lazy_group import Entry, LazyGroup

GROUPS = {"dyncollapse": (main.main, main.COMMANDS), "dyncollapse bridge": (bridge.bridge, bridge.COMMANDS)}
COUNTED = """
import click
print("imported")
@click.command()
def hello():
    "Greet."
    click.echo("hello")
"""


@pytest.mark.parametrize("width", [40, 80, 100, 300])
@pytest.mark.parametrize(("group", "entries"), GROUPS.values(), ids=GROUPS)
def test_help_is_that_of_a_group_that_has_imported_its_commands(group, entries, width):
    shown = [
        CliRunner().invoke(one, ["--help"], terminal_width=width)
        for one in (LazyGroup("group", entries=entries), click.Group("group", commands=dict(group.commands)))
    ]
    assert [result.exit_code for result in shown] == [0, 0]
    assert shown[0].stdout == shown[1].stdout


@pytest.mark.parametrize(("group", "entries"), GROUPS.values(), ids=GROUPS)
def test_every_entry_is_a_command_of_that_name_and_line(group, entries):
    assert list(group.commands) == list(entries)
    for name, entry in entries.items():
        command = group.commands[name]
        assert command.name == name
        assert command.get_short_help_str(10**6) == entry.help


def test_a_command_is_imported_once_and_when_it_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "counted.py").write_text(COUNTED)
    monkeypatch.syspath_prepend(tmp_path)
    group = LazyGroup("group", entries={"hello": Entry("counted:hello", "Greet.")})
    call = CliRunner().invoke
    assert "hello  Greet.\n" in call(group, ["--help"]).stdout
    assert call(group, ["hello"]).stdout == "imported\nhello\n"
    assert call(group, ["hello"]).stdout == "hello\n"


def test_commands_can_be_added_and_taken_away():
    group = LazyGroup("group", entries={"other": Entry("nowhere:other", "Stay.")})
    group.add_command(click.Command("late", callback=lambda: click.echo("here"), help="Come."))
    call = CliRunner().invoke
    assert call(group, ["late"]).stdout == "here\n"
    assert len(group.commands) == 2
    assert "late   Come.\n  other  Stay.\n" in call(group, ["--help"]).stdout
    del group.commands["late"]
    assert list(group.commands) == ["other"]


@pytest.mark.parametrize(("words", "near"), [(["simulat"], "simulate"), (["bridge", "pretrian"], "pretrain")])
def test_a_slip_names_the_command_that_was_meant(words, near):
    result = CliRunner().invoke(main.main, words)
    assert result.exit_code == 2
    assert f"No such command '{words[-1]}'" in result.stderr
    assert near in result.stderr
