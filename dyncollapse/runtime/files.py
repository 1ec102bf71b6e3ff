"""Files that are whole or not there, and how they are named."""

import io
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar, cast

from dyncollapse.runtime.untrusted import MOST_TEXT, read_text

T = TypeVar("T")

# Hidden names that end so are of what is not whole yet, or never became so: their process was killed.
PARTIAL = ".partial"


class CannotWrite(OSError):
    """Something could not be written: `filename` names it, `strerror` says why."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise what the system refuses in the block as CannotWrite of `path`."""
    try:
        yield
    except CannotWrite:
        raise
    except OSError as error:
        raise CannotWrite(error.errno, error.strerror or str(error), str(path)) from error


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path` and rename it: no reader ever sees half a file.

    When `write` fails, the temporary file is removed, an earlier file at `path` stays, and the error passes on. Raises
    CannotWrite where the system refuses a write, also where the library that writes reports that as another error.
    """
    partial = partial_path(path)
    with writing(path):
        try:
            with _Output(partial) as file:
                _fill(file, write)
            os.replace(partial, path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write these bytes, whole or not at all."""
    write_whole(path, lambda file: file.write(content))


def write_json(path: Path, content: Any) -> None:
    """Write plain values, whole or not at all. Raises ValueError for NaN and infinity, which JSON has not."""
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def partial_path(path: Path) -> Path:
    """A name beside `path` that nobody else uses, for what will be renamed to it; long names are cut."""
    return path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex[:12]}{PARTIAL}")


def is_partial(path: Path) -> bool:
    """Whether a file or folder is, by its name, one that never became whole."""
    return path.name.startswith(".") and path.name.endswith(PARTIAL)


def remove_partial(folder: Path) -> None:
    """Remove what killed processes left in a folder that no other process writes to."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_partial(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


class _Output(io.BufferedIOBase):
    """A file that remembers why a write failed: torch, for one, reports a full disk as an error of its own."""

    def __init__(self, path: Path) -> None:
        self.name, self.failure = str(path), cast(OSError | None, None)
        self._file = path.open("wb")

    def write(self, data: Any, /) -> int:
        return self._try(lambda: self._file.write(data))

    def flush(self) -> None:
        if not self._file.closed:
            self._try(self._file.flush)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._try(lambda: self._file.seek(offset, whence))

    def tell(self) -> int:
        return self._file.tell()

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        try:
            self._try(self._file.close)
        finally:
            super().close()

    def _try(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except OSError as error:
            self.failure = self.failure or error
            raise


def _fill(file: _Output, write: Callable[[BinaryIO], object]) -> None:
    try:
        write(cast(BinaryIO, file))
        file.flush()
    except Exception as error:
        if file.failure is not None and error is not file.failure:
            raise file.failure from error
        raise


def printable(text: str) -> str:
    """One line, whatever is in a name: line breaks and terminal codes are shown, not sent."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def unmarked(text: str) -> str:
    """One line as by `printable`, without backticks: in messages these mark the names of settings."""
    return printable(text).replace("`", "'")


def first_line(error: BaseException) -> str:
    """What an error says, in a line; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


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
