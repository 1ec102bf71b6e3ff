"""The page of `dyncollapse bridge pretrain`."""

from pathlib import Path

import click

from dyncollapse.bridge.recipe import Recipe
from dyncollapse.commands.help_pages import page
from dyncollapse.commands.options import AS_JSON, OUT, setting_options

pretrain = page(
    "dyncollapse.commands.bridge_pretrain:pretrain",
    """How do an encoder's dimensions evolve in training?

    Trains an encoder by SimCLR with any of the paper's projectors, or by DirectCLR, and records the spectra of
    representation and embedding on the way. Under torchrun all processes train one model:
    torchrun --nproc-per-node 8 -m dyncollapse.bridge pretrain ...

    Ctrl-C saves a checkpoint; --resume --out DIR continues from it, and ends with the weights of an uninterrupted run.
    """,
    setting_options(Recipe),
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        help="TOML file of these settings; options on the command line take precedence.",
    ),
    click.option("--out", type=OUT, help="Folder of the run, new or empty.  [runs/pretrain-NNNN]"),
    click.option("--resume", is_flag=True, help="Continue the run in --out from its last checkpoint."),
    AS_JSON,
    rest="run",
    surplus="name the images with --data",
    example="dyncollapse bridge pretrain --data digits --projector linear",
    topics=("presets", "settings-files", "checkpoints", "folders"),
)
