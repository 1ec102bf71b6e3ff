"""Modes of covariances that do not commute: how each grows beside the others, and when it is learnt."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.pair_moments import Task
from dyncollapse.model.precision import outside_autocast
from dyncollapse.theory.limits import population_limit
from dyncollapse.theory.mode_forces import ModeForces
from dyncollapse.theory.rest_modes import RestModes


@outside_autocast
def effective_variances(
    view_cov: Float[Tensor, "d d"], directions: Float[Tensor, "d r"], growth: Float[Tensor, " r"]
) -> Float[Tensor, " r"]:
    """Variance of the views with which each mode grows, where the modes are not orthogonal.

    In whitened coordinates Y = P S_e^(1/2) the flow is dY/dt = Y X S_e, where X is diagonal along the modes
    w = S_e^(1/2) u and S_e is not. A mode that is learnt follows the slower ones without delay, which leaves them the
    Schur complement of S_e: the pivots of its Cholesky factorisation in the order of learning. Where the covariances
    commute, S_e is diagonal along the modes and its pivots are their variances.

    Args:
        view_cov: S_e.
        directions: U with U^T S_e U = I.
        growth: u^T X0 u of each mode.

    Returns:
        The pivots.

    References:
        docs/explanation/one-axis.md, limits.

    Examples:
        >>> view_cov = torch.diag(torch.tensor([4.0, 1.0]))
        >>> modes = torch.diag(torch.tensor([0.5, 1.0]))
        >>> effective_variances(view_cov, modes, torch.ones(2)).round(decimals=3).tolist()
        [4.0, 1.0]
    """
    images = view_cov @ directions
    among = images.T @ images  # U^T S_e^2 U = W^T S_e W
    variances = among.diagonal().clone()
    if not len(variances):
        return variances
    jitter = torch.finfo(among.dtype).eps * float(variances.max())
    for _ in range(2):  # the second order follows from the pivots of the first
        order = (growth.clamp_min(0) * variances).argsort(descending=True)
        turned = among[order][:, order] + jitter * torch.eye(len(order), dtype=among.dtype, device=among.device)
        factor, failed = torch.linalg.cholesky_ex(turned)
        if int(failed):
            return variances
        variances = variances.clone()
        variances[order] = factor.diagonal().square()
    return variances


@outside_autocast
def coupled_forces(
    task: Task,
    rest: RestModes,
    loss: str = "infonce",
    temperature: float | None = None,
    *,
    invariance: float | None = None,
    weight_decay: float = 0.0,
) -> ModeForces:
    """Forces on the modes of a rest point of one layer, each as if it grew with a variance of its own.

    That is exact where the covariances commute. Elsewhere each mode has the variance that faster ones leave it
    (`effective_variances`), which is no theorem: docs/explanation/one-axis.md has what it was measured to give.

    Args:
        task: Covariances or moments, and view convention.
        rest: Their `rest_modes` under the same loss.
        loss: The loss by name.
        temperature: tau of the dot loss.
        invariance: lambda / mu of vcreg, 1 unless given.
        weight_decay: w of the one layer.

    Returns:
        Forces in the order of the modes. They include the weight decay, so that methods of `ModeForces` are called
        without it.

    Raises:
        ValueError: For losses without a closed form, and coefficients that are missing or of another loss.

    References:
        docs/explanation/one-axis.md.

    Examples:
        >>> from dyncollapse import GaussianTask, rest_modes
        >>> turned = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
        >>> task = GaussianTask(torch.diag(torch.tensor([2.0, 1.0])).double(), turned, "two-sided")
        >>> forces = coupled_forces(task, rest_modes(task, "spectral"), "spectral")
        >>> [round(time, 2) for time in forces.learning_times(0.01).tolist()]
        [0.58, 0.82]
    """
    repulsion = population_limit(task, loss, temperature, invariance).repulsion
    if loss == "barlow":  # its metric is G itself, so that its modes are independent of each other
        variances = 1 / rest.directions.square().sum(0)
        growth = rest.growth * variances
        shared = (growth + weight_decay) / 4
        return ModeForces(growth, variances, rest.ratio, 4 * shared.square() / variances)
    variances = effective_variances(task.seen[0], rest.directions, rest.growth)
    growth = rest.growth * variances
    return ModeForces(growth, variances, rest.ratio, None if repulsion is None else repulsion * variances)


def along_directions(
    view_cov: Float[Tensor, "d d"],
    rest: RestModes,
    directions: Float[Tensor, "d q"],
    times: Float[Tensor, " r"],
    level: float = 0.5,
) -> tuple[Float[Tensor, " q"], Float[Tensor, " q"]]:
    """Variance at rest along given directions, and the time at which a share of it is learnt.

    Args:
        view_cov: S_e.
        rest: Modes of a rest point.
        directions: Columns u with u^T S_e u = 1.
        times: Time at which each mode is learnt.
        level: Share of the variance at rest along a direction whose modes are to be learnt.

    Returns:
        Variance (q,), infinite where a mode without bound takes part, and time (q,): of the modes in the order of
        learning, that of the one with which the level is reached. Infinite where nothing is ever learnt.

    Examples:
        >>> from dyncollapse import GaussianTask, rest_modes
        >>> task = GaussianTask.block(2, 1, 1.0, 1.0, "two-sided")  # S_e = diag(1, 2)
        >>> rest = rest_modes(task, "spectral")  # variances 1 and 1/2
        >>> white = torch.tensor([[0.8, 0.6], [-0.6, 0.8]], dtype=torch.float64)
        >>> near_each = torch.diag(torch.tensor([1.0, 0.5], dtype=torch.float64).sqrt()) @ white
        >>> variance, times = along_directions(task.seen[0], rest, near_each, torch.tensor([1.0, 9.0]).double())
        >>> [round(value, 2) for value in variance.tolist()], times.tolist()
        ([0.82, 0.68], [1.0, 1.0])
    """
    shares = (directions.T @ view_cov @ rest.directions).square()
    shares = torch.where(shares > 1e-9 * shares.amax(1, keepdim=True), shares, 0.0)  # round-off beside infinite modes
    unbounded = torch.isinf(rest.variance)
    variance = torch.where(unbounded, 0.0, rest.variance)
    along = shares @ variance
    along = torch.where((shares[:, unbounded] > 1e-3).any(1), math.inf, along)
    order = times.argsort()
    parts = shares[:, order] * torch.where(unbounded, 1.0, variance)[order]
    sums = parts.cumsum(1)
    middle = (sums >= level * sums[:, -1:]).to(torch.int64).argmax(1)
    return along, torch.where(sums[:, -1] > 0, times[order][middle], math.inf)
