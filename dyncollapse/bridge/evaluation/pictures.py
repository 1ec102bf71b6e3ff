"""Pictures of one run: spectra of both spaces and training curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from dyncollapse.bridge.training.schemas import LogLine, MonitorLine
from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.plotting import ABOVE_LEGEND, PALETTE, coloured, label_panels, plot_eigenvalues, plot_ratios, set_ranks


def plot_by_rank(ax: Axes, eigenvalues: ArrayLike, **style: Any) -> Axes:
    """Draw eigenvalues (d,), largest first, as a line on a log axis; values of 0 and below are left out.

    Args:
        ax: Where to draw; it may hold other spectra.
        eigenvalues: The spectrum.
        **style: Keyword arguments of `Axes.plot`; without a colour, the next of `plotting.PALETTE`.

    Returns:
        The axes.
    """
    values = np.asarray(eigenvalues)
    ax.plot(np.arange(1, len(values) + 1), np.where(values > 0, values, np.nan), **coloured(ax, style))
    ax.set_yscale("log")
    set_ranks(ax, max(len(line.get_xdata()) for line in ax.get_lines()))  # type: ignore[arg-type]
    ax.set_xlabel("dimension, by variance")
    return ax


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
    axes[0].plot([line["step"] for line in log], [line["loss"] for line in log], ".-", color=PALETTE[0], markersize=3)
    axes[0].set(xlabel="step", ylabel="contrastive loss")
    for space, colour in (("representation", PALETTE[0]), ("embedding", PALETTE[1])) if monitor else ():
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
    label_panels(axes)
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
    shown = [ax for ax in grid.flat if ax.has_data()]
    for ax in (one for one in grid.flat if one not in shown):
        ax.set_axis_off()
    label_panels(shown, pad=ABOVE_LEGEND)
    return figure
