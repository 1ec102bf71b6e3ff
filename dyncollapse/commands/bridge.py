"""`dyncollapse bridge`: the group of its commands."""

import click

from dyncollapse.commands.bridge_check import check, table
from dyncollapse.commands.bridge_encoder import diagnose, embed, probe
from dyncollapse.commands.bridge_pretrain import pretrain
from dyncollapse.commands.shared import OneLineErrors


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
def bridge() -> None:
    """The same diagnostics on real encoders: pretrain, embed, diagnose, probe, compare."""


for command in (check, pretrain, embed, diagnose, probe, table):
    bridge.add_command(command)
