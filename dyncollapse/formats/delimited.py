"""Read .csv and .tsv files of numbers: the lines are checked and counted first, then the numbers are read in blocks."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dyncollapse.formats.archives import check_room
from dyncollapse.formats.arrays import Array
from dyncollapse.formats.columns import Column, check_width, chosen_columns
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.untrusted import OTHER_BOMS, Refused, open_regular

MOST_LINE = 2**24  # characters of a line: half a million numbers of 30 characters
MOST_BLANK = 1000  # empty lines at the end of a file
BLOCK = 2**20  # numbers that are read at once
MOST_SHOWN = 60  # characters of a field in a message
DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
NO_NUMBER = re.compile(r"could not convert string (.*) to float64 at row (\d+), column (\d+)", re.DOTALL)
RAGGED = re.compile(r"number of columns changed from (\d+) to (\d+) at row (\d+)")


@dataclass(frozen=True)
class _Table:
    """What the first lines of a file say, and how many rows it has.

    Attributes:
        delimiter: The character between fields.
        header: Whether the first line names the columns.
        columns: The columns.
        rows: Number of rows of numbers.
    """

    delimiter: str
    header: bool
    columns: list[Column]
    rows: int


def read_delimited(path: Path, key: str | None = None) -> Array:
    """Open a .csv or .tsv file: numbers with a decimal point, one row per line, in UTF-8.

    Fields of a .tsv are separated by tabs, those of a .csv by semicolons, else tabs, else commas, as in its first line.
    The first line is a header if it holds words. It also is one if it counts its columns as 0, 1, 2, ..., as
    pandas names them, perhaps after other names. `chosen_columns` says which columns are dimensions.

    Args:
        path: A regular file.
        key: A column, or the beginning of the names of several with a *.

    Returns:
        The numbers in float64.

    Raises:
        OSError: For a file that cannot be read.
        ValueError: `Refused`, for anything but rows of equally many numbers.
    """
    table = _examined(path)
    chosen = chosen_columns(table.columns, key)
    shape = table.rows, len(chosen)
    check_room(8 * (shape[0] * shape[1] + BLOCK))
    return Array("float64", shape, partial(_numbers, path, table, chosen, key is None))


def read_texts(path: Path, most: int) -> list[str]:
    """Read the only column of a .csv or .tsv file as texts, without its header.

    Args:
        path: A regular file.
        most: Rows that it may have.

    Returns:
        The texts. The first line is left out if it is a name of `columns.NO_DIMENSION`, as "label".

    Raises:
        OSError: For a file that cannot be read.
        ValueError: `Refused`, for more columns or rows.
    """
    texts: list[str] = []
    with _lines(path) as lines:
        for number, line in enumerate(lines):
            if not number:
                delimiter = _delimiter(path, line)
            fields = _fields(line, delimiter)
            if len(fields) != 1:
                raise Refused(f"has {len(fields)} columns in line {number + 1}; give one column of labels")
            texts.append(fields[0].strip())
            if len(texts) > most:
                raise Refused(f"has more than {most} rows; give one label per sample")
    return texts


def _examined(path: Path) -> _Table:
    """Look at the first lines, and count the others."""
    with _lines(path) as lines:
        first = next(lines, None)
        if first is None:
            raise Refused("holds no rows; save it again")
        delimiter = _delimiter(path, first)
        names = _fields(first.removeprefix("#"), delimiter)
        header = first.startswith("#") or _is_header(names)
        second = next(lines, None) if header else first
        if second is None:
            _refuse_field(names)
            raise Refused("holds a header and no rows; save it again")
        fields = _fields(second, delimiter)
        rows = 1 + sum(1 for _ in lines)
    if header and len(names) != len(fields):
        raise Refused(f"names {len(names)} columns, but its first row has {len(fields)}; save it again")
    _refuse_field(fields)
    kinds = ["numbers" if _is_number(field) or not field.strip() else "text" for field in fields]
    columns = [Column(name.strip() if header else "", kind) for name, kind in zip(names, kinds, strict=True)]
    return _Table(delimiter, header, columns, rows)


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[str]]:
    """Open a text and give its lines, each of which is checked before it is returned."""
    with open_regular(path) as file:
        if file.peek(2).startswith(OTHER_BOMS):
            raise Refused("is in UTF-16 or UTF-32; save it as UTF-8")
        try:
            yield _checked_lines(io.TextIOWrapper(file, encoding="utf-8-sig"))
        except UnicodeDecodeError:
            raise Refused("is no text in UTF-8; save it as UTF-8") from None


def _checked_lines(text: io.TextIOWrapper) -> Iterator[str]:
    """Yield the lines without empty ones at the end; an empty line before others is refused."""
    number = blank = 0
    while line := text.readline(MOST_LINE + 1):
        number += 1
        if len(line) > MOST_LINE:
            raise Refused(f"has over {MOST_LINE} characters in line {number}; give one row of numbers per line")
        if not line.strip(" \n"):
            blank += 1
            if blank > MOST_BLANK:
                raise Refused(f"has over {MOST_BLANK} empty lines; remove them")
            continue
        if blank:
            raise Refused(f"has an empty line before line {number}; remove it, or write the missing number")
        if "\0" in line:
            raise Refused(f"holds a zero byte in line {number}: it is damaged, or no text")
        if line.count('"') % 2:
            raise Refused(f"has a quotation mark without its second in line {number}; save it again")
        yield line


def _delimiter(path: Path, line: str) -> str:
    """Return the character between fields."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    plain = re.sub('"[^"]*"', "", line)
    found = next((mark for mark in (";", "\t", ",") if mark in plain), ",")
    words = plain.split()
    if found not in plain and len(words) > 1 and all(map(_is_number, words)):
        raise Refused("separates numbers by spaces; save it with commas, as numpy.savetxt does with delimiter=','")
    return found


def _fields(line: str, delimiter: str) -> list[str]:
    check_width(1 + line.count(delimiter))
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        raise Refused(f"is damaged ({error}); save it again") from None


def _is_header(fields: Sequence[str]) -> bool:
    """Return whether a line names columns: by words, by numbers from 0 on, or by words and such numbers."""
    given = [field.strip() for field in fields if field.strip()]
    numbers = [field for field in given if _is_number(field)]
    counted = numbers == [str(number) for number in range(len(numbers))]
    return counted and (len(numbers) < len(given) or len(numbers) > 1)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return field.isascii() and "_" not in field


def _refuse_field(fields: Sequence[str]) -> None:
    wrong = next((field for field in fields if DECIMAL_COMMA.fullmatch(field)), None)
    if wrong is not None:
        raise Refused(f"writes numbers with a comma ({wrong.strip()[:MOST_SHOWN]}); save it with decimal points")


def _numbers(path: Path, table: _Table, chosen: Sequence[int], indexed: bool) -> Tensor:
    """Read the numbers of the chosen columns, in blocks."""
    rows = np.empty((table.rows, len(chosen)))
    width, begin = len(table.columns), int(table.header)
    size = max(1, BLOCK // width)
    skipped: dict[int | str, Any] = dict.fromkeys(set(range(width)) - set(chosen), _zero)
    with _lines(path) as lines:
        next(islice(lines, begin, begin), None)
        for start in range(0, table.rows, size):
            try:
                block = np.loadtxt(
                    islice(lines, size),
                    np.float64,
                    delimiter=table.delimiter,
                    comments=None,
                    quotechar='"',
                    converters=skipped,
                    ndmin=2,
                )
            except ValueError as error:
                _refuse_line(str(error), start + begin, table.columns)
                raise
            if block.shape[1] != width:
                raise Refused(_ragged(start + begin + 1, block.shape[1], width))
            if len(block) != min(size, table.rows - start):
                raise Refused("was changed while it was read; give a copy that nothing writes to")
            rows[start : start + len(block)] = block[:, chosen]
    if indexed and not table.header and len(chosen) > 1:
        _refuse_index(rows)
    return torch.from_numpy(rows)


def _zero(_field: str) -> float:
    return 0.0


def _refuse_line(message: str, before: int, columns: Sequence[Column]) -> None:
    """Refuse what NumPy could not read, with the number of the line and the name of the column."""
    if found := NO_NUMBER.search(message):
        text, row, place = found[1], int(found[2]), int(found[3]) - 1  # NumPy counts rows from 0, columns from 1
        name = unmarked((columns[place].name if place < len(columns) else "") or str(place + 1))[:MOST_SHOWN]
        holds = "has no number" if text == "''" else f"holds {unmarked(text[:MOST_SHOWN])}"
        raise Refused(f"{holds} in line {before + row + 1}, column {name}; give a number everywhere") from None
    if found := RAGGED.search(message):
        raise Refused(_ragged(before + int(found[3]), int(found[2]), int(found[1]))) from None


def _ragged(line: int, fields: int, width: int) -> str:
    return f"has {fields} columns in line {line}, and {width} before; give every row as many"


def _refuse_index(rows: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """Refuse a first column that counts the rows, as an index does that was saved without a header."""
    for first in (0, 1):
        if len(rows) > 2 and np.array_equal(rows[:, 0], np.arange(first, first + len(rows))):
            raise Refused(
                f"counts its rows from {first} in its first column, as an index does; leave it out, or take "
                "all columns with `key` '*'"
            )
