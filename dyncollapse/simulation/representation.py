"""What collapse leaves behind: the representation below the last layer, and what a ridge probe misses of the data."""

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model._drawing import symmetric_root
from dyncollapse.model.networks import Weights, end_to_end
from dyncollapse.model.precision import outside_autocast
from dyncollapse.simulation.build import Simulation
from dyncollapse.simulation.dimensions import Dimensions, mode_dimensions
from dyncollapse.theory.followed_modes import followed_modes
from dyncollapse.theory.modes import along


def representation_dimensions(simulation: Simulation, trajectory: Trajectory) -> Dimensions | None:
    """The dimensions of the representation, the output of all layers but the last, at a trajectory's end.

    Args:
        simulation: The simulation.
        trajectory: A record of it.

    Returns:
        Mode by mode as `mode_dimensions`; None for one layer and for ReLU networks.
    """
    if len(trajectory.weights) < 2 or simulation.objective.activation != "linear":
        return None
    return mode_dimensions(_of_task(simulation, trajectory.final()[:-1]), simulation.task)


def probe_costs(simulation: Simulation, weights: Weights) -> tuple[Float[Tensor, "*runs k"], Float[Tensor, "*runs"]]:
    """Share of a target's variance that a ridge probe of a linear network misses, on infinitely many clean samples.

    For a target u^T x the probe's error is u^T S^(1/2) [l (K + l)^-1]^2 S^(1/2) u with K = S^(1/2) P^T P S^(1/2), and
    for modes in common it is that of `probe_cost`.

    Args:
        simulation: The simulation, whose setting `ridge` is l.
        weights: Layers (*runs, out, in), all or the first ones.

    Returns:
        The share for targets along each mode (*runs, k), and of the data's whole variance (*runs,). Among equal modes,
        in which no basis is special, targets are those that the network itself keeps apart, best kept first,
        after those without data, of which nothing is missed.

    References:
        docs/explanation/one-axis.md.
    """
    task, ridge = simulation.task, simulation.configuration.ridge
    missed = _missed(end_to_end(_of_task(simulation, weights)), task.data_cov, ridge)
    followed = followed_modes(task)
    whole = along(followed.directions, task.data_cov)
    least = task.dim * torch.finfo(whole.dtype).eps * float(whole.max())
    share = missed.new_zeros(*missed.shape[:-2], len(whole))
    for group in followed.groups:
        frame = followed.directions[:, group]
        variances, turn = torch.linalg.eigh(frame.T @ task.data_cov @ frame)
        kept = variances > least
        white = frame @ turn[:, kept] / variances[kept].sqrt()
        share[..., group[len(group) - int(kept.sum()) :]] = torch.linalg.eigvalsh(white.T @ missed @ white).clamp_min(0)
    variance = float(task.data_cov.diagonal().sum())
    total = missed.diagonal(dim1=-2, dim2=-1).sum(-1) / (variance or 1.0)  # without data nothing is missed
    return share, total


@outside_autocast
def _missed(product: Tensor, data_cov: Tensor, ridge: float) -> Tensor:
    """Covariance (*runs, d, d) of what a ridge probe cannot tell of the data."""
    root = symmetric_root(data_cov)
    seen = product @ root
    kernel = seen.mT @ seen
    kernel.diagonal(dim1=-2, dim2=-1).add_(ridge)
    half = ridge * torch.linalg.solve(kernel, root.expand_as(kernel))
    return half.mT @ half


def _of_task(simulation: Simulation, weights: Weights) -> Weights:
    return tuple(w.to(simulation.task.data_cov.dtype) for w in weights)
