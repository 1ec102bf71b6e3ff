"""The pictures of the page. This module imports Matplotlib: import it when drawing."""

import base64
import threading
from collections.abc import Callable, Iterable
from html import escape
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from dyncollapse.explore.curves import Path, Phases, View
from dyncollapse.plotting import PALETTE, plot_paths, plot_spectrum, ramp, set_ranks
from dyncollapse.runtime.canvas import picture

# How each path is drawn; dots of SGD stand on the lines.
STYLES: dict[str, dict[str, Any]] = {
    "closed form": {"linestyle": "--", "linewidth": 1.0},
    "population": {"linestyle": "-", "linewidth": 1.4},
    "flow": {"linestyle": "-", "linewidth": 1.4},
    "sgd": {"linestyle": "none", "marker": "o", "markersize": 2.6},
}
NAMES = {"closed form": "closed form", "population": "population flow", "flow": "flow on fixed batches", "sgd": "SGD"}
SMALLEST = 1e-12  # of the largest value: what is drawn on a logarithmic axis
# Matplotlib keeps its style in one place for all threads, and every open page has a thread.
DRAWING = threading.Lock()


def image(draw: Callable[[Axes], object], words: str, right: float = 0.98) -> str:
    """Draw on new axes, and return the picture as HTML.

    Args:
        draw: Draws on the axes.
        words: What the picture shows, for readers who do not see it.
        right: Where the axes end, as a share of the width.

    Returns:
        An image with its data in it.
    """

    def drawn() -> Figure:
        figure = Figure(figsize=(4.9, 3.4))
        figure.subplots_adjust(0.14, 0.15, right, 0.86)
        draw(figure.add_subplot())
        return figure

    with DRAWING:
        content = picture(drawn, "svg", {"font.size": 10})
    data = base64.b64encode(content).decode()
    return f'<img class="picture" alt="{escape(words)}" src="data:image/svg+xml;base64,{data}">'


def draw_paths(ax: Axes, view: View, time: float) -> Axes:
    """Draw singular values over log flow time, least augmented modes dark, with escape times as marks above.

    Args:
        ax: Where to draw.
        view: The setting and its records.
        time: The chosen flow time, a thin line.

    Returns:
        The axes.
    """
    largest, handles = 0.0, []
    for name, path in view.paths.items():
        colours = ramp(path.values.shape[1])
        shown = _of_dots(path) if name == "sgd" else path.time > 0
        values = path.values[shown].numpy()
        plot_paths(ax, path.time[shown].numpy(), values, colours, **STYLES[name])
        handles.append(Line2D([], [], color="0.2", **STYLES[name], label=NAMES[name]))
        largest = max(largest, float(values.max(initial=0.0)))
    escapes = [mode["escape_time"] for mode in view.prediction["modes"]]
    first, last = (float(view.times[view.times > 0][place]) for place in (0, -1))
    ax.set(xscale="log", yscale="log", xlim=(first, last))
    for escape_time, colour in zip(escapes, ramp(len(escapes)), strict=True):
        if escape_time is not None and first <= escape_time <= last:
            ax.plot(escape_time, 1.02, "v", color=colour, transform=ax.get_xaxis_transform(), clip_on=False)
    if any(one is not None for one in escapes):
        handles.append(Line2D([], [], color="0.2", linestyle="none", marker="v", label="escape time"))
    ax.axvline(time, color="0.6", linewidth=0.8)
    if largest > 0:
        lowest = min((float(path.values[0][path.values[0] > 0].min()) for path in view.paths.values()), default=1.0)
        ax.set_ylim(max(SMALLEST * largest, lowest / 10), 2 * largest)
    _few_ticks(ax)
    ax.set(xlabel="flow time $t$ = learning rate x steps", ylabel="singular value $p$")
    _above(ax, handles)
    return ax


def draw_spectrum(ax: Axes, view: View, time: float) -> Axes:
    """Draw the singular values of each path at a time by rank, the rest values, and the level of collapse.

    Args:
        ax: Where to draw.
        view: The setting and its records.
        time: The flow time.

    Returns:
        The axes.
    """
    markers = {"closed form": "s", "population": "o", "flow": "o", "sgd": "x"}
    level = top = 1e-3
    closed, flow, sgd = PALETTE[:3]
    colours = {"closed form": closed, "population": flow, "flow": flow, "sgd": sgd}
    shared = {"markersize": 4, "markerfacecolor": "none", "linewidth": 0.8}
    for name, (values, spread) in view.at(time).items():
        ranked, order = values.sort(descending=True)
        style = {"color": colours[name], "marker": markers[name], **shared}
        plot_spectrum(ax, ranked.numpy(), spread=spread[order].numpy(), label=NAMES[name], **style)
        level, top = view.collapsed_below(values), max(top, float(ranked[0]))
    rest = [mode["rest_singular_value"] for mode in view.prediction["modes"]]
    finite = sorted((value for value in rest if value), reverse=True)
    free = sum(value is None for value in rest) if view.outcome.outlook is not None else 0
    if finite:
        ax.plot(np.arange(len(finite)) + 1 + free, finite, "_", color="0.3", markersize=9, label="at rest")
    ax.axhline(level, color="0.5", linestyle=":", label="collapsed below")
    ax.set_yscale("log")
    ax.set_ylim(level / 30, 2 * max([top, level, *finite]))
    set_ranks(ax, len(rest))
    _few_ticks(ax, both=False)
    ax.set(xlabel=f"rank, at $t$ = {time:.3g}", ylabel="singular value $p$")
    _above(ax, ax.get_legend_handles_labels()[0])
    return ax


def draw_phases(ax: Axes, found: Phases, strength: float, time: float) -> Axes:
    """Draw the size of an augmented mode over augmentation strength and flow time, with the setting as a point.

    Args:
        ax: Where to draw.
        found: The phase diagram.
        strength: Augmentation variance k of the setting.
        time: The chosen flow time.

    Returns:
        The axes.
    """
    strengths, times = found.strengths.numpy(), found.time.numpy()
    if found.sizes is not None:
        share = np.log10(np.maximum(found.sizes.numpy(), 1e-300) / found.start)
        colours = ax.pcolormesh(
            strengths, times, share, cmap="PuOr", vmin=-2, vmax=2, shading="nearest", rasterized=True
        )
        bar = ax.figure.colorbar(colours, ax=ax, extend="both", ticks=[-2, -1, 0, 1, 2], pad=0.02)
        bar.ax.set_yticklabels(["1/100", "1/10", "1", "10", "100"])
        bar.set_label("size over its start, $p/p(0)$")
    escapes = found.escapes.numpy()
    handles = []
    if np.isfinite(escapes).any():
        handles += ax.plot(strengths, np.where(np.isfinite(escapes), escapes, np.nan), "k--", label="escape time")
    if found.threshold is not None and found.threshold <= strengths[-1]:
        handles.append(ax.axvline(found.threshold, color="k", label="dead beyond"))
    handles += ax.plot(
        strength,
        time,
        "o",
        color="white",
        markeredgecolor="k",
        markersize=9,
        clip_on=False,
        zorder=5,
        label="this setting",
    )
    ax.set(yscale="log", xlim=(strengths[0], strengths[-1]), ylim=(times[0], times[-1]))
    _few_ticks(ax, both=False)
    ax.set(xlabel="augmentation variance $k$", ylabel="flow time $t$")
    _above(ax, handles)
    return ax


def _of_dots(path: Path) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which records become dots: every second one after the start."""
    shown = (path.time > 0).numpy()
    shown[1::2] = False
    shown[-1] = True
    return shown


def _few_ticks(ax: Axes, *, both: bool = True) -> None:
    """Ticks at powers of ten alone, as plain numbers: the many ticks of log axes take half of the time of a picture."""
    for axis in (ax.xaxis, ax.yaxis)[0 if both else 1 :]:
        axis.set_major_locator(LogLocator(numticks=8))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _above(ax: Axes, handles: Iterable[Any]) -> None:
    """A legend in one line above the axes, where it hides nothing."""
    handles = list(handles)
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.01, 1.08), "borderaxespad": 0, "borderpad": 0}
    ax.legend(
        handles=handles,
        ncols=len(handles),
        frameon=False,
        fontsize="small",
        handlelength=1.4,
        columnspacing=1.0,
        **place,
    )
