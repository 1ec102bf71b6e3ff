"""The report of the real-scale check as one picture."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dyncollapse.bridge.evaluation.pictures import plot_by_rank
from dyncollapse.plotting import LEVEL, PALETTE, label_panels

ROUNDING = 1e-16  # of the largest eigenvalue: smaller ones are rounding of float64
KINDS = {"bare": "network alone", "memory": "device memory", "mixed": "workers crop", "workers": "workers augment"}


def draw_report(report: Mapping[str, Any]) -> Figure:
    """Draw training rates, spectra, toy ensembles and the losses of the killed run.

    Args:
        report: Values of report.json.

    Returns:
        A figure with four axes; those of parts without a result say so.
    """
    figure = Figure(figsize=(11, 7), layout="constrained")
    parts = {part["number"]: part["values"] for part in report["parts"]}
    panels = ((1, plot_rates), (2, plot_spectra), (4, plot_ensembles), (5, plot_losses))
    for axes, (number, plot) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        if values := parts.get(number):
            plot(axes, values)
        else:
            axes.text(0.5, 0.5, f"part {number}: not measured", ha="center", transform=axes.transAxes)
            axes.set_axis_off()
    label_panels(figure.axes)
    return figure


def plot_rates(axes: Axes, values: Mapping[str, Any]) -> Axes:
    """Images per second of each variant: the network alone, and training by each pipeline."""
    names, width = list(values["rates"]), 0.8 / len(KINDS)
    for k, (kind, label) in enumerate(KINDS.items()):
        offset = (k - (len(KINDS) - 1) / 2) * width
        rows = [(place, row) for place, row in enumerate(values["rates"].values()) if row.get(kind) is not None]
        bars = axes.bar(
            [place + offset for place, _ in rows], [row[kind] for _, row in rows], width, label=label, color=PALETTE[k]
        )
        axes.bar_label(bars, [f"{100 * row[kind] / row['bare']:.0f}%" for _, row in rows], fontsize=7)
    axes.set_xticks(np.arange(len(names)), [name.replace("-", "\n") for name in names])
    axes.set_ylabel("images/s, each as two views")
    axes.set_title(f"training, {values['batch']} pairs a batch", fontsize="medium")
    axes.margins(y=0.35)
    axes.legend(frameon=False, fontsize="small", ncols=2, loc="upper center", columnspacing=1, handlelength=1)
    return axes


def plot_spectra(axes: Axes, values: Mapping[str, Any]) -> Axes:
    """Covariance eigenvalues of representation and embedding, down to the rounding of float64."""
    for space, measured in values["spectra"].items():
        plot_by_rank(axes, measured["eigenvalues"], label=f"{space}, {measured['dim']} dimensions")
    largest = max(measured["eigenvalues"][0] for measured in values["spectra"].values())
    axes.set_ylim(bottom=max(ROUNDING * largest, axes.get_ylim()[0]))
    axes.set_ylabel("covariance eigenvalue")
    axes.set_title(f"spectra of {values['images']} images", fontsize="medium")
    axes.legend(frameon=False, fontsize="small")
    return axes


def plot_ensembles(axes: Axes, values: Mapping[str, Any]) -> Axes:
    """Run-steps per second on the CPU and on the device, and the device's floor."""
    rates = values["run_steps_per_second"]
    labels = {"cpu": "CPU", "device": "device", "floor": "floor of\nthe device"}
    bars = axes.bar(list(labels.values()), [rates[name] for name in labels], color=[*PALETTE[:2], LEVEL])
    axes.bar_label(bars, fmt="{:.3g}", fontsize="small")
    axes.set_yscale("log")
    axes.margins(y=0.2)
    axes.set_ylabel("run-steps/s")
    axes.set_title(f"toy ensembles, {values['runs']} runs at once", fontsize="medium")
    return axes


def plot_losses(axes: Axes, values: Mapping[str, Any]) -> Axes:
    """Losses of the uninterrupted run and of the one that was killed and resumed."""
    steps = np.arange(1, len(values["loss"]) + 1)
    axes.plot(steps, values["loss"], label="uninterrupted", color=PALETTE[0], linewidth=3, alpha=0.4)
    axes.plot(
        steps[: len(values["resumed_loss"])], values["resumed_loss"], color=PALETTE[1], label="killed and resumed"
    )
    axes.axvline(values["died_at"], color=LEVEL, linestyle="--", linewidth=1, label="SIGKILL")
    axes.set(xlabel="step", ylabel="contrastive loss")
    axes.set_title("checkpoint, kill, resume", fontsize="medium")
    axes.legend(frameon=False, fontsize="small")
    return axes
