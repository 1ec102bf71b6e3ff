"""How far augmentation must be weakened until a dimension that it kills grows."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.theory.limits import check_weight_decay, loss_terms, population_limit
from dyncollapse.theory.mode_forces import ModeForces, forces_along
from dyncollapse.theory.modes import COVARIANCE_ROUND_OFF, along, least_variance, modes


def weakened(task: GaussianTask, share: float) -> GaussianTask:
    """The same data with augmentation of a share of its variance.

    Args:
        task: Data and augmentation.
        share: Factor of the covariance of the augmentation, and of that between two noises; at least 0.

    Returns:
        The task with weaker (or, above 1, stronger) augmentation.

    Examples:
        >>> weakened(GaussianTask.block(2, 1, aug_strength=4.0), 0.25).aug_cov.diagonal().tolist()
        [0.0, 1.0]
    """
    noise = None if task.noise_cov is None else share * task.noise_cov
    return replace(task, aug_cov=share * task.aug_cov, noise_cov=noise)


def growing_shares(
    task: GaussianTask,
    loss: str = "infonce",
    temperature: float | None = None,
    invariance: float | None = None,
    weight_decay: float = 0.0,
) -> Float[Tensor, " k"]:
    """Shares of the augmentation's variance below which dimensions grow from zero.

    The force at zero is linear in the share s: X0(s) = X0(0) - s D. By Sylvester's law of inertia it has as many
    positive eigenvalues as D v = mu X0(0) v has eigenvalues mu < 1 / s, so that each mu gives one share. This holds for
    covariances that do not commute, too. Inputs without data enter by the Schur complement of D.

    Args:
        task: Data and augmentation.
        loss: A loss with a population limit in closed form.
        temperature: tau of the dot loss.
        invariance: lambda / mu of vcreg, 1 unless given.
        weight_decay: w of one layer.

    Returns:
        The shares (k,), ascending: infinite for directions that no strength kills. k is the number of directions that
        grow without augmentation; where weight decay alone stops others, the shares are exact for covariances that
        commute.

    Raises:
        ValueError: For losses without a closed form, and a negative weight decay.

    References:
        docs/explanation/beyond-the-paper.md, section 5c.

    Examples:
        >>> growing_shares(GaussianTask.block(2, 1, aug_strength=4.0)).tolist()  # the threshold is a strength of 1
        [0.25, inf]
    """
    check_weight_decay(weight_decay)
    bare = population_limit(weakened(task, 0.0), loss, temperature, invariance).growth
    decayed = bare - weight_decay * torch.eye(len(bare), dtype=bare.dtype, device=bare.device)
    taken = bare - population_limit(task, loss, temperature, invariance).growth
    values, vectors = torch.linalg.eigh(decayed)
    least = least_variance(bare)
    white, empty = vectors[:, values > least] / values[values > least].sqrt(), vectors[:, values.abs() <= least]
    across = white.T @ taken @ empty
    mu = torch.linalg.eigvalsh(
        white.T @ taken @ white - across @ torch.linalg.pinv(empty.T @ taken @ empty, hermitian=True) @ across.T
    )
    largest = float(mu.abs().max()) if len(mu) else 0.0
    round_off = COVARIANCE_ROUND_OFF * len(bare) * torch.finfo(mu.dtype).eps * max(1.0, largest)
    return torch.where(mu > round_off, 1 / mu, torch.inf).sort().values


def weakened_forces(
    task: GaussianTask, loss: str = "infonce", temperature: float | None = None, invariance: float | None = None
) -> Callable[[float], ModeForces]:
    """Forces on common modes as a function of the share of augmentation, after one decomposition.

    Args:
        task: Covariances that commute, and view convention.
        loss: A loss with a population limit in closed form.
        temperature: tau of the dot loss.
        invariance: lambda / mu of vcreg, 1 unless given.

    Returns:
        A function from the share to what `mode_forces` of the weakened task returns, in the order of `modes(task)`.

    Raises:
        ValueError: As `mode_forces`.

    Examples:
        >>> forces = weakened_forces(GaussianTask.block(2, 1, aug_strength=4.0))
        >>> forces(1.0).growth.tolist(), forces(0.25).growth.tolist()
        ([1.0, -3.0], [1.0, 0.0])
    """
    terms, v = loss_terms(loss, task.views, temperature, invariance), modes(task).directions
    noise_cov = torch.zeros_like(task.aug_cov) if task.noise_cov is None else task.noise_cov
    data, aug, noise = (along(v, cov) for cov in (task.data_cov, task.aug_cov, noise_cov))
    two_sided = task.views == "two-sided"

    def forces(share: float) -> ModeForces:
        s_e = data + share * aug if two_sided else data
        a_e, g = (1 + two_sided) * share * (aug - noise), data + share * noise
        growth = terms.view * s_e + terms.difference * a_e + terms.shared * g
        safe = torch.where(s_e > 0, s_e, 1.0)
        ratio = torch.where(s_e > 0, (terms.by_difference * a_e + terms.by_noise * (s_e - g)) / terms.pull / safe, 0.0)
        return forces_along(loss, terms, growth, s_e, torch.where(s_e > 0, g / safe, 0.0), ratio)

    return forces
