"""Pictures of spectra, paths and alignment: every function draws on a given Axes, none saves or computes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike


def plot_spectrum(ax: Axes, values: ArrayLike, *, spread: ArrayLike | None = None, **style: Any) -> None:
    """Draw values (k,) against their rank on a log axis, with +- `spread` (k,) as a band, or bars without a line."""
    values = np.asarray(values)
    rank = np.arange(1, len(values) + 1)
    (line,) = ax.plot(rank, values, **style)
    if spread is not None:
        # A band that reaches zero would pull a log axis down without end.
        low, high = np.maximum(values - np.asarray(spread), values * 1e-3), values + np.asarray(spread)
        if line.get_linestyle() == "None":
            ax.vlines(rank, low, high, color=line.get_color(), linewidth=1)
        else:
            ax.fill_between(rank, low, high, color=line.get_color(), alpha=0.25, linewidth=0)
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("singular value rank")
    ax.set_ylabel("singular value of $W$")


def plot_paths(ax: Axes, time: ArrayLike, values: ArrayLike, colors: Sequence[Any], **style: Any) -> None:
    """Draw every column of values (t, k) over flow time t = lr x steps in its colour; the first carries the label."""
    label = style.pop("label", None)
    for k, (column, color) in enumerate(zip(np.asarray(values).T, colors, strict=True)):
        ax.plot(time, column, color=color, label=label if k == 0 else None, **style)
    ax.set_xlabel("flow time $t$")


def plot_alignment(ax: Axes, alignment: ArrayLike) -> AxesImage:
    """Draw |A| (k, l) as an image with a fixed scale from 0 to 1, row 1 at the top."""
    magnitudes = np.abs(np.asarray(alignment))
    rows, columns = magnitudes.shape
    image = ax.imshow(magnitudes, vmin=0, vmax=1, cmap="viridis", extent=(0.5, columns + 0.5, rows + 0.5, 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("left singular vector of $W_1$")
    ax.set_ylabel("right singular vector of $W_2$")
    return image


def plot_order(ax: Axes, steps: ArrayLike, errors: ArrayLike, slope: float, **style: Any) -> None:
    """Draw errors against step sizes on log axes, with the line of the given slope through their centre."""
    log_steps, log_errors = np.log(np.asarray(steps)), np.log(np.asarray(errors))
    fitted = np.exp(log_errors.mean() + slope * (log_steps - log_steps.mean()))
    (points,) = ax.loglog(steps, errors, "o", **style)
    ax.loglog(steps, fitted, "-", color=points.get_color(), linewidth=1)
    ax.set_xscale("log", base=2)  # rates are halved, as a rule
    ax.set_xlabel("learning rate")
