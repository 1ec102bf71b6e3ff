"""Run `dyncollapse diagnose`: the report on embeddings from files, on the terminal and as files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.table import Table
from torch import Tensor

from dyncollapse.commands.console import open_console, open_table
from dyncollapse.commands.options import taken
from dyncollapse.commands.remedies import print_remedies
from dyncollapse.commands.shared import as_options, bad_input, fail, one_form, say_saved, warn
from dyncollapse.commands.spectrum_chart import spectrum_lines
from dyncollapse.diagnostics import embeddings, exports
from dyncollapse.diagnostics.options import DiagnosisOptions
from dyncollapse.diagnostics.readers import read_rows
from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.diagnostics.sentences import augmentation_sentence, threshold_sentence
from dyncollapse.formats.mapped import unchanged
from dyncollapse.runtime.command_line import chosen, command_line
from dyncollapse.runtime.files import CannotWrite, printable, unmarked, write_bytes
from dyncollapse.runtime.folders import whole_folder
from dyncollapse.runtime.progress import progress_bars
from dyncollapse.runtime.settings import SettingError
from dyncollapse.simulation.report import versions

TOO_BIG = "this does not fit into memory; leave out --svd, --loss or --compare, or give fewer rows"
WIDTH_FOR_WORDS = 100  # columns from which on definitions have room beside the measures


@dataclass(frozen=True)
class Request:
    """What to diagnose, and how: the arguments of `embeddings.diagnose`, with files in place of arrays."""

    file: Path
    positives: tuple[Path, ...]
    inputs: Path | None
    input_positives: Path | None
    key: str | None
    options: DiagnosisOptions

    @property
    def sources(self) -> list[Path]:
        """The files that are read."""
        given = (self.file, *self.positives, self.inputs, self.input_positives)
        return [_file_and_key(path)[0] for path in given if path is not None]

    @property
    def steps(self) -> tuple[str, ...]:
        """The parts of the work that show progress."""
        return ("embeddings", *(["inputs"] if self.inputs else []), *(["pairs"] if self.options.loss else []))

    def as_config(self) -> dict[str, Any]:
        """The request as plain JSON values, with the versions of the libraries."""
        return {
            "file": str(self.file),
            "positives": [str(path) for path in self.positives],
            "inputs": self.inputs and str(self.inputs),
            "input_positives": self.input_positives and str(self.input_positives),
            "key": self.key,
            **self.options.as_dict(),
            "versions": versions(),
        }

    def as_command(self) -> str:
        """The command line that makes the same report."""
        return command_line(
            "diagnose",
            self.file,
            positives=list(self.positives),
            inputs=self.inputs,
            input_positives=self.input_positives,
            key=self.key,
            **chosen(self.options),
        )


@dataclass(frozen=True, eq=False)
class Rows:
    """The arrays of a request, one row per sample."""

    embeddings: Tensor
    positives: list[Tensor]
    inputs: Tensor | None
    input_positives: Tensor | None


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """A report, the contents of its files by name, and a line for each file that could not be made."""

    report: EmbeddingReport
    contents: dict[str, bytes]
    problems: list[str]


def diagnose(*, out: Path | None, as_json: bool, as_csv: bool, as_html: bool, **given: Any) -> None:
    """Diagnose the embeddings of a file, and print or save the report."""
    wanted = {"json": as_json, "csv": as_csv, "html": as_html}
    forms = one_form(wanted, ", or save all of them with --out")
    request = _requested(given)
    diagnosis, unsaved = _diagnose(request, out, forms)
    for form in forms:
        click.echo(diagnosis.contents[exports.FILES[form]], nl=False)
    print_embeddings(diagnosis.report, str(request.file), to_stderr=bool(forms))
    for problem in diagnosis.problems:
        warn(problem)
    if unsaved:
        fail(1, unsaved)
    if out is not None:
        say_saved(out, diagnosis.contents, to_stderr=bool(forms))


def _requested(given: dict[str, Any]) -> Request:
    """The options as a request. Refuses --views when there are no other views."""
    if given["views"] and not (given["positives"] or given["inputs"]):
        fail(2, "--views says how other views were made, and there are none; give --positives, or leave it out")
    with bad_input():
        options = taken(DiagnosisOptions, given)
    return Request(**given, options=options)


def _diagnose(request: Request, out: Path | None, forms: Sequence[str]) -> tuple[Diagnosis, str]:
    """The diagnosis, saved in `out` if that is given, and one line on why it could not be saved."""
    diagnosis: Diagnosis | None = None
    try:
        with bad_input(TOO_BIG):
            rows = _read(request)
            if out is None:
                diagnosis = _examine(request, rows, forms)
            else:
                with whole_folder(out, "diagnose") as (partial, _):
                    diagnosis = _examine(request, rows, tuple(exports.FILES))
                    for name, content in diagnosis.contents.items():
                        write_bytes(partial / name, content)
    except KeyboardInterrupt:
        fail(130, "Interrupted; nothing was saved.")
    except CannotWrite as error:
        unsaved = f"{error.filename} could not be written ({error.strerror}); nothing was saved"
        if diagnosis is None:
            fail(1, unsaved)
        return diagnosis, unsaved
    assert diagnosis is not None
    return diagnosis, ""


def _read(request: Request) -> Rows:
    """Read the files of a request."""

    def read(path: Path) -> Tensor:
        path, key = _file_and_key(path)
        return read_rows(path, request.key if key is None else key)

    rows = Rows(
        read(request.file),
        [read(path) for path in request.positives],
        None if request.inputs is None else read(request.inputs),
        None if request.input_positives is None else read(request.input_positives),
    )
    for path, view in zip(request.positives, rows.positives, strict=True):
        if view.shape != rows.embeddings.shape:
            _refuse_view(path, tuple(view.shape), request.file, tuple(rows.embeddings.shape))
    return rows


def _refuse_view(path: Path, shape: tuple[int, ...], file: Path, wanted: tuple[int, ...]) -> NoReturn:
    """Name the files of two views that do not belong together, as the library, which has arrays, cannot."""
    same = "both must come from the same layer" if shape[0] == wanted[0] else "give the same samples, in the same order"
    advice = "transpose it" if shape == wanted[::-1] else same
    raise ValueError(f"{unmarked(str(path))} has shape {shape}, and {unmarked(str(file))} {wanted}; {advice}")


def _file_and_key(path: Path) -> tuple[Path, str | None]:
    """The path of FILE or FILE:KEY, and the name of the array if there is one."""
    name, colon, key = str(path).rpartition(":")
    return (Path(name), key) if colon and not path.exists() else (path, None)


def _examine(request: Request, rows: Rows, forms: Sequence[str]) -> Diagnosis:
    """Diagnose the rows, and make the contents of the files that `forms` name."""
    with unchanged(request.sources), progress_bars(request.steps) as progress:
        report = embeddings.diagnose(
            rows.embeddings,
            rows.positives or None,
            inputs=rows.inputs,
            input_positives=rows.input_positives,
            **request.options.as_dict(),
            progress=progress,
        )
    problems = list[str]()
    # Without a form, `as_files` would make all of them.
    contents = (
        exports.as_files(
            report, request.as_config(), *forms, reproduce=request.as_command(), on_problem=problems.append
        )
        if forms
        else {}
    )
    return Diagnosis(report, contents, problems)


def print_embeddings(report: EmbeddingReport, file: str, *, to_stderr: bool) -> None:
    """Print the size, the spectrum, the measures, warnings and the verdict."""
    console, conventions = open_console(to_stderr), report.conventions
    kind = "normalised" if conventions["normalised"] else "not normalised"
    precision = conventions["precision"]
    stored = conventions["dtype"] + ("" if precision == conventions["dtype"] else f" (rounded to {precision})")
    facts = f"{printable(file)}: {report.samples} samples x {report.dim} dimensions, {stored}, {kind}, {report.space}"
    console.print(facts, soft_wrap=True)
    console.print()
    plain = not console.encoding.lower().startswith("utf")
    width = max(16, min(64, console.width - 24))  # numbers and names stand beside the chart
    lines = spectrum_lines(
        report.spectrum.tolist(), report.noise_floor, report.verdict.threshold, plain=plain, width=width
    )
    console.print(*lines, sep="\n", soft_wrap=True)
    console.print()
    console.print(_measures(report, with_words=console.width >= WIDTH_FOR_WORDS))
    console.print()
    if report.published:
        console.print(_published(report))
        console.print()
    if report.ratios is not None:
        console.print(augmentation_sentence(report), soft_wrap=True)
    for text in report.warnings:
        console.print(f"warning: {text}", style="yellow", soft_wrap=True)
    for text in report.notes:
        console.print(f"note: {text}", soft_wrap=True)
    console.print(threshold_sentence(report), soft_wrap=True)
    console.print(as_options(SettingError(report.verdict.sentence)), style="bold", soft_wrap=True)
    print_remedies(console, report.remedies)


def _measures(report: EmbeddingReport, *, with_words: bool) -> Table:
    """The measures with their intervals and, if there is room, their definitions."""
    table = open_table("measure", "value", "95 % interval", left=1)
    if with_words:
        table.add_column("definition")  # the only column that may wrap, so that numbers never do
    for name, value in report.measures.items():
        bar = report.intervals[name]
        interval = "" if bar is None else f"{bar[0]:.4g} .. {bar[1]:.4g}"
        definition = re.sub(r" \([^()]*\d{4}\)$", "", report.conventions[name])  # without the source
        cells = (name, "-" if value is None else f"{value:.4g}", interval, definition)
        table.add_row(*cells[: len(table.columns)])
    return table


def _published(report: EmbeddingReport) -> Table:
    """The measures in the conventions of other libraries and papers, with words that wrap."""
    table = open_table("measure", "as computed by", "value", left=2)
    table.add_column("convention", overflow="fold")
    for one in report.published:
        table.add_row(one.measure, one.source, "-" if one.value is None else f"{one.value:.6g}", one.convention)
    return table
