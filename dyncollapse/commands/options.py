"""Settings of records as options of commands, and the types that options share."""

import math
import os
from collections.abc import Callable, Iterable
from functools import partial, wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from dyncollapse.commands.help_pages import grouped_option
from dyncollapse.commands.shared import as_options, fail
from dyncollapse.runtime.records import MOST_EPOCHS, MOST_WORKERS, REQUIRED, Setting, settings_of
from dyncollapse.runtime.settings import SettingError, option, quoted, renamed

Command = Callable[..., Any]
RecordT = TypeVar("RecordT")


class _Target(click.Path):
    """Where results go: a path with a name, for an empty one would mean the folder in which the user is."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("it is empty; name a folder or file, or leave it out", parameter, context)
        return super().convert(value, parameter, context)


OUT = _Target(path_type=Path)
# The option that every command has which prints a result.
AS_JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout; all else goes to stderr."
)


def _names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(name.strip() for name in value.split(",") if name.strip())


class FiniteRange(click.FloatRange):
    """Numbers between two ends; NaN, which is neither below nor above them, is refused."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, parameter, context)
        if not math.isfinite(number):
            self.fail(f"{value} is not finite", parameter, context)
        return number


def _refuse_text(parameter: click.Parameter | None, value: Any, words: str, context: click.Context | None) -> NoReturn:
    """Refuse text that is no number as the records' settings do."""
    several = ""
    if context is not None and context.command.name == "simulate" and set(",:") & set(str(value)):
        several = "; dyncollapse sweep takes several"
    name = "" if parameter is None else max(parameter.opts, key=len)
    raise click.UsageError(f"{name} is {quoted(value)}; it takes {words}{several}", context)


class _Number(click.types.FloatParamType):
    """A number, refused in plain words."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        try:
            return super().convert(value, parameter, context)
        except click.BadParameter:
            _refuse_text(parameter, value, "a number", context)


class _WholeNumber(click.types.IntParamType):
    """A whole number, refused in plain words."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        try:
            return super().convert(value, parameter, context)
        except click.BadParameter:
            _refuse_text(parameter, value, "a whole number", context)


TYPES: dict[type, click.ParamType] = {int: _WholeNumber(), float: _Number(), Path: click.Path(path_type=Path)}
# Ranges of options that are no setting of a record, as wide as those of the records' settings.
THREADS, EPOCHS = click.IntRange(1, MOST_WORKERS), click.IntRange(1, MOST_EPOCHS)
# Names of a setting that its option still lists in place of NAME.
FEW = 4
# Settings of which a sweep has one value.
SINGLE = ("preset", "case", "bias", "dynamics", "threads")


def setting_options(
    record: type, *, lists: bool = False, only: Iterable[str] | None = None
) -> Callable[[Command], Command]:
    """Give a command an option for each setting of a record. What is not given arrives as None: see `taken`.

    Args:
        record: Its fields say name, type, unit, default, group and help.
        lists: Whether an option may have several values, which the command reads itself; those of SINGLE never do.
        only: Names of the settings that the command has, where it has not all of them.

    Returns:
        The decorator.
    """
    known = settings_of(record)
    chosen = [known[name] for name in (known if only is None else only)]

    def decorate(command: Command) -> Command:
        for setting in reversed(chosen):
            if setting.text:
                command = _option(setting, lists and setting.name not in SINGLE)(command)
        return command

    return decorate


def record_options(
    record: type, name: str = "options", *, only: Iterable[str] | None = None
) -> Callable[[Command], Command]:
    """Give a command the options of a record's settings, and the record that is made of them as an argument.

    Args:
        record: As for `setting_options`.
        name: The argument.
        only: As for `setting_options`; the record has its defaults for the others.

    Returns:
        The decorator.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def packed(**given: Any) -> Any:
            try:
                made: Any = taken(record, given, only)
            except SettingError as error:
                fail(2, as_options(error))
            return command(**{name: made}, **given)

        return setting_options(record, only=only)(packed)

    return decorate


def taken(record: type[RecordT], given: dict[str, Any], only: Iterable[str] | None = None) -> RecordT:
    """Make a record of what a command was given by the options of `setting_options`.

    Args:
        record: The same class.
        given: The command's values by name; the record's settings are taken out of it.
        only: As for `setting_options`: options of these names are the record's, others of its names are another's.

    Returns:
        The record, with its defaults for what is None.

    Raises:
        SettingError: For the first value that it refuses.
    """
    names = settings_of(record) if only is None else only  # type: ignore[arg-type]
    values = {name: given.pop(name) for name in names if name in given}
    return record(**{name: value for name, value in values.items() if value is not None})


def _option(setting: Setting, several: bool) -> Callable[[Command], Command]:
    former = option(setting.former) if setting.former else ""
    add = partial(grouped_option, group=setting.group, help=_help(setting), former=former)
    name, choices = option(setting.name), setting.choices
    if setting.type is bool:
        return add(f"{name}/--no-{name[2:]}", default=None)
    if setting.type is tuple and not setting.repeat:
        return add(name, callback=_names)
    names = None if not choices else "|".join(choices) if len(choices) <= FEW else "NAME"
    metavar = setting.metavar or names
    if setting.repeat:
        return add(name, multiple=True, metavar=metavar)
    if several:
        words = metavar or {int: "INTEGER", float: "FLOAT", str: "TEXT"}[setting.type]
        return add(name, metavar=f"{words},..")
    return add(name, type=TYPES.get(setting.type, setting.type), metavar=metavar, required=setting.default is REQUIRED)


def _help(setting: Setting) -> str:
    """What a setting is, its names where the option does not list them, and what it is where none is given."""
    names = f" One of {', '.join(setting.choices)}." if len(setting.choices) > FEW else ""
    shown = setting.standard if setting.default is not REQUIRED else ""  # click itself adds [required]
    standard = f"  [{shown}]" if shown else ""
    return renamed(setting.text + names + standard, option)
