"""A report on embeddings as pictures, a table and one self-contained page."""

import csv
import html
import io
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.runtime.canvas import picture
from dyncollapse.runtime.files import first_line, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } .warning { color: #a33; }
"""
FILES = {
    "json": "diagnosis.json",
    "csv": "spectrum.csv",
    "html": "report.html",
    "png": "spectrum.png",
    "npz": "covariances.npz",
}
COLUMNS = ("dimension", "eigenvalue", "collapsed", "mechanism", "fate", "rho", "rho_error")


def draw(report: EmbeddingReport) -> "Figure":
    """Draw the spectrum with its noise floor and threshold and, where other views were given, rho."""
    from matplotlib.figure import Figure

    from dyncollapse.plotting import plot_eigenvalues, plot_ratios

    ratios = report.ratios
    wide = ratios is not None and len(ratios) > 0
    figure = Figure(figsize=(9 if wide else 5, 3.5), layout="constrained")
    axes = figure.subplots(1, 2 if wide else 1, squeeze=False)[0]
    plot_eigenvalues(axes[0], report.spectrum, report.noise_floor, report.verdict.threshold)
    if ratios is not None and wide:
        plot_ratios(axes[1], ratios)
    return figure


def as_png(report: EmbeddingReport) -> bytes:
    """The same figure as a PNG file."""
    return picture(lambda: draw(report))


def as_files(
    report: EmbeddingReport,
    config: Mapping[str, Any],
    *forms: str,
    tell: Callable[[str], object] = lambda _text: None,
) -> dict[str, bytes]:
    """The contents of the files that `forms` of FILES name, by file name; of all files where none is named.

    A picture that cannot be drawn is left out, and `tell` gets the reason in a line.
    """

    def try_png() -> bytes | None:
        try:
            return as_png(report)
        except Exception as error:  # Matplotlib and what it calls raise anything
            tell(f"{FILES['png']} could not be drawn ({first_line(error)})")
            return None

    makers: dict[str, Callable[[], bytes | None]] = {
        "json": lambda: as_json(report, config).encode(),
        "csv": lambda: as_csv(report).encode(),
        "html": lambda: as_html(report, config).encode(),
        "png": try_png,
        "npz": lambda: as_npz(report),
    }
    contents = {FILES[form]: makers[form]() for form in forms or FILES}
    return {name: content for name, content in contents.items() if content is not None}


def as_json(report: EmbeddingReport, config: Mapping[str, Any]) -> str:
    """The report and the settings it was made with, as one line."""
    return json.dumps(report.as_values() | {"config": config}, allow_nan=False) + "\n"


def as_npz(report: EmbeddingReport) -> bytes | None:
    """Sigma0 and Sigma1, of the embeddings and of the last layer's inputs, where there are other views of them.

    With fewer rows than dimensions they are about coordinates in the columns of `frame`.
    """
    arrays: dict[str, np.ndarray] = {}
    for prefix, pairs, frame in (
        ("", report.pairs, report.frame),
        ("input_", report.input_pairs, report.input_frame),
    ):
        if pairs is not None:
            arrays |= {f"{prefix}sigma0": pairs.data.cpu().numpy(), f"{prefix}sigma1": pairs.augmentation.cpu().numpy()}
            arrays |= {} if frame is None else {f"{prefix}frame": frame.cpu().numpy()}
    if not arrays:
        return None
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes every name for an option
    return file.getvalue()


def as_csv(report: EmbeddingReport) -> str:
    """One line per dimension, largest variance first."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    values = report.as_values()
    for k, (eigenvalue, found) in enumerate(zip(values["spectrum"], values["verdict"]["dimensions"], strict=True), 1):
        table.writerow([k, eigenvalue, *(found[name] for name in COLUMNS[2:])])
    return text.getvalue()


def escape(text: str) -> str:
    """A text for the page, which may also be printed: neither a browser nor a terminal obeys what is in it."""
    return html.escape(printable(text))


def as_html(report: EmbeddingReport, config: Mapping[str, Any]) -> str:
    """One page that needs nothing else: verdict, pictures, measures with their definitions, warnings, settings.

    It is all ASCII, so that it reads the same in whatever encoding it is printed.
    """
    values = report.as_values()
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in report.warnings)
    measures = "".join(
        f'<tr><td>{escape(name)}</td><td class="number">{_number(value)}</td>'
        f'<td class="number">{_range(report.intervals[name])}</td><td>{escape(values["conventions"][name])}</td></tr>'
        for name, value in report.measures.items()
    )
    settings = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(_setting(value))}</td></tr>"
        for name, value in {**values["conventions"], **config}.items()
        if name not in report.measures and name != "assumptions"
    )
    assumed = "".join(f"<p>Assumed: {escape(text)}</p>" for text in config.get("assumptions", ()))
    heads, *lines = csv.reader(io.StringIO(as_csv(report)))
    rows = f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>"
    rows += "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
    name = str(config.get("file", "embeddings"))
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>dyncollapse: {escape(name)}</title>
<style>{STYLE}</style></head><body>
<h1>{escape(report.verdict.sentence)}</h1>
<p>{report.samples} samples of {report.dim} dimensions, {escape(report.space)}: {escape(name)}</p>
{warnings}{assumed}
{_as_svg(report)}
<h2>Measures</h2>
<table><tr><th>measure</th><th>value</th><th>95 % interval</th><th>definition</th></tr>{measures}</table>
<h2>Conventions and settings</h2>
<table>{settings}</table>
<h2>Every dimension</h2>
<details><summary>{report.dim} principal directions, largest variance first</summary><table>{rows}</table></details>
</body></html>
"""
    return page.encode("ascii", "xmlcharrefreplace").decode()


def _as_svg(report: EmbeddingReport) -> str:
    """The figure as an element of the page, or the reason why there is none."""
    try:
        svg = picture(lambda: draw(report), "svg", {"svg.fonttype": "path", "svg.hashsalt": "dyncollapse"}).decode()
    except Exception as error:  # Matplotlib and what it calls raise anything
        return f'<p class="warning">The picture could not be drawn ({escape(first_line(error))}).</p>'
    return svg[svg.index("<svg") :]


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4g}"


def _setting(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _range(bar: tuple[float, float] | None) -> str:
    return "" if bar is None else f"{bar[0]:.4g} to {bar[1]:.4g}"
