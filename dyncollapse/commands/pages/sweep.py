"""The page of `dyncollapse sweep`."""

import click

from dyncollapse.commands.help_pages import grouped_option, page
from dyncollapse.commands.options import AS_HTML, AS_JSON, OUT, record_options, setting_options
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.sweeps.options import WorkerOptions
from dyncollapse.sweeps.picture_options import SweepPictureOptions

sweep = page(
    "dyncollapse.commands.sweep:sweep",
    """How does collapse change with the settings?

    Runs simulate for every combination of the settings. Each setting takes a list, 1,2,3, or a range,
    first:last:count, which includes both ends; first:last:count:log spaces the values evenly in ratio. --bias,
    --dynamics, --preset, --case and --threads (of each worker) take one value.

    Points that differ only in start and data train together, as one ensemble, called a pack. Each point's results are
    the same as if it ran alone. The same command resumes a sweep: points that are finished in --out are not run again.
    """,
    setting_options(Configuration, lists=True),
    record_options(WorkerOptions, "where"),
    record_options(SweepPictureOptions, "pictures"),
    grouped_option(
        "--dry-run", group="running", is_flag=True, help="Print points, packs and a rough time; write nothing."
    ),
    click.option("--out", type=OUT, required=True, help="Folder of the sweep: a new one, or one to resume or extend."),
    AS_JSON,
    AS_HTML,
    surplus="write lists without spaces, as 1,2",
    example="dyncollapse sweep --aug-strength 0.4:4.4:3 --aug-dim 4,8 --out runs/grid",
    topics=("grids", "collapse", "presets", "folders"),
)
