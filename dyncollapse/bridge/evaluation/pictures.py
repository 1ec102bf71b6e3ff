"""Pictures of runs: spectra of both spaces, training curves, and top-1 against the size of the sub-vector."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from dyncollapse.bridge.training.run_folder import Run
from dyncollapse.bridge.training.schemas import LogLine, MonitorLine
from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.plotting import plot_eigenvalues, plot_ratios, set_ranks

NAMES: dict[str, str] = {
    "mlp": "SimCLR, nonlinear projector",
    "linear": "SimCLR, linear projector",
    "none": "SimCLR, no projector",
    "low-rank-diagonal": "DirectCLR",
}
COLOURS = {"mlp": "C0", "linear": "C1", "none": "C2", "low-rank-diagonal": "C3"}
LOWEST = 1e-12  # lower end of relative spectra: float32 features have no variance below it that is not rounding


def plot_relative_spectra(ax: Axes, spectra: Mapping[str, ArrayLike], title: str = "") -> None:
    """Draw covariance spectra, each divided by its largest eigenvalue, on a log axis.

    Args:
        ax: Where to draw.
        spectra: Eigenvalues (d,), largest first, by projector: "mlp", "linear", "none" or "low-rank-diagonal".
        title: Title of the axes.

    Examples:
        >>> ax = Figure().subplots()
        >>> plot_relative_spectra(ax, {"mlp": [4.0, 2.0, 0.1], "none": [9.0, 0.9, 0.0]})
        >>> ax.get_yscale(), [text.get_text() for text in ax.get_legend().get_texts()]
        ('log', ['SimCLR, nonlinear projector', 'SimCLR, no projector'])
    """
    for head, values in spectra.items():
        spectrum = np.asarray(values)
        plot_by_rank(ax, spectrum / spectrum[0], color=COLOURS[head], label=NAMES[head])
    ax.set_ylim(bottom=max(LOWEST, ax.get_ylim()[0]))
    ax.set_ylabel("eigenvalue, over the largest")
    ax.set_title(title, fontsize="medium")
    ax.legend(frameon=False, fontsize="small")


def plot_by_rank(ax: Axes, eigenvalues: ArrayLike, **style: Any) -> None:
    """Draw eigenvalues (d,), largest first, as a line on a log axis; values of 0 and below are left out.

    Args:
        ax: Where to draw; it may hold other spectra.
        eigenvalues: The spectrum.
        **style: Keyword arguments of `Axes.plot`.
    """
    values = np.asarray(eigenvalues)
    ax.plot(np.arange(1, len(values) + 1), np.where(values > 0, values, np.nan), **style)
    ax.set_yscale("log")
    set_ranks(ax, max(len(line.get_xdata()) for line in ax.get_lines()))  # type: ignore[arg-type]
    ax.set_xlabel("dimension, by variance")


def plot_d0(ax: Axes, points: Sequence[tuple[int, float, float]], references: Mapping[str, float]) -> None:
    """Draw DirectCLR's top-1 against d0, and the top-1 of other projectors as horizontal lines.

    Args:
        ax: Where to draw.
        points: d0, top-1 and its standard error, the last two in percent.
        references: Top-1 in percent by projector: "mlp", "linear" or "none".

    References:
        Jing et al. (2022), arXiv:2110.09348, Figure 12.

    Examples:
        >>> ax = Figure().subplots()
        >>> plot_d0(ax, [(64, 97.0, 0.8), (4, 91.0, 1.3)], {"none": 98.0})
        >>> [tick.get_text() for tick in ax.get_xticklabels()]
        ['4', '64']
    """
    d0, top1, error = (np.asarray(column) for column in zip(*sorted(points), strict=True))
    ax.errorbar(
        d0, top1, error, fmt="o-", color=COLOURS["low-rank-diagonal"], capsize=2, label=NAMES["low-rank-diagonal"]
    )
    for head, value in references.items():
        ax.axhline(value, color=COLOURS[head], linestyle="--", linewidth=1, label=NAMES[head])
    ax.set_xscale("log", base=2)
    ax.set_xticks(d0, [str(size) for size in d0])
    ax.set_xlabel("dimensions that the loss sees, $d_0$")
    ax.set_ylabel("linear probe, top-1 (%)")
    ax.legend(frameon=False, fontsize="small")


def draw_curves(log: Sequence[LogLine], monitor: Sequence[MonitorLine]) -> Figure:
    """Draw a run's loss and, if spaces were monitored, their effective ranks and last spectra.

    Args:
        log: Lines of log.jsonl, each with `step` and `loss`.
        monitor: Lines of monitor.jsonl, with effective ranks and spectra of both spaces.

    Returns:
        A figure with one or three axes.

    Examples:
        >>> figure = draw_curves([{"step": 20, "loss": 5.1}, {"step": 40, "loss": 4.6}], monitor=[])
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['contrastive loss']
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
        plot_by_rank(axes[2], np.asarray(seen[-1][f"{space}_spectrum"]), color=colour, label=space)
        axes[1].set(xlabel="step", ylabel="effective rank", ylim=(0, None))
        axes[2].set_ylabel("covariance eigenvalue, last window")
        axes[1].legend(frameon=False, fontsize="small")
        axes[2].legend(frameon=False, fontsize="small")
    for ax in axes[:2]:
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def draw_spaces(reports: Mapping[str, EmbeddingReport]) -> Figure:
    """Draw the spectrum of each space and, if two views were given, the spectra of Sigma0 and Sigma1 and rho.

    rho are the generalised eigenvalues of augmentation against data, Sigma1 u = rho Sigma0 u. For the embedding of a
    linear projector they are those of its inputs.

    Args:
        reports: A report by the name of each space.

    Returns:
        A figure with a row of axes for each space.

    Examples:
        >>> import torch
        >>> from dyncollapse import diagnose
        >>> z = torch.randn(300, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> figure = draw_spaces({"embedding": diagnose(z, z + 0.1 * z.flip(0), views="two-sided")})
        >>> [axes.get_ylabel() for axes in figure.axes[:2]]
        ['embedding: covariance eigenvalue', 'embedding: eigenvalue']
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
            plot_by_rank(axes[1], np.linalg.eigvalsh(values.cpu().numpy())[::-1], label=name, linewidth=1)
        axes[1].set_ylabel(f"{'inputs' if report.input_pairs else space}: eigenvalue")
        axes[1].legend(frameon=False, fontsize="small")
        plot_ratios(axes[2], report.ratios)
    return figure


def draw_check(runs: Sequence[Run]) -> Figure:
    """Draw small-scale versions of the paper's Figures 2, 7b, 9 and 12.

    Args:
        runs: Runs of any projectors; of each projector the run with the lowest seed is drawn.

    Returns:
        A figure with four axes; those without runs say so.

    References:
        Jing et al. (2022), arXiv:2110.09348.

    Examples:
        >>> [text.get_text() for axes in draw_check([]).axes for text in axes.texts]
        ['no run yet', 'no run yet', 'no run yet', 'no run yet']
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
    for axes, spectra, title in ((seven, with_and_without, "as Fig. 7b"), (nine, everyone, "as Fig. 9")):
        if spectra:
            plot_relative_spectra(axes, spectra, f"{title}: representation")
    if points:
        known = ((head, firsts[head].top1()) for head in firsts if head in ("mlp", "none"))
        references = {head: top1 for head, top1 in known if top1 is not None}
        plot_d0(twelve, points, references)
        twelve.set_title("as Fig. 12: size of the sub-vector", fontsize="medium")
    for axes in (two, seven, nine, twelve):
        if not axes.has_data():
            axes.text(0.5, 0.5, "no run yet", ha="center", transform=axes.transAxes)
            axes.set_axis_off()
    return figure
