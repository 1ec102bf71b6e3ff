"""The page of `dyncollapse explore`."""

import click

from dyncollapse.commands.help_pages import page
from dyncollapse.commands.options import OUT, record_options
from dyncollapse.explore.options import ExploreOptions

explore = page(
    "dyncollapse.commands.explore:explore",
    """What does each setting of a toy network change?

    Opens a local page with sliders for augmentation, depth, views, loss, start, weight decay and sizes. It shows
    singular values over log time with the times at which they escape, the spectrum at a chosen time, a phase diagram,
    and the command that computes the same. Closed forms and flows follow the sliders; SGD runs on request. Ctrl-C ends
    it.

    The page is served on this machine only, and asks for nothing elsewhere. It needs marimo, the extra explore. Its
    source is a notebook: --copy writes it to a file, which marimo edit FILE opens.
    """,
    record_options(ExploreOptions),
    click.option("--copy", type=OUT, metavar="FILE", help="Write the page's notebook to a new file, and end."),
    surplus="sliders on the page set what simulate takes as options",
    example="dyncollapse explore --port 8050",
    topics=("rho", "time", "views", "losses"),
)
