"""`dyncollapse bridge`: the group of its commands."""

import click

from dyncollapse.commands.pages.bridge_check import check
from dyncollapse.commands.pages.bridge_diagnose import diagnose
from dyncollapse.commands.pages.bridge_embed import embed
from dyncollapse.commands.pages.bridge_pretrain import pretrain
from dyncollapse.commands.pages.bridge_probe import probe
from dyncollapse.commands.pages.bridge_table import table
from dyncollapse.commands.shared import OneLineErrors


@click.group(
    cls=OneLineErrors,
    context_settings={"help_option_names": ["-h", "--help"]},
    example="dyncollapse bridge check --short",
    topics=("checkpoints", "causes", "settings-files", "folders"),
)
def bridge() -> None:
    """Which dimensions of a real encoder collapse, and why?

    The same diagnostics on image encoders: train them, embed images, diagnose, probe, and compare with the paper.
    """


for command in (check, pretrain, embed, diagnose, probe, table):
    bridge.add_command(command)
