"""From a measured spectrum to a verdict: which dimensions of an embedding collapsed, and why."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.causes import InputCount, Told
from dyncollapse.diagnosis import COLLAPSED_BELOW, Verdict

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

    Returns:
        The verdict, with one fate per dimension.
    """
    values, d = spectrum.tolist(), len(spectrum)
    fates = ["unseen" if k >= seen else "alive" if value > threshold else "" for k, value in enumerate(values)]
    if room is not None:
        forbidden = [k for k in reversed(range(d)) if fates[k] != "alive"][: max(0, d - room)]
        for k in forbidden:
            fates[k] = "structural"
    left = [k for k in range(d) if not fates[k]]
    told = tell([k for k in left if values[k] > floor]) if tell is not None else Told()
    for k in left:
        fates[k] = told.fates.get(k, "unexplained" if values[k] > floor else "unresolved")
    explained = [told.explained] if "suppressed" in told.fates.values() else []
    if counted is not None and _tell_hidden(fates, counted):
        explained.append(counted.explained)
    unseen_signal = max((value for value in explained if value is not None), default=None)
    collapsed = [fate not in ("alive", "unseen") for fate in fates]
    words = _words(views, room, told, counted, untold, unseen_signal)
    sentence = _sentence(fates, threshold, words)
    return Verdict(collapsed, fates, [None] * d, threshold, sentence, unseen_signal=unseen_signal)


def _tell_hidden(fates: list[str], counted: InputCount) -> bool:
    """Give dimensions without a cause what the directions of the last layer's inputs leave over.

    Returns whether any of them is suppressed.
    """
    hidden = [k for k, fate in enumerate(fates) if fate == "unresolved"]
    told = fates.count("suppressed")
    pools = {
        "waiting": counted.growing - fates.count("alive") - fates.count("waiting"),
        "dead": counted.dying - fates.count("dead"),
        "suppressed": counted.silent - fates.count("suppressed"),
    }
    for fate, size in pools.items():
        for k in hidden[: max(0, size)]:
            fates[k] = fate
        hidden = hidden[max(0, size) :]
    return fates.count("suppressed") > told


def _words(
    views: str, room: int | None, told: Told, counted: InputCount | None, untold: str, unseen_signal: float | None
) -> dict[str, str]:
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
        "structural": f"for want of width (the last linear layer reads {room} units)",
        "dead": f"by strong augmentation (dead: {dead})",
        "suppressed": f"by strong augmentation (suppressed: {silent})",
        "waiting": f"by implicit regularization (waiting: {waiting})",
        "unexplained": f"for a cause that is open ({open_})" if told.fates else f"above the noise floor; {untold}",
        "unresolved": f"without variance clearly above rounding; {inputs}",
    }


def _sentence(fates: list[str], threshold: float, words: dict[str, str]) -> str:
    unseen = fates.count("unseen")
    total = len(fates) - unseen
    gone = total - fates.count("alive")
    parts = [f"{fates.count(fate)} {text}" for fate, text in words.items() if fate in fates]
    found = f"{gone} of {total} dimensions" if gone else f"No dimension of {total}"
    found += " collapsed" + (f" (variance up to {threshold:.2g}): {', '.join(parts)}" if gone else "")
    return found + (f"; {unseen} more cannot be seen with so few distinct samples." if unseen else ".")
