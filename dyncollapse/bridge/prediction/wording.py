"""What a prediction says in sentences and tables, for the terminal and the page."""

import math

from dyncollapse.bridge.prediction.directions import Directions
from dyncollapse.bridge.prediction.options import PredictOptions
from dyncollapse.bridge.prediction.outcome import Prediction
from dyncollapse.bridge.prediction.prediction import LossPrediction
from dyncollapse.bridge.prediction.run import Opened, emptied_share, pipeline_in_words
from dyncollapse.bridge.prediction.table import AugmentationTable, Effect
from dyncollapse.bridge.prediction.tested import WORDS
from dyncollapse.diagnostics.shared_signal import SAMPLES_PER_DIRECTION


def title(prediction: Prediction, opened: Opened) -> str:
    """The source of the images, their number and what a row is."""
    return f"{opened.source}: {count(prediction.found.measured.samples, 'image')}, {opened.kind}"


def sentences(prediction: Prediction, opened: Opened, options: PredictOptions) -> list[str]:
    """How views are drawn, what was measured, and what is not predicted."""
    found = prediction.found
    lines = [pipeline_in_words(opened.pairs.pipeline, options.views)]
    kind = "features" if prediction.image_shape is None else "pixels"
    lines.append(f"Covariances are taken about the mean: a linear encoder without bias on centred {kind}.")
    if found.count < opened.dim:
        lines.append(
            f"Predicted for {count(found.count, 'principal direction')} of {opened.dim}, with {found.share:.2%} of "
            f"the variance; nothing is said of the rest{_limit(found.count, found.measured.samples, options)}."
        )
    return lines


def skipped_sentence(opened: Opened) -> str:
    """What was not read; empty if everything was."""
    return opened.pairs.skipped.sentence if opened.pairs.skipped else ""


def verdict(found: Directions, views: str) -> str:
    """How many directions share signal, in one sentence."""
    of = f"{int(found.shared.sum())} of {count(found.count, 'direction')}"
    if views == "one-sided":
        return f"Rho is below 1 beyond its error along {of}."
    return f"The views share signal along {of}."


def chance(found: Directions, views: str) -> str:
    """What sampling hides in the directions without signal; empty if there are none."""
    if views == "one-sided" or bool(found.shared.all()):
        return ""
    return (
        f"In the others, which hold {emptied_share(found):.0%} of the variance, a correlation up to "
        f"{found.explained:.2f} may be chance."
    )


def count(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}{'s' * (number != 1)}"


def _limit(predicted: int, samples: int, options: PredictOptions) -> str:
    """What bounds the number of directions, and what would raise it."""
    if predicted == options.directions:
        return f" (`directions` {predicted})"
    if predicted == samples // SAMPLES_PER_DIRECTION:
        return f": {count(samples, 'image')} show a quarter as many directions, and more images would show more"
    return ", which does not vary"


def loss_table(prediction: Prediction, options: PredictOptions) -> tuple[list[str], list[list[str]]]:
    """A row per loss: the fates of its modes, and when it learns them.

    Args:
        prediction: The prediction.
        options: What it was made with.

    Returns:
        Names of the columns, and rows of cells.
    """
    fates = ["alive", "suppressed", "no room", "dead", *(["decayed"] if options.weight_decay else [])]
    late = f"learnt by step {options.steps}"
    rows = []
    for name, one in prediction.losses.items():
        counts = one.fates.counts()
        cells = (*(counts[fate.replace(" ", "_")] for fate in fates), one.learnt)
        rows.append([name, *map(str, cells), f"{one.lr:.2g}", *map(_step, learning_range(one))])
    return ["loss", *fates, late, "lr", "first learnt", "median", "last alive"], rows


def learning_range(one: LossPrediction) -> tuple[float, float, float]:
    """Learning steps of the first, the median and the last of the modes that live; NaN where none does."""
    steps = one.alive_steps[one.alive_steps.isfinite()]
    if not len(steps):
        return (math.nan,) * 3
    return float(steps[0]), float(steps[len(steps) // 2]), float(steps[-1])


def _step(value: float) -> str:
    return "-" if math.isnan(value) else f"step {value:.0f}" if value < 1e5 else f"step {value:.1e}"


def operation_table(table: AugmentationTable, views: str) -> tuple[list[str], list[list[str]]]:
    """Two rows per operation: it alone, and all but it.

    Args:
        table: The effects.
        views: The view convention.

    Returns:
        Names of the columns, and rows of cells.
    """
    signal = "sum of gamma" if views == "two-sided" else "tr S^-1 G"  # of one-sided views it is no sum of correlations
    words = WORDS[views]
    rows = [["all operations", *_cells(table.whole)]]
    rows += [[f"{row.operation} alone", *_cells(row.alone)] for row in table.rows]
    rows += [[f"all but {row.operation}", *_cells(row.without)] for row in table.rows if row.without is not None]
    images = f"on {count(table.images, 'image')}"
    columns = [f"{words.column} of {table.directions}", words.other_column, signal, "tr G / tr S", "tr A"]
    return [images, *columns], rows


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
    error, order, empty = (agreement[name] for name in ("error", "order", "empty"))
    parts = []
    if empty is not None:
        parts.append(f"singular values that are empty: {agreement['empty_trained']:.0f}, predicted {empty:.0f}")
    if error is not None:
        compared = count(int(agreement["compared"] or 0), "direction")
        parts.append(f"singular values differ by {error:.2g} in the median of {compared}")
    if order is not None:
        parts.append(f"learning steps have rank correlation {order:.2f}")
    said = "; ".join(parts) or "nothing is compared, because no direction is predicted to be learnt in time"
    return f"Trained by SGD, {loss}: {said}."


def training_sentences(prediction: Prediction) -> list[str]:
    """How far training agrees with its prediction, by loss, and why it did not end under others."""
    agreed = [agreement_sentence(one.loss, one.agreement) for one in prediction.trained]
    return agreed + [f"Not trained to the end, {loss}: {reason}." for loss, reason in prediction.untrained.items()]


def conclusion(prediction: Prediction) -> str:
    """What costs most: the operation without which most directions share signal, or all operations that tie."""
    table, words = prediction.table, WORDS[prediction.found.measured.moments.views]
    gains = {row.operation: row.without.signal_rank - table.whole.signal_rank for row in table.rows if row.without}
    if not gains:
        return "The augmentation has one operation."
    gain = max(gains.values())
    if gain <= 0:
        return "No single operation costs a direction that sampling would show."
    *others, last = (name for name, one in gains.items() if one == gain)
    more = f"{gain} more of {count(table.directions, 'direction')} would {words.pass_it}"
    if not others:
        return f"{last} costs most: without it {more}."
    which = "either" if len(others) == 1 else "any one"
    return f"{', '.join(others)} and {last} cost equally many: with {which} left out, {more}."
