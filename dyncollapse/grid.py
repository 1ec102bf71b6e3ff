"""Grids of simulations: option text into values, values into configurations, and a name for each of these."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, get_args, get_type_hints

from dyncollapse.configuration import Configuration, option, resolve

# The plan of as many points (ours) still fits into memory and a few minutes; a grid beyond that is a slip.
MOST_POINTS = 10**6
# Settings that say where and how fast something runs, not what comes out.
NOT_HASHED = ("out", "threads")
# What `resolve` derives from other settings; as an axis of a grid these give way to what they follow from.
IMPLIED = ("aug_dim", "views", "temperature", "init_scale", "init_rate")
# The settings that may be None, and the type of each without that.
OPTIONAL = {name for name, hint in get_type_hints(Configuration).items() if type(None) in get_args(hint)}
KINDS: dict[str, Any] = {
    name: next((part for part in get_args(hint) if part is not type(None)), hint)
    for name, hint in get_type_hints(Configuration).items()
}


def parse_values(name: str, text: str) -> list[Any]:
    """Read the values of one setting: `1,2,3`, `first:last:count`, `first:last:count:log`, or a mixture of these.

    Ranges hold both ends; a value given twice counts once. Decimal fractions are exact: 0.1:3:30 holds 0.3 as typed.
    Raises ValueError, one line, for text that is no such list.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError(f"{option(name)} is {text!r}, which holds an empty value; write values between commas")
    if KINDS[name] is str:
        return list(dict.fromkeys(parts))
    return list(dict.fromkeys(value for part in parts for value in _numbers(name, part)))


def _numbers(name: str, part: str) -> Iterable[Any]:
    fields = part.split(":")
    if len(fields) == 1:
        return [_exactly(name, _fraction(name, part), part)]
    if len(fields) not in (3, 4) or fields[3:] not in ([], ["log"]):
        raise ValueError(f"{option(name)} {part} is no range; write first:last:count or first:last:count:log")
    first, last, count = (_fraction(name, field) for field in fields[:3])
    if count.denominator != 1 or not 2 <= count <= MOST_POINTS:
        raise ValueError(f"{option(name)} {part}: the count is {fields[2]}; it must be whole, from 2 to {MOST_POINTS}")
    steps = int(count) - 1
    if not fields[3:]:
        return [_exactly(name, first + (last - first) * i / steps, part) for i in range(steps + 1)]
    if min(first, last) <= 0:
        raise ValueError(f"{option(name)} {part}: a range with :log needs both ends above 0")
    logs = [math.log(first) + (math.log(last) - math.log(first)) * i / steps for i in range(1, steps)]
    # Twelve digits, so that 0.01:100:5:log holds 0.1 and not what a logarithm rounds it to.
    inner = [Fraction(f"{math.exp(log):.12g}") for log in logs]
    return [_exactly(name, value, part) for value in (first, *inner, last)]


def _fraction(name: str, text: str) -> Fraction:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError(f"{option(name)} is {text!r}, which is no number") from None
    if not number.is_finite() or abs(number.adjusted()) > 300:
        raise ValueError(f"{option(name)} is {text.strip()}; give finite numbers")
    return Fraction(number)


def _exactly(name: str, value: Fraction, part: str) -> int | float:
    if KINDS[name] is float:
        return float(value)
    if value.denominator != 1:
        raise ValueError(f"{option(name)} {part} gives {float(value):g}; {option(name)} takes whole numbers")
    return int(value)


def expand_grid(given: Mapping[str, Any]) -> list[Configuration]:
    """Resolve every combination of the given values: a list, range or array is an axis, all else a single value.

    Combinations that resolve to one configuration count once. Raises ValueError, one line, for unknown settings,
    axes without values, grids beyond MOST_POINTS, and for the first invalid combination, which it names.
    """
    axes = {name: _values(name, value) for name, value in given.items()}
    if (points := math.prod(map(len, axes.values()))) > MOST_POINTS:
        raise ValueError(f"the grid has {points} points, and {MOST_POINTS} are the most; give fewer values")
    found: dict[Configuration, None] = {}
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        try:
            found[resolve(chosen)] = None
        except ValueError as error:
            several = {name: value for name, value in chosen.items() if len(axes[name]) > 1}
            raise ValueError(f"{error}" + (f" (in {_as_words(several)})" if several else "")) from None
    return list(found)


def _values(name: str, given: Any) -> list[Any]:
    if name not in KINDS:
        raise ValueError(f"there is no setting {name!r}; the settings are {', '.join(KINDS)}")
    given = given.tolist() if hasattr(given, "tolist") else given
    values = list(given) if isinstance(given, list | range) else [given]
    if not values:
        raise ValueError(f"{option(name)} has no values; give at least one")
    return [_typed(name, value) for value in values]


def _typed(name: str, value: Any) -> Any:
    """`value` as its setting declares it, for 1 and 1.0 are one point."""
    kind, words = KINDS[name], {int: "whole numbers", float: "numbers", bool: "True or False"}
    if kind not in words or (value is None and name in OPTIONAL):
        return value
    if kind is bool:
        fits = value in (False, True)
    else:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and (kind is float or value == value // 1)
    if not fits:
        raise ValueError(f"{option(name)} is {value!r}; it takes {words[kind]}")
    return kind(value)


def point_hash(configuration: Configuration) -> str:
    """16 hexadecimal digits that name a resolved configuration; where it runs and is saved does not matter."""
    settings = {name: _typed(name, value) for name, value in configuration.as_dict().items() if name not in NOT_HASHED}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def axes_of(configurations: Sequence[Configuration]) -> dict[str, list[Any]]:
    """The settings that vary, each with its values in order; one that follows from the others is not among them."""
    names = [name for name in KINDS if name not in NOT_HASHED]
    names.sort(key=IMPLIED.__contains__)  # stable: implied ones last
    columns = {name: [getattr(c, name) for c in configurations] for name in names}
    axes: dict[str, list[Any]] = {}
    distinct = 1
    for name, column in columns.items():
        together = len(set(zip(*(columns[axis] for axis in axes), column, strict=True)))
        if together > distinct:
            values, distinct = list(dict.fromkeys(column)), together
            ordered = all(isinstance(value, int | float) for value in values)
            axes[name] = sorted(values) if ordered else values
    return axes


def as_options(configuration: Configuration) -> str:
    """The configuration as options of `dyncollapse simulate`, those that its defaults do not give anyway."""
    settings = {name: value for name, value in vars(configuration).items() if value is not None and name != "out"}
    defaults = vars(resolve({}))
    given = {name: value for name, value in settings.items() if value != defaults[name]}
    implied = vars(resolve(given))
    return _as_words({name: value for name, value in settings.items() if name in given or value != implied[name]})


def _as_words(settings: Mapping[str, Any]) -> str:
    words = []
    for name, value in settings.items():
        if isinstance(value, bool):
            words.append(option(name) if value else option(f"no_{name}"))
        else:
            words.append(f"{option(name)} {shown(value)}")
    return " ".join(words)


def shown(value: Any) -> str:
    """A setting's value as the command line spells it, to the last digit."""
    if isinstance(value, tuple):
        return ",".join(value)
    return "-" if value is None else str(value).removesuffix(".0")
