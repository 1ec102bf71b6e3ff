"""`dyncollapse`: the group of its commands."""

import click

from dyncollapse.commands.lazy_group import Entry, LazyGroup

# Each with the first sentence of its help: listing the commands imports none of them.
COMMANDS = {
    "simulate": Entry(
        "dyncollapse.commands.simulate:simulate",
        "Train toy networks by SGD, integrate their gradient flow from the same start, and compare.",
    ),
    "verify": Entry(
        "dyncollapse.commands.verify:verify",
        "Measure every lemma, theorem and corollary of the paper, and every statement beyond it.",
    ),
    "diagnose": Entry(
        "dyncollapse.commands.diagnose:diagnose",
        "Say which dimensions of FILE's embeddings are collapsed, why, and how sure that is.",
    ),
    "sweep": Entry(
        "dyncollapse.commands.sweep:sweep",
        "Run a grid of simulations, and resume it: what is finished in --out is not run again.",
    ),
    "collect": Entry(
        "dyncollapse.commands.collect:collect",
        "Put the results of the sweep in FOLDER into one table, a row per finished point.",
    ),
    "bridge": Entry(
        "dyncollapse.commands.bridge:bridge",
        "The same diagnostics on real encoders: pretrain, embed, diagnose, probe, compare.",
    ),
}


@click.group(cls=LazyGroup, entries=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dyncollapse")
def main() -> None:
    """Which dimensions of a contrastive embedding collapse, and why?"""
