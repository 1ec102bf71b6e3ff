"""From singular values and augmentation ratios to a verdict: which dimensions collapsed, and why."""

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

STRONG, IMPLICIT = "strong-augmentation", "implicit-regularization"


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
    """Which dimensions collapsed (their singular value is at most `threshold`), why, and one sentence about all."""

    collapsed: list[bool]
    mechanisms: list[str]
    threshold: float
    sentence: str

    @property
    def mechanism(self) -> str:
        """The one mechanism at work, "both" or "none"."""
        found = {mechanism for mechanism in self.mechanisms if mechanism != "none"}
        return "both" if len(found) == 2 else found.pop() if found else "none"


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


def judge(dimensions: Dimensions, scale: float = 0.0, rest: Tensor | None = None) -> Verdict:
    """Judge the mean over runs: collapsed below COLLAPSED_BELOW of the largest value, by augmentation or by waiting.

    With rho >= 1, or when the predicted rest values `rest` (k,) say that it rests below the threshold, a
    dimension is kept down by strong augmentation; otherwise it only grows too slowly (implicit
    regularisation). `scale` is the singular value at which the loss begins to see a dimension, when it has
    one: where all are far below it, all have collapsed. So has a network that is zero altogether.
    """
    k = dimensions.singular_value.shape[-1]
    sigma = dimensions.singular_value.reshape(-1, k).mean(0)
    ratio = dimensions.ratio.reshape(-1, k).mean(0)
    threshold = COLLAPSED_BELOW * max(float(sigma.max()), scale)
    collapsed = [not float(value) > threshold for value in sigma]
    kept_down = ratio >= 1 if rest is None else (ratio >= 1) | (rest <= threshold)
    mechanisms = [
        ("none" if not gone else STRONG if down else IMPLICIT)
        for gone, down in zip(collapsed, kept_down.tolist(), strict=True)
    ]
    return Verdict(collapsed, mechanisms, threshold, _sentence(mechanisms))


def natural_scale(task: GaussianTask, objective: Objective) -> float:
    """Value in `Dimensions.singular_value` at which embeddings reach the loss's own scale.

    That scale is the kernel's width 1 for infonce, the root of the temperature for dot, 1 for spectral and 0
    for ntxent, which has none; for linear networks it is divided by the data's largest standard deviation.
    """
    widths = {"infonce": 1.0, "dot": (objective.temperature or 0.0) ** 0.5, "spectral": 1.0, "ntxent": 0.0}
    width = widths[objective.loss]
    largest = float(torch.linalg.eigvalsh(task.data_cov.to(torch.float64))[-1]) ** 0.5
    return width if objective.activation == "relu" or width == 0 else width / largest


def _sentence(mechanisms: list[str]) -> str:
    k, strong, implicit = len(mechanisms), mechanisms.count(STRONG), mechanisms.count(IMPLICIT)
    if not strong and not implicit:
        return f"No dimension of {k} collapsed."
    parts = []
    if strong:
        parts.append(f"{strong} by strong augmentation (they rest at zero, or too low to count)")
    if implicit:
        parts.append(
            f"{implicit} by implicit regularization (data beats augmentation there: they wait, and would grow)"
        )
    return f"{strong + implicit} of {k} dimensions collapsed: {' and '.join(parts)}."
