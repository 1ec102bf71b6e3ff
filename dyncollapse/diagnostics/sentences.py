"""Sentences about a report, for the terminal and the page."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from dyncollapse.diagnostics.intervals import Interval
from dyncollapse.diagnostics.shared_signal import SharedSignal
from dyncollapse.diagnostics.verdict import COLLAPSED_BELOW, Fate, Verdict
from dyncollapse.model.covariance import ContrastiveCovariance

# One sentence per fate, true of every convention of views; docs/explanation/diagnostics.md has the same.
FATE_MEANINGS = {
    Fate.ALIVE: "It is in use: its variance lies above the threshold.",
    Fate.STRUCTURAL: "The last linear layer reads too few units to fill it, whatever the training.",
    Fate.DEAD: "Augmentation exceeds data along it (rho of 1 or more): training shrinks it to zero.",
    Fate.DECAYED: "Weight decay shrinks it to zero, although the loss alone would let it grow.",
    Fate.SUPPRESSED: "Augmentation keeps it too small to count: the views share no signal along it, or too little.",
    Fate.WAITING: "It is small because training has not reached it: data exceed augmentation, so it would grow.",
    Fate.UNEXPLAINED: "It collapsed, and there is no other view, or the samples leave the cause open.",
    Fate.UNRESOLVED: "It is lost in rounding, and the inputs of the last layer do not show the cause either.",
    Fate.UNSEEN: "There are too few distinct samples to show it. It does not count as collapsed.",
}


@runtime_checkable
class Described(Protocol):
    """What the sentences need of an `EmbeddingReport`, which itself uses them."""

    @property
    def conventions(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def intervals(self) -> Mapping[str, Interval]: ...  # noqa: D102
    @property
    def verdict(self) -> Verdict: ...  # noqa: D102
    @property
    def noise_floor(self) -> float: ...  # noqa: D102
    @property
    def relative_level(self) -> float: ...  # noqa: D102
    @property
    def ratios(self) -> Tensor | None: ...  # noqa: D102
    @property
    def signal(self) -> SharedSignal | None: ...  # noqa: D102
    @property
    def augmentation_share(self) -> float | None: ...  # noqa: D102
    @property
    def pairs(self) -> ContrastiveCovariance | None: ...  # noqa: D102
    @property
    def input_pairs(self) -> ContrastiveCovariance | None: ...  # noqa: D102


def sentences_of(report: Described) -> list[str]:
    """Say what collapsed means in a report, and how augmentation compares with data.

    Args:
        report: The report.

    Returns:
        One or two paragraphs.
    """
    return [threshold_sentence(report), *([] if report.ratios is None else [augmentation_sentence(report)])]


def augmentation_sentence(report: Described) -> str:
    """Say how augmentation compares with data.

    Args:
        report: A report that has `ratios`.

    Returns:
        One to four sentences.
    """
    assert report.ratios is not None
    conventions = report.conventions
    if not len(report.ratios):
        return "Augmentation over data: nothing varies, so there is no ratio."
    loss = conventions["weights"]
    weights = "uniform negative weights" if loss == "uniform" else f"negatives weighted by the softmax of {loss}"
    if loss == "ntxent":
        weights += " (a diagnostic: not the exact force of this loss)"
    lowest, highest = report.ratios[-1], report.ratios[0]
    pairs = report.input_pairs or report.pairs
    assert pairs is not None
    data, augmentation = (float(side.diagonal().sum()) for side in (pairs.data, pairs.augmentation))
    reading = (
        "a small dimension grows below 1 and shrinks above"
        if conventions["views"] == "one-sided"
        else "1 means no shared signal, and only sampling or negatively correlated views give more"
    )
    text = (
        f"Augmentation over data in the {conventions['augmentation_space']}, {conventions['views']}, {weights}: "
        f"sampled rho from {float(lowest):.3g} to {float(highest):.3g} ({reading}). "
        f"Over all directions: augmentation {augmentation:.3g} (tr Sigma1), data {data:.3g} (tr Sigma0)."
    )
    if report.augmentation_share is not None:
        text += (
            f" Augmentation exceeds data in {report.augmentation_share:.0%} of directions "
            "(cross-validated between two halves; uniform negative weights)."
        )
    elif report.signal is not None:
        text += f" {signal_sentence(report.signal)}"
    return text


def signal_sentence(signal: SharedSignal) -> str:
    """Say in how many directions two views share signal, and how strong a signal the samples could miss.

    Args:
        signal: The tested correlations.

    Returns:
        One sentence.
    """
    text = f"The views share signal in at least {signal.positive} of {signal.tested} tested directions"
    if signal.negative:
        text += f" and are negatively correlated in {signal.negative}"
    if signal.positive + signal.negative < signal.tested:
        text += f"; in the others, a correlation up to {signal.explained:.2g} could be chance"
    return f"{text}."


def threshold_sentence(report: Described) -> str:
    """Say what collapsed means in this report, which of two levels that is, and how certain the count is.

    Args:
        report: The report.

    Returns:
        One or two sentences.
    """
    threshold, floor, cliff = report.verdict.threshold, report.noise_floor, report.relative_level
    beside = f"{COLLAPSED_BELOW**2:g} of the geometric mean of all larger variances"
    of_rounding, of_others = (
        f"which rounding can explain ({beside}: {cliff:.2g})",
        f"{beside} (noise floor: {floor:.2g})",
    )
    text = f"Collapsed means a variance up to {threshold:.2g}, {of_rounding if floor > cliff else of_others}."
    bar = report.intervals["collapsed"]
    if bar is None:
        return text
    return f"{text} 95 % interval of the count: {' to '.join(f'{k:g}' for k in sorted(set(bar)))}."
