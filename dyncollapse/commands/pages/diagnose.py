"""The page of `dyncollapse diagnose`."""

from pathlib import Path
from typing import get_args

import click

from dyncollapse.commands.help_pages import grouped_option, page
from dyncollapse.commands.options import AS_HTML, AS_JSON, OUT, WHOLE, setting_options
from dyncollapse.diagnostics.options import DiagnosisOptions, Tokens
from dyncollapse.sweeps.options import Executor

FILE = click.Path(path_type=Path)

diagnose = page(
    "dyncollapse.commands.diagnose:diagnose",
    """Which dimensions of my embeddings are collapsed, and why?

    FILE holds one row per sample, as .npy, .npz, .pt, .safetensors, .csv, .tsv, .parquet or .h5, or it is a folder of
    such files, shards. It is enough to count collapsed dimensions. Why they collapsed takes another view of the same
    samples: --positives.
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
        help="Name of the array in files that hold several, or of columns, as 'emb_*'; FILE:KEY is for one file.",
    ),
    grouped_option(
        "--by",
        group="inputs",
        type=FILE,
        help="Labels of the samples (.npy, .csv with one column, .pt): the same report within each class, too.",
    ),
    grouped_option(
        "--tokens",
        group="inputs",
        type=click.Choice(get_args(Tokens)),
        help="FILE holds tokens (images, tokens, dimensions): take them within each image, all, or their means.",
    ),
    setting_options(DiagnosisOptions, only=("svd", "fast", "sample", "seed", "space", "compare")),
    grouped_option(
        "--executor",
        group="running",
        type=click.Choice(get_args(Executor)),
        help="Where shards are read: processes on this machine, a Dask cluster, or Slurm jobs.  [local]",
    ),
    grouped_option(
        "--workers",
        group="running",
        type=WHOLE,
        help="Parts of the shards read at a time.  [cores, from 256 MB on]",
    ),
    grouped_option("--scheduler", group="running", metavar="ADDRESS", help="Dask scheduler, tcp://..."),
    grouped_option(
        "--slurm", group="running", metavar="KEY=VALUE,..", help="Options of sbatch: partition, account, time, mem, ..."
    ),
    click.option("--out", type=OUT, help="Folder for all results (JSON, CSV, page, picture, arrays), new or empty."),
    AS_JSON,
    click.option("--csv", "as_csv", is_flag=True, help="Print one line per dimension on stdout; all else on stderr."),
    AS_HTML,
    surplus="other views go after --positives",
    example="dyncollapse diagnose z.npy --positives z_pos.npy --out report",
    topics=("collapse", "causes", "measures", "views", "rho", "spaces", "losses", "formats", "folders"),
)
