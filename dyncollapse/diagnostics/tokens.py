"""Diagnose tokens of images (N, P, d): within each image, all of them, or across images."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from dyncollapse.diagnostics.conversion import Rows, as_rows
from dyncollapse.diagnostics.embeddings import diagnose
from dyncollapse.diagnostics.evidence import FEWEST_FOR_ERRORS
from dyncollapse.diagnostics.intervals import NORMAL_95, Interval
from dyncollapse.diagnostics.measures import (
    effective_rank,
    intrinsic_dimension,
    participation_ratio,
    rankme_from_eigenvalues,
)
from dyncollapse.diagnostics.monitor import Monitor
from dyncollapse.diagnostics.options import Tokens
from dyncollapse.diagnostics.report import EmbeddingReport, examine
from dyncollapse.runtime.settings import SettingError, quoted

WAYS: tuple[Tokens, ...] = get_args(Tokens)
MOST_IMAGES = 1000  # whose measures are averaged: their mean is then known to a thirtieth of their spread
BLOCK_BYTES = 2**25  # of images that are centred at once, in float64
WITHIN = {
    "effective_rank": effective_rank,
    "participation_ratio": participation_ratio,
    "stable_rank": intrinsic_dimension,
}
MEANINGS = {
    "per-image": "centred within each image; measures are means over images, with intervals over images",
    "all": "all tokens of all images as samples",
    "across-images": "the mean over the tokens of each image as a sample",
}


def diagnose_tokens(
    z: Rows,
    tokens: Tokens,
    positives: Any = None,
    *,
    progress: Callable[[str, float, float], None] | None = None,
    **options: Any,
) -> EmbeddingReport:
    """Report which dimensions of tokens collapsed, as a vision transformer has them: P for each of N images.

    "per-image" takes the tokens of each image minus their mean: what varies within images. Spectrum and verdict are
    those of all these tokens. The rank measures are means over images (at most 1000, drawn by `seed`), each of one
    image's tokens, so they are at most P - 1. "all" takes all tokens as samples; those of one image resemble each
    other, so intervals are too narrow. "across-images" takes the mean of each image's tokens.

    Args:
        z: Tokens (N, P, d).
        tokens: "per-image", "all" or "across-images".
        positives: Other views of the same images, each (N, P, d): one array, or a list or tuple of arrays. Unless only
            means are taken, token p of each view should show the same place.
        progress: As for `diagnose`.
        **options: Options of `diagnose`; with "per-image" only `views`, `space`, `fast`, `sample`, `seed` and
            `input_dim`.

    Returns:
        The report; `conventions["tokens"]` says what was taken.

    Raises:
        SettingError: For another word than these, and for options that exclude each other.
        ValueError: For tokens of another shape, and as for `diagnose`.

    Examples:
        >>> g = torch.Generator().manual_seed(0)
        >>> images, places = torch.randn(200, 1, 8, generator=g), torch.randn(200, 16, 8, generator=g)
        >>> z = images * torch.tensor([1.0] * 4 + [0.0] * 4) + places * torch.tensor([0.0] * 2 + [1.0] * 6)
        >>> [diagnose_tokens(z, way).collapsed for way in ("per-image", "all", "across-images")]
        [2, 0, 0]
    """
    if tokens not in WAYS:
        raise SettingError(f"`tokens` is {quoted(str(tokens))}; choose {', '.join(WAYS[:-1])} or {WAYS[-1]}")
    given = [] if positives is None else positives if isinstance(positives, list | tuple) else [positives]
    views = [as_rows(view, "tokens") for view in (z, *given)]
    for view in views:
        if view.ndim != 3 or 0 in view.shape:
            raise ValueError(f"tokens have shape {tuple(view.shape)}; give (images, tokens, dimensions)")
        if view.shape != views[0].shape:
            raise ValueError(f"views have shapes {tuple(views[0].shape)} and {tuple(view.shape)}; give the same images")
    if tokens == "per-image":
        report = _within(views, progress, **options)
    elif tokens == "all":
        first, *others = (view.flatten(0, 1) for view in views)
        report = diagnose(first, others or None, progress=progress, **options)
        count = views[0].shape[1]
        report = replace(
            report,
            notes=(*report.notes, f"the {count} tokens of an image are not independent: intervals are too narrow"),
        )
    else:
        first, *others = map(token_means, views)
        report = diagnose(first, others or None, progress=progress, **options)
    return replace(report, conventions=report.conventions | {"tokens": f"{tokens}: {MEANINGS[tokens]}"})


def token_means(view: Shaped[Tensor, "n p d"]) -> Float[Tensor, "n d"]:
    """Return the mean of each image's tokens, in the format of the tokens if that is floating."""
    size = _images_at_once(view)
    parts = [view[start : start + size].to(torch.float64).mean(1) for start in range(0, len(view), size)]
    return torch.cat([part.to(view.dtype) if view.is_floating_point() else part for part in parts])


def _images_at_once(view: Tensor) -> int:
    return max(1, BLOCK_BYTES // (8 * view.shape[1] * view.shape[2]))


def _within(
    arrays: list[Tensor],
    progress: Callable[[str, float, float], None] | None,
    *,
    input_dim: int | None = None,
    loss: str | None = None,
    svd: bool = False,
    compare: bool = False,
    **options: Any,
) -> EmbeddingReport:
    """Report on tokens minus the mean of their image, with measures that are means over images."""
    if loss is not None or svd or compare or options.pop("temperature", None) is not None:
        raise SettingError("`tokens` per-image takes neither `svd` nor `loss` nor `compare`; leave them out")
    count, places, _ = arrays[0].shape
    if places < 2:
        raise ValueError("one token per image does not vary within images; take `tokens` across-images")
    options["sample"] = min(options.get("sample", 4096), max(2, count * places))
    monitor, size = Monitor(**options), _images_at_once(arrays[0])
    for start in range(0, count, size):
        monitor.update(*(_centred(view[start : start + size]).flatten(0, 1) for view in arrays))
        if progress:
            progress("embeddings", min(start + size, count), count)
    report = examine(replace(monitor.evidence(), input_dim=input_dim))
    measures, intervals = _mean_measures(arrays[0], monitor.seed)
    missing = ", ".join(name for name in report.measures if name not in measures)
    return replace(
        report,
        measures=dict.fromkeys(report.measures) | measures,
        intervals=dict.fromkeys(report.measures) | {"collapsed": report.intervals["collapsed"]} | intervals,
        notes=(*report.notes, f"not computed within single images: {missing}"),
    )


def _centred(images: Shaped[Tensor, "n p d"]) -> Float[Tensor, "n p d"]:
    """Return tokens minus the mean of their image, in the format of the tokens if that is floating."""
    apart = images.to(torch.float64) - images[:, :1].to(torch.float64)  # first, so that equal tokens become exactly 0
    centred = apart - apart.mean(1, keepdim=True)
    return centred.to(images.dtype) if images.is_floating_point() else centred


def _mean_measures(view: Shaped[Tensor, "n p d"], seed: int) -> tuple[dict[str, float | None], dict[str, Interval]]:
    """Return the mean over images of each measure, and 95 % intervals of these means."""
    chosen = torch.arange(len(view))
    if len(view) > MOST_IMAGES:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(view), generator=generator)[:MOST_IMAGES].sort().values
    found: dict[str, list[float]] = {"rankme": [], **{name: [] for name in WITHIN}}
    for image in chosen.tolist():
        tokens = view[image].to(torch.float64)
        centred = _eigenvalues(_centred(tokens[None])[0])
        if not centred[-1] > 0:
            continue  # equal tokens have no rank
        found["rankme"].append(float(rankme_from_eigenvalues(_eigenvalues(tokens).flip(0))))
        for name, measure in WITHIN.items():
            found[name].append(float(measure(centred.flip(0))))
    measures, intervals = dict[str, float | None](), dict[str, Interval]()
    for name, values in found.items():
        each = torch.tensor(values, dtype=torch.float64)
        mean = float(each.mean()) if values else None
        margin = NORMAL_95 * float(each.std()) / len(values) ** 0.5 if len(values) >= FEWEST_FOR_ERRORS else None
        measures[name] = mean
        intervals[name] = None if mean is None or margin is None else (mean - margin, mean + margin)
    return measures, intervals


def _eigenvalues(rows: Float[Tensor, "p d"]) -> Float[Tensor, " m"]:
    """Return the eigenvalues of the second moment that may differ from 0, ascending: those of the smaller product."""
    product = rows @ rows.mT if len(rows) < rows.shape[1] else rows.mT @ rows
    return torch.linalg.eigvalsh(product / len(rows)).clamp_min(0)
