"""Write a page as HTML: one template and one style for all commands, with everything in it escaped."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from dyncollapse.runtime.files import CannotWrite, first_line, printable, write_bytes
from dyncollapse.runtime.page.record import Page, Picture

# The file in the folder of a result.
PAGE = "report.html"
# More rows make a page that browsers open slowly; files of the result have all of them.
MOST_ROWS = 2000
IDS = re.compile(r'(\bid="|href="#|url\(#)')
# Comments repeat labels; the style, the same in all of Matplotlib's files, stands in the page's own.
LEFT_OUT = re.compile(r"<!--.*?-->|<style.*?</style>|<metadata>.*?</metadata>", re.DOTALL)


def render(page: Page) -> str:
    """Write a page as one file that needs no other and asks for none.

    Args:
        page: What to show. Whatever its texts hold is shown as text, and can control neither a browser nor a terminal.

    Returns:
        HTML in ASCII, so that it is the same in every encoding; the same page gives the same text.

    Examples:
        >>> text = render(Page("simulate", "4 dimensions", "No dimension collapsed."))
        >>> "<h1>No dimension collapsed.</h1>" in text, "http:" in text
        (True, False)
    """
    text = _template().render(page=page, drawn=[_drawn(k, picture) for k, picture in enumerate(page.pictures, 1)])
    return text.encode("ascii", "xmlcharrefreplace").decode()


def save_page(path: Path, text: str) -> list[str]:
    """Write a page atomically; a failure is returned, not raised, so that it costs no results.

    Args:
        path: Where the file goes.
        text: What `render` returned.

    Returns:
        A line that says why there is no page; empty when there is one.
    """
    try:
        write_bytes(path, text.encode())
    except CannotWrite as error:
        return [f"{path} could not be written ({error.strerror})"]
    return []


@cache
def _template() -> Template:
    pages = Environment(
        loader=PackageLoader("dyncollapse.runtime", "page"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters |= {"cell": _cell, "setting": _setting}
    pages.globals["most_rows"] = MOST_ROWS
    return pages.get_template("page.html.jinja")


def _shown(value: object) -> object:
    """Return a value as one line of text, which Jinja then escapes; the picture, which is HTML, stays as it is."""
    if hasattr(value, "__html__"):
        return value
    return "" if value is None else printable(str(value))


def _drawn(number: int, picture: Picture) -> dict[str, Any]:
    """A picture as an element of the page, and the reason if it cannot be drawn."""
    try:
        svg = picture.svg
    except Exception as error:  # Matplotlib and its backends raise any error
        return {"picture": picture, "svg": None, "problem": first_line(error)}
    return {"picture": picture, "svg": _element(svg, f"p{number}-", picture), "problem": ""}


def _element(svg: str, prefix: str, picture: Picture) -> Markup:
    """An SVG file as an element with a text alternative; its names begin with `prefix`, so that none clash."""
    svg = IDS.sub(rf"\g<1>{prefix}", LEFT_OUT.sub("", svg[svg.index("<svg") :]).strip())
    start, rest = svg.split(">", 1)
    title, description = (escape(printable(text)) for text in (picture.title, picture.description))
    return Markup(
        f'{start} role="img" aria-labelledby="{prefix}title {prefix}description">'
        f'<title id="{prefix}title">{title}</title><desc id="{prefix}description">{description}</desc>{rest}'
    )


def _cell(value: object) -> str:
    """A cell of a table: numbers with four digits, a dash if there is no value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _setting(value: object) -> str:
    """A setting's value, as a person would write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_setting(part)}" for name, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_setting, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
