"""Files that are written whole or not at all, and text that is safe to print."""

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

# Ends the hidden name of a file or folder that is being written, or was when its process was killed.
PARTIAL = ".partial"


class CannotWrite(OSError):
    """A file or folder that could not be written: `filename` names it, `strerror` says why."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError in the block into CannotWrite with the name `path`."""
    try:
        yield
    except CannotWrite:
        raise
    except OSError as error:
        raise CannotWrite(error.errno, error.strerror or str(error), str(path)) from error


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: no reader ever sees half a file.

    Args:
        path: The file; an earlier one stays as it is when `write` fails.
        write: Called with the open temporary file. What it raises passes on.

    Raises:
        CannotWrite: Where the system refuses a write, even if the library that writes reports it as another error.
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
    """Write bytes to a file atomically. Raises CannotWrite."""
    write_whole(path, lambda file: file.write(content))


def write_json(path: Path, content: Any) -> None:
    """Write plain values as JSON, atomically. Raises CannotWrite, and ValueError for NaN and infinity."""
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def partial_path(path: Path) -> Path:
    """A new hidden name beside `path` for what will be renamed to it; a long name is shortened."""
    return path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex[:12]}{PARTIAL}")


def is_partial(path: Path) -> bool:
    """Whether a name is that of an unfinished file or folder."""
    return path.name.startswith(".") and path.name.endswith(PARTIAL)


def remove_partial(folder: Path) -> None:
    """Remove the unfinished files that killed processes left in a folder; no other process may be writing there."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_partial(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


class _Output(io.BufferedIOBase):
    """A file that remembers why a write failed, since torch reports a full disk as a RuntimeError of its own."""

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
    """Text as one printable line: line breaks and terminal codes are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def unmarked(text: str) -> str:
    """Text as by `printable`, without backticks, which mark the names of settings in messages."""
    return printable(text).replace("`", "'")


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def read_json(path: Path, most: int = MOST_TEXT) -> Any:
    """Read plain values from a JSON file that anyone may have written.

    Args:
        path: A regular file.
        most: Bytes that it may have.

    Returns:
        The values.

    Raises:
        OSError: For a file that does not exist or cannot be read.
        ValueError: For a file that is not regular or too large, and for anything but strict JSON: NaN, infinity,
            numbers beyond a float and deep nesting are refused.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"it holds {constant}")

    def finite(text: str) -> float:
        return value if math.isfinite(value := float(text)) else refuse("a number too large for a float")

    try:
        return json.loads(read_text(path, most), parse_constant=refuse, parse_float=finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
