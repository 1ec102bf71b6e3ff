"""Open files that anyone may have made: regular files only, of bounded size, in UTF-8."""

import codecs
import io
import os
import stat
from pathlib import Path

# The worst JSON of this size, a list of empty objects, takes 0.55 GB (32 times its bytes) and 2.4 seconds to read.
MOST_TEXT = 2**24
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
OTHER_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # UTF-32's little-endian mark begins with UTF-16's


class NoFile(ValueError):
    """Something that is not a readable file; the message is a clause, as "it is a pipe, not a regular file"."""


class Refused(ValueError):
    """A file that is refused for what it holds; the message continues its path, as "is encrypted; save it anew"."""


def regular(path: str | Path) -> os.stat_result:
    """The status of a regular file, without opening it: opening a pipe would block, and opening a device may act.

    Args:
        path: The file; links are followed.

    Returns:
        The result of `os.stat`.

    Raises:
        OSError: For a file that does not exist or cannot be reached.
        NoFile: For anything but a regular file.

    Examples:
        >>> regular("/")
        Traceback (most recent call last):
            ...
        dyncollapse.runtime.untrusted.NoFile: it is a directory, not a regular file
    """
    if "\0" in os.fspath(path):
        raise NoFile("its name holds a zero byte")
    return _checked(os.stat(path))


def _checked(status: os.stat_result) -> os.stat_result:
    if not stat.S_ISREG(status.st_mode):
        raise NoFile(f"it is {KINDS.get(stat.S_IFMT(status.st_mode), 'special')}, not a regular file")
    return status


def open_regular(path: str | Path, most: int | None = None) -> io.BufferedReader:
    """Open a regular file for reading bytes; this never blocks, even if a pipe replaces the file meanwhile.

    Args:
        path: The file; links are followed.
        most: Bytes that it may have; None for any number.

    Returns:
        The open file, for a `with` statement.

    Raises:
        OSError: For a file that does not exist or cannot be read.
        NoFile: For anything but a regular file, and for a larger one.
    """
    regular(path)
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        size = _checked(os.fstat(number)).st_size
        if most is not None and size > most:
            raise NoFile(f"it has {size} bytes, and at most {most} are read")
    except NoFile:
        os.close(number)
        raise
    return os.fdopen(number, "rb")


def read_bytes(path: str | Path, most: int = MOST_TEXT) -> bytes:
    """Read all bytes of a regular file.

    Args:
        path: The file; links are followed.
        most: Bytes that it may have.

    Returns:
        The bytes.

    Raises:
        OSError: For a file that does not exist or cannot be read.
        NoFile: For anything but a regular file, and for a larger one, even if it only grows while it is read.
    """
    with open_regular(path, most) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise NoFile(f"it grows while it is read, beyond {most} bytes")
    return content


def read_text(path: str | Path, most: int = MOST_TEXT) -> str:
    """Read the text of a regular file in UTF-8, with or without a byte order mark.

    Args:
        path: The file; links are followed.
        most: Bytes that it may have.

    Returns:
        The text, without the mark.

    Raises:
        OSError: For a file that does not exist or cannot be read.
        NoFile: For anything but a regular file, a larger one and another encoding.
    """
    content = read_bytes(path, most)
    if content.startswith(OTHER_BOMS):
        raise NoFile("it is in UTF-16 or UTF-32; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NoFile(f"byte {error.start} is not UTF-8; save it as UTF-8") from None
