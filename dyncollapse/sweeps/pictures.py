"""The pictures of a sweep. This module imports Matplotlib: import it when drawing."""

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dyncollapse.plotting import label_panels, plot_spectrum, plot_sweep, ramp
from dyncollapse.sweeps.picture_options import Panel

COLUMNS = 4  # of panels in a picture, at most
LETTERS = 30  # of a title's line, beside the panel's letter: as many as fit above a panel


def draw_sweep(panels: Sequence[Panel], axis: str, label: str) -> Figure:
    """Draw final singular values over the setting `axis`, a panel per combination of the others."""
    figure, grid = _panels(len(panels))
    for ax, panel in zip(grid.flat, panels, strict=False):
        plot_over(ax, panel, with_threshold=axis == "aug_strength")
        ax.label_outer()
    figure.supxlabel(label, fontsize=10)
    _finish(figure, grid)
    return figure


def draw_spectra(panels: Sequence[Panel], label: str, left_out: str) -> Figure:
    """Draw final singular values by rank: a line per value of the setting `label`, a panel per combination."""
    figure, grid = _panels(len(panels))
    colours = line_colours(panels)
    for ax, panel in zip(grid.flat, panels, strict=False):
        plot_spectra(ax, panel, label, colours)
        ax.set(xlabel="", ylabel="")
        ax.label_outer()
    figure.supxlabel(f"rank{left_out}", fontsize=10)
    _finish(figure, grid)
    return figure


def wrapped_title(title: str) -> str:
    """A panel's title in lines of LETTERS at most, broken between settings, and within one that is longer.

    Args:
        title: Settings with commas between them.

    Returns:
        The lines.

    Examples:
        >>> print(wrapped_title("loss infonce, depth 1, activation linear"))
        loss infonce, depth 1,
        activation linear
    """
    lines = [""]
    for setting in title.split(", "):
        joined = f"{lines[-1]}, {setting}" if lines[-1] else setting
        lines[-1:] = [joined] if len(joined) <= LETTERS else [*filter(None, lines[-1:]), setting]
    return ",\n".join("\n".join(wrap(line, LETTERS, break_on_hyphens=False)) for line in lines)


def line_colours(panels: Sequence[Panel]) -> dict[float, Any]:
    """A colour for every value, the same in all panels."""
    values = sorted({value for panel in panels for value, _ in panel.points})
    return dict(zip(values, ramp(len(values)), strict=True))


def plot_spectra(ax: Axes, panel: Panel, label: str, colours: Mapping[float, Any]) -> Axes:
    """Draw the final singular values of a panel's points by rank, a line per value.

    Args:
        ax: Where to draw.
        panel: The points.
        label: Name of the setting whose values the lines are.
        colours: A colour by value.

    Returns:
        The axes.
    """
    for value, report in sorted(panel.points, key=lambda point: point[0]):
        end = next(iter(report["dynamics"].values()))["product_singular_values"]
        sigma = np.array([math.nan if entry is None else entry for entry in end])
        plot_spectrum(ax, sigma, color=colours[value], label=f"{label} {value:g}", marker="o", markersize=3)
    ax.set_title(wrapped_title(panel.title), fontsize=9)
    return ax


def _panels(count: int) -> tuple[Figure, np.ndarray[Any, np.dtype[Any]]]:
    """A figure with a grid of axes for so many panels; those left over are off."""
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(2 + 2.8 * columns, 1 + 2.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax in grid.flat[count:]:
        ax.set_axis_off()
    return figure, grid


def _finish(figure: Figure, grid: np.ndarray[Any, np.dtype[Any]]) -> None:
    """Label the vertical axis, and collect the panels' legends into one above them."""
    label_panels([ax for ax in grid.flat if ax.axison])
    figure.supylabel("final singular value, mean over runs", fontsize=10)
    lines = {label: line for ax in grid.flat for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    ncols = 3 if grid.shape[1] > 1 else 1  # a single panel is too narrow for all labels side by side
    figure.legend(lines.values(), lines, loc="outside upper center", ncols=ncols, frameon=False, fontsize=8)


def plot_over(ax: Axes, panel: Panel, *, with_threshold: bool) -> Axes:
    """Draw the final singular values of a panel's points over the setting, with their rest values.

    Args:
        ax: Where to draw.
        panel: The points.
        with_threshold: Whether the setting is one for which the closed forms have a threshold to draw.

    Returns:
        The axes.
    """
    values, reports = zip(*sorted(panel.points, key=lambda point: point[0]), strict=True)
    ends = [next(iter(report["dynamics"].values()))["product_singular_values"] for report in reports]
    rests = [[mode["rest_singular_value"] for mode in report["prediction"]["modes"]] for report in reports]
    threshold = reports[0]["prediction"]["threshold"] if with_threshold else None
    plot_sweep(ax, values, _columns(ends), rest=_columns(rests), threshold=threshold)
    ax.set_title(wrapped_title(panel.title), fontsize=9)
    return ax


def _columns(rows: Sequence[Sequence[float | None]]) -> Float[np.ndarray, "n k"]:
    """Rows of any length as one array, NaN where a value is missing or infinite."""
    columns = np.full((len(rows), max(map(len, rows))), math.nan)
    for cells, row in zip(columns, rows, strict=True):
        cells[: len(row)] = [math.nan if value is None else value for value in row]
    return columns
