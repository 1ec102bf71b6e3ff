"""Optional libraries: one line of advice where one is missing, and data frames by pandas."""

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from shutil import which
from typing import TYPE_CHECKING, Any

from dyncollapse.runtime.settings import SettingError

if TYPE_CHECKING:
    import pandas


def need(module: str, extra: str, what: str) -> None:
    """Refuse, in one line, what needs an optional library that is not installed.

    Args:
        module: The module that must be importable.
        extra: The extra of dyncollapse that installs it.
        what: Who needs it, the beginning of the message.

    Raises:
        SettingError: Where the module is missing; the message says what to install.

    Examples:
        >>> need("numpy", "tables", "to_pandas needs numpy")
        >>> need("no_such_module", "tables", "to_pandas needs no_such_module")
        Traceback (most recent call last):
            ...
        dyncollapse.runtime.settings.SettingError: to_pandas needs no_such_module: ...pip install 'dyncollapse[tables]'
    """
    found = find_spec(module)
    if found is None or found.origin is None:  # the second: a folder of that name where Python was started
        raise SettingError(f"{what}: {install(extra)}")


def install(extra: str) -> str:
    """The command that adds an extra to this installation, from a registry or from a clone: pip of the running Python.

    Args:
        extra: The extra of dyncollapse.

    Returns:
        The command; it names the Python unless that is the one that `python` starts.
    """
    at_hand, own = which("python"), sys.executable
    if at_hand is not None and Path(at_hand).absolute() == Path(own).absolute():
        named = ""
    else:
        inside = Path(own).is_relative_to(Path.cwd())
        named = f"{quote(str(Path(own).relative_to(Path.cwd()) if inside else own))} -m "
    return f"{named}pip install 'dyncollapse[{extra}]'"


def missing(error: ModuleNotFoundError, module: str, extra: str, what: str) -> ImportError:
    """Return the error of a module that is built on an optional library: one line of advice where that is missing.

    Args:
        error: What importing the library raised.
        module: The library's module.
        extra: The extra of dyncollapse that installs it.
        what: Who needs it.

    Returns:
        The error to raise; `error` itself where the library is there, but something that it imports is missing.

    Examples:
        >>> missing(ModuleNotFoundError("No module named 'a'", name="a"), "a", "tables", "CollapseMetric")
        ImportError("CollapseMetric needs a: ...pip install 'dyncollapse[tables]'")
    """
    if (error.name or "").partition(".")[0] != module:
        return error
    return ImportError(f"{what} needs {module}: {install(extra)}")


def as_frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> "pandas.DataFrame":
    """Make a pandas data frame from rows.

    A number that a row lacks, or that is None, is NaN: a column of numbers never becomes one of Python objects, which
    comparisons and means refuse. So does a column of nothing but None.

    Args:
        rows: Each a mapping from column to value.
        columns: The columns in order; by default those of the first row, then those that later rows add.

    Returns:
        The data frame, in the order of the rows.

    Raises:
        SettingError: Where pandas is not installed.

    Examples:
        >>> as_frame([{"x": 1, "y": 0.5}, {"x": 2}]).y.tolist()
        [0.5, nan]
        >>> bool((as_frame([{"rho": None}]).rho > 1).any())
        False
    """
    need("pandas", "tables", "to_pandas needs pandas")
    import pandas

    frame = pandas.DataFrame(list(rows), columns=None if columns is None else list(columns))
    for name in frame:
        if frame[name].dtype == object and all(value is None or type(value) in (int, float) for value in frame[name]):
            frame[name] = frame[name].astype(float)
    return frame
