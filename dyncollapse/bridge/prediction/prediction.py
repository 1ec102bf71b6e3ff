"""Predict, for each loss, what a linear encoder keeps of the measured directions, and when it learns them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyncollapse.bridge.prediction.byol import as_rest_modes, byol_fates
from dyncollapse.bridge.prediction.directions import Directions, correlation_error
from dyncollapse.bridge.prediction.fates import Correlations, Fates, bounded, fates_of
from dyncollapse.diagnostics.shared_signal import family_margin
from dyncollapse.theory.coupled_modes import along_directions, coupled_forces, effective_variances
from dyncollapse.theory.limits import population_limit
from dyncollapse.theory.rest_modes import RestModes, rest_modes
from dyncollapse.theory.self_distillation import byol_learning_times, byol_rest_along

STEP_SHARE = 0.1  # of the time in which the fastest direction changes by e: the default learning rate
# Share of the largest singular value up to which a direction counts as empty at the end of training. Those that die are
# first carried up to 3 % by living ones that they are not orthogonal to, and then decay for longer than they grew.
EMPTY = 0.05
START = 0.01
LEVEL = 0.5  # share of its variance at rest at which a direction counts as learnt


@dataclass(frozen=True)
class LinearEncoder:
    """The linear encoder and its training.

    Attributes:
        outputs: Its outputs m; None for as many as directions.
        weight_decay: w.
        invariance: lambda / mu of vcreg.
        init_scale: Standard deviation of the entries of its first matrix; None for one with which the embedding starts
            with a standard deviation of START along the direction of largest variance.
        lr: Learning rate; None for a tenth of the time in which the fastest direction changes by e.
        steps: SGD steps.

    Examples:
        >>> LinearEncoder(outputs=16, weight_decay=0.1).steps
        2000
    """

    outputs: int | None = None
    weight_decay: float = 0.0
    invariance: float | None = None
    init_scale: float | None = None
    lr: float | None = None
    steps: int = 2000


@dataclass(frozen=True, eq=False)
class LossPrediction:
    """What one loss makes of the directions.

    Attributes:
        loss: Its name.
        fates: The fate of each mode of the loss's own rest point.
        rest: Variance of the embedding at rest along each direction (q,), in their order.
        spectrum: Variances of the embedding at rest (r,), descending: eigenvalues of its covariance.
        learning_steps: SGD steps after which each direction has half of its variance at rest (q,); infinite for
            directions that die.
        alive_steps: SGD steps after which each mode that lives has half of its variance at rest (k,), ascending.
        lr: The learning rate.
        learnt: Number of modes that live and are learnt by the last step.
        empty: Number of singular values of the embedding that are at most EMPTY of the largest when all modes that are
            learnt by the last step are at rest, or of START where that is larger. Measured correlations are taken as
            they are, without sampling error. None where modes rest above START, and none of them is learnt in time.

    Examples:
        >>> from dyncollapse.bridge import PredictOptions, predict
        >>> found = predict(PredictOptions("digits", images=400, directions=8, loss=("spectral",))).losses["spectral"]
        >>> found.rest.shape, bool((found.rest <= 1).all())  # gamma is at most 1
        (torch.Size([8]), True)
    """

    loss: str
    fates: Fates
    rest: Float[Tensor, " q"]
    spectrum: Float[Tensor, " r"]
    learning_steps: Float[Tensor, " q"]
    alive_steps: Float[Tensor, " k"]
    lr: float
    learnt: int
    empty: int | None


def predict_loss(
    found: Directions, loss: str, encoder: LinearEncoder, *, alike: bool = False, start: Tensor | None = None
) -> LossPrediction:
    """Predict a linear encoder on the span of the directions.

    Rest points are exact for any distribution under spectral, vcreg and barlow, and hold for Gaussian views under
    infonce. Times of learning are exact where S_e and G commute; else each direction grows with the variance that is
    left of it once faster directions are learnt (see `effective_variances`). For byol both hold where they commute.

    Args:
        found: Measured directions.
        loss: infonce, spectral, vcreg, barlow or byol.
        encoder: Its width, start and training.
        alike: Whether both views are independent draws of one distribution given the image.
        start: Matrix (m, q) of the start on the frame; None for the average over Gaussian ones.

    Returns:
        The prediction.

    Raises:
        ValueError: For other losses, and settings out of range.

    Examples:
        >>> from dyncollapse.bridge.prediction.directions import find_directions, measure_pairs
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.randn(4000, 3, generator=g) * torch.tensor([1.0, 1.0, 0.0])
        >>> views = [x + torch.randn(4000, 3, generator=g) for _ in range(2)]
        >>> found = find_directions(measure_pairs([tuple(views)], "two-sided", 4000), most=3)
        >>> predict_loss(found, "spectral", LinearEncoder(), alike=True).fates.counts()
        {'alive': 2, 'suppressed': 1, 'dead': 0, 'decayed': 0, 'no_room': 0}
    """
    modes = (_byol if loss == "byol" else _by_gradient)(found, loss, encoder, start, alike)
    lr = encoder.lr or STEP_SHARE / max(modes.fastest, 1e-300)
    in_time, view_cov = modes.times / lr <= encoder.steps, found.measured.moments.view_cov
    along, steps = along_directions(view_cov, modes.rest, found.frame.T @ found.vectors, modes.times / lr, LEVEL)
    spectrum = _spectrum(modes.rest, view_cov)
    return LossPrediction(
        loss,
        modes.fates,
        along,
        spectrum,
        steps,
        (modes.times / lr)[modes.fates.alive].sort().values,
        lr,
        learnt=int((modes.fates.alive & in_time).sum()),
        empty=_empty(_spectrum(modes.rest, view_cov, in_time), spectrum, found.count),
    )


def _empty(filled: Float[Tensor, " r"], spectrum: Float[Tensor, " r"], count: int) -> int | None:
    """How many of `count` singular values are empty, from variances by the last step and at rest; see LossPrediction.

    Where nothing has outgrown the start yet, which ones are small depends on the start, not on the rest point.
    """
    largest = float(torch.where(filled.isinf(), 1.0, filled).max())
    if largest <= START**2 < float(spectrum.max()):
        return None
    return count - int((filled > EMPTY**2 * max(largest, START**2)).sum())


@dataclass(frozen=True, eq=False)
class _Modes:
    """Modes of a loss at rest, flow times at which they are learnt, the fastest rate of any change, and their fates."""

    rest: RestModes
    times: Float[Tensor, " r"]
    fastest: float
    fates: Fates


def _by_gradient(found: Directions, loss: str, encoder: LinearEncoder, start: Tensor | None, alike: bool) -> _Modes:
    """Modes of a loss whose gradient is followed."""
    moments = found.measured.moments
    invariance = encoder.invariance if loss == "vcreg" else None
    rest = rest_modes(moments, loss, invariance=invariance, weight_decay=encoder.weight_decay, outputs=encoder.outputs)
    forces = coupled_forces(moments, rest, loss, invariance=invariance, weight_decay=encoder.weight_decay)
    begin = _start_variances(found, encoder, start, rest.directions)
    times = forces.learning_times((begin / forces.view_var).sqrt(), LEVEL)
    gamma = _correlations(found, rest.directions, by_product=loss in ("spectral", "barlow"), alike=alike)
    limit = population_limit(moments, loss, invariance=invariance)
    factor, decay = 1.0 if invariance is None else invariance, encoder.weight_decay / limit.pull
    by_decay = decay * rest.directions.square().sum(0)
    fates = fates_of(loss, rest.ratio, rest.variance, rest.room, gamma, factor=factor, decay=by_decay)
    fastest = float(torch.linalg.eigvalsh(limit.growth).abs().max()) + encoder.weight_decay
    return _Modes(rest, torch.where(rest.room, times, math.inf), fastest, fates)


def _byol(found: Directions, _loss: str, encoder: LinearEncoder, start: Tensor | None, alike: bool) -> _Modes:
    """Modes of BYOL, which has a closed form for moments that commute: the directions, each by itself."""
    directions, view_cov = found.frame.T @ found.vectors, found.measured.moments.view_cov
    gamma = _correlations(found, directions, by_product=True, alike=alike)
    variances = effective_variances(view_cov, directions, gamma.value)
    limit = byol_rest_along(directions, gamma.value * variances, variances, encoder.weight_decay)
    rest = as_rest_modes(limit, encoder.outputs)
    begin = _start_variances(found, encoder, start, directions)
    times = byol_learning_times(limit, (begin / variances).sqrt(), LEVEL)
    fates = byol_fates(rest, gamma, variances, encoder.weight_decay)
    fastest = float((gamma.value.clamp_min(0).square() * variances).max()) + encoder.weight_decay
    return _Modes(rest, torch.where(rest.room, times, math.inf), fastest, fates)


def _start_variances(
    found: Directions, encoder: LinearEncoder, start: Tensor | None, directions: Float[Tensor, "q r"]
) -> Float[Tensor, " r"]:
    """Variance of the embedding along each mode at the start: of a given matrix, or on average over Gaussian ones."""
    patterns = found.measured.moments.view_cov @ directions
    if start is not None:
        return (start @ patterns).square().sum(0)
    return start_scale(found, encoder) ** 2 * (encoder.outputs or found.count) * patterns.square().sum(0)


def start_scale(found: Directions, encoder: LinearEncoder) -> float:
    """Standard deviation of the entries of the first matrix."""
    if encoder.init_scale is not None:
        return encoder.init_scale
    largest = float(torch.linalg.eigvalsh(found.measured.moments.view_cov)[-1])
    return START / math.sqrt(largest * (encoder.outputs or found.count))


def _correlations(found: Directions, u: Float[Tensor, "q r"], *, by_product: bool, alike: bool) -> Correlations:
    """Correlations of the views along modes, with the ranges in which sampling leaves them."""
    measured = found.measured
    moments, one_sided = measured.moments, measured.moments.views == "one-sided"
    u = u / ((moments.view_cov @ u) * u).sum(0).sqrt()
    shared = moments.shared if by_product or not one_sided else moments.view_cov - moments.difference_cov / 2
    value = ((shared @ u) * u).sum(0)
    first, second = measured.first @ u, measured.second @ u
    error = correlation_error(first, second, value, measured.samples, by_product=by_product, one_sided=one_sided)
    margin = family_margin(len(value)) * error
    if one_sided:
        told = value.abs() > margin
    else:  # as many positive ones as the test finds, in whatever basis, and those that are opposed
        order = value.argsort(descending=True)
        told = torch.zeros(len(value), dtype=torch.bool)
        told[order[: int(found.shared.sum())]] = True
        told[order[len(order) - int(found.opposed.sum()) :]] = True
    return bounded(value, margin, told, found.explained, alike=alike)


def _spectrum(
    rest: RestModes, view_cov: Float[Tensor, "q q"], chosen: Bool[Tensor, " r"] | None = None
) -> Float[Tensor, " r"]:
    """Eigenvalues of the embedding's covariance with all modes at rest, or `chosen` ones, descending from infinity."""
    variance = rest.variance if chosen is None else torch.where(chosen, rest.variance, 0.0)
    finite = torch.isfinite(variance)
    scaled = rest.directions[:, finite] * variance[finite].sqrt()
    values = torch.linalg.eigvalsh(scaled.T @ view_cov @ scaled).clamp_min(0).flip(0)
    return torch.cat([variance[~finite], values])
