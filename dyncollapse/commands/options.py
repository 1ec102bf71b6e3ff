"""Settings of records as options of commands, and the types that options share."""

import os
import re
from collections.abc import Callable, Container, Iterable, Mapping
from functools import partial, wraps
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

import click

from dyncollapse.commands.help_pages import grouped_option
from dyncollapse.commands.shared import as_options, fail
from dyncollapse.runtime.records import MOST_EPOCHS, MOST_WORKERS, REQUIRED, Setting, settings_of
from dyncollapse.runtime.settings import SettingError, option, quoted, renamed

Command = Callable[..., Any]
RecordT = TypeVar("RecordT")


class _Target(click.Path):
    """A path for results; it may not be empty, which would mean the current folder."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("it is empty; name a folder or file, or leave it out", parameter, context)
        return super().convert(value, parameter, context)


OUT = _Target(path_type=Path)
# Every command that prints a result has this option.
AS_JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout; all else goes to stderr."
)
# Every command whose result is a page has this option; the folder of a result holds the page in any case.
AS_HTML = click.option(
    "--html", "as_html", is_flag=True, help="Print the result as one web page on stdout; all else goes to stderr."
)


def _names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(name.strip() for name in value.split(",") if name.strip())


class _Numbers(click.ParamType):
    """Several numbers with commas between them, as a tuple; whole ones too where any number is taken."""

    def __init__(self, part: "_Number | _WholeNumber") -> None:
        self.part, self.name = part, part.name

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Return the numbers."""
        if not isinstance(value, str):
            return value
        return tuple(self.part.convert(part, parameter, context) for part in value.split(","))


def _refuse_text(parameter: click.Parameter | None, value: Any, words: str, context: click.Context | None) -> NoReturn:
    """Refuse text that is no number, in the words of the records' settings."""
    several = ""
    if context is not None and context.command.name == "simulate" and set(",:") & set(str(value)):
        several = "; dyncollapse sweep with --out takes several"
    name = "" if parameter is None else max(parameter.opts, key=len)
    raise click.UsageError(f"{name} is {quoted(value)}; it takes {words}{several}", context)


class _PlainWords(click.ParamType):
    """A number of click's, which refuses text in plain words."""

    words: str

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        try:
            return super().convert(value, parameter, context)
        except click.BadParameter:
            _refuse_text(parameter, value, self.words, context)


class _Number(_PlainWords, click.types.FloatParamType):
    words = "a number"


class _WholeNumber(_PlainWords, click.types.IntParamType):
    words = "a whole number"


class Between(click.ParamType):
    """A number in a range, refused in the words of the records' settings; NaN, which compares with no end, too."""

    def __init__(self, kind: _Number | _WholeNumber, low: int, high: int, *, above: bool = False) -> None:
        """Keep the range.

        Args:
            kind: Reads the number.
            low: Its least value.
            high: Its largest value.
            above: Whether `low` itself is refused.
        """
        self.kind, self.low, self.high, self.above = kind, low, high, above
        self.name, self.words = kind.name, kind.words

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Return the number."""
        number = self.kind.convert(value, parameter, context)
        if not self.low <= number <= self.high or (self.above and number == self.low):
            span = f"above {self.low} and at most {self.high}" if self.above else f"between {self.low} and {self.high}"
            name = "" if parameter is None else max(parameter.opts, key=len)
            raise click.UsageError(f"{name} is {number:g}; it must be {span}", context)
        return number


class _Span(click.ParamType):
    """A span of time, as 90s, 40m or 2h; a plain number counts minutes. It is returned in seconds."""

    name = words = "a time, as 90s, 40m or 2h"
    units = MappingProxyType({"s": 1.0, "m": 60.0, "h": 3600.0})
    most = 168.0  # hours: a week

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "TIME"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """Return the seconds."""
        if isinstance(value, float):
            return value
        name, text = "" if parameter is None else max(parameter.opts, key=len), str(value).strip().lower()
        unit = self.units.get(text[-1:], self.units["m"])
        number = text[:-1] if text[-1:] in self.units else text
        # Digits and a point alone: float() also takes nan, inf, 1e9 and 1_0.
        if not re.fullmatch(r"[+-]?(?:[0-9]{1,9}\.?[0-9]{0,9}|\.[0-9]{1,9})", number):
            raise click.UsageError(f"{name} is {quoted(value)}; it takes {self.words}", context)
        seconds = float(number) * unit
        if not 0 < seconds <= self.most * self.units["h"]:
            raise click.UsageError(
                f"{name} is {quoted(value)}; it must be above 0 and at most {self.most:.0f}h", context
            )
        return seconds


NUMBER, WHOLE, SPAN = _Number(), _WholeNumber(), _Span()
TYPES: dict[type, click.ParamType] = {int: WHOLE, float: NUMBER, Path: click.Path(path_type=Path)}
# Ranges of options outside of records, equal to those of the records' settings.
THREADS, EPOCHS = Between(WHOLE, 1, MOST_WORKERS), Between(WHOLE, 1, MOST_EPOCHS)
# With at most so many choices, an option shows them in place of NAME.
FEW = 4
# Settings that have one value in a sweep.
SINGLE = ("preset", "case", "bias", "dynamics", "threads", "widths")


def setting_options(
    record: type,
    *,
    lists: bool = False,
    only: Iterable[str] | None = None,
    former: Mapping[str, str] = MappingProxyType({}),
    bare: Container[str] = (),
) -> Callable[[Command], Command]:
    """Give a command an option for each setting of a record; options that are not given are None.

    Args:
        record: A class of `runtime.records`; its fields have type, unit, default, group and help.
        lists: Whether options take several values as text, which the command parses; those of SINGLE never do.
        only: Names of the settings to take; by default all.
        former: For names of settings, an earlier name of the option, which is taken but not shown.
        bare: Names of settings that the command also takes without the option, which then is not required.

    Returns:
        The decorator.
    """
    known = settings_of(record)
    chosen = [known[name] for name in (known if only is None else only)]

    def decorate(command: Command) -> Command:
        for setting in reversed(chosen):
            if setting.text:
                several, earlier = lists and setting.name not in SINGLE, former.get(setting.name, "")
                required = setting.default is REQUIRED and setting.name not in bare
                command = _option(setting, several, earlier, required=required)(command)
        return command

    return decorate


def record_options(
    record: type,
    name: str = "options",
    *,
    only: Iterable[str] | None = None,
    former: Mapping[str, str] = MappingProxyType({}),
    bare: Mapping[str, str] = MappingProxyType({}),
) -> Callable[[Command], Command]:
    """Give a command the options of a record, and pass it the record that they make.

    Args:
        record: As for `setting_options`.
        name: The parameter of the command that takes the record.
        only: As for `setting_options`; the other settings keep their defaults.
        former: As for `setting_options`.
        bare: For names of settings, the argument of the command that gives the same without the option.

    Returns:
        The decorator.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def packed(**given: Any) -> Any:
            for setting, argument in bare.items():
                _take_bare(given, setting, argument)
            try:
                made: Any = taken(record, given, only)
            except SettingError as error:
                fail(2, as_options(error))
            return command(**{name: made}, **given)

        for setting, argument in bare.items():
            kind = TYPES[settings_of(record)[setting].type]
            click.argument(argument, required=False, type=kind, metavar=f"[{argument.upper()}]")(packed)
        return setting_options(record, only=only, former=former, bare=bare)(packed)

    return decorate


def _take_bare(given: dict[str, Any], setting: str, argument: str) -> None:
    """Let a command's argument take the place of an option. Raises click.UsageError if both or none are given."""
    context, value = click.get_current_context(), given.pop(argument)
    if value is None and given[setting] is None:
        missing = next(one for one in context.command.params if one.name == setting)
        raise click.MissingParameter(ctx=context, param=missing)
    if value is not None and given[setting] is not None:
        shown = f"{quoted(str(value))} and {option(setting)} {quoted(str(given[setting]))}"
        raise click.UsageError(f"{shown} are both given; give one {argument}", context)
    given[setting] = value if value is not None else given[setting]


def taken(record: type[RecordT], given: dict[str, Any], only: Iterable[str] | None = None) -> RecordT:
    """Make a record from the values of the options that `setting_options` added.

    Args:
        record: The class of the record.
        given: The values of the command's options by name; those of the record are removed from it.
        only: As for `setting_options`; another record of the command may have options of the other names.

    Returns:
        The record; settings that are None have their defaults.

    Raises:
        SettingError: One line, for the first value that the record refuses.
    """
    names = settings_of(record) if only is None else only  # type: ignore[arg-type]
    values = {name: given.pop(name) for name in names if name in given}
    return record(**{name: value for name, value in values.items() if value is not None})


def _option(setting: Setting, several: bool, former: str, *, required: bool) -> Callable[[Command], Command]:
    complete = partial(_completed, setting.choices) if setting.choices else None
    add = partial(grouped_option, group=setting.group, help=_help(setting), former=former, shell_complete=complete)
    name, choices = option(setting.name), setting.choices
    if setting.type is bool:
        return add(f"{name}/--no-{name[2:]}", default=None)
    if setting.type is tuple and not setting.repeat:
        part = TYPES.get(setting.part)
        if not isinstance(part, _Number | _WholeNumber):
            return add(name, callback=_names, listed=True)
        return add(name, type=_Numbers(part), listed=True, metavar=setting.metavar or f"{part.name.upper()},..")
    names = None if not choices else "|".join(choices) if len(choices) <= FEW else "NAME"
    metavar = setting.metavar or names
    if setting.repeat:
        return add(name, multiple=True, metavar=metavar)
    if several:
        words = metavar or {int: "INTEGER", float: "FLOAT", str: "TEXT"}[setting.type]
        return add(name, listed=True, metavar=f"{words},..")
    return add(name, type=TYPES.get(setting.type, setting.type), metavar=metavar, required=required)


def _completed(choices: Iterable[str], _context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Complete the name that was begun, the last of several, for the completion of a shell."""
    before, comma, last = begun.rpartition(",")
    return [f"{before}{comma}{name}" for name in choices if name.startswith(last)]


def _help(setting: Setting) -> str:
    """The help of a setting: its sentence, its choices unless the option shows them, and its default."""
    names = f" One of {', '.join(setting.choices)}." if len(setting.choices) > FEW else ""
    shown = setting.standard if setting.default is not REQUIRED else ""  # click itself adds [required]
    standard = f"  [{shown}]" if shown else ""
    return renamed(setting.text + names + standard, option)
