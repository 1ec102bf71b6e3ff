"""Warnings of a report on embeddings."""

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.diagnostics.evidence import HARD_EDGE, Evidence, format_name
from dyncollapse.diagnostics.spectra import QUANTISATION_MARGIN

# Variance over squared distance from the origin below which embeddings are nearly one point: a spread of 1 % of the
# distance, the same share as COLLAPSED_BELOW.
ONE_POINT = 1e-4


def cautions(evidence: Evidence, ratios: Float[Tensor, " r"] | None) -> list[str]:
    """Warn of too few or repeated samples, constant columns, rounding, collapse to a point, and rho near 1.

    Args:
        evidence: What was measured.
        ratios: Generalised eigenvalues of the other views; None without these.

    Returns:
        One line per reason to doubt the report.
    """
    return [
        *_samples(evidence),
        *_standing_columns(evidence),
        *_rounding(evidence),
        *_views(evidence),
        *_one_point(evidence),
        *_doubtful_ratios(evidence, ratios),
    ]


def _samples(evidence: Evidence) -> list[str]:
    n, d = evidence.samples, evidence.dim
    lines = []
    if n <= d:
        lines.append(
            f"{n} samples of {d} dimensions show at most {n - 1}; give more than {d}, better ten times as many, or "
            "transpose the array if its columns are the samples"
        )
    elif n < 10 * d:
        lines.append(f"{n} samples are fewer than 10 x {d}: rank measures and the smallest variances are biased low")
    if evidence.seen < d and abs(n - 1 - d) <= HARD_EDGE * d:
        lines.append(
            f"about as many samples as dimensions: that alone makes the last {d - evidence.seen} variances small"
        )
    return lines + _repeated(evidence)


def _repeated(evidence: Evidence) -> list[str]:
    """Warn of rows that stand in a view more than once, and say what that does to intervals and causes."""
    if not evidence.repeated:
        return []
    line = (
        f"rows are repeated: {evidence.repeated:.2g} of the {len(evidence.rows)} sampled rows equal another; "
        "intervals are too narrow"
    )
    if evidence.pairs is not None and not evidence.few and evidence.independent < evidence.samples:
        line += f", and causes are decided as from {evidence.independent} samples"
        if evidence.views == "one-sided" and not evidence.halves_apart:
            line += ", but not by one-sided views, whose halves share rows"
    return [line + ("" if evidence.distinct_known else ", and dimensions may be missing for lack of distinct samples")]


def _still(evidence: Evidence) -> Tensor:
    """Return which columns are constant, up to the rounding of a constant."""
    round_off = 100 * torch.finfo(torch.float64).eps * evidence.column_mean
    return evidence.column_variance <= round_off.square()


def _standing_columns(evidence: Evidence) -> list[str]:
    still = _still(evidence).nonzero().flatten().tolist()
    named = ", ".join(map(str, still[:5])) + (", ..." if len(still) > 5 else "")
    meaning = "they may vary in more samples" if evidence.seen < evidence.dim else "each is a collapsed dimension"
    return [f"{len(still)} column(s) are constant: {named} (counted from 0); {meaning}"] if still else []


def _rounding(evidence: Evidence) -> list[str]:
    hidden = int((evidence.variances <= evidence.noise_floor).sum())
    origin = ""
    if evidence.precision in (torch.float16, torch.bfloat16):
        name, stored = format_name(evidence.precision), format_name(evidence.dtype)
        origin = "" if name == stored else f", though the file is {stored}"
    elif hidden and evidence.noise_floor == QUANTISATION_MARGIN * evidence.steps[0].fine:
        name = evidence.steps[0].name
    else:
        return []
    lost = f", and {hidden} dimension(s) lie there" if hidden else ""
    return [f"values are rounded to {name}{origin}: variances up to {evidence.noise_floor:.2g} are rounding{lost}"]


def _views(evidence: Evidence) -> list[str]:
    if evidence.pairs is None:
        return []
    if evidence.unaugmented:
        return ["the other views equal the first up to rounding: there is no augmentation to compare data with"]
    if evidence.other_precision == evidence.precision:
        return []
    names = f"{format_name(evidence.precision)} and to {format_name(evidence.other_precision)}"
    return [f"the views are rounded to {names}: below a variance of {evidence.ratio_floor:.2g} rho would be rounding"]


def _one_point(evidence: Evidence) -> list[str]:
    spread, away = float(evidence.column_variance.sum()), float(evidence.column_mean[~_still(evidence)].square().sum())
    if not 0 < spread < ONE_POINT * away:
        return []
    share = (spread / away) ** 0.5
    return [
        f"all embeddings lie around one point, within {share:.2g} of its distance from the origin: complete collapse, "
        "unless the offset is intended; dimensions are only judged beside each other"
    ]


def beyond_width(varying: int, room: int) -> str:
    """Warn that embeddings vary in more directions than the inputs of their layer have units.

    Args:
        varying: Number of directions in which the embeddings vary.
        room: Number of units that the layer is said to read.

    Returns:
        One line.
    """
    return (
        f"{varying} dimensions vary, though the last linear layer reads {room} units: the embeddings are no linear map "
        "of these inputs, which are therefore ignored"
    )


def _doubtful_ratios(evidence: Evidence, ratios: Tensor | None) -> list[str]:
    """Warn of rho near 1, the threshold of one-sided views: extreme eigenvalues are off by about (d/n)^(1/2)."""
    if ratios is None or evidence.views == "two-sided":
        return []
    band = 2 * (len(ratios) / evidence.independent) ** 0.5
    close = int(((ratios - 1).abs() < band).sum())
    if not close:
        return []
    return [
        f"{close} generalised rho lie within {band:.2g} of 1, "
        f"where {evidence.independent} samples may put them on either side"
    ]
