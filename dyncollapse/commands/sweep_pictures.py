"""What a sweep draws: singular values over its longest numeric axis, in a panel per combination of the others."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from dyncollapse.commands.options import SINGLE
from dyncollapse.runtime.command_line import command_line, shown
from dyncollapse.runtime.page.record import Picture
from dyncollapse.runtime.settings import option
from dyncollapse.simulation.command import necessary
from dyncollapse.sweeps.grid import expand_grid
from dyncollapse.sweeps.picture_options import SweepPlot
from dyncollapse.sweeps.schemas import Report
from dyncollapse.sweeps.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 12  # that fit on a page: 3 rows of 4
MOST_CHECKED = 5000  # points: to resolve their settings again takes a third of a second
Points = Sequence[tuple[float, Report]]


@dataclass(frozen=True)
class Layout:
    """What is drawn over which setting: the first PANELS panels, each with a title and its points.

    Attributes:
        over: The setting on the axis, or of the lines.
        panels: Title and points, as value and report, of each panel.
        left_out: What to say of panels that are left out.
    """

    over: str
    panels: Sequence[tuple[str, Points]]
    left_out: str

    @classmethod
    def of(cls, sweep: Sweep, reports: Mapping[str, Report]) -> Self | None:
        """Lay out the reports of a sweep; None if no axis is numeric or nothing is finished."""
        axes = sweep.axes
        numeric = [name for name, values in axes.items() if all(isinstance(value, int | float) for value in values)]
        numeric = [name for name in numeric if name != "seed"] or numeric
        if not numeric or not reports:
            return None
        over = max(numeric, key=lambda name: len(axes[name]))
        others = [name for name in axes if name != over]
        found: dict[tuple[Any, ...], list[tuple[float, Report]]] = {}
        for name, report in reports.items():
            point = sweep.points[name]
            found.setdefault(tuple(getattr(point, other) for other in others), []).append(
                (getattr(point, over), report)
            )
        titles = [", ".join(f"{option(n)[2:]} {short(v)}" for n, v in zip(others, key, strict=True)) for key in found]
        left_out = f" (first {PANELS} of {len(found)} panels)" if len(found) > PANELS else ""
        return cls(over, list(zip(titles, found.values(), strict=True))[:PANELS], left_out)

    def draw(self, kind: SweepPlot) -> "Figure":
        """Draw all panels in one figure."""
        # Here, not above: importing Matplotlib fails when the user's settings of it are broken.
        from dyncollapse.commands.pictures import Panel, draw_spectra, draw_sweep

        panels, name = [Panel(*one) for one in self.panels], option(self.over)[2:]
        if kind == "spectrum":
            return draw_spectra(panels, name, self.left_out)
        return draw_sweep(panels, self.over, name + self.left_out)

    def pictures(self, kinds: Sequence[SweepPlot]) -> list[Picture]:
        """A picture for each panel, all with one scale, so that a narrow window can show them below each other."""
        ends = [value for _, points in self.panels for _, report in points for value in _final(report) if value]
        scale = (min(ends) / 1.5, max(ends) * 1.5) if ends else (0.1, 10.0)

        def drawer(kind: SweepPlot, title: str, points: Points) -> "Callable[[], Figure]":
            def draw() -> "Figure":
                figure = Layout(self.over, [(title, points)], "").draw(kind)
                figure.axes[0].set_ylim(*scale)
                return figure

            return draw

        return [
            Picture(
                " for ".join(filter(None, (self._named(kind), title))) + self.left_out,
                _described(points, self.over),
                drawer(kind, title, points),
            )
            for kind in kinds
            for title, points in self.panels
        ]

    def _named(self, kind: SweepPlot) -> str:
        name = self.over.replace("_", " ")
        return f"Final singular values over {name}" if kind == "sweep" else f"Final spectra by {name}"


def _final(report: Report) -> list[float | None]:
    """The final singular values of the first dynamics."""
    return next(iter(report["dynamics"].values()))["product_singular_values"]


def _described(points: Points, over: str) -> str:
    """The text alternative of a panel: how many dimensions collapsed where."""
    counts = [(value, report["verdict"]["collapsed"]) for value, report in sorted(points, key=lambda one: one[0])]
    said = ", ".join(f"{count} at {value:g}" for value, count in counts[:PANELS])
    more = f", and {len(counts) - PANELS} more values" if len(counts) > PANELS else ""
    return (
        f"A line for each singular value or spectrum. Collapsed dimensions by {over.replace('_', ' ')}: {said}{more}."
    )


def sweep_command(sweep: Sweep) -> str:
    """The command that runs exactly the points of a sweep; empty if no single one does, or if they are too many."""
    points, axes = list(sweep.points.values()), sweep.axes
    if len(points) > MOST_CHECKED or math.prod(map(len, axes.values())) != len(points) or set(axes) & set(SINGLE):
        return ""
    settings: dict[str, Any] = {name: value for name, value in necessary(points[0]).items() if name not in axes}
    try:
        again = set(expand_grid(settings | axes))
    except ValueError:
        return ""
    if again != set(points):
        return ""
    return command_line("sweep", **settings, **{name: tuple(values) for name, values in axes.items()}, out=sweep.folder)


def short(value: Any) -> str:
    """A setting's value, short enough for a cell or a title."""
    return f"{value:.6g}" if isinstance(value, float) else shown(value)
