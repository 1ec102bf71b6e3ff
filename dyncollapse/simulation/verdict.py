"""From a network's dimensions to a verdict: which collapsed, by augmentation, by waiting or for want of width."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dyncollapse.diagnostics.shared_signal import family_margin
from dyncollapse.diagnostics.verdict import COLLAPSED_BELOW, DimensionVerdict, Fate, Verdict
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.objective import Objective, named_loss
from dyncollapse.simulation.dimensions import Dimensions
from dyncollapse.theory.modes import at_threshold


def judge(
    dimensions: Dimensions,
    *,
    scale: float = 0.0,
    rest: Tensor | None = None,
    escape: Tensor | None = None,
    time_per_step: float | None = None,
    room: int | None = None,
    outputs: int | None = None,
) -> Verdict:
    """Judge the mean over runs: which dimensions collapsed, by augmentation, by waiting or for want of width.

    A dimension collapsed below COLLAPSED_BELOW of the largest value. With rho >= 1, or when it has reached its
    predicted rest value or that is negligible, it is kept down by strong augmentation; a sampled rho within its error
    of 1 is suppressed under two-sided views, where it cannot exceed 1 if both views are drawn alike, and unexplained
    under one-sided ones. Of those left no more than `room` can be alive at once: the others are
    structural. All else only grows too slowly (implicit regularisation).

    Args:
        dimensions: Singular values and ratios, (*runs, k).
        scale: Singular value at which the loss begins to see a dimension, where it has one: if all are far below it,
            all have collapsed. So has a network that is zero.
        rest: Predicted rest values (k,) of the first k dimensions.
        escape: Flow time (k,) until which each would wait, infinite for never.
        time_per_step: Turns flow time into SGD steps in the sentence.
        room: Width of the narrowest layer.
        outputs: Dimensions of the embedding, where `dimensions` are the input modes and these are more: the sentence
            is then about the embedding's.

    Returns:
        The verdict, with one fate per dimension.

    Raises:
        ValueError: For singular values that are not finite.
    """
    k = dimensions.singular_value.shape[-1]
    sigma = dimensions.singular_value.reshape(-1, k).mean(0)
    if not torch.isfinite(sigma).all():
        raise ValueError("the singular values hold NaN or infinity; there is nothing to judge")
    ratio = dimensions.ratio.reshape(-1, k).mean(0)
    threshold = COLLAPSED_BELOW * max(float(sigma.max()), scale)
    low = torch.zeros(k, dtype=torch.bool)
    if rest is not None:
        # Unaugmented dimensions grow without bound, and the threshold with them: that alone suppresses nothing.
        bounded = max([scale, *rest[torch.isfinite(rest)].tolist()])
        at_rest = sigma[: len(rest)] >= rest / 2
        low[: len(rest)] = (rest <= COLLAPSED_BELOW * bounded) | ((rest <= threshold) & at_rest)
    margin = torch.zeros_like(ratio)
    if dimensions.ratio_error is not None:
        margin = family_margin(k) * dimensions.ratio_error.reshape(-1, k).mean(0)
    fates = [
        Fate.ALIVE if value > threshold else _fate(rho, error, rests_low, dimensions.views)
        for value, rho, error, rests_low in zip(
            sigma.tolist(), ratio.tolist(), margin.tolist(), low.tolist(), strict=True
        )
    ]
    if room is not None:
        _give_room(fates, room, sigma if dimensions.ratio_error is not None else -ratio)
    times = [None] * k if escape is None else [*escape.tolist(), *[None] * (k - len(escape))]
    judged = tuple(
        DimensionVerdict(fate, time if fate is Fate.WAITING else None) for fate, time in zip(fates, times, strict=True)
    )
    exactly = zip(fates, at_threshold(ratio).tolist(), strict=True)
    on_threshold = sum(fate is Fate.DEAD and at for fate, at in exactly)
    escapes = sorted(one.escape_time for one in judged if one.escape_time is not None)
    waits = _ends([moment(time, time_per_step) for time in escapes])
    fewer = outputs if outputs is not None and outputs < k else None
    return Verdict(judged, threshold, _sentence(fates, on_threshold, waits, room, fewer), fewer)


def _fate(rho: float, error: float, rests_low: bool, views: str) -> Fate:
    """What becomes of a collapsed dimension, while layers have room for it."""
    if math.isnan(rho):
        return Fate.STRUCTURAL
    if rho - error >= 1:
        return Fate.DEAD
    if rests_low or (views == "two-sided" and 0 < error < math.inf and rho + error >= 1):
        return Fate.SUPPRESSED
    return Fate.UNEXPLAINED if rho + error >= 1 else Fate.WAITING


def _give_room(fates: list[Fate], room: int, order: Tensor) -> None:
    """Call structural what would live but has no room, those of the least `order` first."""
    would_live = [k for k, fate in enumerate(fates) if fate in (Fate.ALIVE, Fate.WAITING, Fate.UNEXPLAINED)]
    waiting = sorted((k for k in would_live if fates[k] is not Fate.ALIVE), key=lambda k: float(order[k]))
    for k in waiting[: max(0, len(would_live) - room)]:
        fates[k] = Fate.STRUCTURAL


def natural_scale(task: GaussianTask, objective: Objective) -> float:
    """Value in `Dimensions.singular_value` at which embeddings reach the loss's own scale.

    That scale is the kernel's width 1 for infonce, the root of the temperature for dot, 1 for spectral and 0
    for ntxent, which has none; for linear networks it is divided by the data's largest standard deviation.
    """
    widths = {"infonce": 1.0, "dot": (objective.temperature or 0.0) ** 0.5, "spectral": 1.0, "ntxent": 0.0}
    width = widths[named_loss(objective)]
    largest = float(torch.linalg.eigvalsh(task.data_cov.to(torch.float64))[-1]) ** 0.5
    return width if objective.activation == "relu" or width == 0 else width / largest


def moment(time: float, time_per_step: float | None = None) -> str:
    """Say a flow time to three digits, with the SGD step it belongs to; "never" for infinity."""
    if time == float("inf"):
        return "never"
    three = (f"{float(f'{number:.3g}'):g}" for number in (time, time / (time_per_step or 1.0)))
    return "t = {} (step {})".format(*three) if time_per_step else f"t = {next(three)}"


def _sentence(fates: Sequence[Fate], on_threshold: int, waits: str, room: int | None, outputs: int | None) -> str:
    counts = {fate: fates.count(fate) for fate in Fate}
    total, unfed = len(fates), ""
    dead, low = counts[Fate.DEAD], counts[Fate.SUPPRESSED]
    lost = dead + low
    if outputs is not None:
        # Any mode may fill any dimension of the embedding. What no living or waiting one fills is lost to augmentation.
        passed = min(outputs, room or outputs)
        total, counts[Fate.STRUCTURAL] = outputs, outputs - passed
        left = passed
        for fate in (Fate.ALIVE, Fate.WAITING, Fate.UNEXPLAINED):  # in the mean over runs more may be alive
            counts[fate] = min(counts[fate], left)
            left -= counts[fate]
        lost, on_threshold = left, 0
        unfed = (
            f" {len(fates) - passed} of the {len(fates)} input modes cannot be represented, for want of width: "
            f"the network is only {passed} wide."
        )
    gone = total - counts[Fate.ALIVE]
    if not gone:
        return f"No dimension of {total} collapsed.{unfed}"
    parts = []
    if counts[Fate.STRUCTURAL]:
        widest = "" if room is None else f" (the network is only {room} wide)"
        parts.append(f"{counts[Fate.STRUCTURAL]} for want of width{widest}")
    if lost:
        both = f"{dead} dead, {low} too low at rest" if outputs is None else "dead or too low at rest"
        ends = both if dead and low else "dead" if dead else "too low at rest"
        exactly = f", {on_threshold} of them at the threshold" if on_threshold else ""
        parts.append(f"{lost} by strong augmentation ({ends}{exactly})")
    if counts[Fate.WAITING]:
        reason = f"data beats augmentation there: waiting{waits}"
        parts.append(f"{counts[Fate.WAITING]} by implicit regularization ({reason})")
    if counts[Fate.UNEXPLAINED]:
        reason = "rho may be on either side of 1: dead or waiting"
        parts.append(f"{counts[Fate.UNEXPLAINED]} for a cause that is open ({reason})")
    listed = ", ".join(parts[:-1]) + " and " + parts[-1] if parts[1:] else parts[0]
    return f"{gone} of {total} dimensions collapsed: {listed}.{unfed}"


def _ends(moments: list[str]) -> str:
    """Say when waiting dimensions escape, from the moments of all in order."""
    never = moments.count("never")
    known = moments[: len(moments) - never]
    if not known:
        return ", never to escape as things stand" if never else ""
    when = f"by {known[-1]}" if known[0] == known[-1] else f"between {known[0]} and {known[-1]}"
    return f", to escape {when} at the present force" + (f", {never} of them never" if never else "")
