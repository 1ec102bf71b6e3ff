"""Remedies for a simulation: what to try for each fate that its verdict gives, and what it would do."""

import math
from collections.abc import Iterator

import torch

from dyncollapse.diagnostics.remedies import Remedy, counted, every
from dyncollapse.diagnostics.verdict import COLLAPSED_BELOW, Fate, Verdict
from dyncollapse.model.self_distillation import SelfDistillation
from dyncollapse.simulation.outcome import Outcome, embedding_scale
from dyncollapse.simulation.prediction import begins, escape_times, room
from dyncollapse.simulation.representation import representation_dimensions
from dyncollapse.simulation.strong_remedies import (
    lower_weight_decay,
    rounded_up,
    starts,
    weaker_augmentation,
    with_data,
)
from dyncollapse.simulation.verdict import moment
from dyncollapse.simulation.widths import has_room, unfed_outputs, units
from dyncollapse.theory.projector import layer_values_at_rest

# Steps beyond which training longer is no advice.
MOST_ADVISED = 1e12
# Times from the start and from the end that differ by less than this factor count as the same: a rule of thumb.
SAME = 1.5


def remedies(outcome: Outcome) -> tuple[Remedy, ...]:
    """Return what to try for each cause that the verdict names, with numbers where closed forms give them.

    Args:
        outcome: What a simulation recorded.

    Returns:
        Remedies first, then checks; empty without a verdict, and where no dimension is lost.
    """
    verdict = outcome.verdict
    if verdict is None:
        return ()
    found = [
        *weaker_augmentation(outcome, verdict),
        *_longer_training(outcome, verdict),
        *lower_weight_decay(outcome, verdict),
        *_width(outcome, verdict),
        *_representation(outcome, verdict),
        *_projector(outcome, verdict),
        *_checks(outcome, verdict),
    ]
    return tuple(sorted(found, key=lambda one: one.kind == "check"))


def _longer_training(outcome: Outcome, verdict: Verdict) -> Iterator[Remedy]:
    c, source = outcome.simulation.configuration, "docs: beyond the paper, 5f"
    count, times = verdict.fates.count(Fate.WAITING), [time for time in verdict.escapes if time is not None]
    if not count:
        return
    steps = [step for step in outcome.escape_steps if step is not None]
    finite = [time for time, step in zip(times, steps, strict=True) if step < MOST_ADVISED]
    if not times:
        told = f"{counted(count)} grow{'s'[: count == 1]}; when is not known in closed form here."
        yield Remedy(f"Train for more `steps` (now {c.steps}).", told, source)
    elif finite:
        latest = rounded_up(max(step for step in steps if step < MOST_ADVISED))
        some = f"{len(finite)} of {count} waiting dimensions"
        whose = some if len(finite) < count else f"{every(count, 'waiting dimension').capitalize()}"
        slow = " Large steps or much momentum delay growth; the step allows for that." if outcome.steps_delay else ""
        mean = " Runs that start smaller than their mean take longer." if c.runs > 1 else ""
        aligned = ", for aligned layers" if c.depth > 1 else ""
        yield Remedy(
            f"Train until step {latest} (`steps`, now {c.steps}).",
            f"{whose} {'has' if len(finite) == 1 else 'have'} escaped by {moment(max(finite))}, "
            f"{outcome.force}{aligned}.{slow}{mean}",
            source,
        )
    if far := sum(MOST_ADVISED <= step < math.inf for step in steps):
        told = f"{far} escape{'s'[: far == 1]} after more than {MOST_ADVISED:g} steps of this size."
        yield Remedy(f"Raise `lr` (now {c.lr:g}).", told, source)
    if never := times.count(math.inf):
        yield _without_escape(outcome, never)
    yield from _larger_start(outcome, verdict)


def _without_escape(outcome: Outcome, never: int) -> Remedy:
    """What to try where escape times are infinite: by the present force of the batches, or by the closed form."""
    c = outcome.simulation.configuration
    if outcome.present_growth is not None:
        whose = f"{counted(never, 'waiting dimension')} {'does' if never == 1 else 'do'}"
        told = f"{whose} not escape at the force of these batches, whose negatives have faded."
        return Remedy(f"Raise `batch_size` (now {c.batch_size}).", told, "docs: beyond the paper, 5h")
    less = f"Lower `weight_decay` (now {c.weight_decay:g}), or raise" if c.weight_decay else "Raise"
    whose = counted(never, "waiting dimension")
    told = f"From the present size {whose} would never escape, by the closed form for aligned layers."
    return Remedy(f"{less} `init_scale` (now {c.init_scale:g}).", told, "docs: beyond the paper, 5f")


def _larger_start(outcome: Outcome, verdict: Verdict) -> Iterator[Remedy]:
    """Say what twice the initial scale does to the escape of several layers, near zero and with aligned layers.

    With times only where those that follow from the start are about those that follow from the end: else the layers
    were not aligned, or the force has faded.
    """
    simulation, c = outcome.simulation, outcome.simulation.configuration
    prediction = outcome.outlook
    if c.depth < 2 or c.weight_decay or prediction is None or prediction.forces is None:
        return
    waiting = torch.tensor([fate is Fate.WAITING for fate in verdict.fates])[: len(prediction.rest)]
    begin = starts(simulation).to(prediction.rest)
    now, then = (
        float(escape_times(simulation, prediction, scale * begin)[waiting].max()) for scale in (1.0, 2.0**c.depth)
    )
    if not 0 < then < now < math.inf:
        return
    seen = max((time for time in verdict.escapes if time is not None), default=math.nan)
    told = f"Near zero, aligned layers then escape {2 ** (2 * c.depth - 2)} times as early. "
    told += "These did not go as aligned layers under a constant force, so that how much earlier is open."
    if seen / SAME < now < seen * SAME:
        told = f"The last waiting dimension then escapes at about {moment(then)} instead of {moment(now)} (infinite "
        told += "batches, aligned layers)."
    action = f"Start from twice the scale (`init_scale` {2 * c.init_scale:g}, now {c.init_scale:g})."
    yield Remedy(action, told, "docs: beyond the paper, 5f")


def _width(outcome: Outcome, verdict: Verdict) -> Iterator[Remedy]:
    structural = verdict.fates.count(Fate.STRUCTURAL)
    if not structural:
        return
    unfed, varying = unfed_outputs(outcome)
    if unfed and (Fate.DEAD not in verdict.fates or with_data(outcome, verdict)):  # else said of the dead ones
        yield Remedy(
            f"Keep {counted(varying, 'output')} or fewer (`out_dim`).",
            f"{counted(unfed, 'output')} cannot vary, whatever the training: the inputs vary along "
            f"{counted(varying, 'direction')}, and more outputs than inputs cannot help.",
            "the rank of a matrix",
        )
    if structural > unfed:
        own, wanted = room(outcome.simulation), units(outcome, verdict)
        yield Remedy(
            f"Widen the narrowest layer from {own} to {wanted} units.",
            f"There is then room for {counted(wanted - own, 'more dimension')}.",
            "docs: one axis, rest points of every loss",
        )


def _representation(outcome: Outcome, verdict: Verdict) -> Iterator[Remedy]:
    """Say how many of the dimensions that collapsed the layer below the last one keeps."""
    kept = representation_dimensions(outcome.simulation, outcome.trajectories[outcome.judged])
    if kept is None or not verdict.count:
        return
    values = kept.singular_value.reshape(-1, kept.singular_value.shape[-1]).mean(0)
    # What balanced layers below the last one have where the embedding reaches the scale of the loss.
    scale = embedding_scale(outcome.simulation) ** (1 - 1 / outcome.simulation.configuration.depth)
    above = (values > COLLAPSED_BELOW * max(float(values.max()), scale)).tolist()
    lost = [fate.collapsed for fate in verdict.fates]
    saved = sum(one and so for one, so in zip(lost, above, strict=False))
    if saved:
        yield Remedy(
            "Use the representation below the last layer, not the embedding.",
            f"It keeps {saved} of {counted(sum(lost))} that collapsed in the embedding.",
            "Jing et al. 2022, Proposition 1",
        )


def _projector(outcome: Outcome, verdict: Verdict) -> Iterator[Remedy]:
    """Say what a layer behind a single one would leave of the dead modes in front of it."""
    simulation, c, prediction = outcome.simulation, outcome.simulation.configuration, outcome.outlook
    if c.depth > 1 or c.weight_decay or Fate.DEAD not in verdict.fates or prediction is None or not prediction.forces:
        return
    dead = torch.tensor([fate is Fate.DEAD for fate in verdict.fates])[: simulation.task.dim]
    start = starts(simulation)
    start = start[dead & begins(start, simulation)]  # what does not start at all is not kept, either
    if not len(start) or not has_room(outcome, verdict, len(start)):
        return
    kept, _ = layer_values_at_rest(torch.zeros_like(start), start.square() - (start / 2).square())
    yield Remedy(
        "Add a projector (`depth` 2) that starts at half the size, and use the representation below it.",
        f"The embedding collapses as before, but in the linear theory dead dimensions of the representation rest at "
        f"{float(kept.min()):.2g}, not at zero (aligned layers). What that gains on real images is open.",
        "docs: one axis, what a projector protects; results, CIFAR-10",
    )


def _checks(outcome: Outcome, verdict: Verdict) -> Iterator[Remedy]:
    """Suggest what tells open causes apart: they answer differently to time and to augmentation."""
    if Fate.UNEXPLAINED not in verdict.fates:
        return
    c, count = outcome.simulation.configuration, verdict.fates.count(Fate.UNEXPLAINED)
    shrink = "dead and decayed ones" if c.weight_decay else "dead ones"
    yield Remedy(
        f"Run twice as long (`steps` {2 * c.steps}).",
        f"Those of the {count} that wait become larger; {shrink} shrink, and suppressed ones stay.",
        "docs: beyond the paper, 5f",
        "check",
    )
    if c.weight_decay:
        yield Remedy(
            f"Run without weight decay (`weight_decay` 0, now {c.weight_decay:g}).",
            "Dimensions that it holds at zero grow; those that augmentation kills shrink all the same.",
            "docs: one axis, weight decay",
            "check",
        )
    augmented = c.aug_cov is None and c.aug_strength > 0 and c.aug_dim > 0
    if augmented and not isinstance(outcome.simulation.objective, SelfDistillation):
        yield Remedy(
            f"Halve the augmentation (`aug_strength` {c.aug_strength / 2:g}).",
            "Dimensions that augmentation kept small become larger; waiting ones hardly change.",
            "docs: beyond the paper, 5c",
            "check",
        )
