"""Figures as files, in one style whatever the user's Matplotlib configuration says."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dyncollapse.runtime.files import CannotWrite, first_line, write_bytes
from dyncollapse.runtime.process import collecting_later

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib is imported only to draw: the import itself fails where the user's matplotlibrc is broken.

DPI = 150
# What image files say of program and date, which is left out: equal pictures are equal files.
DATED = {
    "png": ("Software",),
    "svg": ("Creator", "Date", "Format", "Type"),
    "pdf": ("Creator", "Producer", "CreationDate"),
}


@contextmanager
def own_style(settings: Mapping[Any, Any] | None = None) -> Iterator[None]:
    """Use Matplotlib's defaults and these settings; the user's matplotlibrc may ask for LaTeX or missing fonts.

    Args:
        settings: Entries of `matplotlib.rcParams`, on top of the defaults.
    """
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings or {})
        yield


def axes_or_new(ax: "Axes | None") -> "Axes":
    """These axes, or those of a new figure in the user's own style."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.figure(figsize=(5, 3.5), layout="constrained").add_subplot()


def picture(draw: Callable[[], "Figure"], form: str = "png", settings: Mapping[Any, Any] | None = None) -> bytes:
    r"""Draw a figure and return the bytes of an image file, which holds neither date nor version.

    Args:
        draw: Makes the figure; called with Matplotlib in our style.
        form: "png", "svg" or "pdf".
        settings: As for `own_style`.

    Returns:
        The content of the file.

    Examples:
        >>> from matplotlib.figure import Figure
        >>> picture(Figure)[:4]
        b'\x89PNG'
    """
    return drawn_once(draw, settings)(form)


def drawn_once(
    draw: Callable[[], "Figure"], settings: Mapping[Any, Any] | None = None, *, dpi: float = DPI
) -> Callable[[str], bytes]:
    r"""Return a function that gives a figure as an image file in a format; all of them have one layout.

    To draw a figure and to lay it out takes most of the time of an image file.

    Args:
        draw: As for `picture`; called at the first request.
        settings: As for `own_style`.
        dpi: Pixels per inch of a "png".

    Returns:
        Returns what `picture` does, given "png", "svg" or "pdf".

    Examples:
        >>> from matplotlib.figure import Figure
        >>> made = drawn_once(Figure)
        >>> made("png")[:4], made("svg")[:5]
        (b'\x89PNG', b'<?xml')
    """

    @cache
    def figure() -> "Figure":
        from dyncollapse.runtime.tick_labels import write_powers_plainly

        drawn = draw()
        drawn.set_dpi(dpi)
        write_powers_plainly(drawn)
        if (engine := drawn.get_layout_engine()) is not None:
            engine.execute(drawn)
            drawn.set_layout_engine(None)  # else Matplotlib lays it out, and draws it, twice for each file
        return drawn

    def as_file(form: str) -> bytes:
        with collecting_later(), own_style(settings):  # the first figure imports most of Matplotlib
            file = io.BytesIO()
            figure().savefig(file, format=form, dpi=dpi, metadata=dict.fromkeys(DATED[form]))
        return file.getvalue()

    return as_file


def save_picture(path: Path, draw: Callable[[], "Figure"]) -> str:
    """Draw a picture and write it atomically; a failure is returned, not raised, so that it costs no results.

    Args:
        path: Where the file goes; its ending, .png, .svg or .pdf, is its format.
        draw: Makes the figure.

    Returns:
        One line that says why there is no picture; empty when there is one.
    """
    try:
        write_bytes(path, picture(draw, path.suffix[1:]))
    except CannotWrite as error:
        return f"{path} could not be written ({error.strerror})"
    except Exception as error:  # Matplotlib and what it calls raise anything
        return f"{path} could not be drawn ({first_line(error)})"
    return ""


def save_pictures(folder: Path, draw: Mapping[str, Callable[[], "Figure"]]) -> tuple[list[str], list[str]]:
    """Draw pictures and write them as `save_picture` does.

    Args:
        folder: Where the files go.
        draw: Makes each figure, by the name of its file.

    Returns:
        The names of the files that were written, and a line on each that was not.
    """
    problems = {name: save_picture(folder / name, figure) for name, figure in draw.items()}
    return [name for name, problem in problems.items() if not problem], [*filter(None, problems.values())]
