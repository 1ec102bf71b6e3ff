"""Train the linear encoder by SGD on the measured pairs, and compare it with what was predicted."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from dyncollapse.bridge.data.batches import mix
from dyncollapse.bridge.prediction.directions import Directions, Measured
from dyncollapse.bridge.prediction.prediction import (
    EMPTY,
    LEVEL,
    START,
    LinearEncoder,
    LossPrediction,
    predict_loss,
    start_scale,
)
from dyncollapse.bridge.prediction.views import ViewPairs
from dyncollapse.dynamics.training import train
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.networks import Weights
from dyncollapse.model.objective import Objective
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.self_distillation import SelfDistillation, balanced_predictor

RECORDS = 200  # states along a training whose variances are kept
# Share of the steps up to which a direction is compared at rest: it then had as long again to settle.
LEARNT = 0.5
# Share of the largest variance at rest from which on a direction is compared. Directions that die keep a little, where
# living ones that they are not orthogonal to carry some, and have no rest value or time of their own.
COMPARED = 0.1
FEWEST = 3  # directions from which on an order has a correlation


@dataclass(frozen=True, eq=False)
class FixedBatches:
    """Batches of fixed pairs without end: each pass over the pairs has a new order, the same at each iteration.

    Attributes:
        first: One view of all pairs, centred (n, q).
        second: The other view.
        views: The view convention.
        batch_size: Pairs in a batch.
        seed: Of the orders.
    """

    first: Float[Tensor, "n q"]
    second: Float[Tensor, "n q"]
    views: str
    batch_size: int
    seed: int

    def __iter__(self) -> Iterator[Pairs]:
        """Yield batches; pairs that fill no whole batch wait for another pass."""
        n, generator = len(self.first), torch.Generator().manual_seed(mix(self.seed, 4))
        size = min(self.batch_size, n)
        while True:
            if size == n:
                yield Pairs(self.first, self.second, self.views)
                continue
            order = torch.randperm(n, generator=generator)
            for start in range(0, n - size + 1, size):
                rows = order[start : start + size]
                yield Pairs(self.first[rows], self.second[rows], self.views)


@dataclass(frozen=True, eq=False)
class TrainedLinear:
    """A linear encoder after SGD, beside its prediction.

    Attributes:
        loss: The loss by name.
        singular_values: Standard deviation of the embedding along each direction at the end (q,).
        learning_steps: Step at which each has half of its predicted variance at rest (q,); infinite where it never has.
        agreement: `error`, the median relative error of singular values at the end, of directions that were predicted
            to grow, to be learnt in the first half of the steps, and to keep at least COMPARED of the largest variance
            among these, and START; `compared`, their number; `empty`, the number of singular values of the embedding
            that were predicted to be at most EMPTY of the largest at the end, and `empty_trained`, the number that are;
            `order`, the rank correlation of learning steps. None where there are too few directions, and for `empty`
            where nothing is predicted to be learnt by the last step.
        steps: Number of SGD steps.
        seconds: Time that they took.
        product: Its matrix at the end, in the coordinates of the directions' frame (m, q).

    Examples:
        >>> from dyncollapse.bridge import PredictOptions, predict
        >>> options = PredictOptions("digits", images=200, directions=4, loss=("spectral",), train=True, steps=20)
        >>> (trained,) = predict(options).trained
        >>> trained.loss, trained.product.shape
        ('spectral', torch.Size([4, 4]))
    """

    loss: str
    singular_values: Float[Tensor, " q"]
    learning_steps: Float[Tensor, " q"]
    agreement: dict[str, float | None]
    steps: int
    seconds: float
    product: Float[Tensor, "m q"]


def projected_pairs(pairs: ViewPairs, found: Directions) -> Measured:
    """All pairs that were measured, drawn again, in the coordinates of the directions' frame and centred.

    Args:
        pairs: The pairs.
        found: Directions of these pairs.

    Returns:
        The moments that were measured, and every pair.

    Examples:
        >>> from dyncollapse.bridge import find_directions, measure_pairs, open_data, open_pipeline
        >>> pairs = ViewPairs(open_data("digits").test, open_pipeline("digits", 1), size=8)
        >>> found = find_directions(measure_pairs(pairs, "two-sided", len(pairs)), most=4)
        >>> projected_pairs(pairs, found).first.shape
        torch.Size([500, 4])
    """
    rows = [(x.to(found.frame.dtype) @ found.frame, y.to(found.frame.dtype) @ found.frame) for x, y in pairs]
    first, second = (torch.cat(views) for views in zip(*rows, strict=True))
    return Measured.centred(found.measured.moments, first, second)


def train_linear_encoder(
    found: Directions,
    pairs: Measured,
    loss: str,
    encoder: LinearEncoder,
    *,
    batch_size: int,
    seed: int = 0,
    alike: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[LossPrediction, TrainedLinear]:
    """Train on the pairs that were measured, so that training and prediction have the same moments.

    Args:
        found: The directions.
        pairs: All pairs in the coordinates of their frame.
        loss: A loss by name, with a gradient.
        encoder: The linear encoder and its training.
        batch_size: Pairs in a batch.
        seed: Of the start and of the batches.
        alike: As for `predict_loss`.
        progress: Called with (step, steps).

    Returns:
        The prediction for this very start, and what was trained.

    Raises:
        Diverged: Where the learning rate is too large.

    Examples:
        >>> from dyncollapse.bridge.prediction.directions import find_directions, measure_pairs
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.randn(4000, 2, generator=g)
        >>> views = [x + torch.randn(4000, 2, generator=g) for _ in range(2)]
        >>> measured = measure_pairs([tuple(views)], "two-sided", 2000)
        >>> found = find_directions(measured, most=2)
        >>> encoder = LinearEncoder(steps=300, init_scale=0.01)
        >>> _, trained = train_linear_encoder(found, found.measured, "spectral", encoder, batch_size=4000)
        >>> trained.agreement["compared"]
        2.0
    """
    moments, outputs = found.measured.moments, encoder.outputs or found.count
    generator = torch.Generator().manual_seed(mix(seed, 5))
    start = start_scale(found, encoder) * torch.randn(outputs, found.count, generator=generator, dtype=torch.float64)
    expected = predict_loss(found, loss, encoder, alike=alike, start=start)
    byol = loss == "byol"
    objective = (
        SelfDistillation() if byol else Objective(loss, invariance=encoder.invariance if loss == "vcreg" else None)
    )
    patterns = moments.view_cov @ (found.frame.T @ found.vectors)
    few = max(40, min(RECORDS, 2 * 10**8 // max(1, start.numel() * 8)))  # the states take at most 200 MB
    path = train(
        (start,),
        FixedBatches(pairs.first, pairs.second, moments.views, batch_size, seed),
        steps=encoder.steps,
        lr=expected.lr,
        objective=objective,
        predictor=balanced_predictor((start,)) if byol else None,
        weight_decay=encoder.weight_decay,
        records=few,
        record={"variance": partial(_variances, patterns)},
        progress=progress,
        threads=1,
    )
    variances = path.statistics["variance"]
    steps = _first_steps(path, variances, LEVEL * expected.rest, expected.lr)
    end = variances[-1].sqrt()
    product = path.final()[0]
    spectrum = torch.linalg.eigvalsh(product @ moments.view_cov @ product.T).clamp_min(0).flip(0)[: found.count].sqrt()
    agreement = {
        **agreement_of(expected, end, steps, encoder.steps),
        "empty": None if expected.empty is None else float(expected.empty),
        "empty_trained": float((spectrum <= EMPTY * max(float(spectrum[0]), START)).sum())
        + found.count
        - len(spectrum),
    }
    return expected, TrainedLinear(loss, end, steps, agreement, encoder.steps, float(path.meta["seconds"]), product)


def _variances(patterns: Tensor, weights: Weights) -> Tensor:
    """Variance of the embedding along each direction: |P S_e u|^2."""
    return (weights[0] @ patterns).square().sum(0)


def _first_steps(
    path: Trajectory, variances: Float[Tensor, "t q"], targets: Float[Tensor, " q"], lr: float
) -> Float[Tensor, " q"]:
    """Step at which each variance first reaches its target, interpolated between records; infinite where it never does.

    A direction without a finite target counts as learnt at variance 1, as in `ModeForces.learning_times`.
    """
    targets = torch.where(torch.isfinite(targets), targets, 1.0)
    steps = (path.time / lr).to(variances.dtype)
    above = variances >= targets
    first = above.to(torch.int64).argmax(0)
    before = (first - 1).clamp_min(0)
    columns = torch.arange(len(targets))
    low, high = (variances[rows, columns].clamp_min(1e-300).log() for rows in (before, first))
    share = ((targets.clamp_min(1e-300).log() - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    reached = steps[before] + share * (steps[first] - steps[before])
    return torch.where(above.any(0) & (targets > 0), reached, torch.inf)


def agreement_of(
    expected: LossPrediction, end: Float[Tensor, " q"], steps: Float[Tensor, " q"], last: int
) -> dict[str, float | None]:
    """Compare an end of training and its learning steps with a prediction; see `TrainedLinear.agreement`."""
    rest, predicted = expected.rest.sqrt(), expected.learning_steps
    # A direction of step 0 starts near its rest value or above it: how long it then shrinks is not predicted.
    learnt = (predicted > 0) & (predicted <= LEARNT * last)
    largest = float(torch.where(learnt & torch.isfinite(rest), rest, 0.0).max())
    learnt &= rest >= max(COMPARED**0.5 * largest, START)
    settled = learnt & torch.isfinite(rest)
    both = learnt & torch.isfinite(steps)
    errors = (end[settled] / rest[settled] - 1).abs()
    order = None
    if int(both.sum()) >= FEWEST:
        found = float(spearmanr(predicted[both].numpy(), steps[both].numpy()).statistic)
        order = found if np.isfinite(found) else None
    return {
        "error": float(errors.median()) if len(errors) else None,
        "compared": float(len(errors)),
        "order": order,
    }
