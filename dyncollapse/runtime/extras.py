"""What libraries that are not always installed do: data frames here, and one line where a library is missing."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dyncollapse.runtime.settings import SettingError

if TYPE_CHECKING:
    import pandas


def need(module: str, extra: str, what: str) -> None:
    """Raise SettingError, one line that starts with `what`, unless a module of an extra is installed.

    Example:
        >>> need("numpy", "tables", "to_pandas needs numpy")
        >>> need("no_such_module", "tables", "to_pandas needs no_such_module")
        Traceback (most recent call last):
            ...
        dyncollapse.runtime.settings.SettingError: to_pandas needs no_such_module: pip install 'dyncollapse[tables]'
    """
    if find_spec(module) is None:
        raise SettingError(f"{what}: pip install 'dyncollapse[{extra}]'")


def as_frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> "pandas.DataFrame":
    """Rows as a data frame; what a row does not have is NaN.

    Args:
        rows: Each a mapping from column to value.
        columns: The columns in order; by default those of the first row, and then what others have besides.

    Returns:
        The data frame, with rows in their order.

    Raises:
        SettingError: Where pandas is not installed.

    Example:
        >>> as_frame([{"x": 1, "y": 0.5}, {"x": 2}]).y.tolist()
        [0.5, nan]
    """
    need("pandas", "tables", "to_pandas needs pandas")
    import pandas

    return pandas.DataFrame(list(rows), columns=None if columns is None else list(columns))
