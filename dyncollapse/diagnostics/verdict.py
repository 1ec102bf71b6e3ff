"""From singular values and augmentation ratios to a verdict: which dimensions collapsed, and why."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dyncollapse.diagnostics.shared_signal import family_margin
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.networks import Weights, end_to_end, forward
from dyncollapse.model.objective import Objective, named_loss
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.precision import outside_autocast
from dyncollapse.theory.modes import at_threshold, augmentation_ratio, modes

# A dimension counts as collapsed below this share of the largest singular value: 1e-4 in variance, which figures of
# the paper show as a clear gap, and far above what rounding and SGD's noise leave of a dead dimension.
COLLAPSED_BELOW = 1e-2

STRONG, IMPLICIT, WIDTH, UNKNOWN = "strong-augmentation", "implicit-regularization", "width", "unknown"
MECHANISMS = {
    "alive": "none",
    "dead": STRONG,
    "suppressed": STRONG,
    "waiting": IMPLICIT,
    "structural": WIDTH,
    "unexplained": UNKNOWN,
    "unresolved": UNKNOWN,
    "unseen": "none",
}


@dataclass(frozen=True, eq=False)
class Dimensions:
    """The embedding's dimensions, each (*runs, k), in the order that the function which made them states.

    `singular_value` is P's (linear) or the standard deviation of the embedding along a principal direction (ReLU);
    `data_var` and `aug_var` are variances of data and augmentation along the same input direction (linear) or
    embedding direction (ReLU); `ratio` is rho there, NaN for outputs beyond the number of inputs, which no direction
    feeds. `ratio_error` is the standard error of a rho that was sampled, None for an exact one.
    """

    singular_value: Float[Tensor, "*runs k"]
    data_var: Float[Tensor, "*runs k"]
    aug_var: Float[Tensor, "*runs k"]
    ratio: Float[Tensor, "*runs k"]
    views: str = "one-sided"
    ratio_error: Float[Tensor, "*runs k"] | None = None


@dataclass(frozen=True)
class Verdict:
    """Which dimensions collapsed (their singular value is at most `threshold`), why, and one sentence about all.

    `fates` says what becomes of each: alive; dead (rho >= 1: it never comes back), suppressed (augmentation keeps it
    too low to count), waiting (it would grow), structural (the layers have no room for it); where rho was measured also
    unexplained (no other view, or rho within its error of 1), unresolved (lost in rounding) and unseen (too few
    samples: not counted as collapsed). `escapes` holds the flow time by which a waiting one leaves zero, where known.
    """

    collapsed: list[bool]
    fates: list[str]
    escapes: list[float | None]
    threshold: float
    sentence: str

    @property
    def mechanisms(self) -> list[str]:
        """The mechanism behind each fate: one of MECHANISMS."""
        return [MECHANISMS[fate] for fate in self.fates]

    @property
    def mechanism(self) -> str:
        """The one of the paper's mechanisms at work, or "both"; without these "unknown", "width" or "none"."""
        found = set(self.mechanisms)
        known = found & {STRONG, IMPLICIT}
        if len(known) == 2:
            return "both"
        return known.pop() if known else next((name for name in (UNKNOWN, WIDTH) if name in found), "none")


@outside_autocast
def linear_dimensions(weights: Weights, task: GaussianTask) -> Dimensions:
    """Singular values of P, largest first, and the variances along its right singular vectors.

    One per output: those beyond the number of inputs are 0, and their ratio is NaN. Among nearly equal or nearly
    vanishing singular values these vectors mix: where data and augmentation have common eigenvectors,
    `mode_dimensions` keeps the modes apart.
    """
    product = end_to_end(weights)
    _, sigma, vh = torch.linalg.svd(product, full_matrices=False)
    data_var, aug_var = (((vh @ cov) * vh).sum(-1) for cov in (task.data_cov, task.aug_cov))
    ratio = augmentation_ratio(data_var, aug_var, task.views)
    return _with_outputs(Dimensions(sigma, data_var, aug_var, ratio, task.views), product.shape[-2])


def _with_outputs(found: Dimensions, outputs: int) -> Dimensions:
    """Add the outputs that no input direction feeds."""
    missing = max(0, outputs - found.singular_value.shape[-1])
    if not missing:
        return found
    sigma, data_var, aug_var = (
        torch.nn.functional.pad(part, (0, missing)) for part in (found.singular_value, found.data_var, found.aug_var)
    )
    ratio = torch.nn.functional.pad(found.ratio, (0, missing), value=torch.nan)
    return Dimensions(sigma, data_var, aug_var, ratio, found.views)


@outside_autocast
def mode_dimensions(weights: Weights, task: GaussianTask) -> Dimensions:
    """Singular values of P, each given to one of `modes(task)`, with that mode's exact variances and rho.

    Modes beyond the number of outputs get 0; outputs beyond the number of modes come last, with 0 and a ratio of NaN.
    Every singular value goes to one mode, so that the overlaps of right singular vectors with the subspaces of
    equal modes are largest in sum. The vectors of surviving dimensions are sharp and settle which modes
    survive; the others, which are arbitrary mixtures at depth 2 and more, share the places that are left.
    Raises ValueError for covariances that do not commute.
    """
    product, m = end_to_end(weights), modes(task)
    _, sigma, vh = torch.linalg.svd(product)
    sigma = torch.nn.functional.pad(sigma, (0, task.dim - sigma.shape[-1]))
    overlap = (vh @ m.directions).square()
    for group in m.groups:
        overlap[..., group] = overlap[..., group].sum(-1, keepdim=True)
    values = torch.empty_like(sigma).reshape(-1, task.dim)
    for value, s, o in zip(values, sigma.reshape(-1, task.dim), overlap.reshape(-1, task.dim, task.dim), strict=True):
        ranks, places = linear_sum_assignment(o.cpu().numpy(), maximize=True)
        value[places] = s[ranks]
        for group in m.groups:
            value[group] = value[group].sort(descending=True).values
    data_var, aug_var, ratio = (variances.expand(sigma.shape) for variances in (m.data_var, m.aug_var, m.ratio))
    found = Dimensions(values.reshape(sigma.shape), data_var, aug_var, ratio, task.views)
    return _with_outputs(found, product.shape[-2])


@outside_autocast
def sampled_dimensions(weights: Weights, pairs: Pairs, activation: str, biases: tuple[Tensor, ...] = ()) -> Dimensions:
    """Dimensions of any network from a large batch: principal directions u of the embedding of the negatives.

    The augmentation variance is that of u.(z' - z); rho = E(u.(z' - z))^2 / E(u.(z - z_j))^2, which for a linear
    network equals the ratio of input variances along u's input direction.
    """
    z, z_pos, y = (forward(weights, x, activation, biases) for x in (pairs.anchor, pairs.positive, pairs.negatives))
    centred = y - y.mean(-2, keepdim=True)
    _, sigma, vh = torch.linalg.svd(centred / centred.shape[-2] ** 0.5, full_matrices=False)
    moves, scores = ((z_pos - z) @ vh.mT).square(), (centred @ vh.mT).square()
    moved, spread = moves.mean(-2), sigma.square()
    # A direction that is gone to the last digit has round-off over round-off for a ratio, which tells nothing.
    alive = sigma > z.shape[-1] * torch.finfo(z.dtype).eps * sigma.amax(-1, keepdim=True)
    ratio = torch.where(alive & (moved > 0), moved / (2 * spread), 0.0)
    # One sample pulls rho = E a / (2 E s) by (a - 2 rho s) / (2 E s) over the number of samples.
    error = (moves - 2 * ratio.unsqueeze(-2) * scores).std(-2) / (2 * spread) / y.shape[-2] ** 0.5
    error = torch.where(alive, error, torch.inf)
    one_sided = pairs.views == "one-sided"
    data_var, aug_var = (spread, moved) if one_sided else (spread - moved / 2, moved / 2)
    return Dimensions(sigma, data_var, aug_var, ratio, pairs.views, error)


def judge(
    dimensions: Dimensions,
    scale: float = 0.0,
    rest: Tensor | None = None,
    escape: Tensor | None = None,
    time_per_step: float | None = None,
    room: int | None = None,
) -> Verdict:
    """Judge the mean over runs: which dimensions collapsed, by augmentation, by waiting or for want of width.

    A dimension collapsed below COLLAPSED_BELOW of the largest value. With rho >= 1, or when it has reached its
    predicted rest value or that is negligible, it is kept down by strong augmentation; a sampled rho within its error
    of 1 is suppressed under two-sided views, where it cannot exceed 1 if both views are drawn alike, and unexplained
    under one-sided ones. Of those left no more than `room` can be alive at once: the others are
    structural. All else only grows too slowly (implicit regularisation).

    Args:
        dimensions: Singular values and ratios, (*runs, k).
        scale: Singular value at which the loss begins to see a dimension, where it has one: if all are far below it,
            all have collapsed. So has a network that is zero.
        rest: Predicted rest values (k,) of the first k dimensions.
        escape: Flow time (k,) until which each would wait, infinite for never.
        time_per_step: Turns flow time into SGD steps in the sentence.
        room: Width of the narrowest layer.

    Returns:
        The verdict, with one fate per dimension.

    Raises:
        ValueError: For singular values that are not finite.
    """
    k = dimensions.singular_value.shape[-1]
    sigma = dimensions.singular_value.reshape(-1, k).mean(0)
    if not torch.isfinite(sigma).all():
        raise ValueError("the singular values hold NaN or infinity; there is nothing to judge")
    ratio = dimensions.ratio.reshape(-1, k).mean(0)
    threshold = COLLAPSED_BELOW * max(float(sigma.max()), scale)
    low = torch.zeros(k, dtype=torch.bool)
    if rest is not None:
        # Unaugmented dimensions grow without bound, and the threshold with them: that alone suppresses nothing.
        bounded = max([scale, *rest[torch.isfinite(rest)].tolist()])
        at_rest = sigma[: len(rest)] >= rest / 2
        low[: len(rest)] = (rest <= COLLAPSED_BELOW * bounded) | ((rest <= threshold) & at_rest)
    margin = torch.zeros_like(ratio)
    if dimensions.ratio_error is not None:
        margin = family_margin(k) * dimensions.ratio_error.reshape(-1, k).mean(0)
    fates = [
        "alive" if value > threshold else _fate(rho, error, rests_low, dimensions.views)
        for value, rho, error, rests_low in zip(
            sigma.tolist(), ratio.tolist(), margin.tolist(), low.tolist(), strict=True
        )
    ]
    if room is not None:
        _give_room(fates, room, sigma if dimensions.ratio_error is not None else -ratio)
    times = [None] * k if escape is None else [*escape.tolist(), *[None] * (k - len(escape))]
    escapes = [t if fate == "waiting" else None for fate, t in zip(fates, times, strict=True)]
    on_threshold = sum(fate == "dead" and rho for fate, rho in zip(fates, at_threshold(ratio).tolist(), strict=True))
    sentence = _sentence(fates, on_threshold, [t for t in escapes if t is not None], time_per_step, room)
    return Verdict([fate != "alive" for fate in fates], fates, escapes, threshold, sentence)


def _fate(rho: float, error: float, rests_low: bool, views: str) -> str:
    """What becomes of a collapsed dimension, while layers have room for it."""
    if math.isnan(rho):
        return "structural"
    if rho - error >= 1:
        return "dead"
    if rests_low or (views == "two-sided" and 0 < error < math.inf and rho + error >= 1):
        return "suppressed"
    return "unexplained" if rho + error >= 1 else "waiting"


def _give_room(fates: list[str], room: int, order: Tensor) -> None:
    """Call structural what would live but has no room, those of the least `order` first."""
    would_live = [k for k, fate in enumerate(fates) if fate in ("alive", "waiting", "unexplained")]
    waiting = sorted((k for k in would_live if fates[k] != "alive"), key=lambda k: float(order[k]))
    for k in waiting[: max(0, len(would_live) - room)]:
        fates[k] = "structural"


def natural_scale(task: GaussianTask, objective: Objective) -> float:
    """Value in `Dimensions.singular_value` at which embeddings reach the loss's own scale.

    That scale is the kernel's width 1 for infonce, the root of the temperature for dot, 1 for spectral and 0
    for ntxent, which has none; for linear networks it is divided by the data's largest standard deviation.
    """
    widths = {"infonce": 1.0, "dot": (objective.temperature or 0.0) ** 0.5, "spectral": 1.0, "ntxent": 0.0}
    width = widths[named_loss(objective)]
    largest = float(torch.linalg.eigvalsh(task.data_cov.to(torch.float64))[-1]) ** 0.5
    return width if objective.activation == "relu" or width == 0 else width / largest


def moment(time: float, time_per_step: float | None = None) -> str:
    """Say a flow time to three digits, with the SGD step it belongs to; "never" for infinity."""
    if time == float("inf"):
        return "never"
    three = (f"{float(f'{number:.3g}'):g}" for number in (time, time / (time_per_step or 1.0)))
    return "t = {} (step {})".format(*three) if time_per_step else f"t = {next(three)}"


def _sentence(
    fates: list[str], on_threshold: int, escapes: list[float], time_per_step: float | None, room: int | None
) -> str:
    dead, low, waiting, open_, structural = (
        fates.count(fate) for fate in ("dead", "suppressed", "waiting", "unexplained", "structural")
    )
    gone = len(fates) - fates.count("alive")
    if not gone:
        return f"No dimension of {len(fates)} collapsed."
    parts = []
    if structural:
        widest = "" if room is None else f" (the narrowest layer passes on {room})"
        parts.append(f"{structural} for want of width{widest}")
    if dead or low:
        ends = f"{dead} dead, {low} too low at rest" if dead and low else "dead" if dead else "too low at rest"
        exactly = f", {on_threshold} of them at the threshold" if on_threshold else ""
        parts.append(f"{dead + low} by strong augmentation ({ends}{exactly})")
    if waiting:
        ends = _ends([moment(t, time_per_step) for t in sorted(escapes)])
        parts.append(f"{waiting} by implicit regularization (data beats augmentation there: waiting{ends})")
    if open_:
        parts.append(f"{open_} for a cause that is open (rho may be on either side of 1: dead or waiting)")
    listed = ", ".join(parts[:-1]) + " and " + parts[-1] if parts[1:] else parts[0]
    return f"{gone} of {len(fates)} dimensions collapsed: {listed}."


def _ends(moments: list[str]) -> str:
    """Say when waiting dimensions escape, from the moments of all in order."""
    never = moments.count("never")
    known = moments[: len(moments) - never]
    if not known:
        return ", never to escape as things stand" if never else ""
    when = f"by {known[-1]}" if known[0] == known[-1] else f"between {known[0]} and {known[-1]}"
    return f", to escape {when} at the present force" + (f", {never} of them never" if never else "")
