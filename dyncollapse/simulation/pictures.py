"""Pictures of a simulation's outcome. This module imports Matplotlib: import it when drawing."""

from collections.abc import Mapping

from matplotlib.axes import Axes

from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.networks import Weights
from dyncollapse.plotting import LEVEL, plot_alignment, plot_paths, plot_spectrum
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.representation import representation_dimensions
from dyncollapse.theory.alignment import alignment_matrix

LINES = {"sgd": ":", "flow": "-", "population": "--"}
SMALLEST = 1e-12  # of the largest value: what is drawn on a logarithmic axis


def plot_ends(ax: Axes, outcome: Outcome) -> Axes:
    """Draw the singular values at the end of every dynamics, with the threshold below which they count as collapsed.

    Args:
        ax: Where to draw.
        outcome: The simulation and its records.

    Returns:
        The axes.
    """
    for name, end in outcome.ends.items():
        sigma = end.singular_value.sort(-1, descending=True).values
        mean, spread = sigma.mean(0).cpu(), sigma.std(0, correction=0).cpu()
        plot_spectrum(ax, mean.numpy(), spread=spread.numpy(), label=name, marker="o", markersize=3)
        kept = representation_dimensions(outcome.simulation, outcome.trajectories[name])
        if kept is not None:
            below = kept.singular_value.sort(-1, descending=True).values.mean(0).cpu().numpy()
            plot_spectrum(ax, below, label=f"{name}, representation", linestyle="--", color=ax.lines[-1].get_color())
    if outcome.simulation.objective.activation != "linear":
        ax.set(xlabel="embedding dimension", ylabel="standard deviation of the embedding")
    if outcome.verdict is not None:
        ax.axhline(outcome.verdict.threshold, color=LEVEL, linestyle=":", label="counts as collapsed below")
    ax.legend(frameon=False)
    return ax


def plot_records(ax: Axes, trajectories: Mapping[str, Trajectory]) -> Axes:
    """Draw singular values over flow time, the mean over runs, from the first rank (dark) to the last (light).

    Args:
        ax: Where to draw.
        trajectories: Records by the name of the dynamics.

    Returns:
        The axes.
    """
    largest = 0.0
    for name, path in trajectories.items():
        sigma = path.singular_values
        values = sigma.flatten(1, -2).mean(1).cpu().numpy() if sigma.ndim > 2 else sigma.cpu().numpy()
        ranks = f", rank 1 (dark) to {values.shape[1]} (light)" if values.shape[1] > 1 else ""
        plot_paths(ax, path.time.cpu().numpy(), values, linestyle=LINES.get(name, "-."), label=f"{name}{ranks}")
        largest = max(largest, float(values.max(initial=0.0)))
    ax.set_yscale("log")
    if largest > 0:
        ax.set_ylim(bottom=max(ax.get_ylim()[0], SMALLEST * largest))
    ax.set_ylabel("singular value of $W$")
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    return ax


def plot_layers(ax: Axes, weights: Weights, layer: int) -> Axes:
    """Draw the magnitudes of the alignment matrix of a layer and the next one, of the first run, with a colour bar.

    Args:
        ax: Where to draw.
        weights: One tensor (*runs, out, in) per layer.
        layer: Number of the lower layer, from 1 on.

    Returns:
        The axes.
    """
    lower, upper = (w.flatten(0, -3)[0] if w.ndim > 2 else w for w in weights[layer - 1 : layer + 1])
    plot_alignment(ax, alignment_matrix(lower, upper).cpu().numpy())
    ax.figure.colorbar(ax.images[-1], ax=ax, label="|A|, entry by entry")
    ax.set_xlabel(f"left singular vector of $W_{{{layer}}}$")
    ax.set_ylabel(f"right singular vector of $W_{{{layer + 1}}}$")
    return ax
