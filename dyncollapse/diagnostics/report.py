"""The report on a set of embeddings: spectrum, rank measures with intervals, what collapsed, and why."""

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.diagnostics.causes import InputCount, count_inputs, fates_from_views, growing_alive, whole_signal
from dyncollapse.diagnostics.caveats import beyond_width, cautions
from dyncollapse.diagnostics.conventions import PublishedMeasure
from dyncollapse.diagnostics.doubts import doubts
from dyncollapse.diagnostics.embedding_remedies import embedding_remedies
from dyncollapse.diagnostics.evidence import FEWEST_FOR_ERRORS, Evidence, format_name
from dyncollapse.diagnostics.intervals import (
    DEFINITIONS,
    Interval,
    Measures,
    collapsed_interval,
    measures_with_intervals,
)
from dyncollapse.diagnostics.page import diagnosis_page
from dyncollapse.diagnostics.ratios import Crossed, cross_validated_ratios, generalised, ratio_along, ratio_error
from dyncollapse.diagnostics.remedies import Remedy, remedy_lines
from dyncollapse.diagnostics.sentences import sentences_of
from dyncollapse.diagnostics.shared_signal import SharedSignal
from dyncollapse.diagnostics.spectrum_verdict import NO_VIEWS, collapse_level, judge_spectrum
from dyncollapse.diagnostics.verdict import COLLAPSED_BELOW, Fate, Verdict
from dyncollapse.model.covariance import ContrastiveCovariance
from dyncollapse.runtime.extras import as_frame
from dyncollapse.runtime.page.render import render
from dyncollapse.runtime.results import html_table, plain
from dyncollapse.runtime.settings import renamed

if TYPE_CHECKING:
    import pandas

SPECTRUM = "eigenvalues of the centred covariance, 1/N, descending"
INTERVALS = "95 %: 1.96 standard errors of the linearised bootstrap (infinitesimal jackknife); bias is not included"


@dataclass(frozen=True, eq=False, repr=False)
class EmbeddingReport:
    """Everything that `dyncollapse diagnose` reports on a set of embeddings.

    Attributes:
        samples: Number of samples N.
        dim: Number of dimensions d.
        space: Name of the space that the embeddings are from.
        conventions: Definitions of the measures, and how the embeddings were stored, summed and compared.
        spectrum: Eigenvalues of the centred covariance with 1/N, descending, in squared units of the embeddings.
        noise_floor: Variance that rounding alone can show in a direction.
        relative_level: Variance below which a dimension is small beside the others (`collapse_level`). The larger of
            this and `noise_floor` is `verdict.threshold`.
        measures: Value of each rank measure by name; None if it is not defined here.
        intervals: 95 % interval (low, high) of each measure, and of the number of collapsed dimensions ("collapsed").
        ratios: Generalised eigenvalues rho of (Sigma1, Sigma0), descending; None without other views.
        ratio: rho along each principal direction; NaN where it was not measured.
        ratio_error: Standard error of `ratio`.
        signal: In how many directions two views share signal; None without other views or with fewer than 10 rows.
        augmentation_share: For one-sided views, the cross-validated share of directions with rho >= 1. The extremes of
            `ratios` are biased, this share is not.
        verdict: Fate of each principal direction, mechanism, threshold and sentence.
        warnings: Reasons to doubt the report, one line each.
        notes: Measures that are not defined here, and what was left out, one line each.
        pairs: Contrastive covariances Sigma0 and Sigma1 of the embeddings; None without other views.
        input_pairs: The same of the inputs of the last linear layer.
        frame: Orthonormal columns in whose coordinates `pairs` are, if there were fewer rows than dimensions.
        input_frame: The same for `input_pairs`.
        remedies: What to try for the causes that were found, and what would decide those that are open.
        published: Rank measures in the conventions of other libraries and papers; empty unless asked for.

    References:
        docs/explanation/diagnostics.md (every line of the report).

    Examples:
        >>> from dyncollapse import diagnose
        >>> z = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1.0, 1.0, 1e-3])
        >>> report = diagnose(z)
        >>> report.verdict.sentence[:44]
        '1 of 4 dimensions collapsed (variance up to '
        >>> round(report.measures["participation_ratio"])
        3
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
    notes: tuple[str, ...]
    pairs: ContrastiveCovariance | None
    input_pairs: ContrastiveCovariance | None
    frame: Float[Tensor, "d c"] | None = None
    input_frame: Float[Tensor, "k c"] | None = None
    remedies: tuple[Remedy, ...] = ()
    published: tuple[PublishedMeasure, ...] = ()

    def __repr__(self) -> str:
        """Return the size, the space and the verdict; the numbers are in the attributes and in `as_values`."""
        sentence = renamed(self.verdict.sentence, str)
        return f"<{type(self).__name__} of {self.samples} samples x {self.dim} dimensions, {self.space}: {sentence}>"

    @property
    def collapsed(self) -> int:
        """Number of collapsed dimensions."""
        return sum(self.verdict.collapsed)

    def as_values(self) -> dict[str, Any]:
        """Return the report as plain JSON values: what `dyncollapse diagnose --json` prints, without its options.

        Returns:
            Names and values.
        """
        v = self.verdict
        values = {
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
                "sentence": renamed(v.sentence, str),
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
            "remedies": [one.as_values() for one in self.remedies],
            "published": [one._asdict() for one in self.published],
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }
        return {name: plain(value) for name, value in values.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values, as the other results do; `as_values` under its common name.

        Returns:
            Names and values; what was not measured is None, and no number is infinite.
        """
        return self.as_values()

    def _repr_html_(self) -> str:
        """The verdict, what to try, and the rows, for notebooks."""
        sentence = renamed(self.verdict.sentence, str)
        return html_table([sentence, *remedy_lines(self.remedies, width=10_000)], self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per principal direction, in descending order of variance.

        Returns:
            Rows with the direction's number from 1 on, eigenvalue, collapsed, mechanism, fate, rho and rho_error.
        """
        values = self.as_values()
        measured = zip(values["spectrum"], values["verdict"]["dimensions"], strict=True)
        return [{"dimension": k, "eigenvalue": value, **dimension} for k, (value, dimension) in enumerate(measured, 1)]

    def to_pandas(self) -> "pandas.DataFrame":
        """Return `rows` as a data frame.

        Returns:
            One row per principal direction.

        Raises:
            ValueError: If pandas is not installed; the extra `dyncollapse[tables]` installs it.
        """
        return as_frame(self.rows())

    def to_html(self) -> str:
        """Write the report as the page that `dyncollapse diagnose` saves as report.html.

        Returns:
            One self-contained page: verdict, pictures, tables, cautions and conventions.
        """
        return render(diagnosis_page(self.as_values(), sentences_of(self)))


def examine(evidence: Evidence) -> EmbeddingReport:
    """Judge measurements of embeddings: threshold, collapsed dimensions with their causes, measures and intervals.

    Args:
        evidence: What was measured.

    Returns:
        The report.
    """
    values, level = evidence.variances, collapse_level(evidence.variances[: evidence.seen])
    source = evidence.inputs or evidence
    ratio, error = _ratios_along(evidence)
    room, contradiction = _room(evidence, values)
    signals, unsigned = _signals(evidence)
    signal = signals.get("inputs", signals["embeddings"])
    one_sided = source.pairs is not None and source.views == "one-sided"
    crossed = cross_validated_ratios(source) if one_sided else []
    verdict = judge_spectrum(
        _padded(values, evidence.dim, 0.0),
        max(evidence.noise_floor, level),
        evidence.noise_floor if ratio is None else evidence.cause_floor,
        evidence.seen,
        room=room,
        from_views=None if ratio is None else partial(fates_from_views, evidence),
        counted=None if contradiction else _counted(evidence, level, signal, crossed),
        views=evidence.views,
        no_cause=_no_cause(evidence),
        ratios=_finite(ratio),
        ratio_errors=_finite(error),
    )
    measures, intervals, missing = measures_with_intervals(evidence, verdict.fates.count(Fate.ALIVE))
    measures["signal_rank"] = None if signals["embeddings"] is None else signals["embeddings"].positive
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
        warnings=(*cautions(evidence, ratios), *contradiction, *doubts(evidence, verdict, signals, measures["rankme"])),
        notes=(*missing, *unsigned, *_left_out(evidence)),
        pairs=evidence.pairs,
        input_pairs=evidence.inputs.pairs if evidence.inputs else None,
        frame=evidence.frame,
        input_frame=evidence.inputs.frame if evidence.inputs else None,
        remedies=embedding_remedies(evidence, verdict),
    )


def _counted(
    evidence: Evidence, level: float, signal: SharedSignal | None, crossed: list[Crossed]
) -> InputCount | None:
    """Count directions of the last layer's inputs, if they were given."""
    if evidence.inputs is None:
        return None
    alive = int((evidence.variances[: evidence.seen] > max(evidence.noise_floor, level)).sum())
    return count_inputs(evidence.inputs, signal, crossed, growing_alive(evidence, alive))


def _no_cause(evidence: Evidence) -> str:
    """Return what to say of dimensions whose cause is open."""
    if evidence.uncompared:
        return "the views were not compared, so causes are open"
    return NO_VIEWS if evidence.pairs is None else "the other views do not differ from the first"


def _left_out(evidence: Evidence) -> list[str]:
    """Return a line for each part of the report that was left out on request."""
    left_out = {
        "intervals are left out (`intervals` is off)": not evidence.intervals,
        "the views are not compared (`compare` is off): no causes, rho, signal_rank or lidar": evidence.uncompared,
    }
    return [line for line, so in left_out.items() if so]


def _ratios_along(evidence: Evidence) -> tuple[Float[Tensor, " d"] | None, Float[Tensor, " d"] | None]:
    """Return rho along each principal direction and its standard error; None if no view differs from the first."""
    if evidence.pairs is None or evidence.unaugmented:
        return None, None
    directions = evidence.principal[1]
    along = ratio_along(directions, evidence.pairs)
    error = ratio_error(evidence, directions, along)
    return _padded(along, evidence.dim, math.nan), _padded(error, evidence.dim, math.nan)


def _room(evidence: Evidence, values: Float[Tensor, " k"]) -> tuple[int | None, list[str]]:
    """Return how many dimensions the last layer can fill, or a warning if more than that vary."""
    room = evidence.inputs.dim if evidence.inputs else evidence.input_dim
    varying = int((values[: evidence.seen] > evidence.cause_floor).sum())
    return (room, []) if room is None or varying <= room else (None, [beyond_width(varying, room)])


def _finite(values: Float[Tensor, " d"] | None) -> list[float | None]:
    """Return values for JSON, with None for NaN and infinity; an empty list if none were measured."""
    return [] if values is None else [value if math.isfinite(value) else None for value in values.tolist()]


def _padded(values: Float[Tensor, " k"], dim: int, filling: float) -> Float[Tensor, " d"]:
    return torch.nn.functional.pad(values, (0, dim - len(values)), value=filling)


def _signals(evidence: Evidence) -> tuple[dict[str, SharedSignal | None], list[str]]:
    """Return the signal that the views of the embeddings share, and those of the inputs if there are any.

    The notes say why the last of them could not be tested.
    """
    sources = {"embeddings": evidence} | ({"inputs": evidence.inputs} if evidence.inputs else {})
    tested = {name: _signal(source) for name, source in sources.items()}
    return {name: signal for name, (signal, _) in tested.items()}, list(tested.values())[-1][1]


def _signal(evidence: Evidence) -> tuple[SharedSignal | None, list[str]]:
    """Return the signal that the views share, or a note if it could not be tested."""
    if evidence.correlation is None or evidence.unaugmented:
        return None, []
    if evidence.few:
        return None, [f"signal_rank is not defined here: it takes {FEWEST_FOR_ERRORS} distinct sampled rows or more"]
    return whole_signal(evidence), []


def _conventions(evidence: Evidence, level: float) -> dict[str, Any]:
    compared = evidence.pairs is not None or evidence.inputs is not None
    return {
        "spectrum": SPECTRUM,
        **DEFINITIONS,
        "intervals": INTERVALS if evidence.intervals else "left out",
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
    """Return the share of directions with rho >= 1, for one-sided views; see `cross_validated_ratios`."""
    judged = [c.rho for c in crossed] or ([] if ratios is None else [ratios])
    total = sum(map(len, judged))
    return sum(float((rho >= 1).sum()) for rho in judged) / total if total else None
