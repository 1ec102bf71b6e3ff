"""The picture of a prediction. This module imports Matplotlib: import it when drawing."""

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from torch import Tensor

from dyncollapse.bridge.prediction.directions import Directions
from dyncollapse.bridge.prediction.outcome import Prediction
from dyncollapse.bridge.prediction.table import AugmentationTable
from dyncollapse.bridge.prediction.tested import WORDS
from dyncollapse.bridge.prediction.training import TrainedLinear
from dyncollapse.plotting import BAND, FAINT, LEVEL, PALETTE

ALIVE, EMPTY = PALETTE[0], PALETTE[1]
DRAWN = 8  # directions of each kind that are drawn as images
STANDARD_ERRORS = 2  # half-width of the error band
# Highest rho that is drawn to scale: one-sided views of digits have rho up to 24 000, beside which 1 cannot be seen.
HIGHEST = 3.0


def draw_prediction(prediction: Prediction) -> Figure:
    """Draw rho with its errors, the directions as images, the table of augmentations, and what was trained.

    Args:
        prediction: The prediction.

    Returns:
        The figure; directions of representations are not drawn.

    Examples:
        >>> from dyncollapse.bridge import PredictOptions, predict
        >>> options = PredictOptions("digits", images=200, directions=8, loss=("spectral",))
        >>> len(draw_prediction(predict(options)).subfigs)  # measurements above, directions as images below
        2
    """
    trained, pixels = prediction.trained, prediction.image_shape is not None
    rows = 1 + pixels + bool(trained)
    heights = [1.0, *([0.62] if pixels else []), *([0.9] if trained else [])]
    figure = Figure(figsize=(10, 1 + 3.4 * sum(heights)), layout="constrained")
    parts = list(figure.subfigures(rows, 1, height_ratios=heights, squeeze=False).flat)
    left, right = parts[0].subplots(1, 2, width_ratios=(1.25, 1))
    draw_ratios(left, prediction.found)
    draw_operations(right, prediction.table, prediction.found.measured.moments.views)
    if prediction.image_shape is not None:
        draw_directions(parts[1], prediction.found, prediction.image_shape)
    if trained:
        draw_trained(parts[-1], prediction, trained)
    return figure


def draw_ratios(ax: Axes, found: Directions) -> None:
    """Rho of every direction with its error band, and the band in which sampling hides a shared signal."""
    rho, error = (values.numpy() for values in (found.rho, found.error))
    place, words = np.arange(1, len(rho) + 1), WORDS[found.measured.moments.views]
    if found.explained:
        band = (1 - found.explained, 1 + found.explained)
        ax.axhspan(*band, color=BAND, alpha=0.5, lw=0, label="rho = 1 within its error")
    shared, above = found.shared.numpy(), rho > HIGHEST
    low, high = (rho + sign * STANDARD_ERRORS * error for sign in (-1, 1))
    ax.fill_between(place, low, high, where=~above, color=ALIVE, alpha=0.25, lw=0)
    size = 3 if len(rho) > 100 else 4
    for chosen, colour, label in ((shared, ALIVE, words.one_passes), (~shared, EMPTY, words.others)):
        if chosen.any():
            here = chosen & ~above
            ax.plot(place[here], rho[here], "o", color=colour, markersize=size, label=f"{label}: {chosen.sum()}")
    ax.axhline(1, color=LEVEL, lw=0.8, ls=":", label="rho = 1")
    ax.set(xlabel="direction, least augmented first", ylabel="augmentation ratio rho", ylim=(0, None))
    if above.any():
        _mark_above(ax, place[above], size, f"above {HIGHEST:g}, up to {float(f'{rho[-1]:.3g}'):g}: {above.sum()}")
    ax.locator_params(axis="x", integer=True)
    ax.set_title("(a) Augmentation ratio by direction", fontsize=10)
    _legend_below(ax, 2)


def _mark_above(ax: Axes, place: np.ndarray, size: int, label: str) -> None:
    """Triangles at the upper edge for directions beyond it."""
    ax.set_ylim(0, HIGHEST)
    ax.plot(place, np.full(len(place), HIGHEST), "^", color=EMPTY, markersize=size, clip_on=False, label=label)


def _legend_below(ax: Axes, columns: int, handles: list[Artist] | None = None) -> None:
    """A legend below the axes, where it hides nothing."""
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    ax.legend(
        handles=handles, frameon=False, fontsize=8, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.19)
    )


def draw_operations(ax: Axes, table: AugmentationTable, views: str) -> None:
    """Bars of the number of directions that pass the test with each operation alone and with all others."""
    names = [row.operation for row in table.rows]
    place = np.arange(len(names))[::-1]
    alone = [row.alone.signal_rank for row in table.rows]
    without = [np.nan if row.without is None else row.without.signal_rank for row in table.rows]
    ax.barh(place + 0.2, alone, 0.38, color=PALETTE[2], label="it alone")
    ax.barh(place - 0.2, without, 0.38, color=PALETTE[4], label="all but it")
    ax.axvline(table.whole.signal_rank, color=PALETTE[6], lw=1, ls="--", label=f"all: {table.whole.signal_rank}")
    ax.set_yticks(place, names)
    ax.set(xlabel=f"directions that {WORDS[views].pass_it}, of {table.directions}", xlim=(0, table.directions * 1.02))
    ax.locator_params(axis="x", integer=True)
    ax.set_title(f"(b) What each operation leaves ({table.images} images)", fontsize=10)
    _legend_below(ax, 3)


def draw_directions(part: SubFigure, found: Directions, shape: tuple[int, int, int]) -> None:
    """Directions that pass the test and the others as images, each row by its own order."""
    words = WORDS[found.measured.moments.views]
    part.suptitle(
        f"(c) Above: {words.one_passes}, least augmented first. Below: {words.others}, largest variance first.",
        fontsize=10,
    )
    axes = part.subplots(2, DRAWN, squeeze=False)
    for row, images in zip(axes, (surviving(found, DRAWN), emptied(found, DRAWN)), strict=True):
        for ax in row:
            ax.set_axis_off()
        for ax, image in zip(row, images.T, strict=False):
            _draw_image(ax, image.reshape(shape))


def surviving(found: Directions, most: int) -> Float[Tensor, "d k"]:
    """The patterns of the directions that pass the test, least augmented first."""
    return found.patterns[:, found.shared][:, :most]


def emptied(found: Directions, most: int) -> Float[Tensor, "d k"]:
    """Principal patterns of what views hold in directions that fail the test, largest variance first.

    Two-sided, all of these directions have rho = 1 within its error, so that none of their turned axes is special but
    for its variance.
    """
    inner = found.measured.moments.view_cov @ (found.frame.T @ found.vectors[:, ~found.shared])
    if not inner.shape[1]:
        return found.frame[:, :0]
    patterns, _, _ = torch.linalg.svd(inner, full_matrices=False)
    return found.frame @ patterns[:, :most]


def _draw_image(ax: Axes, image: Float[Tensor, "c h w"]) -> None:
    """A pattern with mean grey at 0: in colour for three channels, else from blue to red."""
    largest = float(image.abs().max()) or 1.0
    if len(image) == 3:
        ax.imshow((0.5 + image.permute(1, 2, 0).numpy() / (2 * largest)).clip(0, 1), interpolation="nearest")
    else:
        ax.imshow(image[0].numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")


def draw_trained(part: SubFigure, prediction: Prediction, trained: tuple[TrainedLinear, ...]) -> None:
    """Trained singular values over the predicted ones, and trained learning steps over predicted ones."""
    left, right = part.subplots(1, 2)
    first, second = "de" if prediction.image_shape is not None else "cd"
    lines: list[Artist] = []
    for number, one in enumerate(trained):
        colour = PALETTE[number % len(PALETTE)]
        expected = prediction.losses[one.loss]
        place = np.arange(1, len(expected.rest) + 1)
        rest, in_time = expected.rest.sqrt().numpy(), (expected.learning_steps <= one.steps).numpy()
        left.plot(place, rest, color=colour, lw=0.8, alpha=0.35)
        lines += left.plot(place, np.where(in_time, rest, np.nan), color=colour, lw=1.2, label=one.loss)
        left.plot(place, one.singular_values.numpy(), "o", color=colour, markersize=3)
        # A direction that is not to be learnt in time has so little variance at rest that noise may pass half of it.
        both = one.learning_steps.isfinite().numpy() & in_time
        order = one.agreement["order"]
        right.plot(
            expected.learning_steps.numpy()[both], one.learning_steps.numpy()[both], "o", color=colour, markersize=3,
            label=one.loss if order is None else f"{one.loss}: rank correlation {order:.2f}",
        )  # fmt: skip
    highest = max(float(one.singular_values.max()) for one in trained)
    left.set(xlabel="direction, least augmented first", ylabel="singular value of the embedding")
    left.locator_params(axis="x", integer=True)
    left.set_ylim(0, 1.5 * highest)  # what is not learnt in time may be predicted far above
    right.set(xlabel="predicted step", ylabel="step in training", xscale="log", yscale="log")
    low, high = right.get_xlim()
    right.plot([low, high], [low, high], color=FAINT, lw=0.8, ls=":", label="equal")
    left.set_title(f"({first}) After {trained[0].steps} steps; faint: at rest, later", fontsize=10)
    right.set_title(f"({second}) When a direction is learnt", fontsize=10)
    kinds = [Line2D([], [], color=LEVEL, label="predicted"), Line2D([], [], color=LEVEL, ls="", marker="o", ms=3)]
    kinds[1].set_label("trained")
    _legend_below(left, 4, [*kinds, *lines])
    _legend_below(right, 2)
