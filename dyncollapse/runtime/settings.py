"""Settings as fields of a record: type, range, unit and words of each in one place, checked as the record is made."""

import re
import reprlib
from collections.abc import Mapping
from dataclasses import Field, field, fields
from functools import cache
from numbers import Integral, Real
from typing import Any, NamedTuple, Self, TypeVar, get_args, get_origin, get_type_hints

from dyncollapse.runtime.files import printable

NAMED = re.compile(r"`([a-z]\w*)`")
# Longest number that a message repeats, and letters of a text that it does.
MOST_BITS, MOST_LETTERS = 128, 60
# Letters of a setting: as many as a path has on common systems.
MOST_TEXT = 4096
WORDS: dict[Any, str] = {int: "whole numbers", float: "numbers", bool: "True or False", str: "text", tuple: "names"}
RecordT = TypeVar("RecordT")


class SettingError(ValueError):
    """A setting out of range. Its text names parameters; `as_options` names the command line's options instead.

    Args:
        text: One line that holds the names of settings in backticks.

    Example:
        >>> error = SettingError("`batch_size` is 1; it must be at least 2")
        >>> str(error), error.as_options()
        ('batch_size is 1; it must be at least 2', '--batch-size is 1; it must be at least 2')
    """

    def __init__(self, text: str) -> None:
        """Keep the text with its marks."""
        super().__init__(NAMED.sub(r"\1", text))
        self.text = text

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        """Keep the marks on the way to another process, too."""
        return type(self), (self.text,)

    def as_options(self) -> str:
        """The text as the command line spells it."""
        return NAMED.sub(lambda found: option(found[1]), self.text)


def option(name: str) -> str:
    """Spell a setting as the command line does."""
    return "--" + name.replace("_", "-")


def quoted(value: Any) -> str:
    r"""A value from anywhere as one short line, whatever its size or depth.

    Example:
        >>> print(quoted("red" + chr(27) + "[31m"))
        'red\x1b[31m'
        >>> quoted(10**400)
        'a number of more than 38 digits'
    """
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        return "a number of more than 38 digits"
    if type(value) in (int, float, bool) or value is None:
        return repr(value)
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = MOST_LETTERS
    short.maxlevel = 2
    text = printable(short.repr(value)).replace("`", "'")
    return text if len(text) <= 2 * MOST_LETTERS else f"{text[: 2 * MOST_LETTERS]}..."


class Form(NamedTuple):
    """What a text must look like, and that in words."""

    pattern: str
    words: str


DEVICE = Form(r"cpu|cuda(:\d{1,4})?", "cpu, cuda or cuda:N")


class Limits(NamedTuple):
    """What a setting may be: `low` to `high`, with `above` and `below` where the end itself is left out, or a name."""

    text: str
    low: float | None
    high: float | None
    above: float | None
    below: float | None
    allowed: tuple[str, ...]
    form: "Form | None"
    unit: str

    @property
    def words(self) -> str:
        """The range."""
        if None not in (self.low, self.high):
            return f"between {_plain(self.low)} and {_plain(self.high)}"
        named = (("at least", self.low), ("above", self.above), ("at most", self.high), ("below", self.below))
        return " and ".join(f"{word} {_plain(end)}" for word, end in named if end is not None)

    def holds(self, value: float) -> bool:
        """Whether a number is in the range; NaN is in none."""
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def _plain(number: float | None) -> str:
    if number == 2**63 - 1:
        return "2^63 - 1"
    return f"{number:g}".replace("e+", "e") if isinstance(number, float) or (number or 0) > 10**6 else str(number)


def setting(
    default: Any,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    allowed: tuple[str, ...] = (),
    form: Form | None = None,
    unit: str = "",
) -> Any:
    """A field of a record of settings; its type is its annotation.

    Args:
        default: Its value where none is given.
        text: What it is, a sentence for the command line's help; empty for one that has no option.
        low: Least number it may be.
        high: Largest number it may be.
        above: Number that it must exceed.
        below: Number that it must stay below.
        allowed: Names it may be.
        form: What its text must look like.
        unit: Of its numbers, as "pixels".

    Returns:
        The field.
    """
    return field(default=default, metadata={"limits": Limits(text, low, high, above, below, allowed, form, unit)})


class Kind(NamedTuple):
    """A setting's type, and whether it may be None."""

    type: Any
    optional: bool


@cache
def kinds_of(record: type) -> dict[str, Kind]:
    """The type of every setting, by name."""
    found = {}
    for name, hint in get_type_hints(record).items():
        parts = [part for part in get_args(hint) if part is not type(None)]
        optional = type(None) in get_args(hint)
        found[name] = Kind(parts[0] if optional else get_origin(hint) or hint, optional)
    return found


def settings_of(record: type) -> tuple[Field[Any], ...]:
    """The settings of a record, in order; `field.metadata["limits"]` says what each may be."""
    return fields(record)


def typed(name: str, value: Any, kind: Kind) -> Any:
    """A value as its setting declares it, for 1 and 1.0 are one number. Raises SettingError for another type."""
    if value is None and kind.optional:
        return None
    number = isinstance(value, Real) and not isinstance(value, bool)
    if kind.type is int and number and (isinstance(value, Integral) or value == value // 1):
        return int(value)
    if kind.type is float and number:
        return _float(value)
    if kind.type is tuple and isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return tuple(value)
    if kind.type in (bool, str) and isinstance(value, kind.type):
        return value
    raise SettingError(f"`{name}` is {quoted(value)}; it takes {WORDS[kind.type]}" + " or None" * kind.optional)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond floating point
        return float("inf") if value > 0 else float("-inf")


def check_settings(record: Any) -> None:
    """Check type and range of every field of a frozen record, and store numbers as their type.

    Raises:
        SettingError: One line for the first field that is no value of its setting.
    """
    cls: type = type(record)
    for name, kind, limits in _checks_of(cls):
        given = value = getattr(record, name)
        if type(given) is not kind.type:
            value = typed(name, given, kind)
            object.__setattr__(record, name, value)
        if value is not None:
            _check_one(name, value, limits)


@cache
def _checks_of(record: type) -> tuple[tuple[str, Kind, Limits], ...]:
    kinds = kinds_of(record)
    return tuple((one.name, kinds[one.name], one.metadata["limits"]) for one in fields(record))


def _check_one(name: str, value: Any, limits: Limits) -> None:
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        if not limits.holds(value):
            raise SettingError(f"`{name}` is {quoted(value)}; it must be {limits.words}" + f" {limits.unit}".rstrip())
        return
    for part in (value,) if isinstance(value, str) else value:
        if limits.allowed and part not in limits.allowed:
            raise SettingError(f"`{name}` is {quoted(part)}; choose one of {', '.join(limits.allowed)}")
        if limits.form and not re.fullmatch(limits.form.pattern, part):
            raise SettingError(f"`{name}` is {quoted(part)}; write {limits.form.words}")
        if len(part) > MOST_TEXT:
            raise SettingError(f"`{name}` is {quoted(part)}; it has {len(part)} letters, and {MOST_TEXT} are the most")


def from_values(record: type[RecordT], values: Any) -> RecordT:
    """Make a record of settings from what a file holds.

    Args:
        record: The class, `Configuration` or `Recipe`.
        values: Whatever was read; only a mapping with exactly its settings is one.

    Returns:
        The record.

    Raises:
        SettingError: One line for what is no mapping, for a name too many or too few, and for values out of range.
    """
    if not isinstance(values, Mapping):
        raise SettingError(f"settings are {quoted(values)}, which is no table of names and values")
    known = [one.name for one in fields(record)]  # type: ignore[arg-type]
    if unknown := [name for name in values if name not in known]:
        raise SettingError(f"there is no setting {quoted(unknown[0])}; it was written by another version, or changed")
    if missing := [name for name in known if name not in values]:
        raise SettingError(f"the setting `{missing[0]}` is missing; it was written by another version, or cut short")
    return record(**values)
