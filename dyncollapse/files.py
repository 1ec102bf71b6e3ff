"""Files that are whole or not there, and how they are named."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dyncollapse.untrusted import MOST_TEXT, read_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary name beside `path` and rename it: no reader ever sees half a file.

    When `write` fails, the temporary file is removed, an earlier file at `path` stays, and the error passes on.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write plain values, whole or not at all. Raises ValueError for NaN and infinity, which JSON has not."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_whole(path, lambda partial: partial.write_text(text))


def printable(text: str) -> str:
    """One line, whatever is in a name: line breaks and terminal codes are shown, not sent."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def read_json(path: Path, most: int = MOST_TEXT) -> Any:
    """Read plain values from a regular file of at most `most` bytes.

    Raises OSError, and ValueError for what is no such file and no JSON: NaN, infinity and numbers too large for a float
    are none.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"it holds {constant}")

    def finite(text: str) -> float:
        return value if math.isfinite(value := float(text)) else refuse("a number too large for a float")

    try:
        return json.loads(read_text(path, most), parse_constant=refuse, parse_float=finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_png(path: Path, figure: "Figure") -> None:
    """Write a picture for the screen, whole or not at all."""
    write_whole(path, lambda partial: figure.savefig(partial, format="png", dpi=150))
