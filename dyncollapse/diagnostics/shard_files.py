"""Find the shards of embeddings in folders, and check by their headers that they belong together."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dyncollapse.diagnostics.readers import described_rows, format_named
from dyncollapse.formats.arrays import Array
from dyncollapse.runtime.files import unmarked

MOST_SHARDS = 100_000  # a folder with more takes minutes to look at


@dataclass(frozen=True)
class Shard:
    """The same samples in each view: one file per view.

    Attributes:
        paths: The files, first view first.
        key: What `read_rows` takes with the path.
        start: Number of samples in the shards before.
        rows: Number of its samples.
    """

    paths: tuple[Path, ...]
    key: str | None
    start: int
    rows: int


def find_shards(folder: Path, others: Sequence[Path] = (), key: str | None = None) -> tuple[list[Shard], list[str]]:
    """Find the shards in a folder, in the order of their names, in which numbers are compared as numbers.

    The headers of all files are read, and of text all lines. Names that begin with . or _ are passed over.

    Args:
        folder: Files of one format, whose rows belong together.
        others: Folders with other views of the same samples: files of the same names with as many rows.
        key: As for `read_rows`, the same for all files.

    Returns:
        The shards, and the names of files that were left out because they are of no format that is read.

    Raises:
        ValueError: One line, for a folder without shards or with several formats, a file that is no rows of numbers,
            shards of different dimensions or formats, and views that do not fit.
    """
    names, left_out = _names(folder)
    for other in others:
        theirs = _names(other)[0]
        if theirs != names:
            name = min(set(names) ^ set(theirs), key=_natural)
            has, lacks = (folder, other) if name in names else (other, folder)
            raise ValueError(
                f"{_shown(has)} has {unmarked(name)}, and {_shown(lacks)} has not; give folders with files of the same "
                "names"
            )
    shards, first, start = list[Shard](), None, 0
    for name in names:
        paths = tuple(place / name for place in (folder, *others))
        arrays = [described_rows(path, key) for path in paths]
        first = first or (paths[0], arrays[0])
        _check_fits(paths, arrays, *first)
        rows = _shape(arrays[0])[0]
        shards.append(Shard(paths, key, start, rows))
        start += rows
    return shards, left_out


def _names(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the shards in a folder, in order, and those of other files."""
    names, left_out = list[str](), list[str]()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith((".", "_")):
                    continue
                if entry.is_dir():
                    raise ValueError(
                        f"{_shown(folder)} holds the folder {unmarked(entry.name)}; give one with files alone"
                    )
                (names if format_named(Path(entry.name)) else left_out).append(entry.name)
                if len(names) + len(left_out) > MOST_SHARDS:
                    raise ValueError(f"{_shown(folder)} holds over {MOST_SHARDS} files; save fewer, larger shards")
    except OSError as error:
        raise ValueError(f"{_shown(folder)} cannot be read: {error.strerror}; give a folder of shards") from None
    forms = sorted({str(format_named(Path(name))) for name in names})
    if not names:
        raise ValueError(f"{_shown(folder)} holds no file of embeddings; give a folder of shards, as .npy")
    if len(forms) > 1:
        raise ValueError(f"{_shown(folder)} holds {' and '.join(forms)} files; give a folder of one format")
    return sorted(names, key=_natural), sorted(left_out, key=_natural)


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return what orders names with their numbers compared as numbers: part-2 before part-10."""
    # A number is compared by its length without zeros in front, then by its digits, so that any length is fine.
    parts = [part.lstrip("0") if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]
    return [(len(part) if place % 2 else 0, part) for place, part in enumerate(parts)], name


def _check_fits(paths: Sequence[Path], arrays: Sequence[Array], first_path: Path, first: Array) -> None:
    """Check a shard's views against each other, and its first view against the first shard."""
    (rows, width), wanted = _shape(arrays[0]), _shape(first)[1]
    if (width, arrays[0].kind) != (wanted, first.kind):
        raise ValueError(
            f"{_shown(paths[0])} holds {width} columns of {arrays[0].kind}, and {_shown(first_path)} {wanted} of "
            f"{first.kind}; give shards of one embedding"
        )
    for path, array in zip(paths[1:], arrays[1:], strict=True):
        if _shape(array) != (rows, width):
            raise ValueError(
                f"{_shown(path)} has shape {_shape(array)}, and {_shown(paths[0])} {(rows, width)}; give the same "
                "samples, in the same order, from the same layer"
            )


def _shape(array: Array) -> tuple[int, int]:
    assert array.shape is not None
    rows, width = array.shape
    return rows, width


def _shown(path: Path) -> str:
    return unmarked(str(path))
