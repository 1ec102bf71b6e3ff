"""Pages of help: a question, options below headings, an example, and the topics that explain its words."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import click


class GroupedOption(click.Option):
    """An option under a heading of its command's page of help."""

    def __init__(self, *names: Any, group: str = "", former: str = "", **settings: Any) -> None:
        """Keep the heading and the earlier name.

        Args:
            *names: As for `click.Option`.
            group: The heading; without one the option stands under the command's last.
            former: An earlier name of the option, which is taken but not shown.
            **settings: As for `click.Option`.
        """
        if former:
            names = ([*names[0], former], *names[1:])
        super().__init__(*names, **settings)
        self.group, self.former = group, former

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The option's names and help, without its earlier name."""
        shown = super().get_help_record(ctx)
        return shown and (shown[0].replace(f", {self.former}", "") if self.former else shown[0], shown[1])


grouped_option = partial(click.option, cls=GroupedOption)


class HelpPage(click.Command):
    """A command whose page of help ends with an example and the topics to read on."""

    def __init__(self, *values: Any, example: str = "", topics: Sequence[str] = (), **settings: Any) -> None:
        """Keep the example and the topics.

        Args:
            *values: As for `click.Command`.
            example: A command line that works.
            topics: Names of topics of `dyncollapse help`.
            **settings: As for `click.Command`.
        """
        super().__init__(*values, **settings)
        self.example, self.topics = example, tuple(topics)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example, and the command that explains the topics."""
        super().format_epilog(ctx, formatter)
        if self.example:
            with formatter.section("Example"):
                formatter.write(f"{'':{formatter.current_indent}}{self.example}\n")
        if self.topics:
            with formatter.section("More"):
                formatter.write_text(f"dyncollapse help TOPIC explains {', '.join(self.topics)}.")


class GroupedCommand(HelpPage):
    """A command whose page of help shows its options by group."""

    def __init__(self, *values: Any, rest: str = "output", runs: str = "", **settings: Any) -> None:
        """Keep the heading and the name of what it runs.

        Args:
            *values: As for `HelpPage`.
            rest: Heading of the options that have no group, where others have one.
            runs: What it runs, as `page` has it.
            **settings: As for `HelpPage`.
        """
        super().__init__(*values, **settings)
        self.rest, self.runs = rest, runs

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each group's options below its name, in the order of their first options; the rest comes last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            words = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if words is not None:
                groups.setdefault(getattr(parameter, "group", "") or self.rest, []).append(words)
        groups[self.rest] = groups.pop(self.rest)  # never empty: --help is in it
        for group, rows in groups.items():
            with formatter.section("Options" if groups.keys() == {self.rest} else group.capitalize()):
                formatter.write_dl(rows)


def page(runs: str, words: str, *options: Callable[[Any], Any], **settings: Any) -> GroupedCommand:
    """Make a command from its page of help; the function that it runs is imported when it is called.

    So pages of help, lists of commands and refused options start without PyTorch.

    Args:
        runs: The function, as "module:function"; it takes the values of the options by name.
        words: The help: a question in one sentence, then paragraphs.
        *options: Decorators that add the options, as those of click.
        **settings: `example`, `topics` and `rest` of the page, and what else `click.Command` takes.

    Returns:
        The command, named as the function without a final underscore.

    Examples:
        >>> page("math:dist", "How far is it?", click.argument("end")).name
        'dist'
    """
    module, _, name = runs.partition(":")

    def call(**given: Any) -> Any:
        return getattr(import_module(module), name)(**given)

    for add in reversed(options):
        call = add(call)
    return click.command(name.rstrip("_"), cls=GroupedCommand, help=words, runs=runs, **settings)(call)
