"""Pages of help: a question, options below headings, an example, and the topics that explain its words."""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import click

from dyncollapse.runtime.files import printable
from dyncollapse.runtime.process import collecting_later
from dyncollapse.runtime.settings import MOST_LETTERS, near_names, quoted


class GroupedOption(click.Option):
    """An option under a heading of its command's page of help."""

    def __init__(self, *names: Any, group: str = "", former: str = "", listed: bool = False, **settings: Any) -> None:
        """Keep the heading, the earlier name and whether the option takes a list.

        Args:
            *names: As for `click.Option`.
            group: The heading; without one the option stands under the command's last.
            former: An earlier name of the option, which is taken but not shown.
            listed: Whether it takes several values with commas between them.
            **settings: As for `click.Option`.
        """
        if former:
            names = ([*names[0], former], *names[1:])
        super().__init__(*names, **settings)
        self.group, self.former, self.listed = group, former, listed

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

    def __init__(self, *values: Any, rest: str = "output", runs: str = "", surplus: str = "", **settings: Any) -> None:
        """Keep the heading, the name of what it runs and the advice.

        Args:
            *values: As for `HelpPage`.
            rest: Heading of the options that have no group, where others have one.
            runs: What it runs, as `page` has it.
            surplus: What to do instead of giving more arguments than the command takes.
            **settings: As for `HelpPage`.
        """
        super().__init__(*values, **settings)
        self.rest, self.runs, self.surplus = rest, runs, surplus

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, but refuse arguments that are left first, with advice that fits the command."""
        try:
            given, left, order = self.make_parser(ctx).parse_args(args=list(args))
        except click.BadOptionUsage as error:
            error.ctx = ctx  # click leaves it out, and the message needs the option
            raise
        options = [one for one in self.params if isinstance(one, click.Option)]
        names = {name for one in options for name in (*one.opts, *one.secondary_opts)}
        if bare := next((name for name, value in given.items() if isinstance(value, str) and value in names), None):
            option = next(one for one in options if one.name == bare)
            raise click.BadOptionUsage(option.opts[0], f"{option.opts[0]} has no value", ctx)
        helps = self.get_help_option(ctx)
        if left and not ctx.resilient_parsing and (helps is None or helps.name not in given):
            advice = f"; {self.surplus}" if self.surplus else ""
            raise click.UsageError(f"{quoted(left[0])} is no argument of {ctx.command_path}{advice}", ctx)
        words = list(args)
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            _tell_repeated(order, words)
        return rest

    def option_groups(self, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
        """Names and help of the options by heading, in the order of their first options; the rest comes last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            words = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if words is not None:
                groups.setdefault(getattr(parameter, "group", "") or self.rest, []).append(words)
        groups[self.rest] = groups.pop(self.rest)  # never empty: --help is in it
        if len(groups) == 1:
            return {"Options": groups[self.rest]}
        return {group.capitalize(): rows for group, rows in groups.items()}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each group's options below its heading."""
        for heading, rows in self.option_groups(ctx).items():
            with formatter.section(heading):
                formatter.write_dl(rows)


def _tell_repeated(order: Sequence[click.Parameter], args: Sequence[str]) -> None:
    """Warn of an option that takes a list and is given more than once: as of any other option, the last one counts."""
    for one in dict.fromkeys(order):
        if isinstance(one, GroupedOption) and one.listed and (times := order.count(one)) > 1:
            name, values = max(one.opts, key=len), printable(",".join(_values(one, args)))[:MOST_LETTERS]
            told = f"{name} is given {times} times, and the last one counts; for all values write {name} {values}"
            click.echo(f"dyncollapse: warning: {told}", err=True)


def _values(option: click.Option, args: Sequence[str]) -> Iterator[str]:
    """The values of an option on a command line that was parsed without an error."""
    for word, after in zip(args, [*args[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in option.opts:
            yield value if equals else after


def commands_below(group: click.Command, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command below a group, with its words."""
    for name, command in group.commands.items() if isinstance(group, click.Group) else ():
        yield f"{before}{name}", command
        yield from commands_below(command, f"{before}{name} ")


def command_names(root: click.Command) -> list[str]:
    """The words of every command below a group, as "bridge pretrain"."""
    return [name for name, _ in commands_below(root)]


def commands_meant(word: str, root: click.Command) -> list[str]:
    """The words of the commands below a group whose last word was probably meant."""
    ends = {name: name.rpartition(" ")[2] for name in command_names(root)}
    return [name for near in near_names(word, set(ends.values())) for name in ends if ends[name] == near]


def page(
    runs: str,
    words: str,
    *options: Callable[[Any], Any],
    has_workers: Callable[[Mapping[str, Any]], bool] | None = None,
    **settings: Any,
) -> GroupedCommand:
    """Make a command from its page of help; the function that it runs is imported when it is called.

    So pages of help, lists of commands and refused options start without PyTorch.

    Args:
        runs: The function, as "module:function"; it takes the values of the options by name.
        words: The help: a question in one sentence, then paragraphs.
        *options: Decorators that add the options, as those of click.
        has_workers: Whether worker processes do the work, by the values of the options. Their server then imports
            PyTorch at the same time as this process.
        **settings: `example`, `topics`, `rest` and `surplus` of the page, and what else `click.Command` takes.

    Returns:
        The command, named as the function without a final underscore.

    Examples:
        >>> page("math:dist", "How far is it?", click.argument("end")).name
        'dist'
    """
    module, _, name = runs.partition(":")

    def call(**given: Any) -> Any:
        if has_workers is not None and has_workers(given):
            imported("dyncollapse.runtime.executors").begin_server()
        return getattr(imported(module), name)(**given)

    for add in reversed(options):
        call = add(call)
    return click.command(name.rstrip("_"), cls=GroupedCommand, help=words, runs=runs, **settings)(call)


def imported(module: str) -> ModuleType:
    """Import a module, and what it imports, without looking for garbage among it then or later.

    Modules hold no garbage. Looking through the million objects of PyTorch and SciPy again and again takes a fifth of
    the time of their import, and as long in the first seconds of work.
    """
    if module in sys.modules:
        return sys.modules[module]
    with collecting_later():
        try:
            return import_module(module)
        finally:
            gc.freeze()
