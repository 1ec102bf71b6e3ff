"""The pictures of a simulation and of a sweep. This module imports Matplotlib: import it when drawing."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dyncollapse.plotting import label_panels, plot_spectrum, plot_sweep, ramp
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.picture_options import Plot
from dyncollapse.simulation.pictures import plot_ends, plot_layers, plot_records
from dyncollapse.sweeps.schemas import Report

COLUMNS = 4  # of panels in a picture, at most


def draw_outcome(outcome: Outcome, name: Plot) -> Figure:
    """Draw one picture of a simulation: its spectrum at the end, its paths over time, or the alignment of two layers.

    The alignment is that of the first dynamics that ran.
    """
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    ax = figure.add_subplot()
    match name:
        case "spectrum":
            plot_ends(ax, outcome)
            ax.set_title(_setting(outcome.simulation.configuration), fontsize="medium")
        case "paths":
            plot_records(ax, outcome.trajectories)
        case "alignment":
            first, path = next(iter(outcome.trajectories.items()))
            plot_layers(ax, path.final(), layer=1)
            ax.set_title(f"end of {first}, first run", fontsize="medium")
    return figure


def _setting(c: Configuration) -> str:
    """The setting of a simulation in two lines."""
    layers = f"{c.depth} {c.activation} layer{'s' * (c.depth > 1)}"
    strength = f"k = {c.aug_strength:g} on {c.aug_dim} of {c.dim}" if c.aug_cov is None else f"covariance {c.aug_cov}"
    step = c.lr * c.steps / (1 - c.momentum)
    return f"{c.loss}, {c.views} views, {layers}, d = {c.dim}\naugmentation {strength}, t = {step:g}, runs: {c.runs}"


class Panel(NamedTuple):
    """One panel of a sweep's picture: its title, and the value on the axis and the report of each point."""

    title: str
    points: Sequence[tuple[float, Report]]


def draw_sweep(panels: Sequence[Panel], axis: str, label: str) -> Figure:
    """Draw final singular values over the setting `axis`, a panel per combination of the others."""
    figure, grid = _panels(len(panels))
    for ax, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(ax, panel, with_threshold=axis == "aug_strength")
    figure.supxlabel(label, fontsize=10)
    _finish(figure, grid)
    return figure


def draw_spectra(panels: Sequence[Panel], label: str, left_out: str) -> Figure:
    """Draw final singular values by rank: a line per value of the setting `label`, a panel per combination."""
    figure, grid = _panels(len(panels))
    values = sorted({value for panel in panels for value, _ in panel.points})
    colours = dict(zip(values, ramp(len(values)), strict=True))
    for ax, panel in zip(grid.flat, panels, strict=False):
        for value, report in sorted(panel.points, key=lambda point: point[0]):
            end = next(iter(report["dynamics"].values()))["product_singular_values"]
            sigma = np.array([math.nan if entry is None else entry for entry in end])
            plot_spectrum(ax, sigma, color=colours[value], label=f"{label} {value:g}", marker="o", markersize=3)
        ax.set(xlabel="", ylabel="")
        ax.set_title(panel.title, fontsize=9)
        ax.label_outer()
    figure.supxlabel(f"rank{left_out}", fontsize=10)
    _finish(figure, grid)
    return figure


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


def _draw_panel(ax: Axes, panel: Panel, *, with_threshold: bool) -> None:
    values, reports = zip(*sorted(panel.points, key=lambda point: point[0]), strict=True)
    ends = [next(iter(report["dynamics"].values()))["product_singular_values"] for report in reports]
    rests = [[mode["rest_singular_value"] for mode in report["prediction"]["modes"]] for report in reports]
    threshold = reports[0]["prediction"]["threshold"] if with_threshold else None
    plot_sweep(ax, values, _columns(ends), rest=_columns(rests), threshold=threshold)
    ax.set_title(panel.title, fontsize=9)
    ax.label_outer()


def _columns(rows: Sequence[Sequence[float | None]]) -> Float[np.ndarray, "n k"]:
    """Rows of any length as one array, NaN where a value is missing or infinite."""
    columns = np.full((len(rows), max(map(len, rows))), math.nan)
    for cells, row in zip(columns, rows, strict=True):
        cells[: len(row)] = [math.nan if value is None else value for value in row]
    return columns
