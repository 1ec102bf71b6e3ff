"""The page of `dyncollapse bridge embed`."""

import click

from dyncollapse.bridge.evaluation.embed_options import EmbedOptions
from dyncollapse.bridge.evaluation.options import EncoderOptions
from dyncollapse.commands.help_pages import page
from dyncollapse.commands.options import AS_JSON, OUT, record_options

embed = page(
    "dyncollapse.commands.bridge_embed:embed",
    """What are an encoder's embeddings of my images?

    Saves representations and embeddings as .npy files, float32, one row per image. With --views one-sided or
    two-sided, a second view of the same images is saved in NAME_pos.npy, for dyncollapse diagnose --positives.

    ENCODER is what --checkpoint takes: a run's folder, a checkpoint, or a published model, as timm/resnet18.a1_in1k.
    """,
    record_options(EncoderOptions, bare={"checkpoint": "encoder"}),
    record_options(EmbedOptions, "wanted"),
    click.option("--out", type=OUT, help="Folder for the files, new or empty.  [runs/embed-NNNN]"),
    AS_JSON,
    surplus="give one encoder, and the images with --data",
    example="dyncollapse bridge embed --checkpoint runs/mlp --views two-sided --out z",
    topics=("checkpoints", "views", "folders"),
)
