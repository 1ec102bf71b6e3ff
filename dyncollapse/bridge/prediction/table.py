"""What each operation of an augmentation costs: the shared signal with it alone, and with all others."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.bridge.data.images import some_images
from dyncollapse.bridge.data.skipped import Skipped
from dyncollapse.bridge.prediction.directions import LEAST, UNCHANGED, Directions, Measured, find_directions
from dyncollapse.bridge.prediction.views import ViewPairs
from dyncollapse.diagnostics.shared_signal import SAMPLES_PER_DIRECTION
from dyncollapse.model.pair_moments import PairMoments

# Each pipeline takes about two seconds for so many images of 32 pixels; more images or directions change no row's
# place among the others.
MOST_IMAGES, MOST_DIRECTIONS = 2000, 256


@dataclass(frozen=True)
class Effect:
    """What a pipeline does to the shared signal of two views.

    Attributes:
        signal_rank: Directions that share signal beyond its error: a lower bound. One-sided: those of rho below 1.
        suppressed: The other directions.
        shared_signal: tr(S_e^-1 G): for two-sided views the sum of all correlations gamma. For one-sided ones it is the
            sum of what a view keeps of the plain image: negative where operations turn images into their negatives.
        shared_share: tr G / tr S_e, the share of the variance of a view that both views share.
        difference_trace: tr A_e, the mean square of the difference of the views, over all inputs.

    Examples:
        >>> Effect(signal_rank=3, suppressed=1, shared_signal=2.2, shared_share=0.5, difference_trace=1.5).suppressed
        1
    """

    signal_rank: int
    suppressed: int
    shared_signal: float
    shared_share: float
    difference_trace: float


@dataclass(frozen=True)
class OperationRow:
    """One operation of a pipeline.

    Attributes:
        operation: Its name.
        alone: Its effect alone.
        without: The effect of the pipeline without it; None where it has no other operation.

    Examples:
        >>> row = OperationRow("flip", Effect(2, 2, 2.0, 0.5, 1.0), without=None)
        >>> row.as_values()["alone"]["signal_rank"]
        2
    """

    operation: str
    alone: Effect
    without: Effect | None

    def as_values(self) -> dict[str, object]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class AugmentationTable:
    """Effects of a pipeline and of its operations, all measured on the same images in the same directions.

    Attributes:
        images: Number of images that could be read.
        directions: Number of principal directions of the whole pipeline's views.
        share: Share of the variance of these views that they hold.
        whole: The effect of all operations together.
        rows: A row per operation.

    Examples:
        >>> effect = Effect(2, 2, 2.0, 0.5, 1.0)
        >>> table = AugmentationTable(500, 4, 1.0, effect, (OperationRow("flip", effect, None),))
        >>> {row.operation: row.alone.signal_rank for row in table.rows}
        {'flip': 2}
    """

    images: int
    directions: int
    share: float
    whole: Effect
    rows: tuple[OperationRow, ...]


def augmentation_table(
    pairs: ViewPairs, found: Directions, progress: Callable[[int, int], None] | None = None
) -> AugmentationTable:
    """Measure a pipeline, each of its operations alone, and all but each.

    Args:
        pairs: Images and pipeline; at most MOST_IMAGES of the images are used.
        found: Directions of the whole pipeline, of which the largest principal ones are used.
        progress: Called with the pipelines that are done and the pipelines in all.

    Returns:
        The table.

    Examples:
        >>> from dyncollapse.bridge import open_data
        >>> from dyncollapse.bridge.prediction.directions import measure_pairs
        >>> from dyncollapse.bridge.prediction.pipelines import open_pipeline
        >>> pairs = ViewPairs(open_data("digits").train, open_pipeline("digits", 1), size=8)
        >>> table = augmentation_table(pairs, find_directions(measure_pairs(pairs, "two-sided", 1297), 32, alike=True))
        >>> [row.operation for row in table.rows], table.whole.signal_rank <= table.rows[0].without.signal_rank
        (['crop', 'rotation', 'colour', 'noise'], True)
    """
    images = pairs.images if len(pairs) <= MOST_IMAGES else some_images(pairs.images, MOST_IMAGES, pairs.seed)
    kept = min(MOST_DIRECTIONS, max(1, len(images) // SAMPLES_PER_DIRECTION), found.count)
    frame, whole = found.frame[:, -kept:], pairs.pipeline
    names = whole.operations
    pipelines = [whole, *(whole.only(name) for name in names), *(whole.without(name) for name in names)]
    effects, counts = list[Effect | None](), list[int]()
    # Images that cannot be read were reported when all pairs were measured.
    unheard = Skipped(images, tell=lambda _text: None)
    for number, pipeline in enumerate(pipelines):
        chosen = pairs.with_(images=images, pipeline=pipeline, progress=None, skipped=unheard)
        effect, count = _effect(chosen, frame)
        effects.append(effect)
        counts.append(count)
        if progress is not None:
            progress(number + 1, len(pipelines))
    variance = found.measured.moments.view_cov.diagonal()
    share = found.share * float(variance[-kept:].sum() / variance.sum())
    alone, without = effects[1 : 1 + len(names)], effects[1 + len(names) :]
    rows = tuple(
        OperationRow(name, one, other)
        for name, one, other in zip(names, alone, without, strict=True)
        if one is not None
    )
    assert effects[0] is not None
    return AugmentationTable(counts[0], kept, share, effects[0], rows)


def _effect(pairs: ViewPairs, frame: Float[Tensor, "d q"]) -> tuple[Effect | None, int]:
    """The effect of the pairs' pipeline inside a frame, None for one without operations, and the pairs measured."""
    if not pairs.pipeline.operations:
        return None, 0
    kept: list[tuple[Tensor, Tensor]] = []
    total = [0.0]

    def projected() -> Iterator[tuple[Tensor, Tensor]]:
        for x, x_pos in pairs:
            total[0] += float((x - x_pos).to(torch.float64).square().sum())
            rows = x.to(frame.dtype) @ frame, x_pos.to(frame.dtype) @ frame
            kept.append(rows)
            yield rows

    moments = PairMoments.from_batches(projected(), pairs.views)
    assert moments.samples is not None
    first, second = (torch.cat(rows) for rows in zip(*kept, strict=True))
    trace, q = total[0] / moments.samples, moments.dim
    share = float(moments.shared.trace() / moments.view_cov.trace())
    if float(moments.difference_cov.trace()) <= UNCHANGED * float(moments.view_cov.trace()) or moments.samples < LEAST:
        # An operation that changes none of these images.
        return Effect(q, 0, float(q), share, trace), moments.samples
    measured = Measured.centred(moments, first, second)
    found = find_directions(measured, q, alike=pairs.alike)  # without directions in which these views do not vary
    rank, vectors = int(found.shared.sum()), found.frame.T @ found.vectors
    signal = float(((found.measured.moments.shared @ vectors) * vectors).sum())
    return Effect(rank, q - rank, signal, share, trace), moments.samples
