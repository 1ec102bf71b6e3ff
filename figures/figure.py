"""Shared by all figure scripts: their parameters, what they assert, the style, and the files of results."""

import csv
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from inspect import Parameter, Signature, cleandoc, getfile
from pathlib import Path
from typing import Any

import click
import torch
from annotated_types import Interval

from dyncollapse import Diverged, FlowFailed, SettingError, recycle_freed_memory
from dyncollapse.commands.help_pages import GroupedCommand
from dyncollapse.commands.options import record_options, setting_options
from dyncollapse.commands.shared import OneLineErrors, bad_input, fail
from dyncollapse.runtime.canvas import drawn_once, own_style
from dyncollapse.runtime.files import write_bytes
from dyncollapse.runtime.records import Number, Several, Whole, record, setting, settings_of
from dyncollapse.runtime.settings import option
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.picture_options import PictureFormat

if "matplotlib" not in sys.modules:
    os.environ["MPLBACKEND"] = "agg"  # a notebook's backend may fail here

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

__all__ = (
    "Interval",
    "Number",
    "Result",
    "Several",
    "Whole",
    "claim",
    "drawn_with",
    "like",
    "number",
    "plt",
    "record",
    "setting",
)
HERE = Path(__file__).parent
STYLE = matplotlib.rc_params_from_file(HERE / "paper.mplstyle", use_default_template=False)
# Help of settings of `dyncollapse simulate` that figures do not have in full.
WORDS = {
    "dim": "Input dimension, and width of every layer.",
    "lr": "Learning rate; an SGD step advances flow time by as much.",
}
# Largest sizes of a figure's parameters, where `dyncollapse simulate` allows larger ones: minutes, not days.
LARGEST = {"dim": 256, "depth": 8, "steps": 10**6, "runs": 128, "batch_size": 8192, "pool": 10**6, "flow_batches": 256}


@dataclass(frozen=True)
class Result:
    """A drawn figure, the numbers in it (one dict per row), a caption with setting and seed, and what is asserted.

    What the caption concludes from the values stands in [[double brackets]]; it is left out where claims do not hold.
    """

    figure: Figure
    rows: Sequence[dict[str, object]]
    caption: str
    asserted: str
    missed: tuple[str, ...] = ()  # what is asserted with the script's own settings, and does not hold with these
    changed: str = ""  # settings other than the script's own, as options

    @property
    def text(self) -> str:
        """The caption with what is asserted, or with what of it holds in a varied figure."""
        kept = (
            re.sub(r"(?:(?m:^)\[\[(?s:.*?)\]\] ?)| *\[\[(?s:.*?)\]\]", "", self.caption)
            if self.missed
            else self.caption
        )
        caption, asserted = re.sub(r"\[\[|\]\]", "", kept).strip(), self.asserted.strip()
        if not self.changed:
            return f"{caption}\nAsserted: {asserted}\n"
        own = f'Varied: {self.changed}. With its own settings the figure asserts this: "{asserted}"'
        if not self.missed:
            return f"{caption}\n{own} It holds here, too.\n"
        return f"{caption}\n{own} Here it does not hold:\n" + "".join(f"- {one}\n" for one in self.missed)


@record
class Output:
    """Files of results."""

    format: Several[PictureFormat] = setting(
        ("png", "pdf"), "Formats of the picture, separated by commas: png, pdf, svg.", group="output"
    )
    out: Path = setting(HERE / "out", "Folder for the results.", group="output", unset="figures/out")


def like(name: str, default: Any, text: str = "", *, low: float | None = None) -> Any:
    """A setting of `dyncollapse simulate`, with a figure's default.

    Args:
        name: The setting in `Configuration`, which gives range, unit and help.
        default: The figure's value.
        text: Another help, where the figure needs to say more.
        low: A larger smallest value, where the figure needs it.

    Returns:
        The field of a record.
    """
    one = settings_of(Configuration)[name]
    high = LARGEST.get(name, one.high)
    # The range of several numbers stands with the type of one of them.
    ends = {"low": one.low if low is None else low, "high": high, "above": one.above, "below": one.below}
    limits = {} if isinstance(default, tuple) else ends
    return setting(default, text or WORDS.get(name, one.text), group="figure", unit=one.unit, **limits)


number = partial(setting, group="figure")  # a setting that `dyncollapse simulate` does not have


class Drawing:
    """A figure as a function of its parameters: `draw(dim=8)` returns it, and `draw.main()` is its command line."""

    def __init__(self, draw: Callable[[Any], Result], parameters: type, quick: Mapping[str, object]) -> None:
        """Keep what draws, the record of its parameters, and those of a smaller problem."""
        self.draw, self.parameters, self.quick = draw, parameters, quick
        self.__doc__ = cleandoc(draw.__doc__ or "")
        self.__signature__ = Signature(
            [Parameter("quick", Parameter.KEYWORD_ONLY, default=False)]
            + [
                Parameter(name, Parameter.KEYWORD_ONLY, default=one.default)
                for name, one in settings_of(parameters).items()
            ],
            return_annotation=Figure,
        )

    def __call__(self, *, quick: bool = False, **settings: Any) -> Figure:
        """Draw the figure.

        Args:
            quick: Start from a smaller problem.
            **settings: The parameters, named as the options of the script.

        Returns:
            The figure.

        Raises:
            SettingError: For an unknown parameter and for one out of range. It is a ValueError of one line.
        """
        return self.result(quick=quick, **settings).figure

    def result(self, *, quick: bool = False, **settings: Any) -> Result:
        """Draw the figure and return it with its numbers and its caption; arguments are those of a call."""
        result = self._result(quick, settings)
        with own_style(STYLE):  # what is made only when it is drawn, as ticks
            result.figure.draw_without_rendering()
        return result

    def _result(self, quick: bool, settings: Mapping[str, Any]) -> Result:
        """The figure as `result` returns it, but not drawn: each file draws it anyway."""
        own = self.parameters(**(self.quick if quick else {}))
        chosen = self.parameters(**{**(self.quick if quick else {}), **settings})
        values, before = asdict(chosen), asdict(own)
        if empty := [name for name, value in values.items() if value == ()]:
            raise SettingError(f"`{empty[0]}` is empty; give one or more values")
        changed = " ".join(f"{option(n)} {_shown(v)}" for n, v in values.items() if v != before[n])
        with own_style(STYLE), _claims(strict=not changed) as missed:
            result = self.draw(chosen)
            if (engine := result.figure.get_layout_engine()) is not None:
                engine.execute(result.figure)  # a drawing makes another layout, from this: a single one may cut titles
        plt.close("all")
        return replace(result, missed=tuple(missed), changed=changed)

    def main(self) -> None:
        """Draw what the command line asks for, and write the picture, NAME.csv and NAME.txt."""
        script = Path(getfile(self.draw))
        name = os.path.relpath(script)
        smaller = "  ".join(f"{option(name)} {_shown(value)}" for name, value in self.quick.items())
        help_quick = "A smaller problem with the same assertions" + (
            f": {smaller}." if smaller else ", as it is small."
        )

        def run(quick: bool, output: Output, **given: Any) -> None:
            torch.set_num_threads(1)  # for the same bits everywhere; scripts run in parallel instead
            recycle_freed_memory()
            try:
                with bad_input("this figure does not fit into memory; lower its sizes"):
                    result = self._result(quick, {name: v for name, v in given.items() if v is not None})
            except (Diverged, FlowFailed) as error:
                fail(1, f"{error}. Nothing was drawn.")
            for one in result.missed:
                click.echo(f"does not hold with these settings: {one}", err=True)
            print(save(result, output, script.stem))

        for add in (
            record_options(Output, "output"),
            click.option("--quick", is_flag=True, help=help_quick),
            setting_options(self.parameters, former={"aug_strength": "--k"}),
        ):
            run = add(run)
        words = f"{self.__doc__}\n\nWrites the picture, its numbers (.csv) and its caption (.txt)."
        command = click.command(name, cls=GroupedCommand, help=words)(run)
        OneLineErrors(commands={name: command}).main([name, *sys.argv[1:]], prog_name="python")


def drawn_with(parameters: type, **quick: object) -> Callable[[Callable[[Any], Result]], Drawing]:
    """Make a function that takes a record of parameters into a figure with a command line.

    Args:
        parameters: The record's class; its fields are the options.
        **quick: Parameters of a smaller problem that makes the same assertions within seconds.

    Returns:
        The decorator.
    """
    return partial(Drawing, parameters=parameters, quick=quick)


def save(result: Result, output: Output, name: str) -> str:
    """Write name.png and the other formats, name.csv and name.txt; return the names."""
    output.out.mkdir(parents=True, exist_ok=True)
    target = output.out / name
    once = {**STYLE, "figure.constrained_layout.use": False}  # the figure has its layout: each file would make it again
    as_file = drawn_once(lambda: result.figure, once, dpi=STYLE["savefig.dpi"])
    for suffix in output.format:
        write_bytes(target.with_suffix(f".{suffix}"), as_file(suffix))
    write_bytes(target.with_suffix(".csv"), _as_table(result.rows).encode())
    write_bytes(target.with_suffix(".txt"), result.text.encode())
    return ", ".join([f"{target}.{output.format[0]}", *(f".{end}" for end in (*output.format[1:], "csv", "txt"))])


_missed: list[str] | None = None  # what a varied figure does not show; None where that stops the script


@contextmanager
def _claims(strict: bool) -> Iterator[list[str]]:
    """Collect the claims that do not hold, or stop at the first."""
    global _missed
    found: list[str] = []
    _missed = None if strict else found
    try:
        yield found
    finally:
        _missed = None


def claim(holds: bool, statement: str) -> None:
    """Stop with a message, also under python -O, when a figure with its own settings does not show what it claims."""
    if holds:
        return
    if _missed is None:
        raise SystemExit(f"the figure's claim does not hold: {statement}")
    _missed.append(statement)


def _shown(value: Any) -> str:
    return (
        ",".join(map(_shown, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _as_table(rows: Sequence[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
