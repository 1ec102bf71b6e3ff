"""A prediction as a page for a browser."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dyncollapse.bridge.prediction.options import PredictOptions
from dyncollapse.bridge.prediction.outcome import Prediction
from dyncollapse.bridge.prediction.run import Opened
from dyncollapse.bridge.prediction.tested import WORDS
from dyncollapse.bridge.prediction.wording import (
    chance,
    conclusion,
    count,
    loss_table,
    operation_table,
    sentences,
    skipped_sentence,
    title,
    training_sentences,
    verdict,
)
from dyncollapse.runtime.command_line import chosen, command_line
from dyncollapse.runtime.page.record import Page, Picture, Table, alone
from dyncollapse.runtime.page.render import render
from dyncollapse.runtime.settings import renamed

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure


def prediction_html(prediction: Prediction, options: PredictOptions) -> str:
    """Write a prediction as a page, as `dyncollapse predict` saves it as report.html.

    Args:
        prediction: What `predict` returned.
        options: The options that it was given.

    Returns:
        One self-contained page: verdict, pictures, tables, cautions and settings.

    Examples:
        >>> from dyncollapse.bridge import PredictOptions, predict
        >>> options = PredictOptions("digits", images=200, directions=8, loss=("spectral",))
        >>> text = prediction_html(predict(options), options)
        >>> text[:15], text.count("<svg")
        ('<!DOCTYPE html>', 3)
    """
    return render(prediction_page(prediction, options))


def prediction_page(
    prediction: Prediction,
    options: PredictOptions,
    opened: Opened | None = None,
    versions: Mapping[str, str] = MappingProxyType({}),
) -> Page:
    """Put a prediction on a page.

    Args:
        prediction: The prediction.
        options: What it was made with.
        opened: The images, which the page then describes.
        versions: Versions of the libraries.

    Returns:
        How many directions share signal (one-sided: have rho below 1), pictures, a row per loss and per operation.
    """
    found = prediction.found
    images = count(found.measured.samples, "image")
    described = [] if opened is None else [renamed(text, str) for text in sentences(prediction, opened, options)]
    skipped = "" if opened is None else skipped_sentence(opened)
    trained = training_sentences(prediction)
    return Page(
        command="predict",
        subject=f"{options.data}: {images}" if opened is None else title(prediction, opened),
        verdict=verdict(found, options.views),
        facts=[*filter(None, (chance(found, options.views),)), conclusion(prediction), *described[:1], *trained],
        pictures=_pictures(prediction),
        tables=[
            Table("What each loss keeps", *loss_table(prediction, options)),
            Table("What each operation leaves", *operation_table(prediction.table, options.views)),
        ],
        cautions=[*filter(None, (skipped,))],
        notes=described[1:],
        settings={**options.as_dict(), **({"versions": versions} if versions else {})},
        reproduce=command_line("predict", **chosen(options)),
    )


def _pictures(prediction: Prediction) -> list[Picture]:
    """Rho by direction, what each operation leaves, directions as images, and what was trained."""
    found, table = prediction.found, prediction.table
    views = found.measured.moments.views
    words = WORDS[views]
    shared, best = int(found.shared.sum()), ", ".join(f"{r.operation} {r.alone.signal_rank}" for r in table.rows)

    # Inside the functions: importing Matplotlib fails when the user's settings of it are broken.
    def ratios(ax: Any) -> None:
        from dyncollapse.bridge.prediction.pictures import draw_ratios

        draw_ratios(ax, found)

    def operations(ax: Any) -> None:
        from dyncollapse.bridge.prediction.pictures import draw_operations

        draw_operations(ax, table, views)

    pictures = [
        Picture(
            "Augmentation ratio by direction",
            f"Rho of {found.count} directions with its error, least augmented first, from {float(found.rho[0]):.3g} to "
            f"{float(found.rho[-1]):.3g}; {shared} {words.pass_it}.",
            alone(ratios),
        ),
        Picture(
            "What each operation leaves",
            f"Directions that {words.pass_it} with each operation alone ({best}) and with all but it, of "
            f"{table.directions}; with all operations it is {table.whole.signal_rank}.",
            alone(operations),
        ),
    ]
    if prediction.image_shape is not None:
        what = f"Patterns of pixels: above, {words.one_passes}; below, {words.others}."
        pictures.append(Picture("Directions as images", what, _wide(prediction, 2.9, _directions), wide=True))
    if prediction.trained:
        said = " ".join(training_sentences(prediction))
        what = f"Trained over predicted values. {said}"
        pictures.append(Picture("What SGD trained", what, _wide(prediction, 4.0, _trained), wide=True))
    return pictures


def _directions(part: "SubFigure", prediction: Prediction) -> None:
    from dyncollapse.bridge.prediction.pictures import draw_directions

    assert prediction.image_shape is not None
    draw_directions(part, prediction.found, prediction.image_shape)


def _trained(part: "SubFigure", prediction: Prediction) -> None:
    from dyncollapse.bridge.prediction.pictures import draw_trained

    draw_trained(part, prediction, prediction.trained)


def _wide(
    prediction: Prediction, height: float, draw_part: "Callable[[SubFigure, Prediction], None]"
) -> "Callable[[], Figure]":
    """What draws a figure over the whole width of the page."""

    def draw() -> "Figure":
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, height), layout="constrained")
        draw_part(figure.subfigures(1, 1, squeeze=False)[0, 0], prediction)
        return figure

    return draw
