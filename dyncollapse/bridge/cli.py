"""`dyncollapse bridge`: the group of its commands."""

import click

from dyncollapse.bridge.cli_check import check, table
from dyncollapse.bridge.cli_encoder import diagnose, embed, probe
from dyncollapse.bridge.cli_pretrain import pretrain
from dyncollapse.cli_shared import OneLineErrors


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
def bridge() -> None:
    """The same diagnostics on real encoders: pretrain, embed, diagnose, probe, compare."""


for command in (check, pretrain, embed, diagnose, probe, table):
    bridge.add_command(command)
