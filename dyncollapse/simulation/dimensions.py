"""A network's dimensions: singular values, and what data and augmentation do along each."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.networks import Weights, end_to_end, forward
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.precision import outside_autocast
from dyncollapse.theory.modes import augmentation_ratio, modes


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
    product, task_modes = end_to_end(weights), modes(task)
    _, sigma, vh = torch.linalg.svd(product)
    sigma = torch.nn.functional.pad(sigma, (0, task.dim - sigma.shape[-1]))
    overlap = (vh @ task_modes.directions).square()
    for group in task_modes.groups:
        overlap[..., group] = overlap[..., group].sum(-1, keepdim=True)
    values = torch.empty_like(sigma).reshape(-1, task.dim)
    for value, s, o in zip(values, sigma.reshape(-1, task.dim), overlap.reshape(-1, task.dim, task.dim), strict=True):
        ranks, places = linear_sum_assignment(o.cpu().numpy(), maximize=True)
        value[places] = s[ranks]
        for group in task_modes.groups:
            value[group] = value[group].sort(descending=True).values
    data_var, aug_var, ratio = (
        variances.expand(sigma.shape) for variances in (task_modes.data_var, task_modes.aug_var, task_modes.ratio)
    )
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
