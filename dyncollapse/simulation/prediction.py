"""What the closed forms predict for a simulation: rest values, escape times and the number of possible dimensions."""

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.forces import mean_force
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.self_distillation import SelfDistillation
from dyncollapse.simulation.build import Simulation
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.distillation import ESCAPED, rest_of
from dyncollapse.theory.equilibria import escape_time, growth_rates, rest_singular_values
from dyncollapse.theory.modes import modes
from dyncollapse.theory.self_distillation import byol_learning_times

# Pairs of the probe over which the force is averaged, in batches: enough for a few per cent. A batch size above this is
# cut to it, since its n x n weights would not fit, and one of this size is as close to infinitely many samples.
MOST_PAIRS = 4096


def room(simulation: Simulation) -> int:
    """The largest number of dimensions that the layers can represent: the width of the narrowest one.

    Behind a nonlinearity there may be more dimensions than inputs, so the input dimension counts for linear networks
    only.
    """
    outputs = [w.shape[-2] for w in simulation.weights]
    linear = simulation.objective.activation == "linear" or len(simulation.weights) == 1
    return min([simulation.task.dim, *outputs] if linear else outputs)


def rest_values(simulation: Simulation) -> Tensor | None:
    """Rest values (d,) of the modes in closed form; None for ntxent and for ReLU networks, which have none."""
    if isinstance(simulation.objective, SelfDistillation):
        found = rest_of(simulation.configuration, simulation.task)
        return None if found is None else found.encoder
    if simulation.objective.loss == "ntxent" or simulation.objective.activation != "linear":
        return None
    return rest_singular_values(simulation.task, simulation.configuration.loss, simulation.configuration.temperature)


def escape_times(
    simulation: Simulation, values: Float[Tensor, "*runs d"], growth: Float[Tensor, " d"] | None = None
) -> Float[Tensor, " d"]:
    """Flow time until each mode of a linear network escapes from its present singular value.

    For byol and simsiam it is the time to half the variance at rest, which byol takes a little longer to reach.

    The closed form assumes aligned layers and a constant force. Balanced layers take exactly this long and all others
    less. The force of finite batches fades further while other modes grow; escapes then come later than predicted.

    Args:
        simulation: The simulation.
        values: Present singular value of each mode; the runs are averaged geometrically, because an escape time
            depends on log p (one layer) or on a power of p.
        growth: Rate of each mode; by default that of infinitely many samples at W = 0.

    Returns:
        A time per mode from now on, infinite for one that never escapes.

    References:
        docs/explanation/beyond-the-paper.md, section 5f.
    """
    start = values.reshape(-1, simulation.task.dim).log().mean(0).exp()
    if isinstance(simulation.objective, SelfDistillation):
        found = rest_of(simulation.configuration, simulation.task)
        assert found is not None
        return byol_learning_times(found, start.to(torch.float64).cpu(), ESCAPED)
    rest, task_modes = rest_values(simulation), modes(simulation.task)
    assert rest is not None
    if growth is None:
        growth = growth_rates(simulation.task, simulation.configuration.loss, simulation.configuration.temperature)
    # An unbounded mode counts as escaped once its embedding variance reaches the kernel's width, 1.
    target = torch.minimum(rest, task_modes.data_var.rsqrt())
    depth = simulation.configuration.depth
    modewise = zip(start.tolist(), target.tolist(), growth.tolist(), strict=True)
    return torch.tensor([escape_time(p, p_end, x0, depth) for p, p_end, x0 in modewise], dtype=torch.float64)


def batch_growth(simulation: Simulation, product: Float[Tensor, "runs m d"]) -> Float[Tensor, " d"] | None:
    """Present growth rate v^T X v of each mode on batches of the configured size, averaged over the runs.

    Once unaugmented modes have separated the embeddings, the softmax of a finite batch leaves its negatives little
    weight, and every force fades. Rates of infinitely many samples would then say nothing about how long a dimension
    waits.

    Args:
        simulation: The simulation.
        product: P of every run.

    Returns:
        A rate per mode, along P's own directions v among equal modes; None for losses other than Eq. 2, and where the
        rates overflow.
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
            v = frame @ torch.linalg.svd(p @ frame).Vh.T  # all directions, also those beyond the rank of P
            rates[group] = ((v.T @ force) * v.T).sum(-1)
    mean = growth.mean(0)
    return mean if mean.isfinite().all() else None


def time_per_step(configuration: Configuration) -> float:
    """Flow time that one SGD step covers: lr / (1 - momentum)."""
    return configuration.lr / (1 - configuration.momentum)
