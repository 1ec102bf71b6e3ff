"""Changes to the files of a try, each a list of plain values: what to do, the file, and how."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz.pictures import draw_picture
from fuzz.tensors import change_tensors, save_array
from fuzz.values import change_json, change_lines

TARGETS = {"zero": "/dev/zero", "null": "/dev/null", "random": "/dev/urandom", "self": ".", "parent": ".."}


def change(folder: Path, step: Any) -> None:
    """Apply one step in a try's folder; a step whose file an earlier one took away does nothing."""
    name, where, *values = step
    path = folder / where
    try:
        DEEDS[name](path, *values)
    except (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError):
        return


def _there(work: Callable[..., object]) -> Callable[..., None]:
    """Change a file that is one: to read a pipe or device that an earlier step made would never end."""

    def deed(path: Path, *values: Any) -> None:
        if path.is_file():
            work(path, *values)

    return deed


def _bytes(work: Callable[..., bytes]) -> Callable[..., None]:
    return _there(lambda path, *values: path.write_bytes(work(path.read_bytes(), *values)))


def _at(data: bytes, part: float) -> int:
    return min(int(part * len(data)), max(0, len(data) - 1))


def _flip(data: bytes, part: float, bit: int) -> bytes:
    k = _at(data, part)
    return data[:k] + bytes([data[k] ^ (1 << bit)]) + data[k + 1 :] if data else data


def _swap(data: bytes, first: float, second: float) -> bytes:
    i, j = sorted((_at(data, first), _at(data, second)))
    return data[j:] + data[i:j] + data[:i]


def _drop(data: bytes, first: float, second: float) -> bytes:
    i, j = sorted((_at(data, first), _at(data, second)))
    return data[:i] + data[j:]


def _number(data: bytes, part: float, text: str) -> bytes:
    """Another number in place of one that stands in the bytes as text."""
    found = list(re.finditer(rb"\d+", data[:100_000]))
    if not found:
        return data
    match = found[int(part * len(found)) % len(found)]
    return data[: match.start()] + text.encode() + data[match.end() :]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _instead(make: Callable[..., object]) -> Callable[..., None]:
    """Make something new at a path, in the place of what is there."""

    def deed(path: Path, *values: Any) -> None:
        if path.exists() or path.is_symlink():
            _remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path, *values)

    return deed


def _rename(path: Path, name: str) -> None:
    target = path.parent / name
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)


def _copy(path: Path, name: str) -> None:
    target = path.parent / name
    target.parent.mkdir(parents=True, exist_ok=True)
    # Links stay links: one to a folder around it would be copied into itself without end.
    shutil.copytree(path, target, symlinks=True) if path.is_dir() else shutil.copy(path, target)


def _write(path: Path, text: str, times: int = 1) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass") * times)


DEEDS: dict[str, Callable[..., None]] = {
    "flip": _bytes(_flip),
    "swap": _bytes(_swap),
    "drop": _bytes(_drop),
    "number": _bytes(_number),
    "cut": _bytes(lambda data, part: data[: _at(data, part)]),
    "append": _bytes(lambda data, count: data + data[:1] * count),
    "before": _bytes(lambda data, text: text.encode("utf-16-le") + data),
    "empty": _bytes(lambda _data: b""),
    "fifo": _instead(os.mkfifo),
    "folder": _instead(Path.mkdir),
    "link": _instead(lambda path, target: os.symlink(TARGETS.get(target, target), path)),
    "text": _instead(_write),
    "picture": _instead(draw_picture),
    "remove": _remove,
    "rename": _rename,
    "copy": _copy,
    "array": _instead(save_array),
    "tensors": _there(change_tensors),
    "json": _there(change_json),
    "lines": _there(change_lines),
}
