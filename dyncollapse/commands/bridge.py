"""`dyncollapse bridge`: the group of its commands."""

import click

from dyncollapse.commands.lazy_group import Entry, LazyGroup

# Each with the first sentence of its help: listing the commands imports none of them.
COMMANDS = {
    "check": Entry(
        "dyncollapse.commands.bridge_check:check",
        "Train a small ResNet on digits under every projector, probe and diagnose each, and set it beside the paper.",
    ),
    "pretrain": Entry(
        "dyncollapse.commands.bridge_pretrain:pretrain",
        "Train an encoder by contrastive learning: SimCLR with any of the paper's projectors, or DirectCLR.",
    ),
    "embed": Entry(
        "dyncollapse.commands.bridge_embed:embed",
        "Save an encoder's representations and embeddings as .npy files, float32, one row per image.",
    ),
    "diagnose": Entry(
        "dyncollapse.commands.bridge_diagnose:diagnose",
        "Say which dimensions of an encoder's representation and embedding collapsed, and why, side by side.",
    ),
    "probe": Entry(
        "dyncollapse.commands.bridge_probe:probe",
        "Train a linear classifier on an encoder's frozen representation, and test it.",
    ),
    "table": Entry(
        "dyncollapse.commands.bridge_table:table",
        "Set runs beside the paper's Tables 1 and 2, mean and standard deviation over seeds, and say what differs.",
    ),
}


@click.group(cls=LazyGroup, entries=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
def bridge() -> None:
    """The same diagnostics on real encoders: pretrain, embed, diagnose, probe, compare."""
