"""Run `dyncollapse explore`: serve the page with sliders until Ctrl-C."""

from pathlib import Path

import click

from dyncollapse.commands.shared import as_options, fail, say
from dyncollapse.explore.options import ExploreOptions
from dyncollapse.explore.serving import copy_page, open_port, serve
from dyncollapse.runtime.extras import need
from dyncollapse.runtime.process import recycle_freed_memory
from dyncollapse.runtime.settings import SettingError


def explore(options: ExploreOptions, copy: Path | None) -> None:
    """Serve the page on a port, or write its notebook to a file."""
    try:  # not by `bad_input`, which imports PyTorch: that is imported while the browser loads the page
        if copy is not None:
            copy_page(copy)
            say(f"Saved {copy}; marimo edit {copy} opens it", err=False)
            return
        need("marimo", "explore", "explore needs marimo")
        listener = open_port(options.port)
    except SettingError as error:
        fail(2, as_options(error))
    recycle_freed_memory()
    serve(listener, browser=options.browser, ready=_say_where)
    click.echo("\nStopped.", err=True)


def _say_where(address: str) -> None:
    say(f"Explore at {address} (Ctrl-C ends it)", err=False)
