"""Run `dyncollapse predict`: what a linear encoder will keep of images, before it is trained."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dyncollapse.bridge.prediction.options import PredictOptions
from dyncollapse.bridge.prediction.outcome import Prediction
from dyncollapse.bridge.prediction.page import prediction_page
from dyncollapse.bridge.prediction.report import as_values, augmentations_csv, directions_csv
from dyncollapse.bridge.prediction.run import Opened, open_pairs, run
from dyncollapse.bridge.prediction.wording import (
    chance,
    conclusion,
    loss_table,
    operation_table,
    sentences,
    skipped_sentence,
    title,
    training_sentences,
    verdict,
)
from dyncollapse.commands.bridge_encoder import saved_whole_or_not
from dyncollapse.commands.bridge_shared import note_in_options, refusals
from dyncollapse.commands.console import filled_table, open_console
from dyncollapse.commands.shared import fail, one_form, say_saved, use_machine, warn
from dyncollapse.runtime.canvas import save_picture
from dyncollapse.runtime.files import write_bytes, write_json
from dyncollapse.runtime.folders import whole_folder
from dyncollapse.runtime.page.render import PAGE, render
from dyncollapse.runtime.progress import progress_bars
from dyncollapse.runtime.settings import option, renamed
from dyncollapse.simulation.report import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = ("prediction.json", "directions.csv", "augmentations.csv", PAGE, "prediction.png")


def predict(options: PredictOptions, *, out: Path | None, as_json: bool, as_html: bool) -> None:
    """Predict, print the tables, and save them if a folder is given."""
    prediction: Prediction | None = None
    forms = one_form({"json": as_json, "html": as_html})

    def show() -> None:
        if prediction is not None:
            print_prediction(prediction, opened, options, to_stderr=bool(forms))

    with refusals():
        use_machine("cpu", options.threads)
        opened = open_pairs(options, note_in_options)
        place = nullcontext((None, None)) if out is None else whole_folder(out, "predict")
        with saved_whole_or_not(show), place as (partial, _):
            prediction, interrupted = _run(opened, options)
            known = versions("torchvision")
            values = as_values(prediction, {**options.as_dict(), "versions": known})
            page = ""
            if partial is not None or as_html:
                page = render(prediction_page(prediction, options, opened, known))
            if partial is not None:
                names = _save(prediction, values, page, partial)
    if as_json:
        click.echo(json.dumps(values, allow_nan=False))
    if as_html:
        click.echo(page, nl=False)
    show()
    if out is not None:
        say_saved(out, names, to_stderr=bool(forms))
    if prediction.untrained:
        reasons = "; ".join(f"{loss}: {reason}" for loss, reason in prediction.untrained.items())
        kept = "All else is shown" if out is None else f"All else is in {out}/"
        fail(130 if interrupted else 1, f"{reasons}. {kept}.")


def _run(opened: Opened, options: PredictOptions) -> tuple[Prediction, bool]:
    """Predict, and whether Ctrl-C ended the training: what was done until then is kept."""
    so_far: list[Prediction] = []
    try:
        return run(opened, options, progress_bars, so_far.append), False
    except KeyboardInterrupt:
        if not so_far:
            raise
        done = {*so_far[-1].untrained, *(one.loss for one in so_far[-1].trained)}
        left = {loss: "interrupted" for loss in options.loss if loss not in done}
        return replace(so_far[-1], untrained={**so_far[-1].untrained, **left}), True


def _save(prediction: Prediction, values: dict[str, Any], page: str, folder: Path) -> list[str]:
    """Write all files; return the names of those that could be made."""

    def draw() -> "Figure":
        # Here, not above: importing Matplotlib fails when the user's settings of it are broken.
        from dyncollapse.bridge.prediction.pictures import draw_prediction

        return draw_prediction(prediction)

    write_json(folder / RESULTS[0], values)
    write_bytes(folder / RESULTS[1], directions_csv(prediction))
    write_bytes(folder / RESULTS[2], augmentations_csv(prediction))
    write_bytes(folder / RESULTS[3], page.encode())
    if problem := save_picture(folder / RESULTS[4], draw):
        warn(problem)
    return list(RESULTS[: 4 if problem else 5])


def print_prediction(prediction: Prediction, opened: Opened, options: PredictOptions, *, to_stderr: bool) -> None:
    """Print what was measured, a line per loss, and the table of operations."""
    console = open_console(to_stderr)
    found, skipped = prediction.found, skipped_sentence(opened)
    known = " ".join(filter(None, (verdict(found, options.views), chance(found, options.views))))
    said = [renamed(text, option) for text in sentences(prediction, opened, options)]
    lines = [title(prediction, opened), *said, known]
    for text in (*lines, *([f"note: {skipped}"] if skipped else [])):
        console.print(text, soft_wrap=True)
    console.print()
    console.print(filled_table(*loss_table(prediction, options), left=1))
    console.print()
    console.print(filled_table(*operation_table(prediction.table, options.views), left=1))
    for text in training_sentences(prediction):
        console.print(text, soft_wrap=True)
    console.print(conclusion(prediction), style="bold", soft_wrap=True)
