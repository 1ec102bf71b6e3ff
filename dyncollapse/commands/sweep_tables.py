"""What a sweep shows: its plan, its table, its failures and its picture."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dyncollapse.commands.console import open_console, open_table
from dyncollapse.runtime.canvas import save_picture
from dyncollapse.runtime.files import printable
from dyncollapse.runtime.progress import duration
from dyncollapse.runtime.schemas import Report
from dyncollapse.runtime.settings import option
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.sweeps.grid import as_options, shown
from dyncollapse.sweeps.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Digits of a point's name in the table: enough to find its folder.
SHOWN = 8
# Rows of the table and panels of the picture that a person still reads (ours).
ROWS, PANELS = 60, 12


def print_plan(
    sweep: Sweep,
    done: int,
    packs: Sequence[Sequence[Configuration]],
    workers: int,
    seconds: float,
    memory: int | None,
    *,
    to_stderr: bool,
) -> None:
    """Print points, packs and what they will roughly take."""
    console = open_console(to_stderr)
    axes = [f"{len(values)} {option(name)}" for name, values in sweep.axes.items()]
    console.print(f"{len(sweep.points)} points: {' x '.join(axes) or 'one setting'}; {done} finished", soft_wrap=True)
    table = open_table("packs", "points each", "runs each")
    sizes = [(len(pack), sum(c.runs for c in pack)) for pack in packs]
    for size in sorted(set(sizes), reverse=True):
        table.add_row(str(sizes.count(size)), *map(str, size))
    if packs:
        console.print(table)
        room = "" if memory is None else f" and {memory / 2**30:.2g} GiB per worker"
        console.print(
            f"Roughly {duration(seconds)} on {workers} worker{'s'[: workers > 1]}{room}. Nothing was written."
        )
    else:
        console.print("Nothing is left to run.")


def print_sweep(sweep: Sweep, table: Sequence[Mapping[str, Any]], *, to_stderr: bool) -> None:
    """Print a row per finished point."""
    console, axes = open_console(to_stderr), list(sweep.axes)
    compared = any(row["sgd_vs_flow"] is not None for row in table)
    words = (name.replace("_", " ") for name in axes)
    rows = open_table("point", *words, "collapsed", "mechanism", *(["SGD-flow"] if compared else []))
    for row in table[:ROWS]:
        cells = [row["point"][:SHOWN], *(_short(row[name]) for name in axes)]
        cells += [f"{row['collapsed']} of {row['dim']}", row["mechanism"]]
        distance = row["sgd_vs_flow"]
        rows.add_row(*cells, *(["-" if distance is None else f"{distance:.2g}"] if compared else []))
    if table:
        console.print(rows)
    if len(table) > ROWS:
        folder = printable(str(sweep.folder))
        console.print(f"... and {len(table) - ROWS} more: dyncollapse collect {folder}", soft_wrap=True)
    console.print(f"{len(table)} of {len(sweep.points)} points are finished.")


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else shown(value)


def print_failures(sweep: Sweep, failures: Mapping[str, str]) -> None:
    """Print on stderr what went wrong with which point, and the command that runs it alone."""
    console = open_console(to_stderr=True)
    for name, text in failures.items():
        console.print(f"failed: {name}: {text}", style="red", soft_wrap=True)
        console.print(f"  dyncollapse simulate {as_options(sweep.points[name])}", soft_wrap=True)


def save_sweep(sweep: Sweep, reports: Mapping[str, Report]) -> tuple[list[str], str]:
    """Draw the final singular values over the numeric axis with most values into sweep.png.

    Every combination of the other axes has a panel, of which the first PANELS are drawn. Returns the names of what was
    drawn, and in one line why that failed.
    """
    axes = sweep.axes
    numeric = [name for name, values in axes.items() if all(isinstance(v, int | float) for v in values)]
    numeric = [name for name in numeric if name != "seed"] or numeric
    if not numeric or not reports:
        return [], ""
    over = max(numeric, key=lambda name: len(axes[name]))
    others = [name for name in axes if name != over]
    panels: dict[tuple[Any, ...], list[tuple[float, Report]]] = {}
    for name, report in reports.items():
        c = sweep.points[name]
        panels.setdefault(tuple(getattr(c, other) for other in others), []).append((getattr(c, over), report))
    shown = list(panels.items())[:PANELS]
    problem = save_picture(sweep.folder / "sweep.png", lambda: _draw(shown, over, others, len(panels)))
    return [] if problem else ["sweep.png"], problem


def _draw(
    panels: Sequence[tuple[tuple[Any, ...], list[tuple[float, Report]]]],
    over: str,
    others: Sequence[str],
    count: int,
) -> "Figure":
    from matplotlib.figure import Figure

    from dyncollapse.plotting import plot_sweep

    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2 + 2.8 * columns, 1 + 2.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax in grid.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (values, points) in zip(grid.flat, panels, strict=False):
        points = sorted(points, key=lambda point: point[0])
        ends = [next(iter(report["dynamics"].values()))["product_singular_values"] for _, report in points]
        rests = [[mode["rest_singular_value"] for mode in report["prediction"]["modes"]] for _, report in points]
        threshold = points[0][1]["prediction"]["threshold"] if over == "aug_strength" else None
        plot_sweep(ax, [x for x, _ in points], _columns(ends), rest=_columns(rests), threshold=threshold)
        ax.set_title(", ".join(f"{option(n)[2:]} {_short(v)}" for n, v in zip(others, values, strict=True)), fontsize=9)
        ax.label_outer()
    figure.supxlabel(
        option(over)[2:] + (f" (first {len(panels)} of {count} panels)" if count > len(panels) else ""), fontsize=10
    )
    figure.supylabel("final singular value, mean over runs", fontsize=10)
    lines = {label: line for ax in grid.flat for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure


def _columns(rows: Sequence[Sequence[float | None]]) -> np.ndarray[Any, np.dtype[Any]]:
    """Rows of any length side by side, NaN where a value is missing or infinite."""
    found = np.full((len(rows), max(map(len, rows))), math.nan)
    for cells, row in zip(found, rows, strict=True):
        cells[: len(row)] = [math.nan if value is None else value for value in row]
    return found
