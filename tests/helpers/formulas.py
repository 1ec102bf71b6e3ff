"""Matplotlib's formulas, parsed once in a process: by itself it parses the labels of each picture again."""

from functools import cache

from matplotlib import textpath
from matplotlib.backends import backend_agg
from matplotlib.mathtext import MathTextParser


class Parser(MathTextParser):  # type: ignore[type-arg]
    """A parser that keeps what it has parsed."""

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self.parse = cache(super().parse)  # type: ignore[method-assign]


def parse_formulas_once() -> None:
    """Let all pictures of this process share a parser."""
    backend_agg.MathTextParser = textpath.MathTextParser = cache(Parser)  # type: ignore[assignment,misc]
