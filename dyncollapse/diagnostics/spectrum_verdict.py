"""From a measured spectrum to a verdict: which dimensions of an embedding collapsed, and why."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Real

from dyncollapse.diagnostics.causes import InputCount, ViewFates
from dyncollapse.diagnostics.conversion import Numbers, as_floats
from dyncollapse.diagnostics.verdict import COLLAPSED_BELOW, DimensionVerdict, Fate, Verdict

NO_VIEWS = "other views of the same samples would show the cause"


def collapse_level(spectrum: Real[Numbers, " k"]) -> float:
    """Return the variance below which a dimension is small beside the others: the level of the first cliff.

    A cliff is an eigenvalue below 1e-4 (COLLAPSED_BELOW^2) of the geometric mean of all larger ones; the level is that
    share of their mean. A heavy tail is no cliff: a power law j^-a stays above exp(-a) of that mean, however long it
    is, while a fixed share of the largest eigenvalue would cut any tail.

    Args:
        spectrum: Covariance eigenvalues in descending order.

    Returns:
        The level, in the unit of the eigenvalues; below the smallest eigenvalue if there is no cliff, and 0 if nothing
        varies.

    Raises:
        ValueError: For anything but real numbers.

    References:
        docs/explanation/diagnostics.md, section 3.

    Examples:
        >>> spectrum = torch.tensor([1.0, 1.0, 1e-5, 1e-6])
        >>> (spectrum < collapse_level(spectrum)).sum()  # a cliff behind the second
        tensor(2)
        >>> tail = torch.arange(1, 1001).double() ** -2
        >>> (tail < collapse_level(tail)).sum()  # from 1 to 1e-6 without a cliff
        tensor(0)
    """
    spectrum = as_floats(spectrum, "eigenvalues")
    logs = spectrum.clamp_min(0).log()
    share = 2 * math.log(COLLAPSED_BELOW)
    level = logs.cumsum(0) / torch.arange(1, len(logs) + 1, dtype=logs.dtype, device=logs.device) + share
    cliffs = (~(logs[1:] > level[:-1])).nonzero().flatten().tolist()
    return float(level[cliffs[0] if cliffs else -1].exp())


def judge_spectrum(
    spectrum: Real[Numbers, " d"],
    threshold: float,
    floor: float,
    seen: int,
    *,
    room: int | None = None,
    from_views: Callable[[list[int]], ViewFates] | None = None,
    counted: InputCount | None = None,
    views: str = "two-sided",
    no_cause: str = NO_VIEWS,
    ratios: Sequence[float | None] = (),
    ratio_errors: Sequence[float | None] = (),
) -> Verdict:
    """Give each dimension of measured embeddings its fate, and say in a sentence what collapsed and why.

    Collapsed are variances up to `threshold` among the first `seen` of the spectrum. Of d dimensions at most `room` can
    vary, so the others are structural before any other cause is asked for. Other views decide the cause of those above
    `floor`. Below it only the inputs of the last layer can, by counting: each alive or decided dimension uses one of
    their directions of its kind, and the remaining directions go to the dimensions below the floor. A dimension of
    which it is open whether it can grow may use a direction of any kind.

    Args:
        spectrum: Covariance eigenvalues in descending order.
        threshold: Variance up to which a dimension counts as collapsed.
        floor: Variance below which rounding hides the evidence of other views.
        seen: Number of dimensions that the samples can show; the others are unseen, and not counted as collapsed.
        room: Number of units that the last linear layer reads, if known.
        from_views: Returns the fates of collapsed directions, given their numbers; None without other views.
        counted: Counts of directions in the inputs of the last layer.
        views: "one-sided" or "two-sided", for the words of the sentence.
        no_cause: What the sentence says of collapsed dimensions above `floor` if no view decides their cause.
        ratios: rho along each principal direction, if it was measured.
        ratio_errors: Standard errors of `ratios`.

    Returns:
        The verdict, with one fate per dimension.

    Raises:
        ValueError: For anything but real numbers, and for `ratios` of another length than the spectrum.

    References:
        docs/explanation/diagnostics.md, sections 3 and 4.

    Examples:
        >>> verdict = judge_spectrum(torch.tensor([1.0, 0.5, 1e-6]), threshold=1e-4, floor=1e-12, seen=3)
        >>> [str(fate) for fate in verdict.fates]
        ['alive', 'alive', 'unexplained']
    """
    spectrum = as_floats(spectrum, "eigenvalues")
    values, d = spectrum.tolist(), len(spectrum)
    # Collapsed dimensions start without a cause: other views may show it above the floor, the inputs below it.
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
    asked = [k for k in range(d) if fates[k] is Fate.UNEXPLAINED]
    by_views = ViewFates() if from_views is None else from_views(asked)
    for k, fate in by_views.fates.items():
        fates[k] = fate
    explained = [by_views.explained] if Fate.SUPPRESSED in by_views.fates.values() else []
    if counted is not None and _decide_hidden(fates, counted):
        explained.append(counted.explained)
    unseen_signal = max((value for value in explained if value is not None), default=None)
    words = _words(views, room, by_views, counted, no_cause, unseen_signal)
    measured = zip(fates, ratios or [None] * d, ratio_errors or [None] * d, strict=True)
    judged = tuple(DimensionVerdict(fate, rho=rho, rho_error=error) for fate, rho, error in measured)
    return Verdict(judged, threshold, _sentence(fates, threshold, words), unseen_signal=unseen_signal)


def _decide_hidden(fates: list[Fate], counted: InputCount) -> bool:
    """Give unresolved dimensions the fates of input directions that no other dimension uses.

    Returns whether any of them is suppressed.
    """
    hidden = [k for k, fate in enumerate(fates) if fate is Fate.UNRESOLVED]
    before, alive, open_ = (fates.count(fate) for fate in (Fate.SUPPRESSED, Fate.ALIVE, Fate.UNEXPLAINED))
    unsure = open_ + (0 if counted.alive is None else max(0, alive - counted.alive))
    pools = {
        Fate.WAITING: counted.growing - alive - open_ - fates.count(Fate.WAITING),
        Fate.DEAD: counted.dying - unsure - fates.count(Fate.DEAD),
        Fate.SUPPRESSED: counted.silent - unsure - fates.count(Fate.SUPPRESSED),
    }
    for fate, size in pools.items():
        for k in hidden[: max(0, size)]:
            fates[k] = fate
        hidden = hidden[max(0, size) :]
    return fates.count(Fate.SUPPRESSED) > before


def _words(
    views: str,
    room: int | None,
    by_views: ViewFates,
    counted: InputCount | None,
    no_cause: str,
    unseen_signal: float | None,
) -> dict[Fate, str]:
    """Return the words for each fate, in the order of the sentence."""
    two_sided = views == "two-sided"
    above = f" above a correlation of {unseen_signal:.2g}" if unseen_signal else ""
    silent = f"the views share no signal there{above}" if two_sided else "too low at rest"
    dead = "the views are negatively correlated there" if two_sided else "augmentation beats data there"
    waiting = "the views share signal there" if two_sided else "data beats augmentation there"
    open_ = by_views.reason or "rho is within its sampling error of 1"
    inputs = (
        "if they are outputs of a linear layer, its inputs in both views (`inputs` and `input_positives`) can show "
        "the cause"
    )
    if counted is not None:
        inputs = "the inputs do not show the cause either"
        if counted.varying < counted.width:
            inputs = f"the inputs vary in only {counted.varying} directions"
    return {
        Fate.STRUCTURAL: f"for want of width (the last linear layer reads {room} units)",
        Fate.DEAD: f"by strong augmentation (dead: {dead})",
        Fate.SUPPRESSED: f"by strong augmentation (suppressed: {silent})",
        Fate.WAITING: f"by implicit regularization (waiting: {waiting})",
        Fate.UNEXPLAINED: f"for a cause that is open ({open_})"
        if by_views.fates
        else f"above the noise floor; {no_cause}",
        Fate.UNRESOLVED: f"without variance clearly above rounding; {inputs}",
    }


def _sentence(fates: list[Fate], threshold: float, words: dict[Fate, str]) -> str:
    unseen = fates.count(Fate.UNSEEN)
    total = len(fates) - unseen
    gone = total - fates.count(Fate.ALIVE)
    parts = [f"{fates.count(fate)} {text}" for fate, text in words.items() if fate in fates]
    sentence = f"{gone} of {total} dimensions" if gone else f"No dimension of {total}"
    sentence += " collapsed" + (f" (variance up to {threshold:.2g}): {', '.join(parts)}" if gone else "")
    return sentence + (f"; {unseen} more cannot be seen with so few distinct samples." if unseen else ".")
