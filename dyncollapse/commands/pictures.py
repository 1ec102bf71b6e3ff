"""The pictures of a simulation. This module imports Matplotlib: import it when drawing."""

from matplotlib.figure import Figure

from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.picture_options import Plot
from dyncollapse.simulation.pictures import plot_ends, plot_layers, plot_records


def draw_outcome(outcome: Outcome, name: Plot) -> Figure:
    """Draw one picture of a simulation: its spectrum at the end, its paths over time, or the alignment of two layers.

    The alignment is that of the first dynamics that ran.
    """
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    ax = figure.add_subplot()
    match name:
        case "spectrum":
            plot_ends(ax, outcome)
            ax.set_title(_setting(outcome.simulation.configuration), fontsize="medium")
        case "paths":
            plot_records(ax, outcome.trajectories)
        case "alignment":
            first, path = next(iter(outcome.trajectories.items()))
            plot_layers(ax, path.final(), layer=1)
            ax.set_title(f"end of {first}, first run", fontsize="medium")
    return figure


def _setting(c: Configuration) -> str:
    """The setting of a simulation in two lines."""
    layers = f"{c.depth} {c.activation} layer{'s' * (c.depth > 1)}"
    strength = f"k = {c.aug_strength:g} on {c.aug_dim} of {c.dim}" if c.aug_cov is None else f"covariance {c.aug_cov}"
    step = c.lr * c.steps / (1 - c.momentum)
    return f"{c.loss}, {c.views} views, {layers}, d = {c.dim}\naugmentation {strength}, t = {step:g}, runs: {c.runs}"
