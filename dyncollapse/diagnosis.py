"""From singular values and augmentation ratios to a verdict: which dimensions collapsed, and why."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dyncollapse.equilibria import augmentation_ratio, modes
from dyncollapse.gaussian import GaussianTask, Pairs
from dyncollapse.networks import Weights, end_to_end, forward
from dyncollapse.objective import Objective

# A dimension counts as collapsed below this share of the largest singular value (ours): 1e-4 in variance.
COLLAPSED_BELOW = 1e-2

STRONG, IMPLICIT, UNKNOWN = "strong-augmentation", "implicit-regularization", "unknown"
MECHANISMS = {
    "alive": "none",
    "dead": STRONG,
    "suppressed": STRONG,
    "waiting": IMPLICIT,
    "unexplained": UNKNOWN,
    "unresolved": UNKNOWN,
    "unseen": "none",
}


@dataclass(frozen=True, eq=False)
class Dimensions:
    """The embedding's dimensions, each (*runs, k), in the order that the function which made them states.

    `singular_value` is P's (linear) or the standard deviation of the embedding along a principal direction (ReLU);
    `data_var` and `aug_var` are variances of data and augmentation along the same input direction (linear) or
    embedding direction (ReLU); `ratio` is rho there.
    """

    singular_value: Float[Tensor, "*runs k"]
    data_var: Float[Tensor, "*runs k"]
    aug_var: Float[Tensor, "*runs k"]
    ratio: Float[Tensor, "*runs k"]


@dataclass(frozen=True)
class Verdict:
    """Which dimensions collapsed (their singular value is at most `threshold`), why, and one sentence about all.

    `fates` says what becomes of each: alive; dead (rho >= 1: it never comes back), suppressed (it rests, too low to
    count), waiting (it would grow); where only embeddings were measured also unexplained (no augmented views tell),
    unresolved (lost in rounding) and unseen (too few samples: not counted as collapsed). `escapes` holds the flow time
    by which a waiting one leaves zero, where known.
    """

    collapsed: list[bool]
    mechanisms: list[str]
    fates: list[str]
    escapes: list[float | None]
    threshold: float
    sentence: str

    @property
    def mechanism(self) -> str:
        """The one mechanism at work, "both", "unknown" or "none"."""
        found = set(self.mechanisms)
        known = found & {STRONG, IMPLICIT}
        if len(known) == 2:
            return "both"
        return known.pop() if known else UNKNOWN if UNKNOWN in found else "none"


def linear_dimensions(weights: Weights, task: GaussianTask) -> Dimensions:
    """Singular values of P, largest first, and the variances along its right singular vectors.

    Among nearly equal or nearly vanishing singular values these vectors mix: where data and augmentation have
    common eigenvectors, `mode_dimensions` keeps the modes apart.
    """
    _, sigma, vh = torch.linalg.svd(end_to_end(weights), full_matrices=False)
    data_var, aug_var = (((vh @ cov) * vh).sum(-1) for cov in (task.data_cov, task.aug_cov))
    return Dimensions(sigma, data_var, aug_var, augmentation_ratio(data_var, aug_var, task.views))


def mode_dimensions(weights: Weights, task: GaussianTask) -> Dimensions:
    """Singular values of a square P, each given to one of `modes(task)`, with that mode's exact variances and rho.

    Every singular value goes to one mode, so that the overlaps of right singular vectors with the subspaces of
    equal modes are largest in sum. The vectors of surviving dimensions are sharp and settle which modes
    survive; the others, which are arbitrary mixtures at depth 2 and more, share the places that are left.
    Raises ValueError for covariances that do not commute and for products that are not square.
    """
    product = end_to_end(weights)
    if product.shape[-1] != product.shape[-2]:
        raise ValueError(f"the product has shape {tuple(product.shape)}; modes are told apart for square ones only")
    m = modes(task)
    _, sigma, vh = torch.linalg.svd(product)
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
    return Dimensions(values.reshape(sigma.shape), data_var, aug_var, ratio)


def sampled_dimensions(weights: Weights, pairs: Pairs, activation: str, biases: tuple[Tensor, ...] = ()) -> Dimensions:
    """Dimensions of any network from a large batch: principal directions u of the embedding of the negatives.

    The augmentation variance is that of u.(z' - z); rho = E(u.(z' - z))^2 / E(u.(z - z_j))^2, which for a linear
    network equals the ratio of input variances along u's input direction.
    """
    z, z_pos, y = (forward(weights, x, activation, biases) for x in (pairs.anchor, pairs.positive, pairs.negatives))
    centred = y - y.mean(-2, keepdim=True)
    _, sigma, vh = torch.linalg.svd(centred / centred.shape[-2] ** 0.5, full_matrices=False)
    moved = ((z_pos - z) @ vh.mT).square().mean(-2)
    spread = sigma.square()
    # A direction that is dead to the last digit has round-off over round-off for a ratio: say 0, it only waits.
    alive = sigma > z.shape[-1] * torch.finfo(z.dtype).eps * sigma.amax(-1, keepdim=True)
    ratio = torch.where(alive & (moved > 0), moved / (2 * spread), 0.0)
    one_sided = pairs.views == "one-sided"
    return Dimensions(sigma, spread if one_sided else spread - moved / 2, moved if one_sided else moved / 2, ratio)


def judge(
    dimensions: Dimensions,
    scale: float = 0.0,
    rest: Tensor | None = None,
    escape: Tensor | None = None,
    time_per_step: float | None = None,
) -> Verdict:
    """Judge the mean over runs: collapsed below COLLAPSED_BELOW of the largest value, by augmentation or by waiting.

    With rho >= 1, or when it has reached its predicted rest value or that is negligible (`rest`, (k,)), a
    dimension is kept down by strong augmentation; otherwise it only grows too slowly (implicit
    regularisation), until the flow time `escape` (k,) where that is known, infinite for never. `time_per_step`
    turns flow time into SGD steps in the sentence. `scale` is the singular value at which the loss begins to see a
    dimension, when it has one: where all are far below it, all have collapsed. So has a network that is zero.
    """
    k = dimensions.singular_value.shape[-1]
    sigma = dimensions.singular_value.reshape(-1, k).mean(0)
    if not torch.isfinite(sigma).all():
        raise ValueError("the singular values hold NaN or infinity; there is nothing to judge")
    ratio = dimensions.ratio.reshape(-1, k).mean(0)
    threshold = COLLAPSED_BELOW * max(float(sigma.max()), scale)
    collapsed = [not float(value) > threshold for value in sigma]
    suppressed = torch.zeros_like(ratio, dtype=torch.bool)
    if rest is not None:
        # Unaugmented dimensions grow without bound, and the threshold with them: that alone suppresses nothing.
        bounded = max([scale, *rest[torch.isfinite(rest)].tolist()])
        suppressed = (rest <= COLLAPSED_BELOW * bounded) | ((rest <= threshold) & (sigma >= rest / 2))
    fates = [
        "alive" if not gone else "dead" if rho >= 1 else "suppressed" if low else "waiting"
        for gone, rho, low in zip(collapsed, ratio.tolist(), suppressed.tolist(), strict=True)
    ]
    times = [None] * k if escape is None else escape.tolist()
    escapes = [t if fate == "waiting" else None for fate, t in zip(fates, times, strict=True)]
    sentence = _sentence(fates, [t for t in escapes if t is not None], time_per_step)
    return Verdict(collapsed, [MECHANISMS[fate] for fate in fates], fates, escapes, threshold, sentence)


def collapse_level(spectrum: Float[Tensor, " k"]) -> float:
    """Variance below which a dimension counts as collapsed beside the others, from a descending covariance spectrum.

    The first eigenvalue below COLLAPSED_BELOW^2 times the geometric mean of all above it makes a cliff; the level is
    that share of their mean (ours). A power law j^-alpha reaches exp(-alpha) of that mean, however long it is, so a
    heavy tail is no cliff, while a share of the largest eigenvalue would cut any tail. Zero where nothing varies.
    """
    logs = spectrum.clamp_min(0).log()
    share = 2 * math.log(COLLAPSED_BELOW)
    level = logs.cumsum(0) / torch.arange(1, len(logs) + 1, dtype=logs.dtype, device=logs.device) + share
    cliffs = (~(logs[1:] > level[:-1])).nonzero().flatten().tolist()
    return float(level[cliffs[0] if cliffs else -1].exp())


def judge_spectrum(
    spectrum: Float[Tensor, " d"],
    threshold: float,
    floor: float,
    seen: int,
    ratio: Float[Tensor, " d"] | None = None,
    growing: int | None = None,
) -> Verdict:
    """Judge measured embeddings: collapsed are variances up to `threshold` among the first `seen` of the spectrum.

    `ratio` holds rho along each principal direction, and tells dead from waiting for those above the noise `floor`.
    Below it only `growing` can: how many directions of the last layer's inputs have rho < 1. No more dimensions than
    these can be alive at once, so what the living and the waiting leave over waits, and the rest is dead (theory: rank
    of P at rest).
    """
    d = len(spectrum)
    collapsed = [k < seen and not value > threshold for k, value in enumerate(spectrum.tolist())]
    fates = []
    for k, value in enumerate(spectrum.tolist()):
        fate = "unseen" if k >= seen else "alive"
        if collapsed[k]:
            fate = "unexplained" if value > floor else "unresolved"
            if ratio is not None and value > floor:
                fate = "dead" if float(ratio[k]) >= 1 else "waiting"
        fates.append(fate)
    if growing is not None:
        left = max(0, growing - fates.count("alive") - fates.count("waiting"))
        for k in [k for k, fate in enumerate(fates) if fate in ("unexplained", "unresolved")]:
            fates[k], left = ("waiting", left - 1) if left else ("dead", 0)
    sentence = _embedding_sentence(fates, threshold, has_ratio=ratio is not None)
    return Verdict(collapsed, [MECHANISMS[fate] for fate in fates], fates, [None] * d, threshold, sentence)


def natural_scale(task: GaussianTask, objective: Objective) -> float:
    """Value in `Dimensions.singular_value` at which embeddings reach the loss's own scale.

    That scale is the kernel's width 1 for infonce, the root of the temperature for dot, 1 for spectral and 0
    for ntxent, which has none; for linear networks it is divided by the data's largest standard deviation.
    """
    widths = {"infonce": 1.0, "dot": (objective.temperature or 0.0) ** 0.5, "spectral": 1.0, "ntxent": 0.0}
    width = widths[objective.loss]
    largest = float(torch.linalg.eigvalsh(task.data_cov.to(torch.float64))[-1]) ** 0.5
    return width if objective.activation == "relu" or width == 0 else width / largest


def moment(time: float, time_per_step: float | None = None) -> str:
    """Say a flow time to three digits, with the SGD step it belongs to; "never" for infinity."""
    if time == float("inf"):
        return "never"
    three = (f"{float(f'{number:.3g}'):g}" for number in (time, time / (time_per_step or 1.0)))
    return "t = {} (step {})".format(*three) if time_per_step else f"t = {next(three)}"


def _sentence(fates: list[str], escapes: list[float], time_per_step: float | None) -> str:
    dead, low, waiting = (fates.count(fate) for fate in ("dead", "suppressed", "waiting"))
    if not dead + low + waiting:
        return f"No dimension of {len(fates)} collapsed."
    parts = []
    if dead or low:
        ends = f"{dead} dead, {low} too low at rest" if dead and low else "dead" if dead else "too low at rest"
        parts.append(f"{dead + low} by strong augmentation ({ends})")
    if waiting:
        ends = _ends([moment(t, time_per_step) for t in sorted(escapes)])
        parts.append(f"{waiting} by implicit regularization (data beats augmentation there: waiting{ends})")
    return f"{dead + low + waiting} of {len(fates)} dimensions collapsed: {' and '.join(parts)}."


def _embedding_sentence(fates: list[str], threshold: float, *, has_ratio: bool) -> str:
    d, unseen = len(fates), fates.count("unseen")
    below = "; if a linear layer made them, its inputs can tell why"
    hint = "" if has_ratio else "; other views of the same samples would tell why"
    kinds = {
        "dead": "by strong augmentation (dead: augmentation beats data there)",
        "waiting": "by implicit regularization (waiting: data beats augmentation there)",
        "unexplained": f"above the noise floor{hint}",
        "unresolved": f"without variance above rounding{below}",
    }
    parts = [f"{fates.count(fate)} {text}" for fate, text in kinds.items() if fate in fates]
    gone = d - unseen - fates.count("alive")
    told = f"{gone or 'No'} {'dimensions' if gone > 1 else 'dimension'} of {d - unseen} collapsed"
    told += f" (variance up to {threshold:.2g}): {', '.join(parts)}" if gone else ""
    return told + (f"; {unseen} more cannot be seen with so few distinct samples." if unseen else ".")


def _ends(moments: list[str]) -> str:
    """Say when waiting dimensions escape, from the moments of all in order."""
    never = moments.count("never")
    known = moments[: len(moments) - never]
    if not known:
        return ", never to escape as things stand" if never else ""
    when = f"by {known[-1]}" if known[0] == known[-1] else f"between {known[0]} and {known[-1]}"
    return f", to escape {when} at the present force" + (f", {never} of them never" if never else "")
