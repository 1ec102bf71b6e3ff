"""Remedies for dimensions that augmentation or weight decay keeps at zero, with numbers from the closed forms."""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.diagnostics.remedies import Remedy, counted, every
from dyncollapse.diagnostics.verdict import COLLAPSED_BELOW, Fate, Verdict
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.self_distillation import SelfDistillation
from dyncollapse.simulation.build import Simulation
from dyncollapse.simulation.dimensions import geometric_mean, mode_dimensions, values_in_turn
from dyncollapse.simulation.distillation import ESCAPED, rest_of
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.prediction import begins, delays_of_steps, lift_of, time_per_step
from dyncollapse.simulation.verdict import rho_decides_fate
from dyncollapse.simulation.widths import has_room, unfed_outputs, widened
from dyncollapse.theory.followed_modes import followed_modes
from dyncollapse.theory.limits import POPULATION_LOSSES
from dyncollapse.theory.mode_forces import ModeForces
from dyncollapse.theory.modes import modes
from dyncollapse.theory.weakening import growing_shares, weakened_forces

# Halvings of the bracket around a share of the augmentation; 40 leave 12 digits.
HALVINGS = 40


def weaker_augmentation(outcome: Outcome, verdict: Verdict) -> Iterator[Remedy]:
    """Say how far the augmentation must be weakened for dead dimensions to grow, and for suppressed ones to count.

    Args:
        outcome: The finished dynamics.
        verdict: Its verdict.

    Yields:
        At most one remedy for dead, and one for suppressed dimensions.
    """
    if Fate.DEAD in verdict.fates:
        yield _for_dead(outcome, verdict)
    if low := verdict.fates.count(Fate.SUPPRESSED):
        yield widened(_for_suppressed(outcome, verdict, low), outcome, verdict, low)


def _for_dead(outcome: Outcome, verdict: Verdict) -> Remedy:
    simulation, c = outcome.simulation, outcome.simulation.configuration
    loss, exact = _loss(simulation)
    decay = c.weight_decay if c.depth == 1 and not isinstance(simulation.objective, SelfDistillation) else 0.0
    task = _task(simulation)
    shares, undecayed = (growing_shares(task, *loss, weight_decay=w) for w in (decay, 0.0))
    fatal = [share for share in (shares if len(shares) else undecayed).tolist() if share <= 1]
    dead, hopeful = verdict.fates.count(Fate.DEAD), with_data(outcome, verdict)
    source = "Jing et al. 2022, Corollary 1; docs: beyond the paper, 5c"
    if not hopeful:
        return Remedy(
            f"Keep {counted(unfed_outputs(outcome)[1] - dead, 'output')} or fewer (`out_dim`).",
            "There is no data along the dead dimensions, only noise: no augmentation lets them live.",
            source,
        )
    if not fatal:
        return Remedy(
            "Choose another augmentation (`aug_cov`).",
            "No strength of this one lets the dead dimensions grow.",
            source,
        )
    action = f"Weaken the augmentation below {_strength(simulation, fatal[0])}{_now(simulation)}."
    # Suppressed ones come to count as well; dead directions that are not small yet count already.
    freed = min(len(fatal), hopeful) + verdict.fates.count(Fate.SUPPRESSED)
    if not len(shares):
        told = (
            f"No strength alone helps: weight decay {c.weight_decay:g} exceeds the force of the data, so lower it, too."
        )
        return widened(Remedy(action, told, source), outcome, verdict, freed + verdict.fates.count(Fate.DECAYED))
    if _held(simulation) and outcome.outlook is not None and _by_modes(simulation):
        return widened(_beside_decay(outcome, verdict, fatal[0], source), outcome, verdict, freed)
    effect = f"Then {_outwards(simulation, decay, len(fatal))}."
    if fatal[-1] > fatal[0] * (1 + 1e-9):
        effect += f" The first grows below {_strength(simulation, fatal[-1])}."
    if hopeful < dead:
        effect += f" {counted(dead - hopeful, 'other')} would not grow without augmentation either."
    if not exact:
        effect += " An estimate: this network and loss have no closed form."
    elif has_room(outcome, verdict, freed) and not _held(simulation):
        effect += _at_half(outcome, fatal[0] / 2)
    return widened(Remedy(action, effect, source), outcome, verdict, freed)


def _held(simulation: Simulation) -> bool:
    """Whether weight decay holds small starts at zero, whatever the force there: it does from two layers on."""
    c = simulation.configuration
    return c.weight_decay > 0 and (c.depth > 1 or isinstance(simulation.objective, SelfDistillation))


def _distinct(forces: ModeForces, which: Tensor) -> ModeForces:
    """The forces on some modes, once for all modes that are alike up to round-off: each takes a search."""
    columns = [forces.growth, forces.view_var, forces.ratio, *([] if forces.repulsion is None else [forces.repulsion])]
    table = torch.stack([column.expand_as(forces.growth)[which] for column in columns])
    size = table.abs().amax(1, keepdim=True).clamp_min(torch.finfo(table.dtype).tiny)
    kinds = (table / size).mul(1e9).round().unique(dim=1, return_inverse=True)[1]
    first = torch.stack([(kinds == kind).nonzero()[0, 0] for kind in kinds.unique()])
    growth, view_var, ratio, *repulsion = table[:, first]
    return ModeForces(growth, view_var, ratio, repulsion[0] if repulsion else None)


def _outwards(simulation: Simulation, decay: float, count: int) -> str:
    """What lets so many dead directions grow: their rho, where that alone decides."""
    objective, where = simulation.objective, f"in {every(count, 'dead direction')}"
    held = "; weight decay may hold small starts at zero all the same" if _held(simulation) else ""
    if isinstance(objective, SelfDistillation):
        return f"the views share signal {where}, and {_they(count)}{held}"
    by_rho = not decay and rho_decides_fate(objective, simulation.task.views)
    cause = f"rho falls below 1 {where}" if by_rho else f"the force at zero points outwards {where}"
    return f"{cause}{held}" if held else f"{cause}: {_they(count)} from zero"


def _beside_decay(outcome: Outcome, verdict: Verdict, fatal: float, source: str) -> Remedy:
    """How weak the augmentation of several layers must be for a rest point above zero beside weight decay."""
    simulation, c = outcome.simulation, outcome.simulation.configuration
    forces = weakened_forces(_task(simulation), *_loss(simulation)[0])
    lost = torch.tensor([fate is Fate.DEAD for fate in verdict.fates])[: simulation.task.dim]
    lost &= forces(0.0).growth > 0  # those with data

    def critical(share: float) -> float:
        return float(_distinct(forces(share), lost).critical_weight_decay(c.depth).min())

    if share := _largest(lambda share: critical(share) > c.weight_decay):
        count = int(lost.sum())
        return Remedy(
            f"Weaken the augmentation below {_strength(simulation, share)}{_now(simulation)}.",
            f"Then {every(count, 'dead direction')} {'has' if count == 1 else 'have'} a rest point above zero, and "
            f"{_they(count)} from a start that is large enough (`init_scale`): weight decay holds small ones at zero.",
            source,
        )
    return Remedy(
        f"Weaken the augmentation below {_strength(simulation, fatal)}{_now(simulation)}.",
        f"No strength alone helps: weight decay {c.weight_decay:g} is above the critical value without augmentation, "
        f"{down(critical(0.0))}, so lower it, too.",
        source,
    )


def with_data(outcome: Outcome, verdict: Verdict) -> int:
    """How many dead dimensions have data along them."""
    ratio = outcome.ends[outcome.judged].ratio
    some = ratio.reshape(-1, ratio.shape[-1]).mean(0).isfinite().tolist()
    return sum(fate is Fate.DEAD and data for fate, data in zip(verdict.fates, some, strict=True))


def _loss(simulation: Simulation) -> tuple[tuple[str, float | None, float | None], bool]:
    """The loss whose force at zero decides, its coefficients, and whether that is exact for this network and loss."""
    c, linear = simulation.configuration, simulation.objective.activation == "linear"
    if isinstance(simulation.objective, SelfDistillation):
        return ("spectral", None, None), linear  # modes die where the views share no signal, as here
    if linear and c.loss in POPULATION_LOSSES:
        return (c.loss, c.temperature, c.invariance), True
    return ("infonce", None, None), False


def _at_half(outcome: Outcome, share: float) -> str:
    """Say where the dead modes rest under augmentation of this share, and when they arrive."""
    simulation, prediction, c = outcome.simulation, outcome.outlook, outcome.simulation.configuration
    if prediction is None or prediction.growth is None or not _by_modes(simulation):
        return ""
    forces = weakened_forces(_task(simulation), *_loss(simulation)[0])(share)
    dead = prediction.growth.to(forces.growth) <= (c.weight_decay if c.depth == 1 else 0.0)
    rest = _rest(forces, c.weight_decay, c.depth)
    times = forces.learning_times(_slowest(simulation, forces).to(rest), ESCAPED, c.weight_decay, c.depth)
    reached = dead & times.isfinite() & (rest > 0)
    if not bool(reached.any()):
        return ""
    time = float(times[reached].max())
    growth = forces.growth[reached]
    delay = max(delays_of_steps(c, growth, len(growth))) if outcome.judged == "sgd" else 1.0
    step = rounded_up(time * delay / time_per_step(c))
    aligned = " and aligned layers" if c.depth > 1 else ""
    slowest = ", in the slowest run" if c.runs > 1 else ""
    return (
        f" At {_strength(simulation, share)} they rest at {float(rest[reached].min()):.3g}, and reach half of that "
        f"variance at about t = {time:.3g} (step {step}) with infinite batches{aligned}{slowest}."
    )


def _slowest(simulation: Simulation, forces: ModeForces) -> Float[Tensor, " k"]:
    """Smallest size over runs from which each mode grows under these forces."""
    if len(simulation.weights) > 1:
        return starts(simulation, smallest=True)
    common = modes(_task(simulation))
    product = simulation.weights[0].to(torch.float64).cpu()
    return values_in_turn(product, common.directions, common.groups, forces.growth).flatten(0, -2).amin(0)


def _for_suppressed(outcome: Outcome, verdict: Verdict, low: int) -> Remedy:
    simulation, c, source = outcome.simulation, outcome.simulation.configuration, "docs: beyond the paper, 5b"
    lost = torch.tensor([fate is Fate.SUPPRESSED for fate in verdict.fates])
    bistable = c.weight_decay > 0 and c.depth > 1
    if outcome.outlook is not None and _by_modes(simulation) and not bistable:
        forces = weakened_forces(_task(simulation), *_loss(simulation)[0])

        def counts_at(share: float) -> bool:
            weakened = forces(share)
            rest = _rest(weakened, c.weight_decay, c.depth)
            free = (weakened.ratio == 0) & (c.weight_decay > 0)  # which nothing but weight decay bounds
            return bool((rest[lost[: len(rest)]] > _level(rest[~free], verdict)).all())

        if share := _largest(counts_at):
            return Remedy(
                f"Weaken the augmentation below {_strength(simulation, share)}{_now(simulation)}.",
                f"Then {every(low, 'suppressed dimension')} {'rests' if low == 1 else 'rest'} above "
                f"{verdict.threshold:.2g}, and so above the threshold of this run.",
                source,
            )
    told = "The weaker it is, the larger suppressed dimensions are at rest; how much is not known in closed form here."
    return Remedy(f"Weaken the augmentation{_now(simulation)}.", told, source)


def lower_weight_decay(outcome: Outcome, verdict: Verdict) -> Iterator[Remedy]:
    """Say below which weight decay the decayed dimensions live.

    Args:
        outcome: The finished dynamics.
        verdict: Its verdict.

    Yields:
        At most one remedy.
    """
    count = verdict.fates.count(Fate.DECAYED)
    if count and (found := _less_decay(outcome, verdict, count)):
        yield widened(found, outcome, verdict, count)


def _less_decay(outcome: Outcome, verdict: Verdict, count: int) -> Remedy | None:
    c, prediction, source = outcome.simulation.configuration, outcome.outlook, "docs: one axis, weight decay"
    lost = torch.tensor([fate is Fate.DECAYED for fate in verdict.fates])
    if isinstance(outcome.simulation.objective, SelfDistillation):
        return _distilled_decay(outcome.simulation, lost)
    if prediction is None or prediction.growth is None:
        return None
    if c.depth > 1:
        forces, wide = prediction.forces, has_room(outcome, verdict, count)
        return None if forces is None else _deep_decay(outcome.simulation, forces, lost, count, wide=wide)
    if prediction.forces is None:  # rates along turned directions only bound the eigenvalues of the force
        return Remedy("Lower `weight_decay`.", "The loss alone lets them grow.", source)
    critical = prediction.growth[lost[: len(prediction.growth)]]
    low, high = float(critical.min()), float(critical.max())
    first = f" The first grows below {down(high)}." if high > low * (1 + 1e-9) else ""
    return Remedy(
        f"Lower `weight_decay` below {down(low)} (now {c.weight_decay:g}).",
        f"It is then below the force at zero of {every(count, 'decayed dimension')}: {_they(count)}.{first}",
        source,
    )


def _deep_decay(simulation: Simulation, forces: ModeForces, lost: Tensor, count: int, *, wide: bool) -> Remedy:
    """Two thresholds of several layers: from this start, unless they are not `wide` enough, and from any start."""
    c = simulation.configuration
    start, critical = starts(simulation, smallest=True).to(forces.growth), forces.critical_weight_decay(c.depth)
    largest = critical[lost[: len(critical)]]
    source = "docs: one axis, weight decay"
    if not wide:
        return Remedy(
            f"Lower `weight_decay` below {down(float(largest.min()))} (now {c.weight_decay:g}).",
            f"Then {every(count, 'decayed dimension')} {'has' if count == 1 else 'have'} a rest point above zero. How "
            "much lower it must be for them to grow depends on the start of the wider layers.",
            source,
        )
    # Below the maximum of the lift a start must lie above the unstable point; beyond it, it shrinks to the stable one.
    lift, rises = lift_of(forces, start, c.depth)
    held = torch.where(rises & begins(start, simulation), lift, critical)[lost[: len(start)]]
    if float(held.min()) > c.weight_decay:  # what aligned layers would do is not what these did
        told = "How far does not follow from the start: these layers are not aligned, and aligned ones would live."
        return Remedy(f"Lower `weight_decay` (now {c.weight_decay:g}), or raise `init_scale`.", told, source)
    return Remedy(
        f"Lower `weight_decay` below {down(float(held.min()))} (now {c.weight_decay:g}).",
        f"That lets {every(count, 'decayed dimension')} grow from this start: exact for aligned, balanced layers, else "
        f"an estimate. From a start that is large enough, {down(float(largest.min()))} suffices.",
        source,
    )


def _distilled_decay(simulation: Simulation, lost: Tensor) -> Remedy:
    rest = rest_of(simulation.configuration, simulation.task)
    assert rest is not None
    critical = rest.critical_decay[lost[: len(rest.critical_decay)]]
    c, source = simulation.configuration, "docs: beyond the paper, 5j"
    if float(critical.min()) > c.weight_decay:
        told = "Every decayed dimension has a rest point beside zero, but zero is stable, and this start was too small."
        return Remedy(f"Raise `init_scale` (now {c.init_scale:g}).", told, source)
    return Remedy(
        f"Lower `weight_decay` below {down(float(critical.min()))} (now {c.weight_decay:g}).",
        "Every decayed dimension then has a rest point beside zero. Zero stays stable, and small starts still decay: "
        "raise `init_scale` as well.",
        source,
    )


def starts(simulation: Simulation, *, smallest: bool = False) -> Float[Tensor, " k"]:
    """Singular value of each mode at the start.

    Args:
        simulation: The simulation.
        smallest: Whether to take the smallest over runs, in place of the geometric mean.

    Returns:
        One value per mode.
    """
    values = mode_dimensions(simulation.weights, simulation.task).singular_value[..., : simulation.task.dim]
    flat = values.reshape(-1, values.shape[-1]).to(torch.float64).cpu()
    return flat.amin(0) if smallest else geometric_mean(flat)


def rounded_up(steps: float) -> int:
    """A number of steps, at least 1, rounded up to three digits."""
    steps = max(1.0, steps)
    unit = 10 ** max(0, math.floor(math.log10(steps)) - 2)
    return math.ceil(steps / unit) * unit


def down(value: float) -> str:
    """A bound to three digits, rounded down, so that what lies below it lies below the value."""
    if not 0 < value < math.inf:
        return f"{value:g}"
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.floor(value / unit * (1 + 1e-12)) * unit:.3g}"


def _task(simulation: Simulation) -> GaussianTask:
    """The task in double precision on the CPU: closed forms are small."""
    return simulation.task.to(torch.float64, torch.device("cpu"))


def _they(number: int) -> str:
    return "it grows" if number == 1 else "they grow"


def _by_modes(simulation: Simulation) -> bool:
    """Whether there is a closed form mode by mode whose modes keep their order when augmentation is weakened."""
    scaled = simulation.configuration.view_corr is None or _by_number(simulation)
    return _loss(simulation)[1] and scaled and not followed_modes(simulation.task).whitened


def _by_number(simulation: Simulation) -> bool:
    """Whether the setting `aug_strength` scales the whole augmentation."""
    c = simulation.configuration
    return c.aug_cov is None and (c.view_corr is None or not c.view_corr.endswith(".npy"))


def _rest(forces: ModeForces, weight_decay: float, depth: int) -> Tensor:
    variance = forces.rest_variance(weight_decay, depth)
    return torch.where(variance > 0, variance / forces.view_var, 0.0).sqrt()


def _level(rest: Tensor, verdict: Verdict) -> float:
    """Singular value from which on one counts, both beside the others of the run and beside those at rest."""
    finite = rest[rest.isfinite()]
    return max(verdict.threshold, COLLAPSED_BELOW * float(finite.max()) if len(finite) else 0.0)


def _largest(holds: Callable[[float], bool]) -> float:
    """The largest share between 0 and 1 for which a condition holds that holds for all smaller ones; 0 for none."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high) if low else high / 16
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _strength(simulation: Simulation, share: float) -> str:
    if _by_number(simulation):
        return f"a strength of {down(share * simulation.configuration.aug_strength)}"
    return f"{down(share)} of its variance"


def _now(simulation: Simulation) -> str:
    strength = simulation.configuration.aug_strength
    return f" (`aug_strength`, now {strength:g})" if _by_number(simulation) else ""
