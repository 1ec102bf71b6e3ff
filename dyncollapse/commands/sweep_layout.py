"""What a sweep draws: singular values over its longest numeric axis, in a panel per combination of the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from dyncollapse.runtime.command_line import shown
from dyncollapse.runtime.settings import option
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.sweeps.picture_options import SweepPlot
from dyncollapse.sweeps.schemas import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 12  # that fit on a page: 3 rows of 4


class Panel(NamedTuple):
    """One panel: its title, and the value on the axis and the report of each point."""

    title: str
    points: Sequence[tuple[float, Report]]


@dataclass(frozen=True)
class Layout:
    """What is drawn over which setting: panels with a title and points.

    Attributes:
        over: The setting on the axis, or of the lines.
        panels: A panel per combination of the other axes.
    """

    over: str
    panels: Sequence[Panel]

    @classmethod
    def of(
        cls, points: Mapping[str, Configuration], axes: Mapping[str, Sequence[Any]], reports: Mapping[str, Report]
    ) -> Self | None:
        """Lay out the reports of a sweep; None if no axis is numeric or nothing is finished."""
        numeric = [name for name, values in axes.items() if all(isinstance(value, int | float) for value in values)]
        numeric = [name for name in numeric if name != "seed"] or numeric
        if not numeric or not reports:
            return None
        over = max(numeric, key=lambda name: len(axes[name]))
        others = [name for name in axes if name != over]
        found: dict[tuple[Any, ...], list[tuple[float, Report]]] = {}
        for name, report in reports.items():
            key = tuple(getattr(points[name], other) for other in others)
            found.setdefault(key, []).append((getattr(points[name], over), report))
        titles = [", ".join(f"{option(n)[2:]} {short(v)}" for n, v in zip(others, key, strict=True)) for key in found]
        return cls(over, [Panel(title, part) for title, part in zip(titles, found.values(), strict=True)])

    def draw(self, kind: SweepPlot) -> "Figure":
        """Draw the first PANELS panels in one figure."""
        # Here, not above: importing Matplotlib fails when the user's settings of it are broken.
        from dyncollapse.commands import pictures

        count, name = len(self.panels), option(self.over)[2:]
        left_out = f" (first {PANELS} of {count} panels)" if count > PANELS else ""
        panels = [pictures.Panel(*one) for one in self.panels[:PANELS]]
        if kind == "spectrum":
            return pictures.draw_spectra(panels, name, left_out)
        return pictures.draw_sweep(panels, self.over, name + left_out)


def short(value: Any) -> str:
    """A setting's value, short enough for a cell or a title."""
    return f"{value:.6g}" if isinstance(value, float) else shown(value)
