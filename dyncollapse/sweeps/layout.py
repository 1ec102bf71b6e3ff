"""What a sweep draws: singular values over its longest numeric axis, in a panel per combination of the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from dyncollapse.runtime.command_line import shown
from dyncollapse.runtime.settings import SettingError, option, quoted
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.sweeps.picture_options import Panel, SweepPlot
from dyncollapse.sweeps.schemas import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 12  # that fit on a page: 3 rows of 4


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
        cls,
        points: Mapping[str, Configuration],
        axes: Mapping[str, Sequence[Any]],
        reports: Mapping[str, Report],
        over: str | None = None,
    ) -> Self | None:
        """Lay out the reports of a sweep.

        Args:
            points: Settings by the name of the point.
            axes: The values of each setting that varies.
            reports: Reports of finished points by name.
            over: The setting on the axis; the numeric one with most values unless given, and seeds last.

        Returns:
            The layout; None if no axis is numeric or nothing is finished.

        Raises:
            SettingError: For `over` that is no numeric axis.
        """
        numeric = [name for name, values in axes.items() if all(isinstance(value, int | float) for value in values)]
        if over is not None and over not in numeric:
            known = ", ".join(numeric) or "none"
            raise SettingError(f"`over` is {quoted(over)}; the settings that vary and have numbers are: {known}")
        numeric = [name for name in numeric if name != "seed"] or numeric
        if not numeric or not reports:
            return None
        over = over or max(numeric, key=lambda name: len(axes[name]))
        others = [name for name in axes if name != over]
        found: dict[tuple[Any, ...], list[tuple[float, Report]]] = {}
        for name, report in reports.items():
            point = points[name]
            found.setdefault(tuple(getattr(point, other) for other in others), []).append(
                (getattr(point, over), report)
            )
        titles = [", ".join(f"{option(n)[2:]} {short(v)}" for n, v in zip(others, key, strict=True)) for key in found]
        return cls(over, [Panel(title, part) for title, part in zip(titles, found.values(), strict=True)])

    def draw(self, kind: SweepPlot) -> "Figure":
        """Draw the first PANELS panels in one figure.

        Args:
            kind: "sweep", values over the setting; "spectrum", values by rank.

        Returns:
            The figure.
        """
        # Here, not above: importing Matplotlib fails when the user's settings of it are broken.
        from dyncollapse.sweeps.pictures import draw_spectra, draw_sweep

        count, name = len(self.panels), option(self.over)[2:]
        left_out = f" (first {PANELS} of {count} panels)" if count > PANELS else ""
        if kind == "spectrum":
            return draw_spectra(self.panels[:PANELS], name, left_out)
        return draw_sweep(self.panels[:PANELS], self.over, name + left_out)


def short(value: Any) -> str:
    """A setting's value, short enough for a cell or a title."""
    return f"{value:.6g}" if isinstance(value, float) else shown(value)
