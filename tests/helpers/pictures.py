"""What is wrong with a picture: small or cut text, panels without letters, lines without a name, strange colours."""

from itertools import combinations

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import Collection, PathCollection, QuadMesh
from matplotlib.colors import to_hex, to_rgba
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from dyncollapse.plotting import PALETTE

SMALLEST, WIDE = 7, 5  # points
RAMP = colormaps["viridis"](np.linspace(0, 1, 256))[:, :3]
NEAR = 0.02  # of a colour of the ramp, in each of red, green and blue


def faults(figure, drawn=False):
    """Everything that a reader of the picture would miss, a line each; `drawn` for one that a file was made of."""
    if figure.stale and not drawn:  # texts are known, and in their places, once it is drawn
        figure.draw_without_rendering()
    checks = (small_text, cut_text, crossing_titles, unlettered_panels, unnamed_looks, strange_colours)
    return [line for check in checks for line in check(figure)]


def texts(figure):
    """The texts that are seen."""
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip() and _seen(text)]


def _seen(artist):
    return artist.axes is None or artist.axes.axison or artist in artist.axes.texts


def small_text(figure):
    """Texts below SMALLEST points."""
    return [
        f"{text.get_fontsize():.3g} points: {text.get_text()!r}"
        for text in texts(figure)
        if text.get_fontsize() < SMALLEST
    ]


def cut_text(figure):
    """What leaves the picture: axes with their labels and texts, legends and titles of the whole."""
    whole, parts = figure.bbox, [figure, *figure.subfigs]
    boxes = {f"axes {ax.get_title()!r}": ax.get_tightbbox() for ax in figure.axes}
    boxes |= {repr(text.get_text()): text.get_window_extent() for part in parts for text in part.texts}
    boxes |= {f"legend {k}": legend.get_window_extent() for part in parts for k, legend in enumerate(part.legends)}
    return [
        f"cut: {name}"
        for name, box in boxes.items()
        if box and (box.x0 < whole.x0 - 1 or box.x1 > whole.x1 + 1 or box.y0 < whole.y0 - 1 or box.y1 > whole.y1 + 1)
    ]


def crossing_titles(figure):
    """Titles of panels that cover each other."""
    titles = [ax.title for ax in figure.axes if ax.get_visible() and ax.title.get_text()]
    boxes = [title.get_window_extent() for title in titles]
    return [
        f"titles {titles[one].get_text()!r} and {titles[two].get_text()!r} cover each other"
        for one, two in combinations(range(len(titles)), 2)
        if boxes[one].overlaps(boxes[two])
    ]


def panels(figure):
    """The axes that a reader compares: neither colour bars nor images and small pictures without axes."""
    return [
        ax
        for ax in figure.axes
        if ax.axison
        and ax.get_visible()
        and ax.get_label() != "<colorbar>"
        and (len(ax.get_xticks()) or ax.get_xlabel())
    ]


def unlettered_panels(figure):
    """Panels of several whose title does not begin with a letter of its own."""
    several = panels(figure)
    titles = [" ".join(ax.get_title(loc=place) for place in ("left", "center", "right")).strip() for ax in several]
    letters = [title[:3] for title in titles]
    fine = all(len(one) == 3 and one[0] + one[2] == "()" for one in letters) and len(set(letters)) == len(letters)
    return [] if len(several) < 2 or fine else [f"panels have the titles {titles}"]


def looks(ax):
    """Colour, marker and line of everything that shows data on axes, or a level."""
    caps = {cap for one in ax.containers if isinstance(one, ErrorbarContainer) for cap in one[1]}
    for line in ax.lines:
        if (
            line not in caps
            and line.get_visible()
            and len(line.get_xdata(orig=False))
            and np.isfinite(line.get_ydata(orig=False).astype(float)).any()
        ):
            yield _look(line)
    for drawn in ax.collections:
        if isinstance(drawn, PathCollection) and len(drawn.get_offsets()):
            colours = [*drawn.get_facecolor(), *drawn.get_edgecolor()]
            yield _hex(colours[0]), "points", "None"
    for patch in ax.patches:
        if isinstance(patch, Rectangle) and patch.get_visible():
            yield _hex(patch.get_facecolor()), "bar", "None"


def _look(line):
    marker = str(line.get_marker())
    return _hex(line.get_color()), "None" if marker in ("", " ") else marker, str(line.get_linestyle())


def _hex(colour):
    return to_hex(colour).upper()


def named_looks(figure, legends=None):
    """Looks of the handles of legends; of all of the figure by default."""
    if legends is None:
        legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
        legends += [legend for part in figure.subfigs for legend in part.legends]
    found = []
    for legend in legends:
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            if isinstance(handle, Line2D):
                found.append((*_look(handle), text.get_text()))
                if handle.get_linewidth() >= WIDE:  # stands for a band
                    found.append((_hex(handle.get_color()), "bar", "None", text.get_text()))
            elif isinstance(handle, Rectangle):
                found.append((_hex(handle.get_facecolor()), "bar", "None", text.get_text()))
            elif isinstance(handle, PathCollection):
                colours = [*handle.get_facecolor(), *handle.get_edgecolor()]
                found.append((_hex(colours[0]), "points", "None", text.get_text()))
            else:  # of a container, as of error bars, whose first part is what carries the label
                found += [(*_look(line), text.get_text()) for line in _labelled(figure, text.get_text())]
    return found


def _labelled(figure, label):
    return [
        one[0] for ax in figure.axes for one in ax.containers if one.get_label() == label and isinstance(one[0], Line2D)
    ]


def unnamed_looks(figure):
    """Looks that no legend names, neither whole nor by colour and shape, and no text or name of a row in their
    colour.

    A solid line may go through points that the panel's legend names. One look of a panel
    needs no name, for the vertical axis says what that is.
    """
    named, wrong = named_looks(figure), []
    colours = {look[0] for look in named}
    shapes = {look[1:3] for look in named}
    ramped = any("(dark)" in look[3] for look in named)
    bars = any(ax.get_label() == "<colorbar>" for ax in figure.axes)
    key = {_hex(tick.get_color()) for ax in figure.axes for tick in ax.get_yticklabels() if tick.get_text()} - {
        "#000000"
    }
    for ax in panels(figure):
        direct = key | {_hex(text.get_color()) for text in ax.texts if text.get_text().strip()}
        drawn, own = set(looks(ax)), named_looks(figure, [ax.get_legend()] if ax.get_legend() else [])
        nameless = []
        for colour, marker, style in sorted(drawn):
            whole = (colour, marker, style) in {look[:3] for look in named}
            by_parts = colour in colours and (marker, style) in shapes
            in_order = _on_ramp(colour) and (bars or (ramped and (marker, style) in shapes))
            fitted = (marker, style) == ("None", "-") and colour in {look[0] for look in own}
            if not (whole or fitted or by_parts or in_order or colour in direct):
                nameless.append(f"no legend in {ax.get_title()!r} for {colour} {marker} {style}")
        wrong += nameless if len(nameless) > 1 or not ax.get_ylabel() else []
    return wrong


def strange_colours(figure):
    """Colours that are neither of the palette nor a grey nor of the ramp; images have their own."""
    palette = {colour.upper() for colour in PALETTE}
    used = {}
    for ax in figure.axes:
        for line in ax.lines:
            used.setdefault(_hex(line.get_color()), ax)
            if str(line.get_marker()) not in ("None", "", " ") and str(line.get_markerfacecolor()) not in (
                "none",
                "None",
            ):
                used.setdefault(_hex(line.get_markerfacecolor()), ax)
        for patch in ax.patches:
            used.setdefault(_hex(patch.get_facecolor()), ax)
        for drawn in ax.collections:
            if isinstance(drawn, Collection) and not isinstance(drawn, QuadMesh) and drawn.get_array() is None:
                for colour in [*drawn.get_facecolor(), *drawn.get_edgecolor()]:
                    used.setdefault(_hex(colour), ax)
        for text in ax.texts:
            used.setdefault(_hex(text.get_color()), ax)
    bars = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    return [
        f"colour {colour} in {ax.get_title()!r} is not of the palette"
        for colour, ax in used.items()
        if colour not in palette and not _grey(colour) and not _on_ramp(colour) and ax not in bars
    ]


def _grey(colour):
    red, green, blue, _ = to_rgba(colour)
    return max(red, green, blue) - min(red, green, blue) < 1e-6


def _on_ramp(colour):
    return bool((np.abs(RAMP - np.array(to_rgba(colour)[:3])).max(1) < NEAR).any())
