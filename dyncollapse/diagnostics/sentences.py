"""Sentences about a report, for the terminal."""

from dyncollapse.diagnostics.report import EmbeddingReport
from dyncollapse.diagnostics.shared_signal import SharedSignal


def augmentation_sentence(report: EmbeddingReport) -> str:
    """Say how augmentation compares with data, for a report that has `ratios`."""
    assert report.ratios is not None
    found = report.conventions
    if not len(report.ratios):
        return "Augmentation over data: nothing varies, so there is no ratio."
    weights = "every negative alike" if found["weights"] == "uniform" else f"the softmax of {found['weights']}"
    if found["weights"] == "ntxent":
        weights += " (a diagnostic: not this loss's exact force)"
    lowest, highest = report.ratios[-1], report.ratios[0]
    pairs = report.input_pairs or report.pairs
    assert pairs is not None
    traces = [float(side.diagonal().sum()) for side in (pairs.data, pairs.augmentation)]
    told = (
        f"Augmentation over data, rho (Sigma1 u = rho Sigma0 u) in the {found['augmentation_space']}, "
        f"{found['views']}, {weights}: from {float(lowest):.3g} to {float(highest):.3g}; "
        f"tr Sigma1 = {traces[1]:.3g}, tr Sigma0 = {traces[0]:.3g}."
    )
    if report.augmentation_share is not None:
        told += (
            f" Augmentation beats data in {report.augmentation_share:.0%} of directions, counted on one half of the "
            "samples along those that the other half finds, every negative alike."
        )
    elif report.signal is not None:
        told += f" {signal_sentence(report.signal)}"
    return told


def signal_sentence(signal: SharedSignal) -> str:
    """Say in how many directions two views share signal, and what sampling explains in the others."""
    told = f"The views share signal in {signal.positive} of {signal.tested} tested directions or more"
    if signal.negative:
        told += f" and are negatively correlated in {signal.negative}"
    if signal.positive + signal.negative < signal.tested:
        told += f"; in the others sampling explains correlations up to {signal.explained:.2g}"
    return f"{told}."
