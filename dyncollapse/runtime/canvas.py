"""Figures as files, in one style whatever the user's Matplotlib configuration says."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dyncollapse.runtime.files import CannotWrite, first_line, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Matplotlib is imported only to draw: the import itself fails where the user's matplotlibrc is broken.

DPI = 150


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


def picture(draw: Callable[[], "Figure"], form: str = "png", settings: Mapping[Any, Any] | None = None) -> bytes:
    r"""Draw a figure and return the bytes of an image file, which holds neither date nor version.

    Args:
        draw: Makes the figure; called with Matplotlib in our style.
        form: "png" or "svg".
        settings: As for `own_style`.

    Returns:
        The content of the file.

    Examples:
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
    """Draw a picture and write it atomically; a failure is returned, not raised, so that it costs no results.

    Args:
        path: Where the PNG file goes.
        draw: Makes the figure.

    Returns:
        One line that says why there is no picture; empty when there is one.
    """
    try:
        write_bytes(path, picture(draw))
    except CannotWrite as error:
        return f"{path} could not be written ({error.strerror})"
    except Exception as error:  # Matplotlib and what it calls raise anything
        return f"{path} could not be drawn ({first_line(error)})"
    return ""
