"""Run `dyncollapse diagnose`: the report on embeddings from files, on the terminal and as files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from dyncollapse.commands.class_table import print_classes
from dyncollapse.commands.console import open_console, open_table
from dyncollapse.commands.diagnose_request import Request, Rows, read, report_on
from dyncollapse.commands.options import taken
from dyncollapse.commands.remedies import print_remedies
from dyncollapse.commands.shared import as_options, bad_input, fail, one_form, say_saved, warn
from dyncollapse.commands.spectrum_chart import spectrum_lines
from dyncollapse.diagnostics import exports
from dyncollapse.diagnostics.by_labels import ClassReports
from dyncollapse.diagnostics.options import DiagnosisOptions
from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.diagnostics.sentences import augmentation_sentence, threshold_sentence
from dyncollapse.formats.mapped import unchanged
from dyncollapse.runtime.files import CannotWrite, printable, write_bytes
from dyncollapse.runtime.folders import whole_folder
from dyncollapse.runtime.progress import progress_bars
from dyncollapse.runtime.settings import SettingError
from dyncollapse.sweeps.options import WorkerOptions

TOO_BIG = "this does not fit into memory; leave out --svd, --loss or --compare, or give fewer rows"
WIDTH_FOR_WORDS = 100  # columns from which on definitions have room beside the measures


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """A report with those within classes, the contents of its files, and a line for each that could not be made."""

    report: EmbeddingReport
    classes: ClassReports | None
    contents: dict[str, bytes]
    problems: list[str]


def diagnose(*, out: Path | None, as_json: bool, as_csv: bool, as_html: bool, **given: Any) -> None:
    """Diagnose the embeddings of a file, and print or save the report."""
    wanted = {"json": as_json, "csv": as_csv, "html": as_html}
    forms = one_form(wanted, ", or save all of them with --out")
    request = _requested(given, out)
    diagnosis, unsaved = _diagnose(request, out, forms)
    for form in forms:
        click.echo(diagnosis.contents[exports.FILES[form]], nl=False)
    print_embeddings(diagnosis.report, str(request.file), to_stderr=bool(forms))
    if diagnosis.classes is not None:
        print_classes(diagnosis.classes, to_stderr=bool(forms))
    for problem in diagnosis.problems:
        warn(problem)
    if unsaved:
        fail(1, unsaved)
    if out is not None:
        say_saved(out, diagnosis.contents, to_stderr=bool(forms))


def _requested(given: dict[str, Any], out: Path | None) -> Request:
    """The options as a request. Refuses --views when there are no other views."""
    if given["views"] and not (given["positives"] or given["inputs"]):
        fail(2, "--views says how other views were made, and there are none; give --positives, or leave it out")
    with bad_input():
        options, where = taken(DiagnosisOptions, given), taken(WorkerOptions, given)
    logs = Path("diagnose-slurm") if out is None else out.with_name(f"{out.name}-slurm")
    return Request(**given, options=options, where=where, logs=logs)


def _diagnose(request: Request, out: Path | None, forms: Sequence[str]) -> tuple[Diagnosis, str]:
    """The diagnosis, saved in `out` if that is given, and one line on why it could not be saved."""
    diagnosis: Diagnosis | None = None
    try:
        with bad_input(TOO_BIG):
            rows = read(request)
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


def _examine(request: Request, rows: Rows | None, forms: Sequence[str]) -> Diagnosis:
    """Diagnose the rows, and make the contents of the files that `forms` name."""
    with unchanged(request.sources), progress_bars(request.steps) as progress:
        report, classes = report_on(request, rows, progress)
    problems = list[str]()
    # Without a form, `as_files` would make all of them.
    contents = (
        exports.as_files(
            report,
            request.as_config(),
            *forms,
            classes=classes,
            reproduce=request.as_command(),
            on_problem=problems.append,
        )
        if forms
        else {}
    )
    return Diagnosis(report, classes, contents, problems)


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
