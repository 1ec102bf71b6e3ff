"""What the closed forms say of a simulation: rest values, times of escape, and how many dimensions have room."""

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.objective import mean_force
from dyncollapse.model.pairs import Pairs
from dyncollapse.simulation.build import Simulation
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.theory.equilibria import escape_time, growth_rates, rest_singular_values
from dyncollapse.theory.modes import modes

# Pairs of the probe, in batches, that the force is averaged over: a few per cent of it. Larger batches than that, whose
# n x n weights would not fit, differ from infinitely many samples no more than one of this size does.
MOST_PAIRS = 4096


def room(simulation: Simulation) -> int:
    """How many dimensions the layers can pass on: the width of the narrowest.

    What a nonlinearity makes of the inputs may have more dimensions than these, so that only the widths behind it
    count.
    """
    outputs = [w.shape[-2] for w in simulation.weights]
    linear = simulation.objective.activation == "linear" or len(simulation.weights) == 1
    return min([simulation.task.dim, *outputs] if linear else outputs)


def rest_values(simulation: Simulation) -> Tensor | None:
    """Rest values in closed form, or None where there is none: ntxent and ReLU networks."""
    if simulation.objective.loss == "ntxent" or simulation.objective.activation != "linear":
        return None
    return rest_singular_values(simulation.task, simulation.configuration.loss, simulation.configuration.temperature)


def escape_times(
    simulation: Simulation, values: Float[Tensor, "*runs d"], growth: Float[Tensor, " d"] | None = None
) -> Float[Tensor, " d"]:
    """Flow time by which each mode escapes from the given singular values, for linear networks.

    Assumes aligned layers under a constant force `growth`, by default that of infinitely many samples at W = 0:
    balanced layers then take this long, all others less. While other modes still grow, or grow without bound, the
    force of finite batches goes on fading, and escapes come later than this says. The mean over runs is geometric,
    for escape times go with log p (one layer) or powers of it.
    """
    rest, task_modes = rest_values(simulation), modes(simulation.task)
    assert rest is not None
    if growth is None:
        growth = growth_rates(simulation.task, simulation.configuration.loss, simulation.configuration.temperature)
    # An unbounded mode counts as escaped once its embedding variance reaches the kernel's width, 1.
    target = torch.minimum(rest, task_modes.data_var.rsqrt())
    start = values.reshape(-1, simulation.task.dim).log().mean(0).exp()
    depth = simulation.configuration.depth
    modewise = zip(start.tolist(), target.tolist(), growth.tolist(), strict=True)
    return torch.tensor([escape_time(p, p_end, x0, depth) for p, p_end, x0 in modewise], dtype=torch.float64)


def batch_growth(simulation: Simulation, product: Float[Tensor, "runs m d"]) -> Float[Tensor, " d"] | None:
    """v^T X v on batches of the configured size, mean over runs, for the direction v of each of `modes`.

    Once unaugmented modes separate the embeddings, the softmax of a finite batch has little weight left for its
    negatives and every force fades: infinitely many samples would say nothing about how long a dimension waits.
    Among equal modes the directions are P's own. None for losses other than Eq. 2, and beyond floating point.
    """
    if simulation.objective.loss != "infonce":
        return None
    n = min(simulation.configuration.batch_size, MOST_PAIRS)
    anchor, positive = (
        x[: MOST_PAIRS // n * n].unflatten(0, (-1, n)) for x in (simulation.probe.anchor, simulation.probe.positive)
    )
    pairs = Pairs(anchor, positive, simulation.task.views)
    product, task_modes = product.to(simulation.task.data_cov.dtype), modes(simulation.task)
    growth = product.new_empty(len(product), simulation.task.dim)
    for p, rates in zip(product, growth, strict=True):
        force = mean_force(p, pairs)
        for group in task_modes.groups:
            frame = task_modes.directions[:, group]
            v = frame @ torch.linalg.svd(p @ frame).Vh.T  # all of them, beyond P's rank too
            rates[group] = ((v.T @ force) * v.T).sum(-1)
    mean = growth.mean(0)
    return mean if mean.isfinite().all() else None


def time_per_step(configuration: Configuration) -> float:
    """Flow time that one SGD step covers."""
    return configuration.lr / (1 - configuration.momentum)
