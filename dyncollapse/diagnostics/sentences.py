"""Sentences about a report, for the terminal."""

from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.diagnostics.shared_signal import SharedSignal


def augmentation_sentence(report: EmbeddingReport) -> str:
    """Say how augmentation compares with data.

    Args:
        report: A report that has `ratios`.

    Returns:
        One to three sentences.
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
    text = (
        f"Augmentation over data, rho (Sigma1 u = rho Sigma0 u) in the {conventions['augmentation_space']}, "
        f"{conventions['views']}, {weights}: from {float(lowest):.3g} to {float(highest):.3g}; "
        f"tr Sigma1 = {augmentation:.3g}, tr Sigma0 = {data:.3g}."
    )
    if report.augmentation_share is not None:
        text += (
            f" Augmentation beats data in {report.augmentation_share:.0%} of directions "
            "(cross-validated between two halves; uniform negative weights)."
        )
    elif report.signal is not None:
        text += f" {signal_sentence(report.signal)}"
    return text


def signal_sentence(signal: SharedSignal) -> str:
    """Say in how many directions two views share signal, and which correlations sampling explains in the others.

    Args:
        signal: The tested correlations.

    Returns:
        One sentence.
    """
    text = f"The views share signal in at least {signal.positive} of {signal.tested} tested directions"
    if signal.negative:
        text += f" and are negatively correlated in {signal.negative}"
    if signal.positive + signal.negative < signal.tested:
        text += f"; in the others sampling explains correlations up to {signal.explained:.2g}"
    return f"{text}."
