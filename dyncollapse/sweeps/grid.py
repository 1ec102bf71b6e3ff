"""Grids of simulations: values from the text of options, configurations from values, and a name for each of these."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from dyncollapse.runtime.records import settings_of
from dyncollapse.runtime.settings import SettingError, quoted
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.presets import resolve
from dyncollapse.sweeps.matrices import files_of, with_contents

# A point takes 0.06 ms to resolve and 640 bytes of sweep.json: a larger grid would need more than 128 MB for its plan.
MOST_POINTS = 2 * 10**5
# Most characters of a number: exact arithmetic slows down with every digit.
MOST_DIGITS = 100
# Settings that do not change the results, only where and how fast they are computed.
NOT_HASHED = ("out", "threads")
# Settings that were added later, with the values at which they leave every point the name of its results on disk.
ADDED_LATER = {
    "invariance": None,
    "data_cov": None,
    "aug_cov": None,
    "view_corr": None,
    "widths": None,
    "weight_decay": 0.0,
    "predictor_rate": None,
    "target_momentum": None,
    "ridge": 0.01,
}
# Settings that `resolve` derives from others; those others are preferred as axes of a grid.
IMPLIED = (
    "aug_dim",
    "views",
    "temperature",
    "invariance",
    "predictor_rate",
    "target_momentum",
    "init_scale",
    "init_rate",
)
KINDS = settings_of(Configuration)


def parse_grid(texts: Mapping[str, str]) -> dict[str, list[Any]]:
    """Read the values of several settings as `parse_values` does, once their grid is known to be small enough.

    Args:
        texts: Lists of values as text, by setting.

    Returns:
        The values of each setting.

    Raises:
        SettingError: For more than MOST_POINTS points, before any range is expanded, and for text that is no list.

    Examples:
        >>> parse_grid({"depth": "1,2", "aug_strength": "0:1:3"})
        {'depth': [1, 2], 'aug_strength': [0.0, 0.5, 1.0]}
    """
    points = math.prod(_count(name, text) for name, text in texts.items())
    _check_points(points)
    return {name: parse_values(name, text) for name, text in texts.items()}


def _check_points(points: int) -> None:
    if points > MOST_POINTS:
        raise SettingError(
            f"the grid has {quoted(points)} points, and at most {MOST_POINTS} are allowed; give fewer values"
        )


def parse_values(name: str, text: str) -> list[Any]:
    """Read the values of one setting: `1,2,3`, `first:last:count`, `first:last:count:log`, or a mixture of these.

    Ranges include both ends, and a value that is given twice counts once. Decimal fractions are exact: 0.1:3:30 holds
    0.3, not 0.30000000000000004.

    Args:
        name: The setting.
        text: The list.

    Returns:
        The values, in the order of the text.

    Raises:
        SettingError: For text that is no such list, and for more than MOST_POINTS values.

    Examples:
        >>> parse_values("lr", "0.01:1:3:log,0.5")
        [0.01, 0.1, 1.0, 0.5]
    """
    _check_points(_count(name, text))
    parts = _parts(name, text)
    if KINDS[name].type is str:
        return list(dict.fromkeys(parts))
    return list(dict.fromkeys(value for part in parts for value in _numbers(name, part)))


def _parts(name: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise SettingError(f"`{name}` is {quoted(text)}, which holds an empty value; write values between commas")
    return parts


def _count(name: str, text: str) -> int:
    """How many values a text gives; one that is given twice counts twice."""
    parts = _parts(name, text)
    ranges = KINDS[name].type is not str
    return sum(_range_count(name, part) if ranges and ":" in part else 1 for part in parts)


def _range_count(name: str, part: str) -> int:
    fields = part.split(":")
    if len(fields) not in (3, 4) or fields[3:] not in ([], ["log"]):
        raise SettingError(f"`{name}` {quoted(part)} is not a range; write first:last:count or first:last:count:log")
    count = _fraction(name, fields[2])
    if count.denominator != 1 or not 2 <= count <= MOST_POINTS:
        raise SettingError(f"`{name}` {part}: the count is {fields[2]}; it must be whole, from 2 to {MOST_POINTS}")
    return int(count)


def _numbers(name: str, part: str) -> Iterable[Any]:
    fields = part.split(":")
    if len(fields) == 1:
        return [_exactly(name, _fraction(name, part), part)]
    steps = _range_count(name, part) - 1
    first, last = (_fraction(name, field) for field in fields[:2])
    if not fields[3:]:
        return [_exactly(name, first + (last - first) * i / steps, part) for i in range(steps + 1)]
    if min(first, last) <= 0:
        raise SettingError(f"`{name}` {part}: a range with :log needs both ends above 0")
    logs = [math.log(first) + (math.log(last) - math.log(first)) * i / steps for i in range(1, steps)]
    # Rounded to twelve digits, so that 0.01:100:5:log holds 0.1 without the error of its logarithm.
    inner = [Fraction(f"{math.exp(log):.12g}") for log in logs]
    return [_exactly(name, value, part) for value in (first, *inner, last)]


def _fraction(name: str, text: str) -> Fraction:
    text = text.strip()
    try:
        number = Decimal(text) if len(text) <= MOST_DIGITS else None
    except InvalidOperation:
        number = None
    if number is None:
        what = f"which has more than {MOST_DIGITS} digits" if len(text) > MOST_DIGITS else "which is not a number"
        raise SettingError(f"`{name}` is {quoted(text)}, {what}; write numbers, 1,2,3 or first:last:count")
    if not number.is_finite() or abs(number.adjusted()) > 300:
        raise SettingError(f"`{name}` is {text}; give finite numbers")
    return Fraction(number)


def _exactly(name: str, value: Fraction, part: str) -> int | float:
    if KINDS[name].type is float:
        return float(value)
    if value.denominator != 1:
        raise SettingError(f"`{name}` {part} gives {float(value):g}; `{name}` takes whole numbers")
    return int(value)


def expand_grid(given: Mapping[str, Any]) -> list[Configuration]:
    """Make the configurations of a grid: every combination of the given values, completed by presets and defaults.

    Args:
        given: For each setting a single value, or the axis of the grid as a list, range, array or tensor. A tuple is
            one value, of `dynamics`.

    Returns:
        The configurations, the last axis varying fastest; combinations that give the same configuration count once.

    Raises:
        SettingError: For an unknown setting, an axis without values, more than MOST_POINTS points, and an invalid
            combination, which the message names. It is a ValueError of one line.

    Examples:
        >>> points = expand_grid({"depth": [1, 2], "aug_strength": [0.5, 1.5], "dynamics": ("sgd",)})
        >>> [(point.depth, point.aug_strength) for point in points]
        [(1, 0.5), (1, 1.5), (2, 0.5), (2, 1.5)]
    """
    listed = {name: _listed(name, value) for name, value in given.items()}
    _check_points(math.prod(map(len, listed.values())))
    axes = {name: [_typed(name, value) for value in values] for name, values in listed.items()}
    found: dict[Configuration, None] = {}
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        try:
            found[resolve(chosen)] = None
        except ValueError as error:
            several = [f"`{name}` {_brief(value)}" for name, value in chosen.items() if len(axes[name]) > 1]
            text = error.text if isinstance(error, SettingError) else str(error)
            raise SettingError(text + (f" (in {', '.join(several)})" if several else "")) from None
    return list(found)


def _listed(name: str, given: Any) -> Sequence[Any]:
    if name not in KINDS:
        raise SettingError(f"there is no setting {quoted(name)}; the settings are {', '.join(KINDS)}")
    given = given.tolist() if hasattr(given, "tolist") else given
    # A tuple is one value of the settings that take several words or numbers, and several values of all others.
    values = given if isinstance(given, list | range) else [given]
    if isinstance(given, tuple) and name not in ("dynamics", "widths"):
        values = list(given)
    if isinstance(values, range) and values[MOST_POINTS:]:  # len() fails for the longest ranges
        raise SettingError(f"`{name}` has more than {MOST_POINTS} values; give fewer")
    if not values:
        raise SettingError(f"`{name}` has no values; give at least one")
    return values


def _typed(name: str, value: Any) -> Any:
    """`value`, with 1 and 0 as True and False for a switch, so that 1 and True are the same point."""
    truth = KINDS[name].type is bool and isinstance(value, int | float) and value in (0, 1)
    return bool(value) if truth else value


def _brief(value: Any) -> str:
    return quoted(value).strip("'").removesuffix(".0")


def point_hash(configuration: Configuration) -> str:
    """The name of a configuration in a sweep: 16 hexadecimal digits, independent of where it runs and is saved.

    Args:
        configuration: The settings. Of the files that they name the content counts, not the path.

    Returns:
        The name.

    Raises:
        SettingError: For a file that cannot be read.

    Examples:
        >>> point_hash(Configuration(threads=2)) == point_hash(Configuration())
        True
    """
    settings = {
        name: value
        for name, value in with_contents(configuration).items()
        if name not in NOT_HASHED and not (name in ADDED_LATER and value == ADDED_LATER[name])
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def check_same(found: Configuration, planned: Configuration) -> None:
    """Check that a report's settings are those of the point whose place it has.

    Args:
        found: The settings of the report.
        planned: Those of the point. Their files may have been moved since; the point's name holds their content.

    Raises:
        ValueError: For the first setting on which results depend, and that differs.

    Examples:
        >>> check_same(Configuration(data_cov="old/C.npy"), Configuration(data_cov="new/C.npy"))
        >>> check_same(Configuration(lr=0.1), Configuration(lr=0.2))
        Traceback (most recent call last):
            ...
        ValueError: its lr is 0.1, and that of this point 0.2
    """
    files = files_of(found).keys() & files_of(planned).keys()
    for name in KINDS:
        value, wanted = getattr(found, name), getattr(planned, name)
        if value != wanted and name not in NOT_HASHED and name not in files:
            raise ValueError(f"its {name} is {quoted(value)}, and that of this point {quoted(wanted)}")


def axes_of(configurations: Sequence[Configuration]) -> dict[str, list[Any]]:
    """The axes of a grid: the settings that vary independently, each with its values in ascending or given order."""
    names = [name for name in KINDS if name not in NOT_HASHED]
    names.sort(key=IMPLIED.__contains__)  # stable: derived settings come last
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
