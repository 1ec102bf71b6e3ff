"""The report on embeddings as a page for a browser."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dyncollapse.diagnostics.sentences import FATE_MEANINGS
from dyncollapse.runtime.page.record import Page, Picture, Table, alone

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("dimension", "eigenvalue", "collapsed", "mechanism", "fate", "rho", "rho_error")


def diagnosis_page(
    values: Mapping[str, Any],
    remarks: Sequence[str] = (),
    reproduce: str = "",
    pictures: Sequence[Picture] | None = None,
) -> Page:
    """Put a report on a page.

    Args:
        values: What diagnosis.json holds: `EmbeddingReport.as_values`, with the settings as "config" if there are any.
        remarks: Sentences that explain the numbers.
        reproduce: The command line that gives the same report.
        pictures: Those of `spectrum_pictures`, where another page shows them, too; None makes them.

    Returns:
        Verdict, spectrum and rho, fates and measures, warnings and notes, and a row per dimension.
    """
    config = values.get("config", {})
    assumed = [f"Assumed: {text}" for text in config.get("assumptions", ())]
    settings = {**values["conventions"], **config}
    left_out = {*values["measures"], "assumptions"}
    return Page(
        command="diagnose",
        subject=(
            f"{config.get('file', 'embeddings')}: {values['samples']} samples of {values['dim']} dimensions, "
            f"{values['space']}"
        ),
        verdict=values["verdict"]["sentence"],
        remarks=remarks,
        pictures=spectrum_pictures(values) if pictures is None else pictures,
        tables=[
            fate_table(values),
            measure_table(values),
            *published_tables(values),
            *_classes(values),
            _dimensions(values),
        ],
        cautions=values["warnings"],
        notes=[*values["notes"], *assumed],
        remedies=values.get("remedies", ()),
        settings={name: value for name, value in settings.items() if name not in left_out},
        reproduce=reproduce,
    )


def _classes(values: Mapping[str, Any]) -> list[Table]:
    """A row per class, if the report was made within classes, too."""
    names = ("class", "samples", "collapsed", "effective_rank", "mechanism")
    rows = [[str(one["class"]), *(one[name] for name in names[1:])] for one in values.get("by", ())]
    return [Table("Within each class", [name.replace("_", " ") for name in names], rows)] if rows else []


def fate_table(values: Mapping[str, Any], name: str = "") -> Table:
    """Count the dimensions by fate.

    Args:
        values: As for `diagnosis_page`.
        name: Which of several spaces this is.

    Returns:
        A row for each fate that some dimension has.
    """
    counts = Counter(values["verdict"]["fates"])
    rows = [[fate.value, counts[fate.value], meaning] for fate, meaning in FATE_MEANINGS.items() if counts[fate.value]]
    return Table(f"Dimensions by fate{name and f', {name}'}", ("fate", "dimensions", "meaning"), rows)


def measure_table(values: Mapping[str, Any], name: str = "") -> Table:
    """List the measures with their intervals and definitions.

    Args:
        values: As for `diagnosis_page`.
        name: As for `fate_table`.

    Returns:
        A row per measure.
    """
    rows = [
        [measure, "not defined" if value is None else f"{value:.4g}", _interval(values, measure), definition]
        for measure, value in values["measures"].items()
        for definition in [values["conventions"][measure]]
    ]
    return Table(f"Measures{name and f', {name}'}", ("measure", "value", "95 % interval", "definition"), rows)


def published_tables(values: Mapping[str, Any]) -> list[Table]:
    """List the rank measures in the conventions of other libraries and papers, where they were asked for.

    Args:
        values: As for `diagnosis_page`.

    Returns:
        One table, or none.
    """
    rows = [
        [
            one["measure"],
            one["source"],
            "not defined" if one["value"] is None else f"{one['value']:.6g}",
            one["convention"],
        ]
        for one in values.get("published", ())
    ]
    columns = ("measure", "as computed by", "value", "convention")
    return [Table("The same measures in other conventions", columns, rows)] if rows else []


def _interval(values: Mapping[str, Any], measure: str) -> str:
    bar = values["intervals"][measure]
    return "" if bar is None else f"{bar[0]:.4g} to {bar[1]:.4g}"


def _dimensions(values: Mapping[str, Any]) -> Table:
    """A row per principal direction, folded."""
    judged = zip(values["spectrum"], values["verdict"]["dimensions"], strict=True)
    rows = [[str(k), value, *(one[name] for name in COLUMNS[2:])] for k, (value, one) in enumerate(judged, 1)]
    words = [name.replace("_", " ") for name in COLUMNS]
    return Table(f"{values['dim']} principal directions, largest variance first", words, rows, folded=True)


def spectrum_pictures(values: Mapping[str, Any], name: str = "") -> list[Picture]:
    """Draw the spectrum with its threshold, and rho if there are other views.

    Args:
        values: As for `diagnosis_page`.
        name: As for `fate_table`.

    Returns:
        One or two pictures.
    """
    spectrum, ratios = values["spectrum"], values["augmentation_ratio"]
    floor, threshold = values["noise_floor"], values["verdict"]["threshold"]
    of = name and f" of the {name}"

    # Inside the functions: importing Matplotlib fails when the user's settings of it are broken.
    def draw_spectrum(ax: "Axes") -> None:
        from dyncollapse.plotting import plot_eigenvalues

        plot_eigenvalues(ax, spectrum, floor, threshold)

    def draw_ratios(ax: "Axes") -> None:
        from dyncollapse.plotting import plot_ratios

        plot_ratios(ax, ratios)

    pictures = [
        Picture(
            f"Spectrum{of}",
            f"Covariance eigenvalues by rank on a logarithmic axis, from {spectrum[0]:.3g} down to {spectrum[-1]:.3g}; "
            f"{values['collapsed']} of {values['dim']} dimensions lie at or below the threshold {threshold:.2g}. The "
            f"noise floor is {floor:.2g}.",
            alone(draw_spectrum),
        )
    ]
    if ratios:
        above = sum(ratio >= 1 for ratio in ratios)
        what = (
            f"Generalised eigenvalues rho by rank, from {ratios[0]:.3g} down to {ratios[-1]:.3g}; augmentation beats "
            f"data in the {above} of {len(ratios)} at 1 or above."
        )
        pictures.append(Picture(f"Augmentation over data, rho{of}", what, alone(draw_ratios)))
    return pictures
