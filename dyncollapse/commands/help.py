"""`dyncollapse help`: a topic, a command's page, or the list of both."""

import textwrap
from collections.abc import Iterator, Sequence

import click

from dyncollapse.commands.help_pages import command_names, commands_below, commands_meant
from dyncollapse.commands.shared import fail
from dyncollapse.commands.topics import explained_words, topic_names, topic_of, topic_text, topic_title
from dyncollapse.runtime.settings import near_names, quoted

WIDTH = 80


def help_(words: Sequence[str]) -> None:
    """Print the topic or the command's page that the words name; without words, list both."""
    root, name = click.get_current_context().find_root(), " ".join(words)
    if not words:
        click.echo("\n".join(_overview(root.command)))
    elif (topic := topic_of(name)) is not None:
        click.echo(topic_text(topic), nl=False)
    elif (page := _page(root, words)) is not None:
        click.echo(page)
    else:
        known = [*topic_names(), *explained_words(), *command_names(root.command)]
        meant = f"choose one of {', '.join(topic_names())}"
        below = [command for command in command_names(root.command) if command.endswith(f" {name}")]
        if near := below or near_names(name.lower(), known) or commands_meant(name, root.command):
            meant = f"did you mean {' or '.join(near)}?"
        fail(2, f"there is no topic or command {quoted(name)}; {meant} (dyncollapse help lists all)")


def _overview(root: click.Command) -> Iterator[str]:
    """The lines that list topics and commands."""
    commands = {name: command.get_short_help_str(WIDTH) for name, command in commands_below(root)}
    topics = {name: topic_title(name) for name in topic_names()}
    column = max(map(len, (*commands, *topics))) + 2
    for heading, entries in (("Topics, dyncollapse help TOPIC:", topics), ("Commands:", commands)):
        yield heading
        for name, words in entries.items():
            yield from textwrap.wrap(
                f"  {name:{column}}{words}", WIDTH, subsequent_indent=" " * (column + 2), drop_whitespace=True
            )
        if entries is topics:
            yield ""


def _page(context: click.Context, words: Sequence[str]) -> str | None:
    """The page of the command that the words name, None where there is none."""
    for word in words:
        command = context.command.get_command(context, word) if isinstance(context.command, click.Group) else None
        if command is None:
            return None
        context = click.Context(command, parent=context, info_name=word)
    return context.get_help()
