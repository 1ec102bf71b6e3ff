"""Run `dyncollapse bridge diagnose`: both spaces of an encoder, diagnosed side by side."""

import json
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dyncollapse.bridge.evaluation.depth import ranks_by_depth
from dyncollapse.bridge.evaluation.diagnose import DiagnosedSpaces, diagnose_spaces
from dyncollapse.bridge.evaluation.embed_options import EmbedOptions
from dyncollapse.bridge.evaluation.load import LoadedEncoder
from dyncollapse.bridge.evaluation.options import EncoderOptions
from dyncollapse.bridge.evaluation.page import pictures_by_space, spaces_page
from dyncollapse.bridge.evaluation.paper_tables import as_number
from dyncollapse.bridge.spaces import SPACES
from dyncollapse.bridge.training.run_folder import DIAGNOSIS
from dyncollapse.commands.bridge_encoder import (
    Opened,
    embed_images,
    open_encoder,
    saved_whole_or_not,
)
from dyncollapse.commands.bridge_shared import refusals
from dyncollapse.commands.console import open_console, open_table
from dyncollapse.commands.remedies import print_remedies
from dyncollapse.commands.shared import one_form, say_saved, warn
from dyncollapse.commands.spectrum_chart import spectrum_lines
from dyncollapse.diagnostics import exports
from dyncollapse.diagnostics.embeddings import check_loss
from dyncollapse.diagnostics.options import DiagnosisOptions
from dyncollapse.diagnostics.sentences import augmentation_sentence
from dyncollapse.runtime.canvas import save_picture
from dyncollapse.runtime.command_line import chosen, command_line
from dyncollapse.runtime.files import partial_path, write_bytes, write_json
from dyncollapse.runtime.folders import replaced_folder, whole_folder
from dyncollapse.runtime.page.render import PAGE, render
from dyncollapse.runtime.progress import progress_bars
from dyncollapse.runtime.settings import renamed
from dyncollapse.simulation.report import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURES = ("rankme", "effective_rank", "participation_ratio", "stable_rank", "alpha_req")


def diagnose(
    options: EncoderOptions,
    *,
    comparison: DiagnosisOptions,
    wanted: EmbedOptions,
    keep_embeddings: bool,
    out: Path | None,
    as_json: bool,
    as_html: bool,
) -> None:
    """Embed the images, diagnose both spaces, and print and save the reports."""
    diagnosis: DiagnosedSpaces | None = None
    forms = one_form({"json": as_json, "html": as_html})
    with refusals():
        check_loss(comparison.loss, comparison.temperature, comparison.views, 1)  # before anything is read
        opened = open_encoder(options, wanted.split)

        def show() -> None:
            if diagnosis is not None:
                print_spaces(diagnosis, opened.title, to_stderr=bool(forms))

        place = _place(opened.checkpoint, out)
        with saved_whole_or_not(show), place as (partial, folder), _emptied(partial / "embeddings") as temporary:
            diagnosis, skipped = _diagnose(opened, options, comparison, partial if keep_embeddings else temporary)
            config = {
                "split": opened.split,
                "views": comparison.views,
                "loss": comparison.loss,
                "skipped": skipped,
                **options.as_dict(),
            }
            chosen_views = {name: value for name, value in chosen(comparison).items() if name in config}
            given = {**chosen(options), **chosen(wanted), **chosen_views}
            reproduce = command_line("bridge diagnose", **given)
            names, page = _save(diagnosis, opened, partial, config, reproduce)
    if as_json:
        values = {"folder": str(folder), "matched": opened.checkpoint.matched, **diagnosis.as_values()}
        click.echo(json.dumps(values, allow_nan=False))
    if as_html:
        click.echo(page, nl=False)
    show()
    say_saved(folder, names, to_stderr=bool(forms))


def _diagnose(
    opened: Opened, options: EncoderOptions, comparison: DiagnosisOptions, folder: Path
) -> tuple[DiagnosedSpaces, str]:
    """Embed the images into a folder and diagnose them; the diagnosis, and a sentence on unreadable images."""
    checkpoint = opened.checkpoint
    spaces = SPACES if checkpoint.has_embedding else SPACES[:1]
    embedded = embed_images(checkpoint, opened.images, folder, options, spaces=spaces, views=comparison.views)
    depth = tuple(ranks_by_depth(checkpoint, opened.images, device=options.device))
    steps = ("embeddings", "inputs", *(["pairs"] if comparison.loss else []))
    with progress_bars(steps) as advance:
        diagnosis = diagnose_spaces(
            embedded,
            checkpoint.encoder.cpu(),
            comparison.views,
            advance,
            loss=comparison.loss,
            temperature=comparison.temperature,
        )
    return replace(diagnosis, depth=depth), embedded.skipped


def _place(checkpoint: LoadedEncoder, out: Path | None) -> AbstractContextManager[tuple[Path, Path]]:
    """The folder to fill and its final place: `out`, or diagnosis/ of the checkpoint's run, or a new folder."""
    if checkpoint.run and out is None:
        return replaced_folder(checkpoint.run / "diagnosis")
    return whole_folder(out, "diagnose")


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """A temporary folder beside the results, for files that may be too large for the system's own one."""
    path = partial_path(folder)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _save(
    diagnosis: DiagnosedSpaces, opened: Opened, folder: Path, config: dict[str, Any], reproduce: str
) -> tuple[list[str], str]:
    """Write a folder per space, the picture, the page and diagnosis.json; return their names, and the page."""
    checkpoint = opened.checkpoint

    def draw() -> "Figure":
        # Here, not above: importing Matplotlib fails when the user's settings of it are broken.
        from dyncollapse.bridge.evaluation.pictures import draw_spaces

        return draw_spaces(diagnosis.reports)

    config |= {"checkpoint": str(checkpoint.path), "step": checkpoint.step}
    config |= {"versions": versions("timm", "torchvision")}
    if checkpoint.published is not None:
        config |= {"encoder": checkpoint.spec.as_values(), "published": checkpoint.published.as_values()}
    values = diagnosis.as_values() | {"config": config}
    pictures = pictures_by_space({space: report.as_values() for space, report in diagnosis.reports.items()})
    for space, report in diagnosis.reports.items():
        (folder / space).mkdir(exist_ok=True)
        of_space = {"file": f"{checkpoint.path} ({space})", "assumptions": list(diagnosis.assumptions), **config}
        files = exports.as_files(report, of_space, reproduce=reproduce, pictures=pictures[space], on_problem=warn)
        for name, content in files.items():
            write_bytes(folder / space / name, content)
    if problem := save_picture(folder / "spectra.png", draw):
        warn(problem)
    write_json(folder / DIAGNOSIS, values)
    page = render(spaces_page(values, diagnosis.remarks(), opened.title, reproduce, pictures))
    write_bytes(folder / PAGE, page.encode())
    if checkpoint.run:
        write_json(checkpoint.run / DIAGNOSIS, values)
    spectra = [] if problem else ["spectra.png"]
    return [DIAGNOSIS, PAGE, *spectra, *(f"{space}/" for space in diagnosis.reports)], page


def print_spaces(diagnosis: DiagnosedSpaces, title: str, *, to_stderr: bool) -> None:
    """Print spectra, measures side by side, the alignment of the last layers, and the verdicts."""
    console, reports = open_console(to_stderr), diagnosis.reports
    plain = not console.encoding.lower().startswith("utf")
    console.print(title, soft_wrap=True)
    for text in diagnosis.assumptions:
        console.print(f"assumed: {text}", soft_wrap=True)
    for space, report in reports.items():
        console.print()
        console.print(f"{space}: {report.samples} samples x {report.dim} dimensions")
        lines = spectrum_lines(
            report.spectrum.tolist(), report.noise_floor, report.verdict.threshold, plain=plain, width=60, height=9
        )
        console.print(*lines, sep="\n", soft_wrap=True)
    console.print()
    table = open_table("measure", *reports, left=1)
    for name in MEASURES:
        table.add_row(name, *(as_number(report.measures[name]) for report in reports.values()))
    table.add_row("collapsed", *(f"{report.collapsed} of {report.dim}" for report in reports.values()))
    table.add_row("mechanism", *(report.verdict.mechanism for report in reports.values()))
    console.print(table)
    console.print()
    if diagnosis.depth:
        ranks = (f"{rank.stage} {as_number(rank.effective_rank)} of {rank.dim}" for rank in diagnosis.depth)
        console.print(f"effective rank by depth: {', '.join(ranks)}", soft_wrap=True)
    for layer in diagnosis.layers:
        aligned = layer.alignment
        console.print(
            f"alignment of {layer.first} and {layer.second}: {aligned.pattern}, share {aligned.alignment:.2f} of |A|^2 "
            f"in order, {aligned.permuted_alignment:.2f} under the best matching of {len(aligned.blocks)} "
            f"distinguishable groups of singular values; between these layers: {layer.between}",
            soft_wrap=True,
        )
    for space, report in reports.items():
        if report.ratios is not None:
            console.print(f"{space}: {augmentation_sentence(report)}", soft_wrap=True)
        for text in report.warnings:
            console.print(f"warning: {space}: {text}", style="yellow", soft_wrap=True)
        for text in report.notes:
            console.print(f"note: {space}: {text}", soft_wrap=True)
    for space, report in reports.items():
        console.print(f"{space}: {renamed(report.verdict.sentence, str)}", style="bold", soft_wrap=True)
    print_remedies(console, diagnosis.remedies)
