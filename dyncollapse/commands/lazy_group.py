"""A group of commands whose modules are imported when their command is called, not when the group lists them."""

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any, NamedTuple

import click

from dyncollapse.commands.shared import OneLineErrors


class Entry(NamedTuple):
    """Where a command is, as "module:attribute", and the line by which its group lists it."""

    target: str
    help: str


class LazyGroup(OneLineErrors):
    """A group of commands that are known by their entries until one is called.

    Args:
        name: The group's own name.
        entries: Its commands, by name.
        attributes: Those of `click.Group`.
    """

    def __init__(self, name: str | None = None, *, entries: Mapping[str, Entry], **attributes: Any) -> None:
        """Import nothing yet."""
        self._lazy = _LazyCommands(entries)
        super().__init__(name, commands=self._lazy, **attributes)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands as click does, those that are not imported by the lines of their entries."""
        click.Group(commands=self._lazy.listed()).format_commands(ctx, formatter)


class _LazyCommands(MutableMapping[str, click.Command]):
    """Commands by name: an entry becomes its command when that is asked for."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._known: dict[str, Entry | click.Command] = {**entries}

    def listed(self) -> dict[str, click.Command]:
        """Every command, or a stand-in that has its help alone."""
        return {
            name: click.Command(name, help=known.help) if isinstance(known, Entry) else known
            for name, known in self._known.items()
        }

    def __getitem__(self, name: str) -> click.Command:
        known = self._known[name]
        if isinstance(known, Entry):
            module, _, attribute = known.target.partition(":")
            known = self._known[name] = getattr(import_module(module), attribute)
        assert isinstance(known, click.Command), name
        return known

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._known[name] = command

    def __delitem__(self, name: str) -> None:
        del self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
