"""Which columns of a table are dimensions: the rule that all formats of tables share."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import takewhile

from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.untrusted import Refused

# Words that end the names of columns about samples: "image_id" and "Class" are no dimensions.
NO_DIMENSION = {"id", "ids", "index", "idx", "label", "labels", "target", "targets", "class", "classes"}
# What pandas calls an index without a name when it reads CSV, and when it writes Parquet.
INDEX = re.compile(r"unnamed: \d+|__index_level_\d+__")
MOST_COLUMNS = 2**17  # the widest embeddings have tens of thousands
LISTED, MOST_LETTERS = 8, 100


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name; empty if it has none.
        kind: "numbers", or what it holds instead, for messages.
    """

    name: str
    kind: str = "numbers"


def chosen_columns(columns: Sequence[Column], key: str | None) -> list[int]:
    """Return the places of the columns that are dimensions.

    Without a key every column must be one: other columns are refused by name, since leaving out the wrong ones, or too
    few, would change every number of a report.

    Args:
        columns: The columns of a table, in order.
        key: A name, or a pattern of names in which * stands for any letters; None takes all columns.

    Returns:
        Their places, in order.

    Raises:
        ValueError: `Refused`, for columns that are no dimension, and for a key that fits none, or columns without
            numbers.

    Examples:
        >>> chosen_columns([Column("label"), Column("emb_0"), Column("emb_1")], "emb_*")
        [1, 2]
    """
    named = any(column.name for column in columns)
    if key is not None:
        places = _fitting(columns if named else [Column(str(k), c.kind) for k, c in enumerate(columns)], key)
        texts = [_shown(columns, k) for k in places if columns[k].kind != "numbers"]
        if texts:
            raise Refused(f"has no numbers in {_listed(texts)}; choose columns of numbers with `key`")
        return places
    others = [k for k, column in enumerate(columns) if column.kind != "numbers" or (named and _describes(column.name))]
    if others:
        rest = [column.name for k, column in enumerate(columns) if k not in set(others)]
        shown = _listed([_shown(columns, k) for k in others])
        raise Refused(f"has columns that are no dimensions: {shown}; {_advice(rest, named)}")
    return list(range(len(columns)))


def check_width(count: int) -> None:
    """Refuse a table of more columns than any embedding has dimensions; ValueError `Refused`."""
    if count > MOST_COLUMNS:
        raise Refused(f"has {count} columns, and at most {MOST_COLUMNS} are read; give one row per sample")


def _fitting(columns: Sequence[Column], key: str) -> list[int]:
    """Return the places of the columns of this name, or else of those that the pattern fits."""
    same = [k for k, column in enumerate(columns) if column.name == key]
    places = same or [k for k, column in enumerate(columns) if fnmatchcase(column.name, key)]
    if not places:
        names = _listed([_brief(column.name) for column in columns if column.name])
        raise Refused(f"has no column named {_brief(key)}; it has {names}")
    return places


def _describes(name: str) -> bool:
    """Return whether a column describes samples by its name: the end of it, or no name beside columns with names."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name)
    return not name or (bool(words) and words[-1].lower() in NO_DIMENSION) or bool(INDEX.fullmatch(name.lower()))


def _advice(rest: Sequence[str], named: bool) -> str:
    """Say how to choose the columns that remain: by the beginning of their names, if they share one."""
    first, last = min(rest, default=""), max(rest, default="")  # what these share, all share
    begin = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    begin = re.sub(r"\d+$", "", begin)
    if begin:
        return f"choose the dimensions with `key` '{_brief(begin)}*'"
    if rest and all(name.isdecimal() for name in rest):
        return "choose the dimensions with `key` '[0-9]*'"
    if not named:
        return "leave them out, or name the columns"
    return "leave them out, or choose the dimensions by the beginning of their names, as `key` 'emb_*'"


def _shown(columns: Sequence[Column], place: int) -> str:
    column = columns[place]
    name = _brief(column.name) if column.name else f"column {place + 1} (no name)"
    return name if column.kind == "numbers" else f"{name} ({column.kind})"


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + more


def _brief(text: str) -> str:
    """Return a text from a file as one short line."""
    return unmarked(text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}...")
