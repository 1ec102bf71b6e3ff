"""Tick labels of logarithmic axes as plain text.

Matplotlib writes each power of 10 as a formula. Parsing these was measured to take up to a quarter of a picture's time.
"""

import re
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, LogFormatterMathtext

TIMES, MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
SUPERSCRIPTS = str.maketrans("0123456789-.", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻·")
FORMULA = re.compile(r"\$\\mathdefault\{(.*)\}\$")
EXPONENT = re.compile(r"\^\{(.*?)\}")


def write_powers_plainly(figure: Figure) -> None:
    r"""Let all logarithmic axes of a figure label their ticks with superscripts in place of formulas.

    Args:
        figure: A figure on which everything has been drawn.

    Examples:
        >>> figure = Figure()
        >>> axis = figure.add_subplot(yscale="log", ylim=(1e-3, 1)).yaxis
        >>> axis.get_major_formatter()(0.01)
        '$\\mathdefault{10^{-2}}$'
        >>> write_powers_plainly(figure)
        >>> axis.get_major_formatter()(0.01)
        '10⁻²'
    """
    # Not by `findobj`, which makes all ticks.
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        for get, put in (
            (axis.get_major_formatter, axis.set_major_formatter),
            (axis.get_minor_formatter, axis.set_minor_formatter),
        ):
            if isinstance(formatter := get(), LogFormatterMathtext):
                put(_PlainPowers(formatter))


class _PlainPowers(Formatter):
    """What another formatter writes, without formulas."""

    def __init__(self, formatter: Formatter) -> None:
        self._formatter = formatter

    def set_axis(self, axis: Any) -> None:
        super().set_axis(axis)
        self._formatter.set_axis(axis)

    def set_locs(self, locs: list[float]) -> None:
        self._formatter.set_locs(locs)

    def __call__(self, x: float, pos: int | None = None) -> str:
        return _plain(self._formatter(x, pos))


def _plain(label: str) -> str:
    found = FORMULA.fullmatch(label)
    if not found:
        return label
    text = found[1].replace(r"\times", TIMES).replace(" ", "")
    return EXPONENT.sub(lambda power: power[1].translate(SUPERSCRIPTS), text).replace("-", MINUS)
