"""Pages of help: options below headings, and an example at the end."""

from functools import partial
from typing import Any

import click

# By the words of the command, all in one place, so that one test reads them all.
EXAMPLES = {
    "": "dyncollapse simulate --aug-strength 1.5",
    "simulate": "dyncollapse simulate --depth 3 --aug-dim 16 --aug-strength 0.3",
    "sweep": "dyncollapse sweep --aug-strength 0.4:4.4:3 --aug-dim 4,8 --out runs/grid",
    "collect": "dyncollapse collect runs/grid --out grid.csv",
    "verify": "dyncollapse verify --claim theorem-2-as-stated",
    "diagnose": "dyncollapse diagnose z.npy --positives z_pos.npy --views one-sided",
    "bridge": "dyncollapse bridge check --short",
    "bridge check": "dyncollapse bridge check --seeds 1 --out runs/check",
    "bridge pretrain": "dyncollapse bridge pretrain --data digits --projector linear",
    "bridge embed": "dyncollapse bridge embed --checkpoint runs/mlp --views two-sided --out z",
    "bridge diagnose": "dyncollapse bridge diagnose --checkpoint resnet50.pth --data PHOTOS",
    "bridge probe": "dyncollapse bridge probe --checkpoint runs/mlp",
    "bridge table": "dyncollapse bridge table runs/mlp runs/linear --markdown",
}


class GroupedOption(click.Option):
    """An option that stands under a heading of its command's page of help."""

    def __init__(self, *names: Any, group: str = "", **settings: Any) -> None:
        """Keep the heading; without one the option stands under the command's last."""
        super().__init__(*names, **settings)
        self.group = group


grouped_option = partial(click.option, cls=GroupedOption)


class GroupedCommand(click.Command):
    """A command whose page of help shows options by group, and ends with an example."""

    def __init__(self, *values: Any, rest: str = "output", **settings: Any) -> None:
        """Keep the heading for options without a group, which stands where there are others with one."""
        super().__init__(*values, **settings)
        self.rest = rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each group's options below its name, in the order of their first options; the rest comes last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            words = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if words is not None:
                groups.setdefault(getattr(parameter, "group", "") or self.rest, []).append(words)
        groups[self.rest] = groups.pop(self.rest)  # --help at least is there
        for group, rows in groups.items():
            with formatter.section("Options" if groups.keys() == {self.rest} else group.capitalize()):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        write_example(ctx, formatter)


def write_example(context: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the example of the context's command, where there is one."""
    words: list[str] = []
    at: click.Context | None = context
    while at is not None:
        words.insert(0, str(at.command.name))
        at = at.parent
    if example := EXAMPLES.get(" ".join(words).removeprefix("main").strip()):
        with formatter.section("Example"):
            formatter.write(f"{'':{formatter.current_indent}}{example}\n")
