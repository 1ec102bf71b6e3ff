"""The page of `dyncollapse collect`."""

from pathlib import Path

import click

from dyncollapse.commands.help_pages import page
from dyncollapse.commands.options import OUT

collect = page(
    "dyncollapse.commands.collect:collect",
    """What did a sweep find, as one table?

    A row per finished point of the sweep in FOLDER: settings, verdict, losses and final singular values (means over
    runs). Points that failed or are not finished are reported on stderr.
    """,
    click.argument("folder", type=click.Path(path_type=Path)),
    click.option("--out", type=OUT, help="File for the table, .csv or .parquet.  [CSV on stdout]"),
    surplus="name the table with --out",
    example="dyncollapse collect runs/grid --out grid.csv",
    topics=("grids", "folders"),
)
