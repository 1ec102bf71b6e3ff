"""The page of `dyncollapse help`."""

import click

from dyncollapse.commands.help_pages import page

help_ = page(
    "dyncollapse.commands.help:help_",
    """What does a word, a command or a file of dyncollapse mean?

    Without a TOPIC, lists all topics and commands. A TOPIC is one of these, a command of several words, as
    bridge pretrain, or a word of a report, as suppressed.
    """,
    click.argument("words", metavar="[TOPIC]", nargs=-1),
    example="dyncollapse help collapse",
    topics=("collapse", "causes", "folders"),
)
