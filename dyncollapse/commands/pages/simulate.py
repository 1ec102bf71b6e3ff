"""The page of `dyncollapse simulate`."""

import click

from dyncollapse.commands.help_pages import page
from dyncollapse.commands.options import AS_HTML, AS_JSON, OUT, record_options, setting_options
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.picture_options import PictureOptions

simulate = page(
    "dyncollapse.commands.simulate:simulate",
    """Which dimensions of a toy network collapse, and why?

    Trains linear or ReLU networks on Gaussian data by SGD, integrates the gradient flow from the same start, and
    compares both. Without options: the paper's one-layer network, augmented beyond the collapse threshold.

    Augmentation strengths are variances, not standard deviations: the paper's threshold is --aug-strength 1. A
    --preset sets several options at once; other options may change its sizes, but not its loss or views. With --out
    DIR, the same command continues a run in DIR that was killed.
    """,
    setting_options(Configuration),
    record_options(PictureOptions, "pictures"),
    click.option("--out", type=OUT, help="Folder for the results, new or empty.  [runs/simulate-NNNN]"),
    AS_JSON,
    AS_HTML,
    surplus="each value follows its option, as --dim 8",
    example="dyncollapse simulate --depth 3 --aug-dim 16 --aug-strength 0.3",
    topics=("collapse", "rho", "views", "time", "presets", "folders"),
)
