"""A network's dimensions: their singular values, and the variances of data and augmentation along each."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dyncollapse.model.networks import Weights, end_to_end, forward
from dyncollapse.model.pair_moments import Task
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.precision import outside_autocast
from dyncollapse.theory.followed_modes import followed_modes
from dyncollapse.theory.modes import augmentation_ratio


@dataclass(frozen=True, eq=False)
class Dimensions:
    """The dimensions of an embedding, and what data and augmentation do along each.

    `linear_dimensions`, `mode_dimensions` and `sampled_dimensions` make one; each states its order. `judge` says which
    of the dimensions collapsed.

    Attributes:
        singular_value: (*runs, k): singular values of P for a linear network; for a ReLU network the standard
            deviations of the embedding along its principal directions.
        data_var: (*runs, k): variance of the data along the same direction, which is one of the inputs for a linear
            network and one of the embedding for a ReLU network.
        aug_var: (*runs, k): variance of the augmentation along that direction.
        ratio: (*runs, k): rho along that direction; NaN for inputs that never vary, and for outputs beyond the number
            of those that do, to which no input direction leads.
        views: The view convention, "one-sided" or "two-sided".
        ratio_error: (*runs, k): standard error of a sampled rho; None where rho is exact.
        whitened: Whether the singular values are those of P S_e^(1/2), the standard deviations of a linear embedding,
            and the variances those along whitened directions. So it is for covariances without common modes.

    References:
        docs/explanation/theory.md, section 2, defines rho.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> weights = (torch.diag(torch.tensor([2.0, 0.1], dtype=torch.float64)),)
        >>> found = linear_dimensions(weights, GaussianTask.block(2, 1, aug_strength=1.5))
        >>> found.singular_value.tolist(), found.ratio.tolist()
        ([2.0, 0.1], [0.0, 1.5])
    """

    singular_value: Float[Tensor, "*runs k"]
    data_var: Float[Tensor, "*runs k"]
    aug_var: Float[Tensor, "*runs k"]
    ratio: Float[Tensor, "*runs k"]
    views: str = "one-sided"
    ratio_error: Float[Tensor, "*runs k"] | None = None
    whitened: bool = False


@outside_autocast
def linear_dimensions(weights: Weights, task: Task) -> Dimensions:
    """Singular values of P, largest first, with the variances along its right singular vectors.

    There is one dimension per output; those beyond the number of inputs have the singular value 0 and the ratio NaN.
    Singular vectors of nearly equal or nearly vanishing singular values are arbitrary mixtures. Where data and
    augmentation have common eigenvectors, prefer `mode_dimensions`, which keeps the modes apart.

    Args:
        weights: One tensor (*runs, out, in) per layer of a linear network.
        task: Covariances and view convention.

    Returns:
        The dimensions (*runs, outputs).

    References:
        docs/explanation/theory.md, section 2.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> found = linear_dimensions((torch.eye(3, 2, dtype=torch.float64),), GaussianTask.block(2, 1, 1.5))
        >>> found.singular_value.tolist(), found.ratio.tolist()  # three outputs of two inputs
        ([1.0, 1.0, 0.0], [0.0, 1.5, nan])
    """
    product = end_to_end(weights)
    _, sigma, vh = torch.linalg.svd(product, full_matrices=False)
    data_var, aug_var = (((vh @ cov) * vh).sum(-1) for cov in task.equivalent)
    ratio = augmentation_ratio(data_var, aug_var, task.views)
    return _with_outputs(Dimensions(sigma, data_var, aug_var, ratio, task.views), product.shape[-2])


def _with_outputs(found: Dimensions, outputs: int) -> Dimensions:
    """Add the outputs to which no input direction leads."""
    missing = max(0, outputs - found.singular_value.shape[-1])
    if not missing:
        return found
    sigma, data_var, aug_var = (
        torch.nn.functional.pad(part, (0, missing)) for part in (found.singular_value, found.data_var, found.aug_var)
    )
    ratio = torch.nn.functional.pad(found.ratio, (0, missing), value=torch.nan)
    return Dimensions(sigma, data_var, aug_var, ratio, found.views, whitened=found.whitened)


@outside_autocast
def mode_dimensions(weights: Weights, task: Task) -> Dimensions:
    """Assign each singular value of P to a mode of the task, with that mode's exact variances and rho.

    Where the covariances commute, the modes are `modes(task)`. Otherwise they are `generalised_modes(task)`, and the
    singular values are those of P S_e^(1/2): the standard deviations of the embedding, along directions in which views
    have variance 1.

    The assignment maximises the sum of the squared overlaps between right singular vectors and the subspaces of equal
    modes. The vectors of dimensions that survive are sharp and decide which modes survive. The others are arbitrary
    mixtures from two layers on, and share the modes that are left.

    Args:
        weights: One tensor (*runs, out, in) per layer of a linear network.
        task: Covariances or moments, and view convention.

    Returns:
        The dimensions in the order of the modes, least augmented first; modes beyond the number of outputs have the
        singular value 0. Outputs beyond the number of modes come last, with the singular value 0 and the ratio NaN.

    References:
        docs/explanation/theory.md, section 2; docs/explanation/one-axis.md.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> weights = (torch.tensor([[0.0, 0.1], [2.0, 0.0]], dtype=torch.float64),)
        >>> found = mode_dimensions(weights, GaussianTask.block(2, 1, aug_strength=1.5))
        >>> found.ratio.tolist(), [round(value, 6) for value in found.singular_value.tolist()]
        ([0.0, 1.5], [2.0, 0.1])
    """
    product = end_to_end(weights)
    followed = followed_modes(task)
    values = assigned(followed.seen_by(product), followed.orthonormal, followed.groups)
    # Inputs that never vary add nothing to the embedding, whatever weights they have.
    values = torch.where(followed.ratio.isnan(), 0.0, values)
    data_var, aug_var, ratio = (
        column.expand(values.shape) for column in (followed.data_var, followed.aug_var, followed.ratio)
    )
    found = Dimensions(values, data_var, aug_var, ratio, task.views, whitened=followed.whitened)
    return _with_outputs(found, product.shape[-2])


def assigned(
    matrix: Float[Tensor, "*runs m d"], directions: Float[Tensor, "d k"], groups: list[list[int]]
) -> Float[Tensor, "*runs k"]:
    """Singular values of matrices, each assigned to one of k orthonormal directions as `mode_dimensions` says.

    Args:
        matrix: Any number of rows; with fewer than k, singular values of 0 are added.
        directions: Orthonormal columns.
        groups: Index lists of equal directions, in each of which the values descend.

    Returns:
        One value per direction.

    Examples:
        >>> assigned(torch.diag(torch.tensor([1.0, 3.0])), torch.eye(2), [[0], [1]]).tolist()
        [1.0, 3.0]
    """
    count = directions.shape[-1]
    _, sigma, vh = torch.linalg.svd(matrix)
    sigma = torch.nn.functional.pad(sigma, (0, vh.shape[-1] - sigma.shape[-1]))
    overlap = (vh @ directions).square()
    for group in groups:
        overlap[..., group] = overlap[..., group].sum(-1, keepdim=True)
    values = sigma.new_zeros(*sigma.shape[:-1], count).reshape(-1, count)
    flat, overlaps = sigma.reshape(-1, sigma.shape[-1]), overlap.reshape(-1, *overlap.shape[-2:])
    for value, s, o in zip(values, flat, overlaps, strict=True):
        ranks, places = linear_sum_assignment(o.cpu().numpy(), maximize=True)
        value[places] = s[ranks]
        for group in groups:
            value[group] = value[group].sort(descending=True).values
    return values.reshape(*sigma.shape[:-1], count)


@outside_autocast
def values_in_turn(
    product: Float[Tensor, "*runs m d"],
    directions: Float[Tensor, "d k"],
    groups: list[list[int]],
    growth: Float[Tensor, " k"],
) -> Float[Tensor, "*runs k"]:
    """Size from which each mode of one layer grows, once faster modes have taken their outputs.

    A mode that has grown takes from slower ones what they have along its outputs: the force between the two decays
    them there. What is left of P u is its part at right angles to the images of all faster modes. Equal modes have
    the singular values of what is left of them.

    Args:
        product: P.
        directions: Modes u, orthonormal.
        groups: Index lists of equal modes, in each of which the values descend.
        growth: Rate of each mode, by which they take turns.

    Returns:
        One value per mode; 0 for those to which faster ones leave no output.

    References:
        docs/explanation/beyond-the-paper.md, section 5f.

    Examples:
        >>> product = torch.tensor([[1.0, 0.6], [0.0, 0.8]])
        >>> values_in_turn(product, torch.eye(2), [[0], [1]], torch.tensor([1.0, 0.5])).tolist()
        [1.0, 0.800000011920929]
    """
    images = product @ directions
    least = images.shape[-1] * torch.finfo(images.dtype).eps * torch.linalg.matrix_norm(images, 2)[..., None, None]
    taken, values = images.new_zeros(*images.shape[:-1], 0), images.new_zeros(*images.shape[:-2], images.shape[-1])
    for group in sorted(groups, key=lambda group: -float(growth[group[0]])):
        left = images[..., group]
        left = left - taken @ (taken.mT @ left)
        frame, sigma, _ = torch.linalg.svd(left, full_matrices=False)
        seen = sigma.unsqueeze(-2) > least
        values[..., group[: sigma.shape[-1]]] = torch.where(seen.squeeze(-2), sigma, 0.0)
        taken = torch.cat([taken, torch.where(seen, frame, 0.0)], -1)
    return values


@outside_autocast
def sampled_dimensions(weights: Weights, pairs: Pairs, activation: str, biases: tuple[Tensor, ...] = ()) -> Dimensions:
    """Estimate the dimensions of any network from many pairs, along the principal directions u of its embeddings.

    rho = E(u.(z' - z))^2 / E(u.(z - z_j))^2 over positive pairs (z, z') and negatives z_j. For a linear network this
    is the ratio of input variances along the input direction that u belongs to.

    Args:
        weights: One tensor (out, in) per layer.
        pairs: A batch of n pairs of inputs; n well above the embedding dimension.
        activation: "linear" or "relu", between the layers.
        biases: One tensor (out,) per layer, or none.

    Returns:
        The dimensions, largest standard deviation first, with the standard error of each rho.

    Raises:
        ValueError: For an unknown activation.

    References:
        docs/explanation/beyond-the-paper.md, section 5c, the criterion on pairs.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> pairs = GaussianTask.block(2, 1, aug_strength=1.0).sample(20_000, torch.Generator().manual_seed(0))
        >>> weights = (torch.diag(torch.tensor([1.0, 0.5], dtype=torch.float64)),)
        >>> [round(rho, 1) for rho in sampled_dimensions(weights, pairs, "linear").ratio.tolist()]
        [0.0, 1.0]
    """
    z, z_pos, y = (forward(weights, x, activation, biases) for x in (pairs.anchor, pairs.positive, pairs.negatives))
    centred = y - y.mean(-2, keepdim=True)
    _, sigma, vh = torch.linalg.svd(centred / centred.shape[-2] ** 0.5, full_matrices=False)
    moves, scores = ((z_pos - z) @ vh.mT).square(), (centred @ vh.mT).square()
    moved, spread = moves.mean(-2), sigma.square()
    # Along a direction that has vanished up to round-off, the ratio would be that of two round-off errors.
    alive = sigma > z.shape[-1] * torch.finfo(z.dtype).eps * sigma.amax(-1, keepdim=True)
    ratio = torch.where(alive & (moved > 0), moved / (2 * spread), 0.0)
    # Delta method: one of n samples changes rho = E a / (2 E s) by (a - 2 rho s) / (2 E s) / n.
    error = (moves - 2 * ratio.unsqueeze(-2) * scores).std(-2) / (2 * spread) / y.shape[-2] ** 0.5
    error = torch.where(alive, error, torch.inf)
    one_sided = pairs.views == "one-sided"
    data_var, aug_var = (spread, moved) if one_sided else (spread - moved / 2, moved / 2)
    return Dimensions(sigma, data_var, aug_var, ratio, pairs.views, error)


def geometric_mean(values: Float[Tensor, "*runs k"]) -> Float[Tensor, " k"]:
    """Geometric mean over the runs, because escape times depend on log p (one layer) or on a power of p.

    Args:
        values: Singular values.

    Returns:
        One value per dimension; 0 where one run has 0.

    Examples:
        >>> geometric_mean(torch.tensor([[1.0, 2.0], [4.0, 2.0]])).tolist()
        [2.0, 2.0]
    """
    return values.reshape(-1, values.shape[-1]).log().mean(0).exp()
