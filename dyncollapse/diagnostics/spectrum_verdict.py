"""From a measured spectrum to a verdict: which dimensions of an embedding collapsed, and why."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.diagnostics.causes import InputCount, Told
from dyncollapse.diagnostics.verdict import COLLAPSED_BELOW, DimensionVerdict, Fate, Verdict

NO_VIEWS = "other views of the same samples would tell why"


def collapse_level(spectrum: Float[Tensor, " k"]) -> float:
    """Variance below which a dimension counts as collapsed beside the others, from a descending covariance spectrum.

    The first eigenvalue below COLLAPSED_BELOW^2 times the geometric mean of all above it makes a cliff; the level is
    that share of their mean. A power law j^-alpha reaches exp(-alpha) of that mean, however long it is, so a
    heavy tail is no cliff, while a share of the largest eigenvalue would cut any tail. Zero where nothing varies.
    """
    logs = spectrum.clamp_min(0).log()
    share = 2 * math.log(COLLAPSED_BELOW)
    level = logs.cumsum(0) / torch.arange(1, len(logs) + 1, dtype=logs.dtype, device=logs.device) + share
    cliffs = (~(logs[1:] > level[:-1])).nonzero().flatten().tolist()
    return float(level[cliffs[0] if cliffs else -1].exp())


def judge_spectrum(
    spectrum: Float[Tensor, " d"],
    threshold: float,
    floor: float,
    seen: int,
    *,
    room: int | None = None,
    tell: Callable[[list[int]], Told] | None = None,
    counted: InputCount | None = None,
    views: str = "two-sided",
    untold: str = NO_VIEWS,
    ratios: Sequence[float | None] = (),
    ratio_errors: Sequence[float | None] = (),
) -> Verdict:
    """Judge measured embeddings: collapsed are variances up to `threshold` among the first `seen` of the spectrum.

    What width forbids is counted first: of d dimensions at most `room` can vary. Other views tell the cause of those
    left whose variance lies above `floor`. Below it only the last layer's inputs can, by counting: each alive or told
    dimension uses up one of their directions of its kind, and what these leave over is given to the hidden ones.

    Args:
        spectrum: Covariance eigenvalues, descending.
        threshold: Variance up to which a dimension counts as collapsed.
        floor: Variance below which rounding hides what other views could tell.
        seen: How many dimensions the samples can show; the others are unseen, and not counted as collapsed.
        room: How many units the last linear layer reads, where known.
        tell: Gives the fates of collapsed directions, by number; None without other views.
        counted: What the last layer's inputs leave.
        views: How the views were made, for the words.
        untold: What is said of collapsed dimensions that nothing tells the cause of.
        ratios: rho along each principal direction, where it was measured.
        ratio_errors: Their standard errors.

    Returns:
        The verdict, with one fate per dimension.
    """
    values, d = spectrum.tolist(), len(spectrum)
    # Collapsed until a cause is found: above the floor other views can tell it, below it only the inputs.
    fates = [
        Fate.UNSEEN
        if k >= seen
        else Fate.ALIVE
        if value > threshold
        else Fate.UNEXPLAINED
        if value > floor
        else Fate.UNRESOLVED
        for k, value in enumerate(values)
    ]
    if room is not None:
        forbidden = [k for k in reversed(range(d)) if fates[k] is not Fate.ALIVE][: max(0, d - room)]
        for k in forbidden:
            fates[k] = Fate.STRUCTURAL
    told = Told() if tell is None else tell([k for k in range(d) if fates[k] is Fate.UNEXPLAINED])
    for k, fate in told.fates.items():
        fates[k] = fate
    explained = [told.explained] if Fate.SUPPRESSED in told.fates.values() else []
    if counted is not None and _tell_hidden(fates, counted):
        explained.append(counted.explained)
    unseen_signal = max((value for value in explained if value is not None), default=None)
    words = _words(views, room, told, counted, untold, unseen_signal)
    measured = zip(fates, ratios or [None] * d, ratio_errors or [None] * d, strict=True)
    judged = tuple(DimensionVerdict(fate, rho=rho, rho_error=error) for fate, rho, error in measured)
    return Verdict(judged, threshold, _sentence(fates, threshold, words), unseen_signal=unseen_signal)


def _tell_hidden(fates: list[Fate], counted: InputCount) -> bool:
    """Give dimensions without a cause what the directions of the last layer's inputs leave over.

    Returns whether any of them is suppressed.
    """
    hidden = [k for k, fate in enumerate(fates) if fate is Fate.UNRESOLVED]
    told = fates.count(Fate.SUPPRESSED)
    pools = {
        Fate.WAITING: counted.growing - fates.count(Fate.ALIVE) - fates.count(Fate.WAITING),
        Fate.DEAD: counted.dying - fates.count(Fate.DEAD),
        Fate.SUPPRESSED: counted.silent - fates.count(Fate.SUPPRESSED),
    }
    for fate, size in pools.items():
        for k in hidden[: max(0, size)]:
            fates[k] = fate
        hidden = hidden[max(0, size) :]
    return fates.count(Fate.SUPPRESSED) > told


def _words(
    views: str, room: int | None, told: Told, counted: InputCount | None, untold: str, unseen_signal: float | None
) -> dict[Fate, str]:
    """What is said of each fate, in the order of the sentence."""
    two_sided = views == "two-sided"
    beyond = f" beyond a correlation of {unseen_signal:.2g}, which sampling explains" if unseen_signal else ""
    silent = f"the views share no signal there{beyond}" if two_sided else "too low at rest"
    dead = "the views are negatively correlated there" if two_sided else "augmentation beats data there"
    waiting = "the views share signal there" if two_sided else "data beats augmentation there"
    open_ = "too few samples to compare the views" if two_sided else "rho is within its sampling error of 1"
    inputs = "if a linear layer made them, its inputs can tell why"
    if counted is not None:
        inputs = "and the inputs leave the cause open"
        if counted.varying < counted.width:
            inputs = f"the inputs vary in {counted.varying} directions only"
    return {
        Fate.STRUCTURAL: f"for want of width (the last linear layer reads {room} units)",
        Fate.DEAD: f"by strong augmentation (dead: {dead})",
        Fate.SUPPRESSED: f"by strong augmentation (suppressed: {silent})",
        Fate.WAITING: f"by implicit regularization (waiting: {waiting})",
        Fate.UNEXPLAINED: f"for a cause that is open ({open_})" if told.fates else f"above the noise floor; {untold}",
        Fate.UNRESOLVED: f"without variance clearly above rounding; {inputs}",
    }


def _sentence(fates: list[Fate], threshold: float, words: dict[Fate, str]) -> str:
    unseen = fates.count(Fate.UNSEEN)
    total = len(fates) - unseen
    gone = total - fates.count(Fate.ALIVE)
    parts = [f"{fates.count(fate)} {text}" for fate, text in words.items() if fate in fates]
    found = f"{gone} of {total} dimensions" if gone else f"No dimension of {total}"
    found += " collapsed" + (f" (variance up to {threshold:.2g}): {', '.join(parts)}" if gone else "")
    return found + (f"; {unseen} more cannot be seen with so few distinct samples." if unseen else ".")
