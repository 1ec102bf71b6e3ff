"""Draw spectra, paths and alignment: every function draws on given axes, and none saves or computes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike


def plot_spectrum(ax: Axes, values: ArrayLike, *, spread: ArrayLike | None = None, **style: Any) -> None:
    """Draw values against their rank, on a logarithmic axis if any is above 0.

    Args:
        ax: Axes to draw on.
        values: Values (k,), for example singular values in descending order.
        spread: Half widths (k,) of a band around them, for example standard deviations; drawn as bars if the style has
            no line.
        **style: Passed to `Axes.plot`.
    """
    values = np.asarray(values)
    rank = np.arange(1, len(values) + 1)
    (line,) = ax.plot(rank, values, **style)
    if spread is not None:
        # A band that reaches zero would extend a logarithmic axis without bound.
        low, high = np.maximum(values - np.asarray(spread), values * 1e-3), values + np.asarray(spread)
        if line.get_linestyle() == "None":
            ax.vlines(rank, low, high, color=line.get_color(), linewidth=1)
        else:
            ax.fill_between(rank, low, high, color=line.get_color(), alpha=0.25, linewidth=0)
    if (values > 0).any():
        ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("singular value rank")
    ax.set_ylabel("singular value of $W$")


def plot_eigenvalues(ax: Axes, eigenvalues: ArrayLike, noise_floor: float, threshold: float, **style: Any) -> None:
    """Draw a covariance spectrum on a logarithmic axis, with the noise floor shaded and the collapse threshold.

    Eigenvalues of exactly 0 are drawn hollow, at the lower edge of the axis.

    Args:
        ax: Axes to draw on.
        eigenvalues: Eigenvalues (d,) in descending order.
        noise_floor: Variance below which an eigenvalue is rounding.
        threshold: Variance up to which a dimension counts as collapsed.
        **style: Passed to `Axes.plot`.
    """
    values = np.asarray(eigenvalues)
    levels = [level for level in (noise_floor, threshold, *values) if level > 0] or [1.0]
    lowest, rank, zeros = min(levels), np.arange(1, len(values) + 1), values <= 0
    dots: dict[str, Any] = {"marker": "o", "markersize": 2.5, "markevery": _every(values)}
    (line,) = ax.plot(rank[~zeros], values[~zeros], **{**dots, "linewidth": 1, **style})
    if zeros.any():
        edge = np.full(zeros.sum(), lowest / 10)
        ax.plot(rank[zeros], edge, **dots, linestyle="none", mfc="none", color=line.get_color(), label="exactly 0")
    ax.set_yscale("log")
    ax.set_ylim(lowest / 30, max(levels) * 10)
    if noise_floor > 0:
        ax.axhspan(lowest / 30, noise_floor, color="0.85", linewidth=0, label="noise floor")
    if threshold > 0:
        ax.axhline(threshold, color="0.4", linestyle=":", label="collapsed below")
    set_ranks(ax, len(values))
    ax.set_xlabel("dimension, by variance")
    ax.set_ylabel("covariance eigenvalue")
    _legend_above(ax)


def plot_ratios(ax: Axes, ratios: ArrayLike, **style: Any) -> None:
    """Draw generalised eigenvalues rho of (Sigma1, Sigma0) by rank, with the collapse threshold at 1.

    If any is above 10, the axis is linear up to 1 and logarithmic above.

    Args:
        ax: Axes to draw on.
        ratios: Generalised eigenvalues (r,) in descending order.
        **style: Passed to `Axes.plot`.
    """
    values = np.asarray(ratios)
    rank, top = np.arange(1, len(values) + 1), values.max(initial=1.0)
    dots: dict[str, Any] = {"marker": "o", "markersize": 2.5, "markevery": _every(values), "clip_on": False}
    ax.plot(rank, values, **{**dots, "linewidth": 1, **style})
    ax.axhline(1.0, color="0.4", linestyle=":", label="augmentation beats data above")
    if top > 10:
        ax.set_yscale("symlog", linthresh=1.0)
    ax.set_ylim(0, top * (2 if top > 10 else 1.1))
    set_ranks(ax, len(values))
    ax.set_xlabel("generalised mode")
    ax.set_ylabel(r"augmentation over data, $\rho$")
    _legend_above(ax)


def _every(values: np.ndarray[Any, np.dtype[Any]]) -> int:
    """Return the distance between markers: more than about 128 would only thicken the line."""
    return max(1, len(values) // 128)


def set_ranks(ax: Axes, count: int) -> None:
    """Set ticks at whole ranks from 1 on: there is no rank 0."""
    steps = [tick for tick in MaxNLocator(5, integer=True).tick_values(1, count) if 1 < tick <= count]
    ax.set_xticks([1, *(steps[1:] if steps and steps[0] - 1 < 0.08 * count else steps)])
    margin = max(0.3, 0.03 * count)
    ax.set_xlim(1 - margin, count + margin)


def _legend_above(ax: Axes) -> None:
    """Place the legend above the axes, where it hides nothing."""
    if labels := ax.get_legend_handles_labels()[1]:
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderaxespad=0.4,
            borderpad=0,
            ncols=len(labels),
            columnspacing=1.0,
            handlelength=1.5,
            handletextpad=0.5,
            frameon=False,
            fontsize="small",
        )


def plot_paths(ax: Axes, time: ArrayLike, values: ArrayLike, colors: Sequence[Any], **style: Any) -> None:
    """Draw paths over flow time t = lr x steps, one line per column.

    Args:
        ax: Axes to draw on.
        time: Flow times (t,).
        values: Values (t, k).
        colors: A colour for each of the k columns.
        **style: Passed to `Axes.plot`; a label is given to the first column only.
    """
    label = style.pop("label", None)
    for k, (column, color) in enumerate(zip(np.asarray(values).T, colors, strict=True)):
        ax.plot(time, column, color=color, label=label if k == 0 else None, **style)
    ax.set_xlabel("flow time $t$")


def plot_sweep(
    ax: Axes, x: ArrayLike, values: ArrayLike, *, rest: ArrayLike | None = None, threshold: float | None = None
) -> None:
    """Draw values over a setting on a logarithmic axis, one line per rank from dark to light.

    Args:
        ax: Axes to draw on.
        x: Values (n,) of the setting.
        values: Values (n, k), by rank.
        rest: The same (n, k) at rest in closed form, drawn dashed where they are finite and above 0.
        threshold: Value of the setting above which augmented dimensions die.
    """
    x, values = np.asarray(x), np.asarray(values)
    colors = colormaps["viridis"](np.linspace(0, 0.85, values.shape[1]))
    for k, (column, color) in enumerate(zip(values.T, colors, strict=True)):
        label = f"rank 1 (dark) to {values.shape[1]} (light)" if k == 0 else None
        ax.plot(x, column, ".-", color=color, linewidth=1, markersize=4, label=label)
    if rest is not None:
        # float32 makes modes equal that differ only by rounding, so each is drawn once.
        known = np.nan_to_num(np.asarray(rest, dtype=np.float32), posinf=0)
        for k, column in enumerate(np.unique(known[:, known.any(0)], axis=1).T):
            label = "at rest, in closed form" if k == 0 else None
            ax.plot(x, np.where(column > 0, column, np.nan), "--", color="0.2", linewidth=1, label=label)
    if threshold is not None and x.min() <= threshold <= x.max():
        ax.axvline(threshold, color="0.5", linestyle=":", linewidth=1, label="augmented dimensions die beyond")
    ax.set_yscale("log")
    if x.min() > 0 and x.max() > 50 * x.min():
        ax.set_xscale("log")
    elif np.issubdtype(x.dtype, np.integer):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def plot_alignment(ax: Axes, alignment: ArrayLike) -> AxesImage:
    """Draw the magnitudes of an alignment matrix as an image with a fixed scale from 0 to 1, row 1 at the top.

    Args:
        ax: Axes to draw on.
        alignment: The matrix A (k, l).

    Returns:
        The image, for a colour bar.
    """
    magnitudes = np.abs(np.asarray(alignment))
    rows, columns = magnitudes.shape
    image = ax.imshow(magnitudes, vmin=0, vmax=1, cmap="viridis", extent=(0.5, columns + 0.5, rows + 0.5, 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("left singular vector of $W_1$")
    ax.set_ylabel("right singular vector of $W_2$")
    return image


def plot_order(ax: Axes, steps: ArrayLike, errors: ArrayLike, slope: float, **style: Any) -> None:
    """Draw errors against step sizes on logarithmic axes, with a line of the given slope through their centre.

    Args:
        ax: Axes to draw on.
        steps: Step sizes (n,).
        errors: Errors (n,).
        slope: Slope of the line, in log error per log step.
        **style: Passed to the points.
    """
    log_steps, log_errors = np.log(np.asarray(steps)), np.log(np.asarray(errors))
    fitted = np.exp(log_errors.mean() + slope * (log_steps - log_steps.mean()))
    (points,) = ax.loglog(steps, errors, "o", **style)
    ax.loglog(steps, fitted, "-", color=points.get_color(), linewidth=1)
    ax.set_xscale("log", base=2)  # learning rates are usually halved
    ax.set_xlabel("learning rate")
