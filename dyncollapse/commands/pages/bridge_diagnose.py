"""The page of `dyncollapse bridge diagnose`."""

import click

from dyncollapse.bridge.evaluation.embed_options import EmbedOptions
from dyncollapse.bridge.evaluation.options import EncoderOptions
from dyncollapse.commands.help_pages import grouped_option, page
from dyncollapse.commands.options import AS_HTML, AS_JSON, OUT, record_options
from dyncollapse.diagnostics.options import DiagnosisOptions

diagnose = page(
    "dyncollapse.commands.bridge_diagnose:diagnose",
    """Which dimensions of my encoder are collapsed, and why?

    Embeds the images and diagnoses the representation and the embedding side by side. Also reports how the last
    layers are aligned, and the spectrum of the augmentation against that of the data.

    ENCODER is what --checkpoint takes: a run's folder, a checkpoint, or a published model, as timm/resnet18.a1_in1k.
    """,
    record_options(EncoderOptions, bare={"checkpoint": "encoder"}),
    record_options(EmbedOptions, "wanted", only=("split",)),
    record_options(DiagnosisOptions, "comparison", only=("views", "loss", "temperature")),
    grouped_option("--keep-embeddings", group="output", is_flag=True, help="Keep the .npy files in the folder."),
    click.option(
        "--out",
        type=OUT,
        help="Folder for the results, new or empty.  [diagnosis/ in the run's folder; else runs/diagnose-NNNN]",
    ),
    AS_JSON,
    AS_HTML,
    surplus="give one encoder, and the images with --data",
    example="dyncollapse bridge diagnose timm/resnet18.a1_in1k --data PHOTOS",
    topics=("causes", "measures", "views", "spaces", "checkpoints", "folders"),
)
