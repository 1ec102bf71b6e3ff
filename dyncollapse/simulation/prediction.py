"""What the closed forms predict for a simulation: rest values, escape times and the number of possible dimensions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyncollapse.model.forces import mean_force
from dyncollapse.model.networks import Weights
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.self_distillation import SelfDistillation
from dyncollapse.simulation.build import Simulation
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.coupled import Coupled, coupled
from dyncollapse.simulation.dimensions import geometric_mean, mode_dimensions, values_in_turn
from dyncollapse.simulation.distillation import ESCAPED, rest_of
from dyncollapse.theory.equilibria import escape_time
from dyncollapse.theory.followed_modes import followed_modes
from dyncollapse.theory.limits import POPULATION_LOSSES, population_limit
from dyncollapse.theory.mode_forces import ModeForces, mode_forces
from dyncollapse.theory.modes import along, have_common_modes, modes
from dyncollapse.theory.self_distillation import byol_learning_times

# Pairs of the probe over which the force is averaged, in batches: enough for a few per cent. A batch size above this is
# cut to it, since its n x n weights would not fit, and one of this size is as close to infinitely many samples.
MOST_PAIRS = 4096
# Delay of steps behind the flow that counts. A rule of thumb: escape times assume a constant force anyway.
WORTH_SAYING = 1.1


def room(simulation: Simulation) -> int:
    """The largest number of dimensions that the layers can represent: the width of the narrowest one.

    Behind a nonlinearity there may be more dimensions than inputs, so the input dimension counts for linear networks
    only.
    """
    outputs = [w.shape[-2] for w in simulation.weights]
    linear = simulation.objective.activation == "linear" or len(simulation.weights) == 1
    return min([simulation.task.dim, *outputs] if linear else outputs)


@dataclass(frozen=True, eq=False)
class Outlook:
    """What the closed forms say on the modes of a linear network, in the order and the units of `mode_dimensions`.

    Attributes:
        rest: Rest values (k,), infinite where nothing stops the growth.
        growth: Force at zero (k,), without weight decay; None for byol and simsiam, whose force at zero is 0.
        forces: The force on each mode as a function of its size; None for byol and simsiam, and where the modes are not
            common to both covariances, because they then disturb each other on their way.
        coupled: What is known of modes that disturb each other; None for others.
    """

    rest: Float[Tensor, " k"]
    growth: Float[Tensor, " k"] | None
    forces: ModeForces | None = None
    coupled: Coupled | None = None


def outlook(simulation: Simulation) -> Outlook | None:
    """Predict the modes of a simulation; None for losses without closed forms, and for ReLU networks.

    None as well for several layers with weight decay, and for byol and simsiam, on covariances that do not commute.
    """
    c, objective = simulation.configuration, simulation.objective
    if isinstance(objective, SelfDistillation):
        distilled = rest_of(c, simulation.task)
        return None if distilled is None else Outlook(distilled.encoder, None)
    if c.loss not in POPULATION_LOSSES or objective.activation != "linear":
        return None
    loss = (c.loss, objective.temperature, objective.invariance)
    followed = followed_modes(simulation.task)
    if not followed.whitened:
        forces = mode_forces(simulation.task, *loss)
        variance = forces.rest_variance(c.weight_decay, c.depth)
        rest = torch.where(variance > 0, variance / forces.view_var, 0.0).sqrt()
        return Outlook(rest, forces.growth, forces)
    if c.weight_decay and c.depth > 1:
        return None
    try:
        found = coupled(simulation.task, followed, loss, c.weight_decay)
    except ValueError:  # inputs without data, which this loss leaves as they started
        return None
    growth = population_limit(simulation.task, *loss).growth_along(followed.directions)
    return Outlook(found.values_at_rest(), growth, coupled=found)


def held_at_zero(simulation: Simulation, prediction: Outlook, values: Float[Tensor, "*runs k"]) -> Tensor | None:
    """Which modes weight decay shrinks to zero from their present size, although the loss alone would let them grow.

    One layer decays where the force at zero is at most w. More layers are bistable: a mode decays below the unstable
    rest point, where p^(2 - 2/L) x(p) is at most w and rises with p. Beyond the stable one it shrinks to that.

    Args:
        simulation: The simulation.
        prediction: Its outlook.
        values: Present size of each mode, see `sizes`; the runs are averaged as in `escape_times`.

    Returns:
        Truth values (k,); None without weight decay.
    """
    c = simulation.configuration
    if not c.weight_decay or prediction.growth is None:
        return None
    never = (prediction.growth > 0) & (prediction.rest == 0)
    if prediction.forces is None or c.depth == 1:
        return never
    p = geometric_mean(values).to(prediction.growth.dtype)
    lift, rises = lift_of(prediction.forces, p, c.depth)
    return never | ((prediction.growth > 0) & (lift <= c.weight_decay) & (rises | (p == 0)))


def lift_of(forces: ModeForces, p: Float[Tensor, " k"], depth: int) -> tuple[Float[Tensor, " k"], Bool[Tensor, " k"]]:
    """p^(2 - 2/L) x(p), which weight decay has to stay below for a mode to grow, and whether it rises with p."""
    here, above = (q ** (2 - 2 / depth) * forces.at(q.square() * forces.view_var) for q in (p, p * (1 + 1e-4)))
    return here, above > here


def sizes(simulation: Simulation, prediction: Outlook, weights: Weights) -> Float[Tensor, "*runs k"]:
    """Size of each mode, from which it grows: of one layer by `values_in_turn`, else its singular value.

    Args:
        simulation: The simulation.
        prediction: Its outlook.
        weights: Layers (*runs, out, in).

    Returns:
        One value for each of the modes of the outlook.
    """
    own = tuple(w.to(simulation.task.data_cov.dtype) for w in weights)
    if len(own) == 1 and prediction.forces is not None and prediction.growth is not None:
        common = modes(simulation.task)
        return values_in_turn(own[0], common.directions, common.groups, prediction.growth)
    return mode_dimensions(own, simulation.task).singular_value[..., : len(prediction.rest)]


def begins(values: Float[Tensor, " k"], simulation: Simulation) -> Bool[Tensor, " k"]:
    """Which modes have a size at all: others hold round-off of the weights, as where there are fewer outputs."""
    return values > len(values) * torch.finfo(simulation.weights[0].dtype).eps * values.max()


def escape_times(
    simulation: Simulation,
    prediction: Outlook,
    values: Float[Tensor, "*runs d"],
    growth: Float[Tensor, " d"] | None = None,
) -> Float[Tensor, " d"]:
    """Flow time until each mode of a linear network escapes from its present singular value.

    For byol and simsiam it is the time to half the variance at rest, which byol takes a little longer to reach.

    The closed form assumes aligned layers and a constant force. Balanced layers then take exactly this long, and other
    aligned ones less; layers that are not aligned may take longer. The force of finite batches fades further while
    other modes grow; escapes then come later than predicted. With weight decay it is the time to half of the rest
    value, of infinitely many samples.

    Modes of covariances that do not commute disturb each other. The time is then that to half of the variance at rest,
    each mode with the variance that faster ones leave it (`effective_variances`): an estimate for aligned layers.

    Args:
        simulation: The simulation.
        prediction: Its outlook.
        values: Present size of each mode, see `sizes`; the runs are averaged geometrically, because an escape time
            depends on log p (one layer) or on a power of p.
        growth: Rate of each mode; by default that of infinitely many samples at W = 0.

    Returns:
        A time per mode from now on, infinite for one that never escapes. NaN where it is not known: a network with
        fewer outputs than modes has no singular value for some of them, and which ones it will fill is open.

    References:
        docs/explanation/beyond-the-paper.md, section 5f; docs/explanation/one-axis.md, limits.
    """
    start = geometric_mean(values)
    unknown = ~begins(start, simulation).cpu() & (room(simulation) < len(start))
    return torch.where(unknown, torch.nan, _times_from(start, simulation, prediction, growth))


def _times_from(start: Tensor, simulation: Simulation, prediction: Outlook, growth: Tensor | None) -> Tensor:
    """Times of modes from sizes that are known."""
    depth, decay = simulation.configuration.depth, simulation.configuration.weight_decay
    if isinstance(simulation.objective, SelfDistillation):
        found = rest_of(simulation.configuration, simulation.task)
        assert found is not None
        return byol_learning_times(found, start.to(torch.float64).cpu(), ESCAPED)
    if prediction.coupled is not None:
        times = prediction.coupled.learning_times(start.to(prediction.rest), depth)
        return times.to(torch.float64).cpu()
    assert prediction.forces is not None
    assert prediction.growth is not None
    start = start.to(prediction.growth.dtype)
    if decay:
        return prediction.forces.learning_times(start, ESCAPED, decay, depth).to(torch.float64)
    growth = prediction.growth if growth is None else growth
    # An unbounded mode counts as escaped once its embedding variance reaches the kernel's width, 1.
    target = torch.minimum(prediction.rest, prediction.forces.view_var.rsqrt())
    if simulation.objective.loss == "infonce":
        target = torch.minimum(prediction.rest, modes(simulation.task).data_var.clamp_min(0).rsqrt())
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
        A rate per mode, along P's own directions v among equal modes; None for losses other than Eq. 2, for covariances
        without common modes, and where the rates overflow.
    """
    if simulation.objective.loss != "infonce" or not have_common_modes(simulation.task):
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
            rates[group] = along(v, force)
    mean = growth.mean(0)
    return mean if mean.isfinite().all() else None


def time_per_step(configuration: Configuration) -> float:
    """Flow time that one SGD step covers: lr / (1 - momentum)."""
    return configuration.lr / (1 - configuration.momentum)


def delay_of_steps(configuration: Configuration, rate: float) -> float:
    """How many times as many steps a mode takes to grow as its flow time says.

    Each step multiplies a weight that grows at a constant rate x by the larger root of
    r^2 - (1 + momentum + lr x) r + momentum = 0, and a flow by exp(lr x / (1 - momentum)).

    Args:
        configuration: The settings.
        rate: x, above 0.

    Returns:
        About 1 where lr x is far below (1 - momentum)^2, and more otherwise.

    References:
        Polyak 1964, "Some methods of speeding up the convergence of iteration methods".
    """
    momentum, step = configuration.momentum, configuration.lr * rate
    half = (1 - momentum - step) / 2
    root_less_1 = step / (half + math.sqrt(half * half + step))
    return step / (1 - momentum) / math.log1p(root_less_1)


def delays_of_steps(configuration: Configuration, growth: Float[Tensor, " k"] | None, count: int) -> list[float]:
    """`delay_of_steps` of each mode near zero.

    Args:
        configuration: The settings.
        growth: Force at zero on each mode, without weight decay, if it is known.
        count: The number of dimensions, at least k.

    Returns:
        One number each; 1 where it is close to 1, for modes that do not grow, and where no constant rate is known, as
        of more than two layers.
    """
    if growth is None or configuration.depth > 2:
        return [1.0] * count
    rates = (growth - configuration.weight_decay).tolist()
    delays = [delay_of_steps(configuration, rate) if rate > 0 else 1.0 for rate in rates]
    return [delay if delay > WORTH_SAYING else 1.0 for delay in delays] + [1.0] * (count - len(delays))


def steps_at(
    configuration: Configuration, times: Sequence[float | None], delays: Sequence[float], now: float = 0.0
) -> list[float | None]:
    """SGD steps at flow times, of which those until now have been taken and the others are delayed.

    Args:
        configuration: The settings.
        times: Flow times, None where they are not known.
        delays: One for each time, see `delays_of_steps`.
        now: The present flow time.

    Returns:
        A number of steps for each time, infinite for never.
    """
    step, pairs = time_per_step(configuration), zip(times, delays, strict=True)
    return [None if time is None else (now + (time - now) * delay) / step for time, delay in pairs]
