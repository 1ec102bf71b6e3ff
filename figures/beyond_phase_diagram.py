"""Beyond the paper: where strong augmentation collapses a mode, and when, one-sided and two-sided."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from figure import Number, Result, Whole, claim, drawn_with, like, number, plt, record
from matplotlib.colors import LogNorm
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from dyncollapse import (
    GaussianTask,
    Trajectory,
    balanced_init,
    collapse_threshold,
    escape_time,
    growth_rates,
    rest_singular_values,
    train,
)
from dyncollapse.plotting import LEVEL, PALETTE

DIM = 2
# Cells within these factors of a boundary may fall on either side of it: in a/s because of SGD's noise, in time
# because modes saturate, which the escape time neglects.
MARGIN_STRENGTH, MARGIN_TIME = 1.15, 1.5
UNDER = 0.4  # lower end of panel (c), over the start


@record
class Options:
    """Parameters of the phase diagram."""

    points: Whole = number(17, "Number of augmentation strengths a/s between 1/2 and 8.", low=3, high=65)
    time: Number = number(100.0, "Flow time t = lr x steps at the end.", low=10, high=1e4)
    data_var: Number = like("data_var", 0.5)
    start: Number = number(0.01, "Singular value of all directions at the start.", low=1e-4, high=0.1)
    batch_size: Whole = like("batch_size", 64)
    lr: Number = like("lr", 0.05)
    runs: Whole = like("runs", 4)
    seed: Whole = like("seed", 0)


@drawn_with(Options, points=3, runs=2, time=50.0)
def draw(options: Options) -> Result:
    """Draw a mode's singular value over augmentation strength and time, with the boundaries in closed form."""
    strengths = 2.0 ** np.linspace(-1, 3, options.points)
    threshold = collapse_threshold(options.data_var) / options.data_var
    figure, axes = plt.subplots(1, 3, figsize=(7.6, 3.3), width_ratios=(1, 1, 0.85))
    rows: list[dict[str, object]] = []
    judged, farthest = 0, 0.0
    for ax, views, look in zip(axes, ("one-sided", "two-sided"), zip(PALETTE, "o^", strict=False), strict=False):
        time, sizes, cells, off = measured(options, views, strengths, rows)
        judged, farthest = judged + cells, max(farthest, off)
        grid = np.geomspace(strengths[0], strengths[-1], 400)
        rests, rates = closed_forms(grid, views, options.data_var)
        draw_cells(ax, options, (strengths, time, sizes), (grid, rests, rates))
        draw_ends(axes[2], options, (strengths, sizes[-1]), (grid, rests), (views, *look))
    claim(farthest < 0.15, f"survivors end within 15 % of their rest points, not {farthest:.3f}")

    finish(figure, axes, threshold, options)
    return Result(
        figure,
        rows,
        f"""Singular value p of one linear layer trained by SGD on Eq. 2, d = {DIM}, data covariance s I with s = {options.data_var:g}, all directions augmented
with variance a, fresh batches of {options.batch_size}, learning rate {options.lr:g}, {options.runs} runs of seed {options.seed} that start at p = {options.start:g} in all directions;
geometric mean over directions and runs. (a), (b) Cells: p over its start at flow time t, for {options.points} values of a/s;
colours end at a factor of 100. Solid: a = 2s, beyond which one-sided views collapse (rho = a/2s = 1). Dashed: escape time,
log(p*/2p(0))/x0, until which a mode that will grow to its rest point p* waits. (c) p at the end against p* in closed
form (lines); dotted: the start; open triangles: below the axis. Two-sided views have no threshold (rho = a/(s+a) < 1); they suppress p like 1/(s+a).
Survivors end within {100 * farthest:.0f} % of p* (SGD's noise is largest at the strongest augmentation).""",
        f"""for the {judged} of {len(rows)} cells further than a factor {MARGIN_STRENGTH} in a/s and {MARGIN_TIME} in t from a boundary: at a > 2s one-sided,
every singular value is below its start. In all other cells it is above its start, more than p*/2 after the
escape time and less before it, and at the end survivors are within 15 % of p*.""",
    )


def measured(
    options: Options, views: str, strengths: np.ndarray, rows: list[dict[str, object]]
) -> tuple[list[float], np.ndarray, int, float]:
    """Train at every strength; return times, sizes (time, strength), cells judged, and how far survivors are off."""
    cells, judged, farthest, threshold = [], 0, 0.0, collapse_threshold(options.data_var) / options.data_var
    for strength, rest, growth in zip(strengths, *closed_forms(strengths, views, options.data_var), strict=True):
        path = trained(options, GaussianTask.block(DIM, DIM, strength * options.data_var, options.data_var, views))
        kept = path.time >= 1
        time, sigma = path.time[kept].tolist(), path.singular_values[kept].flatten(1)
        # All modes are alike, and start alike: their geometric mean over the runs is one mode's size.
        cells.append(sigma.log().mean(-1).exp().numpy())
        escape = escape_time(options.start, rest / 2, growth)
        for t, values, size in zip(time, sigma, cells[-1].tolist(), strict=True):
            judged += check_cell(views, strength, strength / threshold, t, values, size, rest, escape, options.start)
            row = {"views": views, "strength": strength, "time": t, "singular_value": size}
            row |= {"smallest": float(values.min()), "largest": float(values.max())}
            rows.append(row | {"rest_singular_value": rest, "escape_time": escape})
        if views == "two-sided" or strength * MARGIN_STRENGTH < threshold:
            farthest = max(farthest, abs(float(cells[-1][-1]) / rest - 1))
    return time, np.array(cells).T, judged, farthest


def draw_cells(
    ax: plt.Axes,
    options: Options,
    cells: tuple[np.ndarray, list[float], np.ndarray],
    closed: tuple[np.ndarray, Sequence[float], Sequence[float]],
) -> None:
    """Draw sizes over their start by strength and time, with the escape time."""
    (strengths, time, sizes), (grid, rests, rates), norm = cells, closed, LogNorm(0.01, 100)
    ax.pcolormesh(strengths, time, sizes / options.start, shading="nearest", cmap="PuOr", norm=norm, rasterized=True)
    escapes = [escape_time(options.start, rest / 2, rate) for rest, rate in zip(rests, rates, strict=True)]
    shown = [t if t < 2 * options.time else math.nan for t in escapes]
    ax.plot(grid, shown, "--", color=PALETTE[6])


def draw_ends(
    ax: plt.Axes,
    options: Options,
    ends: tuple[np.ndarray, np.ndarray],
    closed: tuple[np.ndarray, Sequence[float]],
    look: tuple[str, str, str],
) -> None:
    """Draw the sizes at the end, and the rest points in closed form."""
    (strengths, sizes), (views, color, marker), floor = ends, look, UNDER * options.start
    ax.plot(*closed, color=color, linewidth=1.2)
    seen = sizes > floor
    ax.plot(strengths[seen], sizes[seen], marker, color=color, label=views)
    # Below the axis by many decades: say where, with arrows.
    below = np.full((~seen).sum(), 1.15 * floor)
    ax.plot(strengths[~seen], below, "v", color=color, markerfacecolor="none")


def finish(figure: plt.Figure, axes: list[plt.Axes], threshold: float, options: Options) -> None:
    """Label the regions and the axes, and name all lines."""
    end, start = options.time, options.start
    axes[0].axvline(threshold, color=PALETTE[6])
    for x, y, text, color in ((0.7, 25, "alive", "w"), (0.62, 1.9, "waiting", "k"), (4.3, 25, "collapsed", "w")):
        axes[0].text(x, y, text, color=color, ha="left" if color == "k" else "center")
    for x, y, text, color in ((2, 25, "alive", "w"), (2, 1.3, "waiting", "k")):
        axes[1].text(x, y, text, color=color, ha="center")
    titles = ("(a) one-sided views", "(b) two-sided views", f"(c) at the end, $t$ = {end:g}")
    for ax, title in zip(axes, titles, strict=True):
        ax.set(xscale="log", yscale="log", title=title, xlabel="augmentation / data, $a/s$")
        ax.xaxis.set_major_locator(FixedLocator([0.5, 1, 2, 4, 8]))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
    for ax in axes[:2]:
        ax.set_ylim(1, end)
    axes[0].set_ylabel("flow time $t$")
    axes[1].tick_params(labelleft=False)
    axes[2].axhline(start, color=LEVEL, linestyle=":", label="start")
    axes[2].set(ylim=(UNDER * start, 3), ylabel="singular value $p$")
    axes[2].legend(loc="upper right", borderaxespad=0, handlelength=1)
    looks = [
        {"color": PALETTE[6], "label": "$a = 2s$"},
        {"color": PALETTE[6], "linestyle": "--", "label": "escape time"},
        {"color": LEVEL, "label": "(c) rest point, closed form"},
        {"color": LEVEL, "marker": "v", "mfc": "none", "linestyle": "none", "label": "(c) below the axis"},
    ]
    figure.legend(handles=[plt.Line2D([], [], **look) for look in looks], loc="outside lower center", ncols=4)
    figure.colorbar(axes[0].collections[0], ax=axes[:2], extend="both", pad=0.02, aspect=28).ax.set_title(
        r"$p\,/\,p(0)$"
    )


def trained(options: Options, task: GaussianTask) -> Trajectory:
    """SGD from a start at which all modes are alike."""
    generator = torch.Generator().manual_seed(options.seed)
    weights = balanced_init([DIM, DIM], generator, (options.runs,), options.start, 0.0)
    stream = task.stream(options.batch_size, generator, (options.runs,))
    return train(weights, stream, lr=options.lr, steps=round(options.time / options.lr), records=28)


def closed_forms(strengths: np.ndarray, views: str, data_var: float) -> tuple[list[float], list[float]]:
    """Rest points and growth rates at zero of modes with a/s = each strength, from the weakest on."""
    data = data_var * torch.eye(len(strengths)).double()
    task = GaussianTask(data, torch.tensor(strengths) * data, views)
    return rest_singular_values(task).tolist(), growth_rates(task).tolist()


def check_cell(
    views: str,
    strength: float,
    excess: float,
    t: float,
    values: torch.Tensor,
    size: float,
    rest: float,
    escape: float,
    start: float,
) -> bool:
    """Assert what the closed forms predict for a cell; False where it is too close to a boundary for all of that."""
    where = f"{views}, a/s = {strength:.3g}, t = {t:.3g}: singular values {values.tolist()}"
    if views == "one-sided" and 1 / MARGIN_STRENGTH < excess < MARGIN_STRENGTH:
        return False
    if rest == 0:
        claim(bool((values < start).all()), f"{where} all below the start: collapsing")
        return True
    claim(bool((values > start).all()), f"{where} all above the start: not collapsing")
    if escape / MARGIN_TIME < t < escape * MARGIN_TIME:
        return False
    alive = t > escape
    claim((size > rest / 2) is alive, f"{where} on average {'above' if alive else 'below'} half of {rest:.3g}")
    return True


if __name__ == "__main__":
    draw.main()
