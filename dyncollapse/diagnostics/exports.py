"""A report on embeddings as pictures, a table and one self-contained page."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.diagnostics.sentences import FATE_MEANINGS, augmentation_sentence, threshold_sentence
from dyncollapse.runtime.canvas import drawn_once
from dyncollapse.runtime.files import first_line, printable
from dyncollapse.runtime.settings import renamed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = {
    "json": "diagnosis.json",
    "csv": "spectrum.csv",
    "html": "report.html",
    "png": "spectrum.png",
    "npz": "covariances.npz",
}
COLUMNS = ("dimension", "eigenvalue", "collapsed", "mechanism", "fate", "rho", "rho_error")


def draw(report: EmbeddingReport) -> "Figure":
    """Draw the spectrum with its noise floor and threshold, and rho if there are other views."""
    from matplotlib.figure import Figure

    from dyncollapse.plotting import ABOVE_LEGEND, label_panels, plot_eigenvalues, plot_ratios

    ratios = report.ratios
    wide = ratios is not None and len(ratios) > 0
    figure = Figure(figsize=(9 if wide else 5, 3.5), layout="constrained")
    axes = figure.subplots(1, 2 if wide else 1, squeeze=False)[0]
    plot_eigenvalues(axes[0], report.spectrum, report.noise_floor, report.verdict.threshold)
    if ratios is not None and wide:
        plot_ratios(axes[1], ratios)
    label_panels(axes, pad=ABOVE_LEGEND)
    return figure


def _pictures(report: EmbeddingReport) -> Callable[[str], bytes]:
    """Return what makes PNG and SVG files of the figure of `draw`; the same report has the same bytes."""
    return drawn_once(lambda: draw(report), {"svg.fonttype": "path", "svg.hashsalt": "dyncollapse"})


def as_png(report: EmbeddingReport) -> bytes:
    """Return the figure of `draw` as a PNG file."""
    return _pictures(report)("png")


def as_files(
    report: EmbeddingReport,
    config: Mapping[str, Any],
    *forms: str,
    on_problem: Callable[[str], object] = lambda _text: None,
) -> dict[str, bytes]:
    """Return the contents of the files of a report.

    Args:
        report: The report.
        config: The settings that it was made with.
        *forms: Keys of FILES: the files to make; none for all of them.
        on_problem: Called with one line if the picture cannot be drawn; it is then left out.

    Returns:
        Contents by file name.
    """
    pictures = _pictures(report)

    def try_png() -> bytes | None:
        try:
            return pictures("png")
        except Exception as error:  # Matplotlib and its backends raise any error
            on_problem(f"{FILES['png']} could not be drawn ({first_line(error)})")
            return None

    makers: dict[str, Callable[[], bytes | None]] = {
        "json": lambda: as_json(report, config).encode(),
        "csv": lambda: as_csv(report).encode(),
        "html": lambda: _page(report, config, pictures).encode(),
        "png": try_png,
        "npz": lambda: as_npz(report),
    }
    contents = {FILES[form]: makers[form]() for form in forms or FILES}
    return {name: content for name, content in contents.items() if content is not None}


def as_json(report: EmbeddingReport, config: Mapping[str, Any]) -> str:
    """Return the report and the settings that it was made with as one line of JSON."""
    return json.dumps(report.as_values() | {"config": config}, allow_nan=False) + "\n"


def as_npz(report: EmbeddingReport) -> bytes | None:
    """Return Sigma0 and Sigma1 of the embeddings, and of the inputs of the last layer, as a .npz file.

    With fewer rows than dimensions the matrices are in coordinates of the columns of `frame`. None without other views.
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
    np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub declares no array of any name
    return file.getvalue()


def as_csv(report: EmbeddingReport) -> str:
    """Return a table as CSV, one line per dimension in descending order of variance."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(report.rows())
    return text.getvalue()


def as_html(report: EmbeddingReport, config: Mapping[str, Any]) -> str:
    """Return one self-contained page: verdict, pictures, measures with their definitions, warnings and settings.

    It is ASCII, so it is the same in every encoding. Its template, `report.html.jinja`, escapes every text, so that a
    name can control neither a browser nor a terminal.
    """
    return _page(report, config, _pictures(report))


def _page(report: EmbeddingReport, config: Mapping[str, Any], pictures: Callable[[str], bytes]) -> str:
    settings = {**report.conventions, **config}
    svg, problem = _as_svg(pictures)
    page = _template().render(
        report=report,
        name=str(config.get("file", "embeddings")),
        sentence=renamed(report.verdict.sentence, str),
        fates=Counter(report.verdict.fates),
        meanings=FATE_MEANINGS,
        sentences=[threshold_sentence(report), *([] if report.ratios is None else [augmentation_sentence(report)])],
        svg=svg,
        problem=problem,
        assumptions=config.get("assumptions", ()),
        settings={name: settings[name] for name in settings if name not in {*report.measures, "assumptions"}},
        columns=COLUMNS,
        rows=report.rows(),
    )
    return page.encode("ascii", "xmlcharrefreplace").decode()


@cache
def _template() -> Template:
    pages = Environment(
        loader=PackageLoader("dyncollapse", "diagnostics"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters |= {"number": _number, "interval": _range, "setting": _setting}
    return pages.get_template("report.html.jinja")


def _shown(value: object) -> object:
    """Return a value as one line of text, which Jinja then escapes; the picture, which is HTML, stays as it is."""
    if hasattr(value, "__html__"):
        return value
    return "" if value is None else printable(str(value))


def _as_svg(pictures: Callable[[str], bytes]) -> tuple[str, str]:
    """Return the figure as an element of the page, and the reason if it cannot be drawn."""
    try:
        svg = pictures("svg").decode()
    except Exception as error:  # Matplotlib and its backends raise any error
        return "", first_line(error)
    return svg[svg.index("<svg") :], ""


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
