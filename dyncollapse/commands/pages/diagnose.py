"""The page of `dyncollapse diagnose`."""

from pathlib import Path

import click

from dyncollapse.commands.help_pages import grouped_option, page
from dyncollapse.commands.options import AS_HTML, AS_JSON, OUT, setting_options
from dyncollapse.diagnostics.options import DiagnosisOptions

FILE = click.Path(path_type=Path)

diagnose = page(
    "dyncollapse.commands.diagnose:diagnose",
    """Which dimensions of my embeddings are collapsed, and why?

    FILE holds one row per sample, as .npy, .npz, .pt or .safetensors. It is enough to count collapsed dimensions.
    Why they collapsed takes another view of the same samples: --positives.
    """,
    click.argument("file", type=FILE),
    grouped_option(
        "--positives",
        group="views",
        multiple=True,
        type=FILE,
        help="Another view of the same samples, in the same order; repeatable (LiDAR needs at least two).",
    ),
    setting_options(DiagnosisOptions, only=("views", "loss", "temperature")),
    grouped_option(
        "--inputs",
        group="inputs",
        type=FILE,
        help="Inputs of the linear layer that FILE is the output of; give --input-positives, too.",
    ),
    grouped_option(
        "--input-positives", group="inputs", type=FILE, help="The layer's inputs for the first --positives."
    ),
    setting_options(DiagnosisOptions, only=("input_dim",)),
    grouped_option(
        "--key",
        group="inputs",
        help="Name of the array in files that hold several; FILE:KEY names one for one file.",
    ),
    setting_options(DiagnosisOptions, only=("svd", "fast", "sample", "seed", "space", "compare")),
    click.option("--out", type=OUT, help="Folder for all results (JSON, CSV, page, picture, arrays), new or empty."),
    AS_JSON,
    click.option("--csv", "as_csv", is_flag=True, help="Print one line per dimension on stdout; all else on stderr."),
    AS_HTML,
    surplus="other views go after --positives",
    example="dyncollapse diagnose z.npy --positives z_pos.npy --out report",
    topics=("collapse", "causes", "measures", "views", "rho", "spaces", "losses", "folders"),
)
