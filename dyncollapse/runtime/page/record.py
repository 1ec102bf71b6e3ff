"""What a page shows, as plain records: every command fills one, and one template writes it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dyncollapse.runtime.canvas import drawn_once

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cell = str | float | None
# Most letters of a cell that is kept on one line.
SHORT = 32
# Letters as outlines, which need no font, and nothing behind the axes, so that the page's own card shows.
SVG_STYLE = {"svg.fonttype": "path", "svg.hashsalt": "dyncollapse", "savefig.transparent": True}
# Text in a cell that is read as a number: 3, -, 1.2e-05, 7.1%, 0.93 ± 0.02.
NUMBER = re.compile(r"-|not defined|[-+]?\d[\d.e+-]*%?( ± \S+)?")


@dataclass(frozen=True)
class Picture:
    """A picture with its text alternative.

    Attributes:
        title: What it shows, as a caption.
        description: What a reader who does not see it should know, in a sentence or two.
        draw: Makes the figure, at most about 5 inches wide: pictures stand side by side where there is room.
        wide: Whether it takes the whole width of the page; a narrow window then scrolls it in its own box.
    """

    title: str
    description: str
    draw: Callable[[], "Figure"]
    wide: bool = False

    @cached_property
    def svg(self) -> str:
        """The SVG file, drawn once for all pages that show the picture. Matplotlib may raise any error."""
        return drawn_once(self.draw, SVG_STYLE)("svg").decode()


@dataclass(frozen=True)
class Table:
    """A table of numbers and words.

    Attributes:
        title: Its caption.
        columns: Names of the columns.
        rows: Cells by row. The first cell of a row names it. Numbers are shown with four digits, and None as a dash.
        folded: Whether it is hidden until the reader opens it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False

    @property
    def kinds(self) -> list[str]:
        """What each column holds, missing cells aside: "number", "words" for sentences, or "" for short text."""
        columns = [[row[k] for row in self.rows if row[k] is not None] for k in range(len(self.columns))]
        return [_kind(cells) for cells in columns]


def _kind(cells: Sequence[Cell]) -> str:
    if cells and all(NUMBER.fullmatch(one) if isinstance(one, str) else not isinstance(one, bool) for one in cells):
        return "number"
    return "words" if any(isinstance(one, str) and len(one) > SHORT for one in cells) else ""


@dataclass(frozen=True)
class Page:
    """The result of a command.

    Attributes:
        command: The command, as "simulate".
        subject: What the result is of: a file, images, the network.
        verdict: One sentence.
        facts: Further short sentences, below the verdict.
        pictures: Pictures.
        remarks: Sentences that explain the numbers.
        tables: Tables.
        cautions: Reasons to doubt the result, one sentence each.
        notes: What was left out or assumed, one sentence each.
        remedies: Mappings with the texts `try`, `effect`, `source`, and `kind`: "remedy" for what may help, "check"
            for what would tell open causes apart.
        settings: Values by name; "seed" and "versions" among them also stand at the end of the page.
        reproduce: The command line that gives the same result; empty if there is none.
    """

    command: str
    subject: str
    verdict: str
    facts: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    remarks: Sequence[str] = ()
    tables: Sequence[Table] = ()
    cautions: Sequence[str] = ()
    notes: Sequence[str] = ()
    remedies: Sequence[Mapping[str, str]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    reproduce: str = ""


def alone(plot: "Callable[[Axes], object]") -> "Callable[[], Figure]":
    """Make what draws a figure of one plot, in the size of a page's pictures.

    Args:
        plot: Draws on the axes that it is given.

    Returns:
        Makes the figure.
    """

    def draw() -> "Figure":
        # Here, not above: importing Matplotlib fails when the user's settings of it are broken.
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 3.5), layout="constrained")
        plot(figure.add_subplot())
        return figure

    return draw
