"""Pictures of runs: spectra of both spaces, curves of training, top-1 against the size of the sub-vector."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dyncollapse.bridge.training.run_folder import Run
from dyncollapse.bridge.training.schemas import LogLine, MonitorLine
from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.plotting import plot_eigenvalues, plot_ratios

NAMES: dict[str, str] = {
    "mlp": "SimCLR, nonlinear projector",
    "linear": "SimCLR, linear projector",
    "none": "SimCLR, no projector",
    "low-rank-diagonal": "DirectCLR",
}
COLOURS = {"mlp": "C0", "linear": "C1", "none": "C2", "low-rank-diagonal": "C3"}


LOWEST = 1e-12  # of the largest eigenvalue, as far down as relative spectra are drawn: rounding in float32


def plot_relative_spectra(ax: Axes, spectra: Mapping[str, ArrayLike], title: str = "") -> None:
    """Draw covariance spectra, each over its largest eigenvalue, on a log axis.

    Args:
        ax: Where to draw.
        spectra: Eigenvalues, largest first, by the projector's name in NAMES.
        title: Of the axes.
    """
    for head, values in spectra.items():
        spectrum = np.asarray(values)
        relative = spectrum / spectrum[0]
        ax.plot(
            np.arange(1, len(relative) + 1),
            np.where(relative > 0, relative, np.nan),
            color=COLOURS[head],
            label=NAMES[head],
        )
    ax.set_yscale("log")
    ax.set_ylim(bottom=max(LOWEST, ax.get_ylim()[0]))
    ax.set_xlabel("dimension, by variance")
    ax.set_ylabel("eigenvalue, over the largest")
    ax.set_title(title, fontsize="medium")
    ax.legend(frameon=False, fontsize="small")


def plot_d0(ax: Axes, points: Sequence[tuple[int, float, float]], references: Mapping[str, float]) -> None:
    """Draw top-1 of DirectCLR over d0, and of other projectors as lines.

    Args:
        ax: Where to draw.
        points: d0, top-1 and its standard error, both in percent.
        references: Top-1 in percent by the projector's name in NAMES.
    """
    d0, top1, error = (np.asarray(column) for column in zip(*sorted(points), strict=True))
    ax.errorbar(
        d0, top1, error, fmt="o-", color=COLOURS["low-rank-diagonal"], capsize=2, label=NAMES["low-rank-diagonal"]
    )
    for head, value in references.items():
        ax.axhline(value, color=COLOURS[head], linestyle="--", linewidth=1, label=NAMES[head])
    ax.set_xscale("log", base=2)
    ax.set_xlabel("dimensions that the loss sees, $d_0$")
    ax.set_ylabel("linear probe, top-1 (%)")
    ax.legend(frameon=False, fontsize="small")


def draw_curves(log: Sequence[LogLine], monitor: Sequence[MonitorLine]) -> Figure:
    """Draw a run's loss and, where they were monitored, effective ranks and the last spectra of both spaces.

    Args:
        log: Lines of log.jsonl, by `read_log`.
        monitor: Lines of monitor.jsonl, by `read_monitor`.

    Returns:
        A row of one or three axes.
    """
    figure = Figure(figsize=(9 if monitor else 4, 3.2), layout="constrained")
    axes = figure.subplots(1, 3 if monitor else 1, squeeze=False)[0]
    axes[0].plot([line["step"] for line in log], [line["loss"] for line in log], ".-", markersize=3, linewidth=1)
    axes[0].set(xlabel="step", ylabel="contrastive loss")
    for space, colour in (("representation", "C0"), ("embedding", "C1")) if monitor else ():
        whole = [line for line in monitor if f"{space}_spectrum" in line]
        seen = [line for line in whole if line.get(f"{space}_effective_rank") is not None]
        if not seen:
            continue
        rank = [line[f"{space}_effective_rank"] for line in seen]
        axes[1].plot([line["step"] for line in seen], rank, ".-", color=colour, label=space, linewidth=1)
        spectrum = np.asarray(seen[-1][f"{space}_spectrum"])
        axes[2].plot(
            np.arange(1, len(spectrum) + 1), np.where(spectrum > 0, spectrum, np.nan), color=colour, label=space
        )
        axes[1].set(xlabel="step", ylabel="effective rank", ylim=(0, None))
        axes[2].set(xlabel="dimension, by variance", ylabel="covariance eigenvalue, last window", yscale="log")
        axes[1].legend(frameon=False, fontsize="small")
        axes[2].legend(frameon=False, fontsize="small")
    return figure


def draw_spaces(reports: Mapping[str, EmbeddingReport]) -> Figure:
    """Draw the spectrum of each space and, where other views were given, rho and both sides of it.

    Args:
        reports: A report by the name of each space.

    Returns:
        A row of axes for each space.
    """
    compared = any(report.ratios is not None for report in reports.values())
    figure = Figure(figsize=(11 if compared else 4.5, 3.3 * len(reports)), layout="constrained")
    grid = figure.subplots(len(reports), 3 if compared else 1, squeeze=False)
    for axes, (space, report) in zip(grid, reports.items(), strict=True):
        plot_eigenvalues(axes[0], report.spectrum, report.noise_floor, report.verdict.threshold)
        axes[0].set_ylabel(f"{space}: covariance eigenvalue")
        pairs = report.input_pairs or report.pairs
        if report.ratios is None or pairs is None or not len(report.ratios):
            continue
        for values, name in ((pairs.data, r"data side, $\Sigma_0$"), (pairs.augmentation, r"augmentation, $\Sigma_1$")):
            eigenvalues = np.linalg.eigvalsh(values.cpu().numpy())[::-1]
            axes[1].plot(
                np.arange(1, len(eigenvalues) + 1),
                np.where(eigenvalues > 0, eigenvalues, np.nan),
                label=name,
                linewidth=1,
            )
        axes[1].set(xlabel="dimension, by variance", ylabel="eigenvalue", yscale="log")
        axes[1].legend(frameon=False, fontsize="small")
        plot_ratios(axes[2], report.ratios)
    return figure


def draw_check(runs: Sequence[Run]) -> Figure:
    """Draw small-scale versions of the paper's Figures 2, 7b, 9 and 12.

    Args:
        runs: Runs of any projectors; of each the first seed is drawn.

    Returns:
        Four axes.
    """
    firsts: dict[str, Run] = {}
    points = []
    for run in sorted(runs, key=lambda run: run.recipe.seed):
        if run.diagnosis is None:
            continue
        swept = run.recipe.head == "low-rank-diagonal" and run.recipe.d0 is not None
        if run.recipe.head in NAMES and not swept:
            firsts.setdefault(run.recipe.head, run)
        if run.recipe.head == "low-rank-diagonal" and run.recipe.seed == 0 and (probe := run.probe()) is not None:
            points.append((run.facts["embedding_dim"], probe["top1"], probe["error"]))
    figure = Figure(figsize=(9, 6.6), layout="constrained")
    (two, seven), (nine, twelve) = figure.subplots(2, 2)
    space = {head: run.diagnosis["spaces"] for head, run in firsts.items() if run.diagnosis}
    if "mlp" in space:
        embedding = space["mlp"]["embedding"]
        threshold = embedding["verdict"]["threshold"]
        plot_eigenvalues(two, embedding["spectrum"], embedding["noise_floor"], threshold, color=COLOURS["mlp"])
        two.set_title("as Fig. 2: embedding of SimCLR", fontsize="medium", pad=18)
    everyone = {head: space[head]["representation"]["spectrum"] for head in NAMES if head in space}
    with_and_without = {head: everyone[head] for head in everyone if head in ("mlp", "none")}
    plot_relative_spectra(seven, with_and_without, "as Fig. 7b: representation")
    plot_relative_spectra(nine, everyone, "as Fig. 9: representation")
    if points:
        known = ((head, firsts[head].top1()) for head in firsts if head in ("mlp", "none"))
        references = {head: top1 for head, top1 in known if top1 is not None}
        plot_d0(twelve, points, references)
        twelve.set_title("as Fig. 12: size of the sub-vector", fontsize="medium")
    return figure
