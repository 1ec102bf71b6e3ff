"""The page of `dyncollapse help`."""

import click

from dyncollapse.commands.help_pages import page

help_ = page(
    "dyncollapse.commands.help:help_",
    """What does a word, a command or a file of dyncollapse mean?

    Explains one topic, a word of a report, such as suppressed, or shows the page of a command, such as bridge pretrain.
    Without a TOPIC, lists all topics and commands.
    """,
    click.argument("words", metavar="[TOPIC]", nargs=-1),
    example="dyncollapse help collapse",
    topics=("collapse", "causes", "folders"),
)
