"""What a reader of a report on embeddings has to be warned of."""

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.diagnostics.evidence import HARD_EDGE, Evidence, format_name

# Variance over squared distance from the origin below which embeddings are nearly one point: a spread of 1 % of the
# distance, the share by which a dimension counts as collapsed (COLLAPSED_BELOW).
ONE_POINT = 1e-4


def cautions(evidence: Evidence, ratios: Float[Tensor, " r"] | None) -> list[str]:
    """Warn of too few or repeated samples, columns that stand still, rounding, one point, and doubtful ratios."""
    return [
        *_samples(evidence),
        *_standing_columns(evidence),
        *_rounding(evidence),
        *_views(evidence),
        *_one_point(evidence),
        *_doubtful_ratios(evidence, ratios),
    ]


def _samples(evidence: Evidence) -> list[str]:
    n, d, found = evidence.samples, evidence.dim, []
    if n <= d:
        found.append(
            f"{n} samples of {d} dimensions show at most {n - 1}; give more than {d}, better ten times that, or "
            "transpose the array if its columns are the samples"
        )
    elif n < 10 * d:
        found.append(f"{n} samples are fewer than 10 x {d}: rank measures and the smallest variances come out too low")
    if evidence.seen < d and abs(n - 1 - d) <= HARD_EDGE * d:
        found.append(f"as many samples as dimensions: the last {d - evidence.seen} variances are small by that alone")
    if evidence.distinct < len(evidence.rows):
        share = 1 - evidence.distinct / len(evidence.rows)
        found.append(
            f"rows are repeated: {share:.2g} of the {len(evidence.rows)} sampled rows equal another; "
            "intervals are too narrow"
            + ("" if evidence.distinct_known else ", and dimensions may be missing for lack of distinct samples")
        )
    return found


def _still(evidence: Evidence) -> Tensor:
    """Which columns never move, up to what rounding adds to a constant."""
    round_off = 100 * torch.finfo(torch.float64).eps * evidence.column_mean
    return evidence.column_variance <= round_off.square()


def _standing_columns(evidence: Evidence) -> list[str]:
    still = _still(evidence).nonzero().flatten().tolist()
    named = ", ".join(map(str, still[:5])) + (", ..." if len(still) > 5 else "")
    few = (
        "with so few samples they may vary all the same"
        if evidence.seen < evidence.dim
        else "each is a collapsed dimension"
    )
    found = f"{len(still)} column(s) are constant: {named} (counted from 0); {few}"
    return [found] if still else []


def _rounding(evidence: Evidence) -> list[str]:
    if evidence.precision not in (torch.float16, torch.bfloat16):
        return []
    name, stored = format_name(evidence.precision), format_name(evidence.dtype)
    origin = "" if name == stored else f", though the file is {stored}"
    hidden = int((evidence.principal[0] <= evidence.noise_floor).sum())
    lost = f", and {hidden} lie there" if hidden else ""
    return [f"values are rounded to {name}{origin}: variances up to {evidence.noise_floor:.2g} are rounding{lost}"]


def _views(evidence: Evidence) -> list[str]:
    if evidence.pairs is None:
        return []
    if evidence.unaugmented:
        return ["the other views equal the first up to rounding: there is no augmentation to compare data with"]
    if evidence.other_precision == evidence.precision:
        return []
    names = f"{format_name(evidence.precision)} and to {format_name(evidence.other_precision)}"
    return [f"the views are rounded to {names}: below {evidence.ratio_floor:.2g} rho would be rounding"]


def _one_point(evidence: Evidence) -> list[str]:
    spread, away = float(evidence.column_variance.sum()), float(evidence.column_mean[~_still(evidence)].square().sum())
    if not 0 < spread < ONE_POINT * away:
        return []
    share = (spread / away) ** 0.5
    return [
        f"all embeddings lie within {share:.2g} of their distance from the origin around one point: complete collapse, "
        "unless an offset is meant; dimensions are judged beside each other only"
    ]


def beyond_width(varying: int, room: int) -> str:
    """Say that embeddings vary in more directions than their layer's inputs have units."""
    return (
        f"{varying} dimensions vary, though the last linear layer reads {room} units: the embeddings are no linear map "
        "of these inputs, which therefore tell nothing here"
    )


def _doubtful_ratios(evidence: Evidence, ratios: Tensor | None) -> list[str]:
    """Extreme generalised eigenvalues are off by (d/n)^(1/2); of interest where one-sided views have a threshold."""
    if ratios is None or evidence.views == "two-sided":
        return []
    band = 2 * (len(ratios) / evidence.samples) ** 0.5
    close = int(((ratios - 1).abs() < band).sum())
    if not close:
        return []
    return [
        f"{close} generalised rho lie within {band:.2g} of 1, "
        f"where {evidence.samples} samples may put them on either side"
    ]
