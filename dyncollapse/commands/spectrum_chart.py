"""A spectrum as a chart of text, with or without Unicode."""

import itertools
import math
from collections.abc import Sequence


def spectrum_lines(
    values: Sequence[float], floor: float, threshold: float, *, plain: bool = False, width: int = 64, height: int = 12
) -> list[str]:
    """A descending spectrum as lines of text: log10 variance over rank, with lines at noise floor and threshold.

    A column is the mean log of its ranks, or a rank has several columns and its dot in the middle of them; values of 0
    are drawn on the lowest line. `plain` keeps to ASCII.
    """
    dot, below, cut = "*-=" if plain else "•┄═"
    if not any(value > 0 for value in values):
        return ["(nothing varies: every variance is 0)"]
    positive = [v for v in (*values, floor, threshold) if v > 0]
    high, low = math.log10(max(positive)), math.log10(min(positive))
    span = max(high - low, 1.0)

    def row(value: float) -> int:
        log = math.log10(value) if value > 0 else high - span
        return round((high - log) / span * (height - 1))

    groups = min(width, len(values))  # of ranks
    step = min(4, width // groups)
    cells = [[" "] * (groups * step) for _ in range(height)]
    names = {}
    for level, mark, name in ((floor, below, "noise floor"), (threshold, cut, "collapsed below")):
        if level > 0:
            names[row(level)] = f"{name} (noise floor)" if row(level) in names else name
            cells[row(level)] = [mark] * (groups * step)
    edges = [len(values) * group // groups for group in range(groups + 1)]
    for group, (first, end) in enumerate(itertools.pairwise(edges)):
        line = round(sum(map(row, values[first:end])) / (end - first))
        cells[line][group * step + (step - 1) // 2] = dot
    lines = ["log10 of covariance eigenvalues" + (" (0 at the bottom)" if min(values) <= 0 else "")]
    for line, marks in enumerate(cells):
        tick = round(high - span * line / (height - 1), 1) + 0.0  # no -0.0
        label = f"{tick:6.1f} " if line % 3 == 0 or line == height - 1 else " " * 7
        lines.append(f"{label}|{''.join(marks)} {names.get(line, '')}".rstrip())
    first, last = (step - 1) // 2, (groups - 1) * step + (step - 1) // 2
    ranks = " " * first + "1"
    if last > first:
        ranks += f"{len(values):>{last - first}}"
    return [*lines, f"{'':8}{ranks}"]
