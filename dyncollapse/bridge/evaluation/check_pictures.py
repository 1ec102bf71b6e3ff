"""Pictures of a comparison: spectra by projector, top-1 by row, and top-1 against the size of the sub-vector."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dyncollapse.bridge.evaluation.orders import orders
from dyncollapse.bridge.evaluation.paper_rows import DIRECT, TableRow, table
from dyncollapse.bridge.evaluation.pictures import plot_by_rank
from dyncollapse.bridge.spaces import SpaceName
from dyncollapse.bridge.training.run_folder import Run
from dyncollapse.plotting import LEVEL, PALETTE, plot_eigenvalues

NAMES: dict[str, str] = {
    "mlp": "SimCLR, nonlinear projector",
    "linear": "SimCLR, linear projector",
    "none": "SimCLR, no projector",
    "low-rank-diagonal": "DirectCLR",
}
COLOURS = dict(zip(NAMES, PALETTE, strict=False))
BAND = "range over seeds"
LOWEST = 1e-12  # lower end of relative spectra: float32 features have no variance below it that is not rounding


def plot_relative_spectra(ax: Axes, spectra: Mapping[str, ArrayLike], title: str = "") -> Axes:
    """Draw covariance spectra, each divided by its largest eigenvalue, on a log axis.

    Args:
        ax: Where to draw.
        spectra: Eigenvalues, largest first, by projector: "mlp", "linear", "none" or "low-rank-diagonal". Either (d,);
            or (k, d) of k seeds, drawn as their geometric mean in a band from the smallest to the largest.
        title: Title of the axes.

    Returns:
        The axes.

    Examples:
        >>> ax = Figure().subplots()
        >>> ax = plot_relative_spectra(ax, {"mlp": [4.0, 2.0, 0.1], "none": [[9.0, 0.9, 0.0], [8.0, 0.7, 0.1]]})
        >>> ax.get_yscale(), [text.get_text() for text in ax.get_legend().get_texts()]
        ('log', ['SimCLR, nonlinear projector', 'SimCLR, no projector', 'range over seeds'])
    """
    for head, values in spectra.items():
        seeds = np.atleast_2d(np.asarray(values, dtype=np.float64))
        largest = np.where(seeds[:, :1] > 0, seeds[:, :1], 1.0)
        _plot_seeds(ax, seeds / largest, COLOURS[head], NAMES[head])
    ax.set_ylim(bottom=max(LOWEST, ax.get_ylim()[0]))
    ax.set_ylabel("eigenvalue, over the largest")
    ax.set_title(title, fontsize="medium")
    ax.legend(frameon=False, fontsize="small")
    return ax


def _plot_seeds(ax: Axes, seeds: Float[np.ndarray, "k d"], colour: str, label: str) -> None:
    """Draw the geometric mean over seeds by rank, and a band from the smallest to the largest."""
    mean = np.exp(np.log(np.where(seeds > 0, seeds, np.nan)).mean(0))
    plot_by_rank(ax, np.nan_to_num(mean), color=colour, label=label)
    _fill_band(ax, seeds, colour)


def _fill_band(ax: Axes, seeds: Float[np.ndarray, "k d"], colour: str) -> None:
    """Fill from the smallest to the largest value of several seeds, where all are above 0."""
    if len(seeds) > 1:
        # One entry of the legend stands for all bands of the axes.
        label = None if BAND in ax.get_legend_handles_labels()[1] else BAND
        low, high = (np.where(seeds.min(0) > 0, ends, np.nan) for ends in (seeds.min(0), seeds.max(0)))
        ax.fill_between(np.arange(1, seeds.shape[1] + 1), low, high, color=colour, alpha=0.25, linewidth=0, label=label)


def plot_d0(ax: Axes, points: Sequence[tuple[int, float, float]], references: Mapping[str, float]) -> Axes:
    """Draw DirectCLR's top-1 against d0, and the top-1 of other projectors as horizontal lines.

    Args:
        ax: Where to draw.
        points: d0, top-1 and its standard error, the last two in percent.
        references: Top-1 in percent by projector: "mlp", "linear" or "none".

    Returns:
        The axes.

    References:
        Jing et al. (2022), arXiv:2110.09348, Figure 12.

    Examples:
        >>> ax = Figure().subplots()
        >>> ax = plot_d0(ax, [(64, 97.0, 0.8), (4, 91.0, 1.3)], {"none": 98.0})
        >>> [tick.get_text() for tick in ax.get_xticklabels()]
        ['4', '64']
    """
    d0, top1, error = (np.asarray(column) for column in zip(*sorted(points), strict=True))
    ax.errorbar(d0, top1, error, fmt="o-", color=COLOURS[DIRECT], capsize=2, label=NAMES[DIRECT])
    for head, value in references.items():
        ax.axhline(value, color=COLOURS[head], linestyle="--", linewidth=1, label=NAMES[head])
    ax.set_xscale("log", base=2)
    ax.set_xticks(d0, [str(size) for size in d0])
    ax.set_xlabel("dimensions that the loss sees, $d_0$")
    ax.set_ylabel("linear probe, top-1 (%)")
    ax.legend(frameon=False, fontsize="small")
    return ax


def draw_check(runs: Sequence[Run]) -> Figure:
    """Draw small-scale versions of the paper's Figures 2, 7b, 9, 10 and 12, and the top-1 of every row.

    Several seeds of a projector are drawn as a band.

    Args:
        runs: Runs of any projectors.

    Returns:
        A figure with six axes; those without runs say so.

    References:
        Jing et al. (2022), arXiv:2110.09348.

    Examples:
        >>> [text.get_text() for axes in draw_check([]).axes for text in axes.texts]
        ['no run yet', 'no run yet', 'no run yet', 'no run yet', 'no run yet', 'no run yet']
    """
    rows = table([run for run in runs if run.diagnosis is not None])
    main = {row.row.head: row.runs for row in reversed(rows) if row.row.head in NAMES and not row.note}
    main = {head: main[head] for head in NAMES if head in main}
    figure = Figure(figsize=(12, 6.8), layout="constrained")
    (two, seven, nine), (ten, twelve, top1) = figure.subplots(2, 3)
    figure.suptitle("\n".join(filter(None, (_setting(runs), _orders(rows)))), fontsize="medium")
    _draw_embedding(two, main.get("mlp", []))
    everyone = {head: _spectra(found, "representation") for head, found in main.items()}
    _draw_relative(seven, {head: everyone[head] for head in everyone if head in ("mlp", "none")}, "as Fig. 7b")
    _draw_relative(nine, everyone, "as Fig. 9")
    _draw_sub_vector(ten, main.get(DIRECT, []))
    _draw_sizes(twelve, runs, main)
    _draw_top1(top1, rows)
    for letter, axes in zip("abcdef", figure.axes, strict=True):
        axes.set_title(f"({letter}) {axes.get_title()}", fontsize="medium", pad=18 if axes is two else None)
        if not axes.has_data():
            axes.text(0.5, 0.5, "no run yet", ha="center", transform=axes.transAxes)
            axes.set_axis_off()
    return figure


def _setting(runs: Iterable[Run]) -> str:
    """The data, encoder, epochs and number of seeds of the runs, as the title of a figure."""
    facts = sorted({f"{run.facts['data']} ({run.facts['images']} images), {run.recipe.arch}" for run in runs})
    epochs = sorted({run.recipe.epochs for run in runs})
    seeds = len({run.recipe.seed for run in runs})
    if not facts:
        return ""
    return f"{'; '.join(facts)}; {', '.join(map(str, epochs))} epochs; seeds: {seeds}"


def _orders(rows: Sequence[TableRow]) -> str:
    """SimCLR's projectors by top-1, here and in the paper, and how many of their orders these seeds show."""
    simclr = [row for row in rows if row.row.head in NAMES and row.row.head != DIRECT and not row.note]
    tested = orders([run for row in simclr for run in row.runs])
    if not tested:
        return ""
    probed = [row for row in simclr if any(run.probe() for run in row.runs)]
    here = _listed({row.row.head: _mean_and_spread(row.runs)[0] for row in probed})
    paper = _listed({row.row.head: row.row.paper for row in probed})
    counts = Counter(order["verdict"] for order in tested)
    kinds = (
        (counts["holds"], "holds" if counts["holds"] == 1 else "hold"),
        (counts["reversed"], "reversed"),
        (counts["undecided"], "undecided"),
    )
    said = ", ".join(f"{number} {word}" for number, word in kinds if number)
    return f"top-1: {here}; in the paper: {paper}\nof the paper's {len(tested)} orders of these: {said}"


def _listed(top1: Mapping[str, float]) -> str:
    """Projectors with their top-1, best first."""
    ranked = sorted(top1.items(), key=lambda one: -one[1])
    return ", ".join(f"{NAMES[head].removeprefix('SimCLR, ')} {value:.1f}" for head, value in ranked)


def _spectra(runs: Sequence[Run], space: SpaceName) -> Float[np.ndarray, "k d"]:
    """The covariance spectra of a space, a row for each run."""
    return np.stack([np.asarray(run.diagnosis["spaces"][space]["spectrum"]) for run in runs if run.diagnosis])


def _draw_embedding(ax: Axes, runs: Sequence[Run]) -> None:
    """As Fig. 2: the spectrum of SimCLR's embedding; threshold and noise floor are those of the first seed."""
    if not runs or runs[0].diagnosis is None:
        return
    spectra, first = _spectra(runs, "embedding"), runs[0].diagnosis["spaces"]["embedding"]
    plot_eigenvalues(
        ax, spectra[0], first["noise_floor"], first["verdict"]["threshold"], color=COLOURS["mlp"], label="first seed"
    )
    _fill_band(ax, spectra, COLOURS["mlp"])
    ax.set_title("as Fig. 2: embedding of SimCLR", fontsize="medium", pad=18)


def _draw_relative(ax: Axes, spectra: Mapping[str, ArrayLike], title: str) -> None:
    if spectra:
        plot_relative_spectra(ax, spectra, f"{title}: representation")


def _draw_sub_vector(ax: Axes, runs: Sequence[Run]) -> None:
    """As Fig. 10: the whole representation of DirectCLR has directions that the sub-vector lacks."""
    if not runs:
        return
    _plot_seeds(ax, _spectra(runs, "representation"), COLOURS[DIRECT], "representation")
    _plot_seeds(ax, _spectra(runs, "embedding"), PALETTE[4], "sub-vector that the loss sees")
    ax.set_ylabel("covariance eigenvalue")
    ax.set_title("as Fig. 10: DirectCLR", fontsize="medium")
    ax.legend(frameon=False, fontsize="small")


def _draw_sizes(ax: Axes, runs: Sequence[Run], main: Mapping[str, Sequence[Run]]) -> None:
    """As Fig. 12: top-1 against the size of the sub-vector; bars are the spread over seeds, or one probe's error."""
    sizes: dict[int, list[Run]] = {}
    for run in runs:
        if run.recipe.head == DIRECT and run.top1() is not None:
            sizes.setdefault(run.facts["embedding_dim"], []).append(run)
    if not sizes:
        return
    points = [(size, *_mean_and_spread(found)) for size, found in sizes.items()]
    probed = {head: [run for run in main.get(head, ()) if run.top1() is not None] for head in ("mlp", "none")}
    plot_d0(ax, points, {head: _mean_and_spread(found)[0] for head, found in probed.items() if found})
    ax.set_title("as Fig. 12: size of the sub-vector", fontsize="medium")


def _mean_and_spread(runs: Sequence[Run]) -> tuple[float, float]:
    """Mean top-1 of probed runs and its standard deviation over them; for one run, the standard error of its probe."""
    top1 = [value for run in runs if (value := run.top1()) is not None]
    probe = runs[0].probe()
    error = float(np.std(top1, ddof=1)) if len(top1) > 1 else probe["error"] if probe else 0.0
    return float(np.mean(top1)), error


def _draw_top1(ax: Axes, rows: Sequence[TableRow]) -> None:
    """The top-1 of every row: a dot for each seed and a bar at the mean, with the paper's number in the label."""
    probed = [row for row in rows if any(run.top1() is not None for run in row.runs)]
    if not probed:
        return
    for place, row in enumerate(probed):
        top1 = [value for run in row.runs if (value := run.top1()) is not None]
        colour = COLOURS.get(row.row.head, LEVEL) if not row.note else LEVEL
        ax.plot(top1, [place] * len(top1), "o", color=colour, markersize=4, alpha=0.7)
        ax.plot([np.mean(top1)], [place], "|", color=colour, markersize=14, markeredgewidth=2)
    for marker, size, label in (("o", 4, "one seed"), ("|", 10, "mean")):
        ax.plot([], [], marker, color=LEVEL, label=label, markersize=size)
    ax.legend(frameon=False, fontsize="small")
    labels = [row.name if row.note else f"{row.name} ({row.row.paper:g})" for row in probed]
    ax.set_yticks(range(len(probed)), labels, fontsize="small")
    ax.invert_yaxis()
    ax.set_xlabel("linear probe, top-1 (%)")
    ax.set_title("top-1 of each seed (in the paper)", fontsize="medium")
