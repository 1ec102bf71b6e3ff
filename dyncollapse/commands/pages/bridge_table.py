"""The page of `dyncollapse bridge table`."""

from pathlib import Path

import click

from dyncollapse.commands.help_pages import page
from dyncollapse.commands.options import AS_JSON

table = page(
    "dyncollapse.commands.bridge_table:table",
    """How do my runs compare with the paper's Tables 1 and 2?

    FOLDERS are runs of dyncollapse bridge pretrain, or folders that hold such runs. Prints means and standard
    deviations over seeds beside the paper's numbers, which of the paper's orders hold by a t test, what went with
    top-1, and what differs from the paper's experiments.
    """,
    click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path)),
    click.option("--markdown", is_flag=True, help="Print the table as Markdown on stdout; all else on stderr."),
    AS_JSON,
    example="dyncollapse bridge table runs/mlp runs/linear --markdown",
    topics=("measures", "folders"),
)
