"""Draw spectra, paths and alignment: every function takes axes, draws on them and returns them; none saves or computes.

Colours are chosen here unless the caller gives them: those of PALETTE in turn for unlike things, and those of `ramp`,
from dark to light, for things in order, such as ranks.
"""

from collections.abc import Iterable, Sequence
from string import ascii_lowercase
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

# Okabe and Ito's colours, which colour-blind readers can tell apart (2008, "Color Universal Design").
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# What is no data: floors and bands, thresholds, faint lines.
BAND, LEVEL, FAINT = "0.85", "0.4", "0.6"
# Most values of a whole setting that each get a tick, and most ranks that each get an entry of a legend.
MOST_TICKS, FEW_RANKS = 10, 4
ABOVE_LEGEND = 18  # points between axes and a title above their legend
LIGHTEST = 0.88  # end of a ramp in viridis; its last yellow is hard to see on white


def ramp(count: int) -> list[str]:
    """Colours for so many things in order, from dark to light.

    Args:
        count: Number of colours.

    Returns:
        Colours as hexadecimal text.

    Examples:
        >>> len(ramp(16)), ramp(2)[0]
        (16, '#440154')
    """
    return [to_hex(colour) for colour in colormaps["viridis"](np.linspace(0, LIGHTEST, count))]


def next_colour(ax: Axes) -> str:
    """The first colour of PALETTE that no line on the axes has; when all are used, they begin again.

    Args:
        ax: The axes.

    Returns:
        A colour as hexadecimal text.

    Examples:
        >>> from matplotlib.figure import Figure
        >>> ax = Figure().add_subplot()
        >>> plot_spectrum(ax, [2.0, 1.0]).lines[0].get_color() == PALETTE[0], next_colour(ax) == PALETTE[1]
        (True, True)
    """
    used = [to_hex(line.get_color()).upper() for line in ax.lines]
    return min(PALETTE, key=used.count)


def plot_spectrum(ax: Axes, values: ArrayLike, *, spread: ArrayLike | None = None, **style: Any) -> Axes:
    """Draw values against their rank, on a logarithmic axis if any is above 0.

    Args:
        ax: Axes to draw on.
        values: Values (k,), for example singular values in descending order.
        spread: Half widths (k,) of a band around them, for example standard deviations; drawn as bars if the style has
            no line.
        **style: Passed to `Axes.plot`; without a colour, the next of PALETTE.

    Returns:
        The axes.
    """
    values = np.asarray(values)
    rank = np.arange(1, len(values) + 1)
    (line,) = ax.plot(rank, values, **coloured(ax, style))
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
    return ax


def coloured(ax: Axes, style: dict[str, Any]) -> dict[str, Any]:
    """Give a style a colour: its own, or the next of PALETTE on the axes."""
    style = {"color" if name == "c" else name: value for name, value in style.items()}
    return style if "color" in style else {"color": next_colour(ax), **style}


def plot_eigenvalues(ax: Axes, eigenvalues: ArrayLike, noise_floor: float, threshold: float, **style: Any) -> Axes:
    """Draw a covariance spectrum on a logarithmic axis, with the noise floor shaded and the collapse threshold.

    Eigenvalues of exactly 0 are drawn hollow, at the lower edge of the axis.

    Args:
        ax: Axes to draw on.
        eigenvalues: Eigenvalues (d,) in descending order.
        noise_floor: Variance below which an eigenvalue is rounding.
        threshold: Variance up to which a dimension counts as collapsed.
        **style: Passed to `Axes.plot`; without a colour, the next of PALETTE.

    Returns:
        The axes.
    """
    values = np.asarray(eigenvalues)
    levels = [level for level in (noise_floor, threshold, *values) if level > 0] or [1.0]
    lowest, rank, zeros = min(levels), np.arange(1, len(values) + 1), values <= 0
    dots: dict[str, Any] = {"marker": "o", "markersize": 2.5, "markevery": _every(values)}
    (line,) = ax.plot(rank[~zeros], values[~zeros], **{**dots, "linewidth": 1, **coloured(ax, style)})
    if zeros.any():
        edge = np.full(zeros.sum(), lowest / 10)
        ax.plot(rank[zeros], edge, **dots, linestyle="none", mfc="none", color=line.get_color(), label="exactly 0")
    ax.set_yscale("log")
    ax.set_ylim(lowest / 30, max(levels) * 10)
    if noise_floor > 0:
        ax.axhspan(lowest / 30, noise_floor, color=BAND, linewidth=0, label="noise floor")
    if threshold > 0:
        ax.axhline(threshold, color=LEVEL, linestyle=":", label="collapsed below")
    set_ranks(ax, len(values))
    ax.set_xlabel("dimension, by variance")
    ax.set_ylabel("covariance eigenvalue")
    _legend_above(ax)
    return ax


def plot_ratios(ax: Axes, ratios: ArrayLike, **style: Any) -> Axes:
    """Draw generalised eigenvalues rho of (Sigma1, Sigma0) by rank, with the collapse threshold at 1.

    If any is above 10, the axis is linear up to 1 and logarithmic above.

    Args:
        ax: Axes to draw on.
        ratios: Generalised eigenvalues (r,) in descending order.
        **style: Passed to `Axes.plot`; without a colour, the next of PALETTE.

    Returns:
        The axes.
    """
    values = np.asarray(ratios)
    rank, top = np.arange(1, len(values) + 1), values.max(initial=1.0)
    dots: dict[str, Any] = {"marker": "o", "markersize": 2.5, "markevery": _every(values), "clip_on": False}
    ax.plot(rank, values, **{**dots, "linewidth": 1, **coloured(ax, style)})
    ax.axhline(1.0, color=LEVEL, linestyle=":", label="augmentation beats data above")
    if top > 10:
        ax.set_yscale("symlog", linthresh=1.0)
    ax.set_ylim(0, top * (2 if top > 10 else 1.1))
    set_ranks(ax, len(values))
    ax.set_xlabel("generalised mode")
    ax.set_ylabel(r"augmentation over data, $\rho$")
    _legend_above(ax)
    return ax


def label_panels(axes: Iterable[Axes], *, pad: float | None = None) -> None:
    """Put letters before the titles of several axes; a single one needs none.

    Args:
        axes: The axes, in the order of reading.
        pad: Distance of the titles from the axes in points: ABOVE_LEGEND where a legend is between them.
    """
    several = list(axes)
    for letter, ax in zip(ascii_lowercase, several if len(several) > 1 else (), strict=False):
        ax.set_title(f"({letter}) {ax.get_title()}".strip(), fontsize="medium", pad=pad)


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


def plot_paths(ax: Axes, time: ArrayLike, values: ArrayLike, colors: Sequence[Any] | None = None, **style: Any) -> Axes:
    """Draw paths over flow time t = lr x steps, one line per column.

    Args:
        ax: Axes to draw on.
        time: Flow times (t,).
        values: Values (t, k).
        colors: A colour for each of the k columns; by default from dark (first) to light (last), as `ramp` has it.
        **style: Passed to `Axes.plot`; a label is given to the first column only.

    Returns:
        The axes.

    Raises:
        ValueError: If there are more or fewer colours than columns.
    """
    label, columns = style.pop("label", None), np.asarray(values).T
    for k, (column, color) in enumerate(zip(columns, colors or ramp(len(columns)), strict=True)):
        ax.plot(time, column, color=color, label=label if k == 0 else None, **style)
    ax.set_xlabel("flow time $t$")
    return ax


def plot_sweep(
    ax: Axes, x: ArrayLike, values: ArrayLike, *, rest: ArrayLike | None = None, threshold: float | None = None
) -> Axes:
    """Draw values over a setting on a logarithmic axis, one line per rank from dark to light.

    Args:
        ax: Axes to draw on.
        x: Values (n,) of the setting.
        values: Values (n, k), by rank.
        rest: The same (n, k) at rest in closed form, drawn dashed and with rings where they are finite and above 0.
        threshold: Value of the setting above which augmented dimensions die.

    Returns:
        The axes.
    """
    x, values = np.asarray(x), np.asarray(values)
    ranks = values.shape[1]
    for k, (column, color) in enumerate(zip(values.T, ramp(ranks), strict=True)):
        ax.plot(x, column, ".-", color=color, linewidth=1, markersize=4, label=_rank_label(k + 1, ranks))
    if rest is not None:
        # float32 makes modes equal that differ only by rounding, so each is drawn once.
        known = np.nan_to_num(np.asarray(rest, dtype=np.float32), posinf=0)
        # A ring is also seen where a value has no neighbours to draw a line to.
        look: dict[str, Any] = {"marker": "o", "markersize": 5, "markerfacecolor": "none", "markeredgewidth": 0.7}
        for k, column in enumerate(np.unique(known[:, known.any(0)], axis=1).T):
            label = "at rest, in closed form" if k == 0 else None
            seen = np.where(column > 0, column, np.nan)
            ax.plot(x, seen, linestyle="--", color=PALETTE[1], linewidth=1, label=label, **look)
    if threshold is not None and x.min() <= threshold <= x.max():
        ax.axvline(threshold, color=LEVEL, linestyle=":", linewidth=1, label="augmented dimensions die beyond")
    ax.set_yscale("log")
    if np.issubdtype(x.dtype, np.integer) and len(np.unique(x)) <= MOST_TICKS:
        ax.set_xticks(np.unique(x))
    elif x.min() > 0 and x.max() > 50 * x.min():
        ax.set_xscale("log")
    elif np.issubdtype(x.dtype, np.integer):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def _rank_label(rank: int, ranks: int) -> str | None:
    """The legend's text for the line of a rank: all if they are few, else the first, a middle one and the last."""
    if ranks <= FEW_RANKS:
        return f"rank {rank}"
    ends = {1: "rank 1 (dark)", (ranks + 1) // 2: f"rank {(ranks + 1) // 2}", ranks: f"rank {ranks} (light)"}
    return ends.get(rank)


def plot_alignment(ax: Axes, alignment: ArrayLike) -> Axes:
    """Draw the magnitudes of an alignment matrix as an image with a fixed scale from 0 to 1, row 1 at the top.

    Args:
        ax: Axes to draw on.
        alignment: The matrix A (k, l).

    Returns:
        The axes; the image, for a colour bar, is the last of `ax.images`.
    """
    magnitudes = np.abs(np.asarray(alignment))
    rows, columns = magnitudes.shape
    ax.imshow(magnitudes, vmin=0, vmax=1, cmap="viridis", extent=(0.5, columns + 0.5, rows + 0.5, 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("left singular vector of $W_1$")
    ax.set_ylabel("right singular vector of $W_2$")
    return ax


def plot_order(
    ax: Axes, steps: ArrayLike, errors: ArrayLike, slope: float, *, reference: float | None = None, **style: Any
) -> Axes:
    """Draw errors against step sizes on logarithmic axes, with a line of the given slope through their centre.

    Args:
        ax: Axes to draw on.
        steps: Step sizes (n,).
        errors: Errors (n,).
        slope: Slope of the line, in log error per log step.
        reference: Slope of another line through the same centre, dashed and grey: what theory predicts.
        **style: Passed to the points; without a colour, the next of PALETTE.

    Returns:
        The axes.
    """
    steps, style = np.asarray(steps), {"linestyle": "none", "marker": "o", **coloured(ax, style)}
    log_steps, log_errors = np.log(steps), np.log(np.asarray(errors))
    ax.loglog(steps, errors, **style)
    ends = np.array([log_steps.min(), log_steps.max()])

    def through_centre(slope: float, **look: Any) -> None:
        ax.loglog(np.exp(ends), np.exp(log_errors.mean() + slope * (ends - log_steps.mean())), linewidth=1, **look)

    through_centre(slope, color=style["color"])
    if reference is not None:
        through_centre(reference, color=FAINT, linestyle="--", zorder=1, label=f"slope {reference:g}, for reference")
    ax.set_xscale("log", base=2)  # learning rates are usually halved
    ax.set_xlabel("learning rate")
    return ax
