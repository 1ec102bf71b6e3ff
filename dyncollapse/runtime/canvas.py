"""Pictures as files, in one style whatever the user's settings of Matplotlib."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dyncollapse.runtime.files import CannotWrite, first_line, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Matplotlib is imported when something is drawn: where the user's settings of it are broken, that fails, too.

DPI = 150


@contextmanager
def own_style(settings: Mapping[Any, Any] | None = None) -> Iterator[None]:
    """Use Matplotlib's defaults and these settings, not the user's matplotlibrc, which may ask for LaTeX or fonts."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings or {})
        yield


def picture(draw: Callable[[], "Figure"], form: str = "png", settings: Mapping[Any, Any] | None = None) -> bytes:
    r"""Draw a figure and return the content of a .png or .svg file, which holds no date and no version.

    Example:
        >>> from matplotlib.figure import Figure
        >>> picture(Figure)[:4]
        b'\x89PNG'
    """
    nothing = {"Software": None} if form == "png" else dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with own_style(settings):
        file = io.BytesIO()
        draw().savefig(file, format=form, dpi=DPI, metadata=nothing)
    return file.getvalue()


def save_picture(path: Path, draw: Callable[[], "Figure"]) -> str:
    """Draw a picture and write it, whole or not at all; return in one line why that failed instead of raising it."""
    try:
        write_bytes(path, picture(draw))
    except CannotWrite as error:
        return f"{path} could not be written ({error.strerror})"
    except Exception as error:  # Matplotlib and what it calls raise anything
        return f"{path} could not be drawn ({first_line(error)})"
    return ""
