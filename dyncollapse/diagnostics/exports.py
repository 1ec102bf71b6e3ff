"""A report on embeddings as pictures, a table and one self-contained page."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from dyncollapse.diagnostics.by_labels import ClassReports
from dyncollapse.diagnostics.page import COLUMNS, diagnosis_page
from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.diagnostics.sentences import sentences_of
from dyncollapse.runtime.canvas import picture
from dyncollapse.runtime.files import first_line
from dyncollapse.runtime.page.record import Picture
from dyncollapse.runtime.page.render import PAGE, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = {
    "json": "diagnosis.json",
    "csv": "spectrum.csv",
    "html": PAGE,
    "png": "spectrum.png",
    "npz": "covariances.npz",
}


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


def as_png(report: EmbeddingReport) -> bytes:
    """Return the figure of `draw` as a PNG file."""
    return picture(lambda: draw(report))


def as_files(
    report: EmbeddingReport,
    config: Mapping[str, Any],
    *forms: str,
    classes: ClassReports | None = None,
    reproduce: str = "",
    pictures: Sequence[Picture] | None = None,
    on_problem: Callable[[str], object] = lambda _text: None,
) -> dict[str, bytes]:
    """Return the contents of the files of a report.

    Args:
        report: The report.
        config: The settings that it was made with.
        *forms: Keys of FILES: the files to make; none for all of them.
        classes: Reports within classes, which the JSON and the page hold, too.
        reproduce: The command line that gives the same report.
        pictures: As for `diagnosis_page`.
        on_problem: Called with one line if the picture cannot be drawn; it is then left out.

    Returns:
        Contents by file name.
    """

    def try_png() -> bytes | None:
        try:
            return as_png(report)
        except Exception as error:  # Matplotlib and its backends raise any error
            on_problem(f"{FILES['png']} could not be drawn ({first_line(error)})")
            return None

    makers: dict[str, Callable[[], bytes | None]] = {
        "json": lambda: as_json(classes or report, config).encode(),
        "csv": lambda: as_csv(report).encode(),
        "html": lambda: as_html(classes or report, config, reproduce, pictures).encode(),
        "png": try_png,
        "npz": lambda: as_npz(report),
    }
    contents = {FILES[form]: makers[form]() for form in forms or FILES}
    return {name: content for name, content in contents.items() if content is not None}


def as_json(report: EmbeddingReport | ClassReports, config: Mapping[str, Any]) -> str:
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


def as_html(
    report: EmbeddingReport | ClassReports,
    config: Mapping[str, Any] = MappingProxyType({}),
    reproduce: str = "",
    pictures: Sequence[Picture] | None = None,
) -> str:
    """Return one self-contained page: verdict, pictures, measures with their definitions, warnings and settings.

    Args:
        report: The report, or the reports within classes.
        config: The settings that it was made with; "file" names the embeddings.
        reproduce: The command line that gives the same report.
        pictures: As for `diagnosis_page`.

    Returns:
        HTML in ASCII.
    """
    remarks = (
        [*sentences_of(report.whole), report.sentence] if isinstance(report, ClassReports) else sentences_of(report)
    )
    return render(diagnosis_page(report.as_values() | {"config": config}, remarks, reproduce, pictures))
