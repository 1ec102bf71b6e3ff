"""The page of `dyncollapse bridge probe`."""

from dyncollapse.bridge.evaluation.options import EncoderOptions
from dyncollapse.bridge.evaluation.probe_options import ProbeOptions
from dyncollapse.commands.help_pages import page
from dyncollapse.commands.options import AS_JSON, record_options

probe = page(
    "dyncollapse.commands.bridge_probe:probe",
    """How well does a linear classifier read the representation?

    Trains a linear probe on the frozen encoder's representation of the training images, and tests it on the test
    images. The result of a run's checkpoint is added to the run's probes.json, which dyncollapse bridge table reads.

    ENCODER is what --checkpoint takes: a run's folder, a checkpoint, or a published model, as timm/resnet18.a1_in1k.
    """,
    record_options(EncoderOptions, bare={"checkpoint": "encoder"}),
    record_options(ProbeOptions, "wanted", former={"classifier": "--method"}),
    AS_JSON,
    surplus="give one encoder, and the images with --data",
    example="dyncollapse bridge probe --checkpoint runs/mlp",
    topics=("checkpoints", "folders"),
)
