"""The pictures on the page of a sweep, one per panel."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dyncollapse.runtime.page.record import Picture
from dyncollapse.sweeps.layout import PANELS, Layout
from dyncollapse.sweeps.picture_options import Panel, SweepPlot
from dyncollapse.sweeps.schemas import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def panel_pictures(layout: Layout, kinds: Sequence[SweepPlot]) -> list[Picture]:
    """Make a picture of each panel, all with one scale, so that a narrow window can show them below each other.

    Args:
        layout: What is drawn over which setting.
        kinds: "sweep", values over the setting; "spectrum", values by rank.

    Returns:
        Pictures of the first PANELS panels, kind by kind.
    """
    panels = layout.panels[:PANELS]
    ends = [value for panel in panels for _, report in panel.points for value in _final(report) if value]
    scale = (min(ends) / 1.5, max(ends) * 1.5) if ends else (0.1, 10.0)
    name, count = layout.over.replace("_", " "), len(layout.panels)
    captions: dict[SweepPlot, str] = {
        "sweep": f"Final singular values over {name}",
        "spectrum": f"Final spectra by {name}",
    }
    left_out = f" (first {PANELS} of {count})" if count > PANELS else ""

    def drawer(kind: SweepPlot, panel: Panel) -> "Callable[[], Figure]":
        def draw() -> "Figure":
            figure = Layout(layout.over, [panel]).draw(kind)
            figure.axes[0].set_ylim(*scale)
            return figure

        return draw

    return [
        Picture(
            " for ".join(filter(None, (captions[kind], panel.title))) + left_out,
            _described(panel, name),
            drawer(kind, panel),
        )
        for kind in kinds
        for panel in panels
    ]


def _final(report: Report) -> list[float | None]:
    """The final singular values of the first dynamics."""
    return next(iter(report["dynamics"].values()))["product_singular_values"]


def _described(panel: Panel, name: str) -> str:
    """The text alternative of a panel: how many dimensions collapsed where."""
    points = sorted(panel.points, key=lambda one: one[0])
    counts = [(value, report["verdict"]["collapsed"]) for value, report in points]
    said = ", ".join(f"{count} at {value:g}" for value, count in counts[:PANELS])
    more = f", and {len(counts) - PANELS} more values" if len(counts) > PANELS else ""
    return f"A line for each singular value or spectrum. Collapsed dimensions by {name}: {said}{more}."
