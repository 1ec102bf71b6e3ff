"""Diagnose embeddings that are complete: measure them, and judge what was measured."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from dyncollapse.diagnostics.conventions import compare_conventions
from dyncollapse.diagnostics.conversion import Rows, as_rows
from dyncollapse.diagnostics.evidence import Evidence, principal_directions
from dyncollapse.diagnostics.finite import ADVICE, nonfinite
from dyncollapse.diagnostics.monitor import Monitor
from dyncollapse.diagnostics.options import DiagnosisOptions
from dyncollapse.diagnostics.report import EmbeddingReport, examine
from dyncollapse.model.covariance import ContrastiveCovariance, blockwise_covariance, check_weighing
from dyncollapse.model.precision import common_precision
from dyncollapse.runtime.settings import SettingError


def diagnose(
    z: Rows,
    positives: Rows | Sequence[Rows] | None = None,
    *,
    inputs: Rows | None = None,
    input_positives: Rows | None = None,
    views: str = "two-sided",
    loss: str | None = None,
    temperature: float | None = None,
    space: str = "embedding",
    svd: bool = False,
    fast: bool = False,
    sample: int = 4096,
    seed: int = 0,
    input_dim: int | None = None,
    compare: bool = False,
    progress: Callable[[str, float, float], None] | None = None,
) -> EmbeddingReport:
    """Report which dimensions of given embeddings collapsed, why, and how certain that is.

    Embeddings alone give the number of collapsed dimensions. The cause needs other views of the same samples. Time is
    O(n d^2); with `loss` also O(n^2 d) for each other view.

    Args:
        z: Embeddings (n, d), a row per sample: a tensor, a NumPy array or a list. Memory-mapped files are read in
            blocks.
        positives: Other views of the same samples, row by row: one array, or a list or tuple of arrays.
        inputs: Inputs (n, k) of the last linear layer, from which it computed `z`.
        input_positives: Its inputs for the first of `positives`.
        views: "two-sided" if all views are augmented, "one-sided" if `z` is not.
        loss: "infonce", "dot" or "ntxent" weights negatives by the softmax of that loss, for each other view in turn.
            Without it negatives have uniform weights.
        temperature: Temperature of dot and ntxent.
        space: Name of the space of `z` in the report, for example "representation".
        svd: Compute the spectrum by an SVD of the centred matrix, held whole in float64. It keeps digits of small
            eigenvalues that rounding hides in a covariance.
        fast: Compute products in float32: about twice as fast, with a higher noise floor, which the report states.
        sample: Number of rows kept for intervals and warnings.
        seed: Seed of the choice of these rows and of the halves for cross-validation.
        input_dim: Number k of units that the last linear layer reads, if `inputs` are not at hand.
        compare: Add the rank measures of `compare_conventions`, for which all rows are held in float64.
        progress: Called with the name of the step, the rows done and the number of rows.

    Returns:
        The report: spectrum, measures with intervals, verdict, and warnings.

    Raises:
        SettingError: A ValueError in one line, for options of another type or out of range, or that exclude each other.
        ValueError: For shapes that do not fit, NaN or infinity (how many, and where the first is), fewer than two rows,
            and values whose squares overflow or vanish.

    References:
        docs/explanation/beyond-the-paper.md, section 5c (the pair criterion); docs/explanation/diagnostics.md.

    Examples:
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.randn(2000, 4, generator=g)  # clean; the positives are augmented, most along the last input
        >>> x_pos = x + torch.randn(2000, 4, generator=g) * torch.tensor([0.5, 0.5, 0.5, 2.0])
        >>> layer = torch.diag(torch.tensor([1.0, 1.0, 1.0, 1e-3]))
        >>> report = diagnose(x @ layer, x_pos @ layer, views="one-sided")
        >>> report.collapsed, [str(fate) for fate in report.verdict.fates]
        (1, ['alive', 'alive', 'alive', 'dead'])
    """
    DiagnosisOptions(
        views=views,  # type: ignore[arg-type]
        loss=loss,  # type: ignore[arg-type]
        temperature=temperature,
        input_dim=input_dim,
        space=space,
        svd=svd,
        fast=fast,
        sample=sample,
        seed=seed,
        compare=compare,
    )
    given = [] if positives is None else positives if isinstance(positives, list | tuple) else [positives]
    z, *others = (as_rows(view) for view in (z, *given))
    pair = _input_pair(inputs, input_positives, len(z), input_dim)
    check_loss(loss, temperature, views, len(others))

    def measured(name: str, *arrays: Tensor) -> Evidence:
        monitor = Monitor(views=views, space=space, fast=fast, sample=min(sample, max(2, len(z))), seed=seed)
        return _evidence_of(monitor, name, arrays, progress and partial(progress, name))

    evidence = replace(measured("embeddings", z, *others), input_dim=input_dim)
    source = measured("inputs", *pair) if pair else None
    if loss is not None:
        pairs_progress = progress and partial(progress, "pairs")
        dtype = None if fast else torch.float64
        weigh = partial(_weighed, loss=loss, temperature=temperature, views=views, dtype=dtype, progress=pairs_progress)
        evidence = replace(weigh(evidence, (z, *others), (z, *others)), weights=loss)
        source = weigh(source, pair, (z, others[0])) if source and pair else None
    direct = principal_directions(z) if svd else None
    report = examine(replace(evidence, inputs=source, direct=direct))
    return replace(report, published=tuple(compare_conventions(z, others))) if compare else report


def _input_pair(
    inputs: Rows | None, input_positives: Rows | None, samples: int, input_dim: int | None
) -> tuple[Shaped[Tensor, "n k"], Shaped[Tensor, "n k"]] | None:
    """Check both views of the last layer's inputs; None if they were not given."""
    if (inputs is None) != (input_positives is None):
        raise SettingError(
            "`inputs` and `input_positives` go together; give both views of the last layer's inputs, or neither"
        )
    if inputs is None:
        return None
    if input_dim is not None:
        raise SettingError("`inputs` already have the width that `input_dim` gives; leave `input_dim` out")
    x, x_pos = as_rows(inputs, "inputs"), as_rows(input_positives, "input_positives")
    if len(x) != samples:
        raise ValueError(f"there are {len(x)} inputs and {samples} embeddings; row i of both must be sample i")
    return x, x_pos


def _evidence_of(
    monitor: Monitor, name: str, arrays: Sequence[Tensor], progress: Callable[[int, int], None] | None
) -> Evidence:
    """Measure these views; the error for NaN and infinity counts them and names the first one's place."""
    try:
        monitor.update(*arrays, progress=progress)
        return monitor.evidence()
    except ValueError as error:
        for number, array in enumerate(arrays):
            if array.ndim != 2:
                raise error from None
            _refuse_nonfinite(f"{name} (view {number + 1})" if number else name, array)
        raise error from None


def _weighed(evidence: Evidence, x: Sequence[Tensor], z: Sequence[Tensor], **settings: Any) -> Evidence:
    """Return the evidence with pairs of the views `x` weighted by the softmax of the views `z`.

    The first view is paired with each of the others.
    """
    first, *others = (_in_frame(evidence, view) for view in x)
    pairs = zip(others, z[1:], strict=True)
    return replace(evidence, **_weighed_pairs([(first, x_pos, z[0], z_pos) for x_pos, z_pos in pairs], **settings))


def _in_frame(evidence: Evidence, rows: Shaped[Tensor, "n d"]) -> Shaped[Tensor, "n c"]:
    """Return rows in the coordinates that all matrices of the evidence use."""
    return rows if evidence.frame is None else evidence.coordinates(rows)


def _weighed_pairs(
    tensors: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], *, loss: str, dtype: torch.dtype | None, **settings: Any
) -> dict[str, Any]:
    """Return softmax-weighted contrastive covariances, the mean over all pairs of views, and the eps of their sums.

    Products are in `dtype`; if it is None, in the widest precision of the views, float32 at least.
    """
    dtype = dtype or common_precision({rows.dtype for one in tensors for rows in one})
    weighted = [blockwise_covariance(*one, loss=loss, dtype=dtype, **settings) for one in tensors]
    data, augmentation = (
        torch.stack([getattr(p, side) for p in weighted]).mean(0) for side in ("data", "augmentation")
    )
    if not (torch.isfinite(data).all() and torch.isfinite(augmentation).all()):
        raise ValueError(f"the {loss} weights of numbers this large overflow; give them in other units")
    return {"pairs": ContrastiveCovariance(data, augmentation), "pairs_eps": torch.finfo(dtype).eps}


def check_loss(loss: str | None, temperature: float | None, views: str, others: int) -> None:
    """Check a loss for the weights of pairs before any file is read.

    Args:
        loss: Name of the loss; None for uniform weights.
        temperature: Its temperature, if it was given.
        views: "one-sided" or "two-sided".
        others: How many other views there are.

    Raises:
        ValueError: For a temperature without a loss, a loss without other views, and a loss that has no temperature or
            no such views.
    """
    if loss is None:
        if temperature is not None:
            raise SettingError(
                f"`temperature` {temperature} has no effect without a loss; give `loss` dot or ntxent, or leave it out"
            )
        return
    check_weighing(loss, temperature, views)
    if not others:
        raise SettingError(f"`loss` {loss} weights pairs; give the other view of each sample as `positives`")


def _refuse_nonfinite(name: str, rows: Tensor) -> None:
    count, first = nonfinite(rows)
    if first is not None:
        raise ValueError(
            f"the {name} hold {count} NaN or infinite number(s), "
            f"the first in row {first[0]}, column {first[1]} {ADVICE}"
        )
