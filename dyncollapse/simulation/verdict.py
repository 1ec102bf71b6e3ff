"""From a network's dimensions to a verdict: which collapsed, and whether by augmentation, by waiting or by width."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.diagnostics.shared_signal import family_margin
from dyncollapse.diagnostics.verdict import COLLAPSED_BELOW, DimensionVerdict, Fate, Verdict
from dyncollapse.model.objective import Objective, named_loss
from dyncollapse.model.pair_moments import Task
from dyncollapse.simulation.dimensions import Dimensions
from dyncollapse.theory.modes import at_threshold

# Why a cause is open, by whether rho decides.
OPEN = {
    True: "rho may be on either side of 1: dead or waiting",
    False: "which dimensions this loss lets live is not known in closed form: dead, suppressed{} or waiting",
}


def judge(
    dimensions: Dimensions,
    *,
    scale: float = 0.0,
    rest: Tensor | None = None,
    growth: Tensor | None = None,
    held: Tensor | None = None,
    escape: Tensor | None = None,
    force: str = "at the present force",
    time_per_step: float | None = None,
    room: int | None = None,
    outputs: int | None = None,
    rho_decides: bool = True,
    decays: bool = False,
) -> Verdict:
    """Judge which dimensions collapsed, and why, from the mean over runs.

    A dimension is alive while its singular value exceeds COLLAPSED_BELOW times the largest one, or times `scale` where
    that is larger. A dimension that is not alive has collapsed. It is the first of these that applies:

    - structural, where no input direction that varies leads to it (rho is NaN);
    - dead, where strong augmentation lets it rest at zero only: the predicted `growth` is not above 0, or without a
      prediction rho >= 1;
    - decayed, where weight decay holds it at zero and the loss alone would let it grow;
    - suppressed, where strong augmentation lets it rest only at a value too small to count, or at one that it has
      reached. Under two-sided views a sampled rho within its error of 1 counts as this, since views that are drawn
      alike never have rho above 1;
    - unexplained, where a sampled rho is within its error of 1 under one-sided views, and under a loss for which
      rho = 1 is not known to be the threshold;
    - waiting: it has rho < 1 and grows, only slowly (implicit regularisation).

    No more than `room` dimensions can be alive at once. Of the waiting and unexplained ones beyond that number, those
    with the largest rho (for a sampled rho: the smallest singular value) are structural instead, and where all room is
    taken, decayed ones that would live from a larger start.

    Args:
        dimensions: Singular values and rho, (*runs, k).
        scale: Singular value from which on the loss sees a dimension, see `natural_scale`. A network whose dimensions
            are all far below it, or zero, has collapsed altogether.
        rest: Predicted rest values (j,) of the first j dimensions.
        growth: Predicted force at zero (j,) on these, without weight decay; it then decides in place of rho.
        held: Whether weight decay holds each of these at zero (j,).
        escape: Flow time (j,) at which each of these escapes if it waits; infinite for never, NaN for unknown.
        force: Under which force that is, in words.
        time_per_step: Flow time per SGD step; the sentence then names steps as well.
        room: Width of the narrowest layer.
        outputs: Embedding dimension where it is less than k, the number of input modes: the sentence then counts
            dimensions of the embedding.
        rho_decides: Whether the loss lets exactly the dimensions with rho < 1 grow from zero, see `rho_decides_fate`.
        decays: Whether weight decay may be a cause that stays open.

    Returns:
        The verdict, with one fate per dimension.

    Raises:
        ValueError: For singular values that are not finite.

    References:
        docs/explanation/beyond-the-paper.md, sections 5b, 5c and 5f.

    Examples:
        >>> rho = torch.tensor([0.2, 0.4, 1.5])
        >>> found = Dimensions(torch.tensor([1.0, 1e-3, 1e-3]), torch.full((3,), 0.5), aug_var=rho, ratio=rho)
        >>> [str(one.fate) for one in judge(found).dimensions]
        ['alive', 'waiting', 'dead']
    """
    sigma, threshold = measured_values(dimensions, scale)
    k = len(sigma)
    ratio = dimensions.ratio.reshape(-1, k).mean(0)
    low = _rests_low(sigma, rest, scale, threshold, free=(ratio == 0) & (held is not None))
    margin = torch.zeros_like(ratio)
    if dimensions.ratio_error is not None:
        margin = family_margin(k) * dimensions.ratio_error.reshape(-1, k).mean(0)
    rates: list[float | None] = [*([] if growth is None else growth.tolist()), *[None] * k][:k]
    decayed: list[bool] = [*([] if held is None else held.tolist()), *[False] * k][:k]

    def fate(j: int) -> Fate:
        rho, error = float(ratio[j]), float(margin[j])
        if float(sigma[j]) > threshold:
            return Fate.ALIVE
        if math.isnan(rho):
            return Fate.STRUCTURAL
        if (rate := rates[j]) is not None:
            return _predicted(rate, decayed[j], low[j])
        return _fate(rho, error, low[j], dimensions.views) if rho_decides else Fate.UNEXPLAINED

    fates = [fate(j) for j in range(k)]
    if room is not None:
        give_room(fates, room, sigma if dimensions.ratio_error is not None else -ratio, rest)
    judged = _with_times(fates, escape)
    # With weight decay modes at the threshold decay as any other.
    on_threshold = _count_at_threshold(fates, ratio, rates) if held is None else 0
    waits = _ends([one.escape_time for one in judged if one.fate is Fate.WAITING], time_per_step, force)
    fewer = outputs if outputs is not None and outputs < k else None
    varying = int((~ratio.isnan()).sum())
    why_open = OPEN[rho_decides].format(", decayed" if decays else "")
    sentence = _sentence(fates, on_threshold, waits, room, fewer, why_open=why_open, varying=varying)
    return Verdict(judged, threshold, sentence, fewer)


def measured_values(dimensions: Dimensions, scale: float) -> tuple[Float[Tensor, " k"], float]:
    """Mean singular values over the runs, and the value from which on one is alive.

    Args:
        dimensions: Singular values (*runs, k).
        scale: Singular value from which on the loss sees a dimension.

    Returns:
        The means, and COLLAPSED_BELOW times the largest of them, or times the scale where that is larger.

    Raises:
        ValueError: For singular values that are not finite.
    """
    sigma = dimensions.singular_value.reshape(-1, dimensions.singular_value.shape[-1]).mean(0)
    if not torch.isfinite(sigma).all():
        raise ValueError("the singular values hold NaN or infinity; there is nothing to judge")
    return sigma, COLLAPSED_BELOW * max(float(sigma.max()), scale)


def in_words(gone: int, total: int, parts: Sequence[str], kind: str = "dimensions collapsed") -> str:
    """How many dimensions collapsed, and a part of the sentence for each reason."""
    if not gone:
        return f"No dimension of {total} collapsed."
    listed = ", ".join(parts[:-1]) + " and " + parts[-1] if parts[1:] else "".join(parts)
    return f"{gone} of {total} {kind}: {listed}."


def _with_times(fates: Sequence[Fate], escape: Tensor | None) -> tuple[DimensionVerdict, ...]:
    """The fates, and when those that wait escape, where that is known."""
    times: list[float | None] = [None] * len(fates)
    for k, time in enumerate([] if escape is None else escape.tolist()):
        if fates[k] is Fate.WAITING and not math.isnan(time):
            times[k] = time
    return tuple(map(DimensionVerdict, fates, times))


def _count_at_threshold(fates: Sequence[Fate], ratio: Tensor, rates: Sequence[float | None]) -> int:
    """Dead dimensions whose force at zero vanishes, or whose rho is 1 where no force is known."""
    exactly = [
        one if rate is None else rate == 0 for one, rate in zip(at_threshold(ratio).tolist(), rates, strict=True)
    ]
    return sum(fate is Fate.DEAD and at for fate, at in zip(fates, exactly, strict=True))


def _rests_low(sigma: Tensor, rest: Tensor | None, scale: float, threshold: float, free: Tensor) -> list[bool]:
    """Which dimensions rest too low to count, or have come to rest below the threshold."""
    low = torch.zeros(len(sigma), dtype=torch.bool)
    if rest is not None:
        # Unaugmented dimensions grow without bound and take the threshold along; that alone suppresses no dimension. No
        # more do the `free` ones, which nothing but weight decay bounds.
        bounded = max([scale, *rest[torch.isfinite(rest) & ~free[: len(rest)]].tolist()])
        at_rest = sigma[: len(rest)] >= rest / 2
        low[: len(rest)] = (rest <= COLLAPSED_BELOW * bounded) | ((rest <= threshold) & at_rest)
    return low.tolist()


def _predicted(growth: float, decayed: bool, rests_low: bool) -> Fate:
    """The fate of a collapsed dimension whose force at zero is known, before the layers' widths are considered."""
    if growth <= 0:
        return Fate.DEAD
    return Fate.DECAYED if decayed else Fate.SUPPRESSED if rests_low else Fate.WAITING


def _fate(rho: float, error: float, rests_low: bool, views: str) -> Fate:
    """The fate of a collapsed dimension by its rho, before the layers' widths are considered."""
    if rho - error >= 1:
        return Fate.DEAD
    if rests_low or (views == "two-sided" and 0 < error < math.inf and rho + error >= 1):
        return Fate.SUPPRESSED
    return Fate.UNEXPLAINED if rho + error >= 1 else Fate.WAITING


def give_room(fates: list[Fate], room: int, order: Tensor, rest: Tensor | None = None) -> None:
    """Turn waiting and unexplained dimensions beyond `room` into structural ones, those of least `order` first.

    Where living ones take all room, so are decayed ones with a rest value above 0: no start is large enough then.
    """
    would_live = [k for k, fate in enumerate(fates) if fate in (Fate.ALIVE, Fate.WAITING, Fate.UNEXPLAINED)]
    waiting = sorted((k for k in would_live if fates[k] is not Fate.ALIVE), key=lambda k: float(order[k]))
    for k in waiting[: max(0, len(would_live) - room)]:
        fates[k] = Fate.STRUCTURAL
    if rest is not None and fates.count(Fate.ALIVE) >= room:
        for k in (rest > 0).nonzero().flatten().tolist():
            if fates[k] is Fate.DECAYED:
                fates[k] = Fate.STRUCTURAL


def rho_decides_fate(objective: Objective, views: str) -> bool:
    """Whether rho = 1 separates the dimensions that die under this loss from those that grow.

    It does where a closed form is known and the loss compares positive with negative pairs. VICReg and Barlow Twins
    have no negatives: their thresholds, where they have any, are others, and depend on the coefficients of their terms.
    Under ntxent some dimensions of rho < 1 decay: at temperature 10 those of rho = 0.75 beside unaugmented ones.

    Dot-product and spectral losses push all pairs of samples apart alike: with one-sided views they let every direction
    with data grow, whatever its rho.

    Args:
        objective: A loss by name.
        views: "one-sided", "two-sided" or "correlated".

    Returns:
        True for infonce, and with both views augmented for dot and spectral.

    Raises:
        ValueError: For an objective with a loss of one's own.
    """
    return named_loss(objective) in ("infonce", *(() if views == "one-sided" else ("dot", "spectral")))


def natural_scale(task: Task, objective: Objective, *, whitened: bool = False) -> float:
    """The value of `Dimensions.singular_value` at which embeddings reach the scale of the loss.

    Embeddings reach it at a standard deviation of 1 for infonce, the width of its kernel; of the square root of the
    temperature for dot; and of 1 for spectral, vcreg, vicreg and barlow. ntxent and barlow-normalised have no scale.
    For linear networks the result is that standard deviation over the largest one of the data.

    Args:
        task: The covariances.
        objective: Loss, temperature and activation.
        whitened: Whether the dimensions are whitened, see `Dimensions`; the result is then that standard deviation.

    Returns:
        A singular value of P for linear networks, a standard deviation of the embedding for ReLU networks; 0 for
        ntxent and barlow-normalised.

    Raises:
        ValueError: For an objective with a value of its own, whose scale is unknown.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> natural_scale(GaussianTask.block(2, 1, aug_strength=1.0, data_var=4.0), Objective())
        0.5
    """
    widths = {"dot": (objective.temperature or 0.0) ** 0.5, "ntxent": 0.0, "barlow-normalised": 0.0}
    width = widths.get(named_loss(objective), 1.0)
    if objective.activation == "relu" or width == 0 or whitened:
        return width
    largest = float(torch.linalg.eigvalsh(task.data_cov.to(torch.float64))[-1])
    if largest <= 0:  # there is no data that both views share
        largest = float(torch.linalg.eigvalsh(task.seen[0].to(torch.float64))[-1])
    return width / largest**0.5 if largest > 0 else width


def moment(time: float, time_per_step: float | None = None) -> str:
    """A flow time in words, to three digits.

    Args:
        time: The flow time.
        time_per_step: Flow time per SGD step; the words then name the step as well.

    Returns:
        As "t = 30 (step 300)"; "never" for infinity.
    """
    if time == float("inf"):
        return "never"
    three = (f"{float(f'{number:.3g}'):g}" for number in (time, time / (time_per_step or 1.0)))
    return "t = {} (step {})".format(*three) if time_per_step else f"t = {next(three)}"


def _sentence(
    fates: Sequence[Fate],
    on_threshold: int,
    waits: str,
    room: int | None,
    outputs: int | None,
    *,
    why_open: str,
    varying: int,
) -> str:
    counts = {fate: fates.count(fate) for fate in Fate}
    total, unfed = len(fates), ""
    dead, low = counts[Fate.DEAD], counts[Fate.SUPPRESSED]
    lost = dead + low
    if outputs is not None:
        passed, total = min(outputs, room or outputs), outputs
        lost, on_threshold = _fill(counts, passed, outputs), 0
        unfed = (
            f" {len(fates) - passed} of the {len(fates)} input modes cannot be represented, for want of width: "
            f"the network is only {passed} wide."
        )
    parts = []
    if counts[Fate.STRUCTURAL]:
        parts.append(f"{counts[Fate.STRUCTURAL]} for want of {want(room, varying)}")
    if lost:
        both = f"{dead} dead, {low} too low at rest" if outputs is None else "dead or too low at rest"
        ends = both if dead and low else "dead" if dead else "too low at rest"
        exactly = f", {on_threshold} of them at the threshold" if on_threshold else ""
        parts.append(f"{lost} by strong augmentation ({ends}{exactly})")
    if counts[Fate.DECAYED]:
        parts.append(f"{counts[Fate.DECAYED]} by weight decay (the loss alone would let them grow)")
    if counts[Fate.WAITING]:
        reason = f"data beats augmentation there: waiting{waits}"
        parts.append(f"{counts[Fate.WAITING]} by implicit regularization ({reason})")
    if counts[Fate.UNEXPLAINED]:
        parts.append(f"{counts[Fate.UNEXPLAINED]} for a cause that is open ({why_open})")
    return in_words(total - counts[Fate.ALIVE], total, parts) + unfed


def _fill(counts: dict[Fate, int], passed: int, outputs: int) -> int:
    """Count dimensions of the embedding in place of modes; the number that are lost to augmentation.

    Any mode may fill any dimension. Those that no alive, waiting or decayed mode fills are lost.
    """
    counts[Fate.STRUCTURAL] = outputs - passed
    for fate in (Fate.ALIVE, Fate.WAITING, Fate.UNEXPLAINED, Fate.DECAYED):  # a mean over runs may have more
        counts[fate] = min(counts[fate], passed)
        passed -= counts[fate]
    return passed


def want(room: int | None, varying: int) -> str:
    """What structural dimensions lack: units of the narrowest layer, or inputs, which vary along so many directions."""
    if room is not None and varying < room:
        return f"inputs (they vary along {varying} directions only)"
    return "width" if room is None else f"width (the network is only {room} wide)"


def _ends(times: Sequence[float | None], time_per_step: float | None, force: str) -> str:
    """When the waiting dimensions escape, from all their times, of which some may not be known."""
    moments = [moment(time, time_per_step) for time in sorted(time for time in times if time is not None)]
    never, unknown = moments.count("never"), len(times) - len(moments)
    known = moments[: len(moments) - never]
    others = f", {unknown} of them at a time that is not known" if unknown else ""
    if not known:
        return f", never to escape as things stand{others}" if never else ""
    when = f"by {known[-1]}" if known[0] == known[-1] else f"between {known[0]} and {known[-1]}"
    return f", to escape {when} {force}" + (f", {never} of them never" if never else "") + others
