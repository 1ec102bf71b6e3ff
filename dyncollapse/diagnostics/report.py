"""The report on a set of embeddings: spectrum, rank measures with error bars, what collapsed, and why."""

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.diagnostics.causes import count_inputs, fates_from_views, whole_signal
from dyncollapse.diagnostics.caveats import beyond_width, cautions
from dyncollapse.diagnostics.evidence import FEWEST_FOR_ERRORS, Evidence, format_name
from dyncollapse.diagnostics.intervals import (
    DEFINITIONS,
    Interval,
    Measures,
    collapsed_interval,
    measures_with_intervals,
)
from dyncollapse.diagnostics.ratios import Crossed, cross_validated_ratios, generalised, ratio_along, ratio_error
from dyncollapse.diagnostics.shared_signal import SharedSignal
from dyncollapse.diagnostics.spectrum_verdict import NO_VIEWS, collapse_level, judge_spectrum
from dyncollapse.diagnostics.verdict import COLLAPSED_BELOW, Fate, Verdict
from dyncollapse.model.covariance import ContrastiveCovariance
from dyncollapse.runtime.extras import as_frame

if TYPE_CHECKING:
    import pandas

SPECTRUM = "eigenvalues of the centred covariance, 1/N, descending"
INTERVALS = "95 %: 1.96 standard errors of the linearised bootstrap (infinitesimal jackknife); no bias in them"


@dataclass(frozen=True, eq=False)
class EmbeddingReport:
    """Everything `dyncollapse diagnose` says; `as_values` is its JSON.

    `spectrum` descends; `noise_floor` is the variance that rounding alone can show in a direction, `relative_level`
    the one below which a dimension is small beside the others (`collapse_level`); the verdict's threshold is the
    larger. `intervals` has (low, high) per measure, and of the number of collapsed dimensions. `ratios` are the
    generalised eigenvalues rho of (Sigma1, Sigma0), descending; `ratio` is rho along each principal direction and
    `ratio_error` its standard error. `signal` is what the views share where `ratios` were measured. One-sided views
    also have an `augmentation_share`: the share of directions in which augmentation beats data, rho >= 1, which the
    extremes of `ratios` exaggerate; it is counted on one half of the samples along the directions that the other finds.
    `pairs` and `input_pairs` are about coordinates in `frame` and `input_frame`, where there were fewer rows than
    dimensions.
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
    ratio_error: Float[Tensor, " d"] | None
    signal: SharedSignal | None
    augmentation_share: float | None
    verdict: Verdict
    warnings: tuple[str, ...]
    pairs: ContrastiveCovariance | None
    input_pairs: ContrastiveCovariance | None
    frame: Float[Tensor, "d c"] | None = None
    input_frame: Float[Tensor, "k c"] | None = None

    @property
    def collapsed(self) -> int:
        """How many dimensions collapsed."""
        return sum(self.verdict.collapsed)

    def as_values(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        v = self.verdict
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
            "shared_signal": None if self.signal is None else self.signal.as_values(),
            "verdict": {
                "collapsed": self.collapsed,
                "fates": [fate.value for fate in v.fates],
                "mechanism": v.mechanism.value,
                "threshold": v.threshold,
                "unseen_signal": v.unseen_signal,
                "sentence": v.sentence,
                "dimensions": [
                    {
                        "collapsed": one.fate.collapsed,
                        "mechanism": one.fate.mechanism.value,
                        "fate": one.fate.value,
                        "rho": one.rho,
                        "rho_error": one.rho_error,
                    }
                    for one in v.dimensions
                ],
            },
            "warnings": list(self.warnings),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row per principal direction, largest variance first: its number, variance and part of the verdict."""
        values = self.as_values()
        found = zip(values["spectrum"], values["verdict"]["dimensions"], strict=True)
        return [{"dimension": k, "eigenvalue": value, **dimension} for k, (value, dimension) in enumerate(found, 1)]

    def to_pandas(self) -> "pandas.DataFrame":
        """The same rows as a data frame. Raises ValueError, one line, where pandas is not installed."""
        return as_frame(self.rows())


def examine(evidence: Evidence) -> EmbeddingReport:
    """Judge what was measured: threshold, collapsed dimensions and their causes, measures and how sure they are."""
    values, directions = evidence.principal
    level = collapse_level(values[: evidence.seen])
    source = evidence.inputs or evidence
    ratio, error = _ratios_along(evidence, directions)
    room, contradiction = _room(evidence, values)
    signal, unsigned = _signal(source)
    one_sided = source.pairs is not None and source.views == "one-sided"
    crossed = cross_validated_ratios(source) if one_sided else []
    verdict = judge_spectrum(
        _padded(values, evidence.dim, 0.0),
        max(evidence.noise_floor, level),
        evidence.noise_floor if ratio is None else evidence.cause_floor,
        evidence.seen,
        room=room,
        from_views=None if ratio is None else partial(fates_from_views, evidence),
        counted=count_inputs(evidence.inputs, signal, crossed) if evidence.inputs and not contradiction else None,
        views=evidence.views,
        no_cause=NO_VIEWS if evidence.pairs is None else "the other views do not differ from the first",
        ratios=_finite(ratio),
        ratio_errors=_finite(error),
    )
    measures, intervals, missing = measures_with_intervals(evidence, verdict.fates.count(Fate.ALIVE))
    own = signal if source is evidence else _signal(evidence)[0]
    measures["signal_rank"] = None if own is None else own.positive
    intervals["collapsed"] = collapsed_interval(evidence, verdict.threshold)
    ratios = None if source.pairs is None else generalised(source, source.pairs)[0].flip(-1)
    return EmbeddingReport(
        samples=evidence.samples,
        dim=evidence.dim,
        space=evidence.space,
        conventions=_conventions(evidence, level),
        spectrum=_padded(values, evidence.dim, 0.0),
        noise_floor=evidence.noise_floor,
        relative_level=level,
        measures=measures,
        intervals=intervals,
        ratios=ratios,
        ratio=ratio,
        ratio_error=error,
        signal=signal,
        augmentation_share=_share_beaten(crossed, ratios) if one_sided else None,
        verdict=verdict,
        warnings=(*cautions(evidence, ratios), *contradiction, *missing, *unsigned),
        pairs=evidence.pairs,
        input_pairs=evidence.inputs.pairs if evidence.inputs else None,
        frame=evidence.frame,
        input_frame=evidence.inputs.frame if evidence.inputs else None,
    )


def _ratios_along(
    evidence: Evidence, directions: Float[Tensor, "c k"]
) -> tuple[Float[Tensor, " d"] | None, Float[Tensor, " d"] | None]:
    """Rho along each principal direction and its standard error; None where no other view differs from the first."""
    if evidence.pairs is None or evidence.unaugmented:
        return None, None
    along = ratio_along(directions, evidence.pairs)
    error = ratio_error(evidence, directions, along)
    return _padded(along, evidence.dim, math.nan), _padded(error, evidence.dim, math.nan)


def _room(evidence: Evidence, values: Float[Tensor, " k"]) -> tuple[int | None, list[str]]:
    """How many dimensions the last layer's inputs leave room for, or why what is said of them cannot be true."""
    room = evidence.inputs.dim if evidence.inputs else evidence.input_dim
    varying = int((values[: evidence.seen] > evidence.cause_floor).sum())
    return (room, []) if room is None or varying <= room else (None, [beyond_width(varying, room)])


def _finite(values: Float[Tensor, " d"] | None) -> list[float | None]:
    """Values for JSON, which has neither NaN nor infinity; none where none were measured."""
    return [] if values is None else [value if math.isfinite(value) else None for value in values.tolist()]


def _padded(values: Float[Tensor, " k"], dim: int, filling: float) -> Float[Tensor, " d"]:
    return torch.nn.functional.pad(values, (0, dim - len(values)), value=filling)


def _signal(evidence: Evidence) -> tuple[SharedSignal | None, list[str]]:
    """The signal that the views share, or why it was not tested."""
    if evidence.correlation is None or evidence.unaugmented:
        return None, []
    if min(evidence.samples, len(evidence.rows)) < FEWEST_FOR_ERRORS:
        return None, [f"signal_rank is not defined here: it takes {FEWEST_FOR_ERRORS} sampled rows or more"]
    return whole_signal(evidence), []


def _conventions(evidence: Evidence, level: float) -> dict[str, Any]:
    compared = evidence.pairs is not None or evidence.inputs is not None
    return {
        "spectrum": SPECTRUM,
        **DEFINITIONS,
        "intervals": INTERVALS,
        "normalised": evidence.normalised,
        "dtype": format_name(evidence.dtype),
        "precision": format_name(evidence.precision),
        "accumulation": "float32 blocks, summed in float64" if evidence.fast else "float64",
        "tail": "squared singular values of the centred embeddings" if evidence.direct else "of the covariance",
        "views": evidence.views if compared else None,
        "weights": evidence.weights or (evidence.inputs.weights if evidence.inputs else None),
        "augmentation_space": ("last layer's inputs" if evidence.inputs else evidence.space) if compared else None,
        "relative_level": level,
        "collapsed_below": f"the noise floor, or {COLLAPSED_BELOW**2:g} of the geometric mean of all above",
        "sample": len(evidence.rows),
    }


def _share_beaten(crossed: list[Crossed], ratios: Float[Tensor, " r"] | None) -> float | None:
    """In what share of directions augmentation beats data, for one-sided views; see `cross_validated_ratios`."""
    judged = [c.rho for c in crossed] or ([] if ratios is None else [ratios])
    total = sum(map(len, judged))
    return sum(float((rho >= 1).sum()) for rho in judged) / total if total else None
