"""The report on a set of embeddings: spectrum, rank measures with error bars, what collapsed, and why."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.cautions import cautions
from dyncollapse.covariance import ContrastiveCovariance
from dyncollapse.diagnosis import COLLAPSED_BELOW, Verdict, collapse_level, judge_spectrum
from dyncollapse.equilibria import relative_modes
from dyncollapse.evidence import Evidence, format_name
from dyncollapse.intervals import DEFINITIONS, Interval, Measures, collapsed_interval, measures_with_intervals

SPECTRUM = "eigenvalues of the centred covariance, 1/N, descending"
INTERVALS = "95 %: 1.96 standard errors of the linearised bootstrap (infinitesimal jackknife); no bias in them"


@dataclass(frozen=True, eq=False)
class EmbeddingReport:
    """Everything `dyncollapse diagnose` says; `as_values` is its JSON.

    `spectrum` descends; `noise_floor` is the variance that rounding alone can show in a direction, `relative_level`
    the one below which a dimension is small beside the others (`collapse_level`); the verdict's threshold is the
    larger. `intervals` has (low, high) per measure, and of the number of collapsed dimensions. `ratios` are the
    generalised eigenvalues rho of (Sigma1, Sigma0), descending; `ratio` is rho along each principal direction;
    `augmentation_share` is the share of directions in which augmentation beats data, rho >= 1, which the extremes of
    `ratios` exaggerate: it is counted on one half of the samples along the directions that the other half finds.
    """

    samples: int
    dim: int
    space: str
    conventions: dict[str, Any]
    spectrum: Float[Tensor, " d"]
    noise_floor: float
    relative_level: float
    measures: Measures
    intervals: dict[str, Interval]
    ratios: Float[Tensor, " r"] | None
    ratio: Float[Tensor, " d"] | None
    augmentation_share: float | None
    verdict: Verdict
    warnings: tuple[str, ...]
    pairs: ContrastiveCovariance | None
    input_pairs: ContrastiveCovariance | None

    @property
    def collapsed(self) -> int:
        """How many dimensions collapsed."""
        return sum(self.verdict.collapsed)

    def as_values(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        v = self.verdict
        rho = (
            [None] * self.dim if self.ratio is None else [r if math.isfinite(r) else None for r in self.ratio.tolist()]
        )
        dimensions = zip(v.collapsed, v.mechanisms, v.fates, rho, strict=True)
        return {
            "samples": self.samples,
            "dim": self.dim,
            "space": self.space,
            "conventions": self.conventions,
            "spectrum": self.spectrum.tolist(),
            "noise_floor": self.noise_floor,
            "collapsed": self.collapsed,
            "measures": self.measures,
            "intervals": {name: None if bar is None else list(bar) for name, bar in self.intervals.items()},
            "augmentation_ratio": None if self.ratios is None else self.ratios.tolist(),
            "augmentation_share": self.augmentation_share,
            "verdict": {
                "collapsed": self.collapsed,
                "mechanism": v.mechanism,
                "threshold": v.threshold,
                "sentence": v.sentence,
                "dimensions": [
                    {"collapsed": gone, "mechanism": mechanism, "fate": fate, "rho": ratio}
                    for gone, mechanism, fate, ratio in dimensions
                ],
            },
            "warnings": list(self.warnings),
        }


def examine(e: Evidence) -> EmbeddingReport:
    """Judge what was measured: threshold, collapsed dimensions and their mechanisms, measures and how sure they are."""
    values, directions = e.principal
    level = collapse_level(values[: e.seen])
    threshold = max(e.noise_floor, level)
    source = e.inputs or e
    ratio = None if e.pairs is None or e.unaugmented else _along(directions, e.pairs)
    ratios = None if source.pairs is None else _generalised(source, source.pairs)[0].flip(-1)
    growing, beaten = _growing_and_beaten(source, ratios)
    verdict = judge_spectrum(
        values,
        threshold,
        e.noise_floor if ratio is None else e.ratio_floor,
        e.seen,
        ratio,
        growing if e.inputs else None,
    )
    measures, intervals, missing = measures_with_intervals(e, e.seen - sum(verdict.collapsed))
    intervals["collapsed"] = collapsed_interval(e, threshold)
    return EmbeddingReport(
        samples=e.samples,
        dim=e.dim,
        space=e.space,
        conventions=_conventions(e, level),
        spectrum=values,
        noise_floor=e.noise_floor,
        relative_level=level,
        measures=measures,
        intervals=intervals,
        ratios=ratios,
        ratio=ratio,
        augmentation_share=beaten,
        verdict=verdict,
        warnings=(*cautions(e, ratio, ratios, verdict), *missing),
        pairs=e.pairs,
        input_pairs=e.inputs.pairs if e.inputs else None,
    )


def _conventions(e: Evidence, level: float) -> dict[str, Any]:
    compared = e.pairs is not None or e.inputs is not None
    return {
        "spectrum": SPECTRUM,
        **DEFINITIONS,
        "intervals": INTERVALS,
        "normalised": e.normalised,
        "dtype": format_name(e.dtype),
        "precision": format_name(e.precision),
        "accumulation": "float32 blocks, summed in float64" if e.fast else "float64",
        "tail": "squared singular values of the centred embeddings" if e.direct else "of the covariance",
        "views": e.views if compared else None,
        "weights": e.weights or (e.inputs.weights if e.inputs else None),
        "augmentation_space": ("last layer's inputs" if e.inputs else e.space) if compared else None,
        "relative_level": level,
        "collapsed_below": f"the noise floor, or {COLLAPSED_BELOW**2:g} of the geometric mean of all above",
        "sample": len(e.rows),
    }


def _along(directions: Float[Tensor, "d k"], pairs: ContrastiveCovariance) -> Float[Tensor, " k"]:
    """Rho = v.Sigma1 v / v.Sigma0 v along every column v; 0 where neither moves (the pair criterion)."""
    data, augmentation = (((cov @ directions) * directions).sum(0) for cov in (pairs.data, pairs.augmentation))
    return torch.where(augmentation > 0, augmentation / data, 0.0)


def _generalised(e: Evidence, pairs: ContrastiveCovariance) -> tuple[Float[Tensor, " r"], Float[Tensor, "d r"]]:
    """Generalised eigenvalues of (Sigma1, Sigma0), ascending, and directions, where data spreads beyond rounding."""
    # Softmax weights leave Sigma0 small beside the terms that cancel in it, which are as large as the covariance.
    return relative_modes(pairs.data, pairs.augmentation, 2 * e.ratio_floor)


def _growing_and_beaten(e: Evidence, ratios: Tensor | None) -> tuple[int | None, float | None]:
    """In how many directions data beats augmentation, and in what share of them it does not.

    Generalised eigenvalues spread by (d/n)^(1/2) around the truth, the largest always upwards. So each half of the
    samples judges the directions that the other one finds (fewer than four samples: the eigenvalues are counted).
    Every negative counts alike, as at W = 0, whatever the weights of `ratios`: at rest those bring rho to 1 wherever
    a dimension is alive.
    """
    if ratios is None:
        return None, None
    judged = [ratios]
    if e.halves is not None:
        judged = [_along(_generalised(e, found)[1], other) for found, other in (e.halves, e.halves[::-1])]
    beaten = [float((rho >= 1).sum()) for rho in judged]
    total = sum(map(len, judged))
    growing = round((total - sum(beaten)) / len(judged))
    return growing, sum(beaten) / total if total else None
