"""`dyncollapse`: the group of its commands."""

import click

from dyncollapse.commands.bridge import bridge
from dyncollapse.commands.pages.collect import collect
from dyncollapse.commands.pages.diagnose import diagnose
from dyncollapse.commands.pages.explore import explore
from dyncollapse.commands.pages.help import help_
from dyncollapse.commands.pages.predict import predict
from dyncollapse.commands.pages.simulate import simulate
from dyncollapse.commands.pages.sweep import sweep
from dyncollapse.commands.pages.verify import verify
from dyncollapse.commands.shared import OneLineErrors


@click.group(
    cls=OneLineErrors,
    context_settings={"help_option_names": ["-h", "--help"]},
    example="dyncollapse simulate --aug-strength 1.5",
    topics=("collapse", "causes", "measures", "folders"),
)
@click.version_option(package_name="dyncollapse")
def main() -> None:
    """Which dimensions of a contrastive embedding collapse, and why?"""


for command in (simulate, explore, verify, diagnose, predict, sweep, collect, bridge, help_):
    main.add_command(command)
