"""Every command with its words."""

import click

from dyncollapse.commands.main import main


def pages(command=main, words=()):
    """Every command and group below a command by its words."""
    yield " ".join(words), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from pages(command.get_command(context, name), (*words, name))


PAGES = dict(pages())
