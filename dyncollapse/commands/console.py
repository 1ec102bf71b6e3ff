"""Tables and lines on the terminal; control codes in their text are shown and not obeyed."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from dyncollapse.runtime.files import printable

WIDTH_OF_FILES = 140  # columns: a file or a pipe has no width of its own


def open_console(to_stderr: bool) -> Console:
    """A console on stdout or stderr, wide enough for tables in files and pipes, without markup in brackets."""
    console = _Console(stderr=to_stderr, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH_OF_FILES
    return console


def open_table(*columns: str, left: int = 0) -> Table:
    """A table without lines; the first `left` columns are words."""
    table = _Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", no_wrap=True)
    return table


def filled_table(columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 0) -> Table:
    """A table as by `open_table`, with rows."""
    table = open_table(*columns, left=left)
    for row in rows:
        table.add_row(*row)
    return table


class _Console(Console):
    """A console that escapes control codes in text.

    Sentences are printed with soft_wrap: files and pipes get each on a line of its own, terminals wrap it at words.
    """

    def print(self, *objects: Any, **style: Any) -> None:
        if self.is_terminal:
            style.pop("soft_wrap", None)
        super().print(*(printable(one) if isinstance(one, str) else one for one in objects), **style)


class _Table(Table):
    """A table that escapes control codes in its cells."""

    def add_row(self, *cells: Any, **style: Any) -> None:
        super().add_row(*(printable(cell) if isinstance(cell, str) else cell for cell in cells), **style)
