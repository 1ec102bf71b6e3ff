"""Records of settings: a field declares default, range, unit, group and help text once, and pydantic checks it."""

import math
import re
from collections.abc import Mapping
from functools import cache, wraps
from inspect import cleandoc
from numbers import Integral, Real
from pathlib import Path
from textwrap import fill
from types import MappingProxyType, NoneType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, dataclass_transform, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError, PydanticUndefined

from dyncollapse.runtime.settings import SettingError, quoted

# Most characters of a text setting: as many as a path may have on common systems.
MOST_TEXT = 4096
# Squares of numbers beyond these leave the range of float32.
SMALL, LARGE = 1e-15, 1e15
# Upper ends: the largest seed of PyTorch's generators, workers or threads, and passes over a set of images.
MOST_SEED, MOST_WORKERS, MOST_EPOCHS = 2**63 - 1, 10**3, 10**6
WORDS: dict[type, str] = {
    int: "whole numbers",
    float: "numbers",
    bool: "True or False",
    str: "text",
    tuple: "names",
    Path: "a path",
}
SECTION = re.compile(r"^ *((?:Raises|References|Example):)$", re.MULTILINE)  # of a docstring
REQUIRED = PydanticUndefined  # in place of a default
RecordT = TypeVar("RecordT")
PartT = TypeVar("PartT")


def setting(
    default: Any,
    text: str,
    *,
    group: str = "",
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    pattern: str | None = None,
    must: str = "",
    unset: str = "",
    metavar: str = "",
    repeat: bool = False,
) -> Any:
    """Declare a field of a record of settings; its annotation is its type, a Literal for one of several names.

    Args:
        default: The value where none is given; REQUIRED where one must be given.
        text: The sentence in the command line's help, with other settings in backticks; empty for a setting without
            an option.
        group: The heading under which the help and the documents list it.
        unit: The unit of its numbers, as "pixels".
        low: The smallest number allowed.
        high: The largest number allowed.
        above: A bound that the number must exceed.
        below: A bound that the number must stay below.
        pattern: A regular expression that its whole text must match.
        must: What a message asks for where range and pattern are not plain enough, as "write OLD=NEW".
        unset: Where the default follows from other settings: how, in words that help and documents show instead.
        metavar: The placeholder for its value in the help, where the type does not give a good one.
        repeat: Whether the option of a tuple is given once for each value, instead of one list with commas.

    Returns:
        The field.
    """
    return Field(
        default,
        description=text,
        ge=low,
        le=high,
        gt=above,
        lt=below,
        pattern=None if pattern is None else f"^(?:{pattern})$",
        json_schema_extra={
            "group": group,
            "unit": unit,
            "must": must,
            "unset": unset,
            "metavar": metavar,
            "repeat": repeat,
        },
    )


def _whole(value: Any) -> Any:
    """Turn 1.0 into 1, which is the same number; leave anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    if isinstance(value, Integral):
        return int(value)
    return math.floor(value) if math.isfinite(value) and value == value // 1 else value


def _number(value: Any) -> Any:
    """Turn 1 into 1.0, which is the same number; leave anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    try:
        return float(value)
    except OverflowError:  # a whole number beyond floating point
        return math.inf if value == abs(value) else -math.inf


def _short(text: str) -> str:
    if len(text) > MOST_TEXT:
        raise PydanticCustomError("long_text", "")
    return text


Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_number)]
Text = Annotated[str, AfterValidator(_short)]
# FailFast: checking ends at the first wrong part, which the message names.
Several = Annotated[
    tuple[PartT, ...], FailFast(), BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
]
# What a setting named `device` may be: as a regular expression and in words.
DEVICE, DEVICE_WORDS = r"cpu|cuda(?::[0-9]{1,4})?", "write cpu, cuda or cuda:N"


@dataclass_transform(frozen_default=True)
def record(cls: type[RecordT]) -> type[RecordT]:
    """Make a class of `setting` fields a frozen, checked dataclass that raises SettingError in one line.

    Types are strict, except that fields `Whole` and `Number` take both 1 and 1.0. `dataclasses.replace` checks again.
    A `__post_init__` may raise SettingError for settings that contradict each other. The docstring gets a list of the
    fields with their help texts.

    Args:
        cls: The class; every field has an annotation and a `setting`.

    Returns:
        The record's class, a pydantic dataclass.

    Examples:
        >>> @record
        ... class Sizes:
        ...     width: Whole = setting(4, "Width.", low=1, high=10, unit="pixels")
        >>> Sizes(width=3.0)
        Sizes(width=3)
        >>> Sizes(width=0)
        Traceback (most recent call last):
            ...
        dyncollapse.runtime.settings.SettingError: width is 0; it must be between 1 and 10 pixels
    """
    made: Any = dataclass(frozen=True, config=_CONFIG)(cls)
    validate = made.__init__

    @wraps(validate)
    def __init__(self: Any, *values: Any, **named: Any) -> None:  # noqa: N807
        try:
            validate(self, *values, **named)
        except ValidationError as error:
            raise _refusal(error, made) from None

    made.__init__ = __init__
    if cls.__doc__:
        made.__doc__ = _with_fields(cls.__doc__, settings_of(made))
    return made


def _with_fields(doc: str, settings: Mapping[str, "Setting"]) -> str:
    """Add a section of attributes to a class's docstring, before the first section that it has."""
    lines = ["Attributes:"]
    for one in settings.values():
        span = f"{one.range} {one.unit}".strip() if one.range else ""
        default = one.standard if one.default is REQUIRED or not one.standard else f"default: {one.standard}"
        facts = "; ".join(filter(None, (span, default)))
        line = f"    {one.name}: {one.text}" + (f" [{facts}]" if facts else "")
        lines += [fill(line, 100, subsequent_indent=" " * 8, break_on_hyphens=False)] if one.text else []
    head, first, rest = SECTION.split(cleandoc(doc), maxsplit=1) if SECTION.search(doc) else (doc, "", "")
    return f"{head.rstrip()}\n\n" + "\n".join(lines) + f"\n\n{first}{rest}".rstrip() + "\n"


_CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Setting(NamedTuple):
    """A setting as its field declares it.

    `type` is one of the keys of WORDS and `part` the type of a tuple's parts, to which its range applies; `choices`
    holds the allowed names.
    """

    name: str
    part: type
    type: type
    optional: bool
    default: Any
    text: str
    group: str
    unit: str
    must: str
    unset: str
    metavar: str
    repeat: bool
    choices: tuple[str, ...]
    low: float | None
    high: float | None
    above: float | None
    below: float | None

    @property
    def range(self) -> str:
        """The allowed range in words; empty where there is none."""
        if None not in (self.low, self.high):
            return f"between {_plain(self.low)} and {_plain(self.high)}"
        named = (("at least", self.low), ("above", self.above), ("at most", self.high), ("below", self.below))
        return " and ".join(f"{word} {_plain(end)}" for word, end in named if end is not None)

    @property
    def standard(self) -> str:
        """The default in words, with other settings in backticks; empty where it is None or empty."""
        value = self.default
        if self.unset or value in (None, "", (), REQUIRED):
            return self.unset or "required" * (value is REQUIRED)
        if isinstance(value, bool):
            return ("no", "yes")[value]
        if isinstance(value, tuple):
            return ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value)
        unit = _one(self.unit) if value == 1 else self.unit
        return f"{value:g} {unit}".rstrip() if value == 0 else f"{value} {unit}".rstrip()

    def refuse(self, value: Any, kind: str) -> SettingError:
        """The error for a value that pydantic refuses; `kind` is the type of pydantic's error."""
        if kind == "long_text":
            advice = f"it has {len(value)} characters, and at most {MOST_TEXT} are allowed"
        elif self.type is tuple and self.must:
            advice = self.must  # names what its parts are, as WORDS cannot
        elif kind.endswith("_type") or not (self.must or self.choices or self.range):
            words = "names" if self.part is str else WORDS[self.part]  # of which a tuple holds some
            advice = f"it takes {words if self.type is tuple else WORDS[self.type]}" + " or None" * self.optional
        else:
            advice = self.must or (
                f"choose one of {', '.join(self.choices)}"
                if self.choices
                else f"it must be {self.range} {self.unit}".rstrip()
            )
        given = _number(value) if float in (self.type, self.part) else value
        return SettingError(f"`{self.name}` is {quoted(given)}; {advice}")


def _one(unit: str) -> str:
    """The singular of a unit: "process" for "processes", "layer" for "layers"."""
    return unit.removesuffix("es" if unit.endswith(("ches", "sses")) else "s")


def _plain(number: float | None) -> str:
    if number == MOST_SEED:
        return "2^63 - 1"
    if number is None or (isinstance(number, int) and number <= 10**6):
        return str(number)
    return f"{number:g}".replace("e+0", "e").replace("e+", "e")


@cache
def settings_of(record: type) -> Mapping[str, Setting]:
    """The settings of a record by name, in order."""
    return MappingProxyType({name: _setting(name, info) for name, info in _fields(record).items()})


def _fields(record: Any) -> dict[str, Any]:
    found: dict[str, Any] = record.__pydantic_fields__
    return found


def _setting(name: str, info: Any) -> Setting:
    hint, optional = _bare(info.annotation), NoneType in get_args(info.annotation)
    if optional:
        hint = _bare(next(part for part in get_args(info.annotation) if part is not NoneType))
    several = get_args(hint)[0] if get_origin(hint) is tuple else hint
    parts = _bare(several)
    choices = get_args(parts) if get_origin(parts) is Literal else ()
    part = str if choices else parts
    kind = tuple if get_origin(hint) is tuple else part
    limits = [*info.metadata, *getattr(several, "__metadata__", ())]
    ends: dict[str, Any] = {
        end: next((getattr(one, short) for one in limits if hasattr(one, short)), None)
        for end, short in (("low", "ge"), ("high", "le"), ("above", "gt"), ("below", "lt"))
    }
    words = info.json_schema_extra
    return Setting(name, part, kind, optional, info.default, info.description, **words, choices=choices, **ends)


def _bare(hint: Any) -> Any:
    """A type without its Annotated metadata."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def check_value(record: type, name: str, value: Any) -> Any:
    """Check one value and return it as the record would hold it.

    Args:
        record: The class of settings.
        name: The setting.
        value: What was given.

    Returns:
        The value, in the field's type.

    Raises:
        SettingError: For a value that the record would refuse.
    """
    try:
        return _validator(record, name).validate_python(value)
    except ValidationError as error:
        raise _refusal(error, record, name) from None


@cache
def _validator(record: type, name: str) -> TypeAdapter[Any]:
    info = _fields(record)[name]
    hint: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    return TypeAdapter(hint, config=_CONFIG)


def _refusal(error: ValidationError, record: type, name: str | None = None) -> SettingError:
    """The first of pydantic's errors as a SettingError."""
    first = error.errors(include_url=False)[0]
    if isinstance(raised := first.get("ctx", {}).get("error"), SettingError):  # by __post_init__
        return raised
    settings = settings_of(record)
    name = name or str(first["loc"][0])
    if name not in settings:
        return SettingError(f"there is no setting {quoted(name)}; the settings are {', '.join(settings)}")
    if first["type"] == "missing":
        return SettingError(f"`{name}` is not given")
    return settings[name].refuse(first["input"], first["type"])


def from_values(record: type[RecordT], values: Any) -> RecordT:
    """Make a record of settings from what a file holds.

    Args:
        record: The class, as `Configuration`.
        values: What was read; it must be a mapping with exactly the settings of the record.

    Returns:
        The record.

    Raises:
        SettingError: For anything but a mapping, for an unknown or missing setting, and for a value out of range.
    """
    if not isinstance(values, Mapping):
        raise SettingError(f"settings are {quoted(values)}, which is not a table of names and values")
    known = settings_of(record)  # type: ignore[arg-type]
    if unknown := [name for name in values if name not in known]:
        raise SettingError(
            f"there is no setting {quoted(unknown[0])}; the file was written by another version, or edited"
        )
    if missing := [name for name in known if name not in values]:
        raise SettingError(
            f"the setting `{missing[0]}` is missing; the file was written by another version, or cut short"
        )
    return record(**values)
