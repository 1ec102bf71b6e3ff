"""Run `dyncollapse predict`: what a linear encoder will keep of images, before it is trained."""

import json
import math
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from dyncollapse.bridge.prediction.directions import Directions
from dyncollapse.bridge.prediction.options import PredictOptions
from dyncollapse.bridge.prediction.outcome import Prediction
from dyncollapse.bridge.prediction.prediction import LossPrediction
from dyncollapse.bridge.prediction.report import as_values, augmentations_csv, directions_csv
from dyncollapse.bridge.prediction.run import Opened, emptied_share, open_pairs, pipeline_in_words, run
from dyncollapse.bridge.prediction.table import AugmentationTable, Effect
from dyncollapse.commands.bridge_encoder import saved_whole_or_not
from dyncollapse.commands.bridge_shared import note_in_options, refusals
from dyncollapse.commands.console import open_console, open_table
from dyncollapse.commands.shared import fail, say_saved, use_machine, warn
from dyncollapse.diagnostics.shared_signal import SAMPLES_PER_DIRECTION
from dyncollapse.dynamics.training import Diverged
from dyncollapse.runtime.canvas import save_picture
from dyncollapse.runtime.files import write_bytes, write_json
from dyncollapse.runtime.folders import whole_folder
from dyncollapse.runtime.progress import progress_bars
from dyncollapse.simulation.report import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = ("prediction.json", "directions.csv", "augmentations.csv", "prediction.png")


def predict(options: PredictOptions, *, out: Path | None, as_json: bool) -> None:
    """Predict, print the tables, and save them if a folder is given."""
    prediction: Prediction | None = None

    def show() -> None:
        if prediction is not None:
            print_prediction(prediction, opened, options, to_stderr=as_json)

    with refusals():
        use_machine("cpu", options.threads)
        opened = open_pairs(options, note_in_options)
        place = nullcontext((None, None)) if out is None else whole_folder(out, "predict")
        with saved_whole_or_not(show), place as (partial, _):
            try:
                prediction = run(opened, options, progress_bars)
            except Diverged as error:
                fail(1, str(error))
            values = as_values(prediction, {**options.as_dict(), "versions": versions("torchvision")})
            if partial is not None:
                names = _save(prediction, values, partial)
    if as_json:
        click.echo(json.dumps(values, allow_nan=False))
    show()
    if out is not None:
        say_saved(out, names, to_stderr=as_json)


def _save(prediction: Prediction, values: dict[str, Any], folder: Path) -> list[str]:
    """Write all files; return the names of those that could be made."""

    def draw() -> "Figure":
        # Here, not above: importing Matplotlib fails when the user's settings of it are broken.
        from dyncollapse.bridge.prediction.pictures import draw_prediction

        return draw_prediction(prediction)

    write_json(folder / RESULTS[0], values)
    write_bytes(folder / RESULTS[1], directions_csv(prediction))
    write_bytes(folder / RESULTS[2], augmentations_csv(prediction))
    if problem := save_picture(folder / RESULTS[3], draw):
        warn(problem)
    return list(RESULTS[: 3 if problem else 4])


def print_prediction(prediction: Prediction, opened: Opened, options: PredictOptions, *, to_stderr: bool) -> None:
    """Print what was measured, a line per loss, and the table of operations."""
    console = open_console(to_stderr)
    for text in sentences(prediction, opened, options):
        console.print(text, soft_wrap=True)
    console.print()
    console.print(_loss_table(prediction, options))
    console.print()
    console.print(_operations(prediction.table, options.views))
    for one in prediction.trained:
        console.print(agreement_sentence(one.loss, one.agreement), soft_wrap=True)
    console.print(conclusion(prediction), style="bold", soft_wrap=True)


def sentences(prediction: Prediction, opened: Opened, options: PredictOptions) -> list[str]:
    """What was measured, and how far it can be trusted."""
    found, pairs = prediction.found, opened.pairs
    samples, skipped = found.measured.samples, pairs.skipped.sentence if pairs.skipped else ""
    title = f"{opened.source}: {_count(samples, 'image')}, {opened.kind}"
    lines = [title, pipeline_in_words(pairs.pipeline, options.views)]
    kind = "features" if prediction.image_shape is None else "pixels"
    lines.append(f"Covariances are taken about the mean: a linear encoder without bias on centred {kind}.")
    if found.count < opened.dim:
        lines.append(
            f"Predicted for {_count(found.count, 'principal direction')} of {opened.dim}, with {found.share:.2%} of "
            f"the variance; nothing is said of the rest{_limit(found.count, samples, options)}."
        )
    return [*lines, _shared_sentence(found, options.views), *([f"note: {skipped}"] if skipped else [])]


def _shared_sentence(found: Directions, views: str) -> str:
    """How many directions share signal, and what sampling hides in the others."""
    shared = int(found.shared.sum())
    of = f"{shared} of {_count(found.count, 'direction')}"
    if views == "one-sided":
        return f"Rho is below 1 beyond its error along {of}."
    others = (
        ""
        if shared == found.count
        else (
            f" In the others, which hold {emptied_share(found):.0%} of the variance, a correlation up to "
            f"{found.explained:.2f} may be chance."
        )
    )
    return f"The views share signal along {of}.{others}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _limit(count: int, samples: int, options: PredictOptions) -> str:
    """What bounds the number of directions, and what would raise it."""
    if count == options.directions:
        return f" (--directions {count})"
    if count == samples // SAMPLES_PER_DIRECTION:
        return f": {_count(samples, 'image')} show a quarter as many directions, and more images would show more"
    return ", which does not vary"


def _loss_table(prediction: Prediction, options: PredictOptions) -> Table:
    """A row per loss: the fates of its modes, and when it learns them."""
    fates = ["alive", "suppressed", "no room", "dead", *(["decayed"] if options.weight_decay else [])]
    late = f"learnt by step {options.steps}"
    table = open_table("loss", *fates, late, "lr", "first learnt", "median", "last alive", left=1)
    for name, one in prediction.losses.items():
        counts = one.fates.counts()
        cells = (*(counts[fate.replace(" ", "_")] for fate in fates), one.learnt)
        table.add_row(name, *map(str, cells), f"{one.lr:.2g}", *map(_step, learning_range(one)))
    return table


def learning_range(one: LossPrediction) -> tuple[float, float, float]:
    """Learning steps of the first, the median and the last of the modes that live; NaN where none does."""
    steps = one.alive_steps[one.alive_steps.isfinite()]
    if not len(steps):
        return (math.nan,) * 3
    return float(steps[0]), float(steps[len(steps) // 2]), float(steps[-1])


def _step(value: float) -> str:
    return "-" if math.isnan(value) else f"step {value:.0f}" if value < 1e5 else f"step {value:.1e}"


def _operations(table: AugmentationTable, views: str) -> Table:
    """Two rows per operation: it alone, and all but it."""
    signal = "sum of gamma" if views == "two-sided" else "tr S^-1 G"  # of one-sided views it is no sum of correlations
    shown = open_table(
        f"on {_count(table.images, 'image')}", f"shared of {table.directions}", "suppressed", signal, "tr G / tr S",
        "tr A", left=1,
    )  # fmt: skip
    shown.add_row("all operations", *_cells(table.whole))
    for row in table.rows:
        shown.add_row(f"{row.operation} alone", *_cells(row.alone))
    for row in table.rows:
        if row.without is not None:
            shown.add_row(f"all but {row.operation}", *_cells(row.without))
    return shown


def _cells(effect: Effect) -> list[str]:
    return [
        str(effect.signal_rank),
        str(effect.suppressed),
        f"{effect.shared_signal:.3g}",
        f"{effect.shared_share:.1%}",
        f"{effect.difference_trace:.3g}",
    ]


def agreement_sentence(loss: str, agreement: dict[str, float | None]) -> str:
    """How far training agrees with its prediction."""
    error, order = agreement["error"], agreement["order"]
    parts = [f"singular values that are empty: {agreement['empty_trained']:.0f}, predicted {agreement['empty']:.0f}"]
    if error is not None:
        compared = _count(int(agreement["compared"] or 0), "direction")
        parts.append(f"singular values differ by {error:.2g} in the median of {compared}")
    if order is not None:
        parts.append(f"learning steps have rank correlation {order:.2f}")
    return f"Trained by SGD, {loss}: {'; '.join(parts)}."


def conclusion(prediction: Prediction) -> str:
    """What costs most: the operation without which most directions share signal."""
    table = prediction.table
    gains = [(row.without.signal_rank - table.whole.signal_rank, row.operation) for row in table.rows if row.without]
    if not gains:
        return "The augmentation has one operation."
    gain, name = max(gains)
    if gain <= 0:
        return "No single operation costs a direction that sampling would show."
    return f"{name} costs most: without it {gain} more of {_count(table.directions, 'direction')} would share signal."
