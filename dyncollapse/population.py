"""The population limit: infinitely many Gaussian samples, loss and force in closed form."""

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.gaussian import GaussianTask, as_seen
from dyncollapse.objective import Objective


def population_loss(
    product: Float[Tensor, "*runs m d"], task: GaussianTask, objective: Objective
) -> Float[Tensor, "*runs"]:
    """Loss in the limit of infinitely many negatives, up to log N, for a linear network with product P.

    infonce: tr(P A_e P^T) / 2 - logdet(I + C) / 2 - tr((I + C)^-1 C) / 2 with C = P S_e P^T;
    dot: -tr(P S P^T) / tau + tr[(P S_e P^T)^2] / (2 tau^2); spectral: -2 tr(P S P^T) + tr[(P S_e P^T)^2].
    Raises ValueError for ntxent and ReLU, which have no such closed form here.
    """
    check_population(objective)
    s_e, a_e = as_seen(task.data_cov, task.aug_cov, task.views)
    c = product @ s_e @ product.mT
    if objective.loss == "infonce":
        identity_plus_c = torch.eye(c.shape[-1], dtype=c.dtype, device=c.device) + c
        return (
            _trace(product @ a_e @ product.mT)
            - torch.logdet(identity_plus_c)
            - _trace(torch.linalg.solve(identity_plus_c, c))
        ) / 2
    attract, repel = _bilinear_rates(objective)
    return -attract * _trace(product @ task.data_cov @ product.mT) + repel * _trace(c @ c)


def population_force(
    product: Float[Tensor, "*runs m d"], task: GaussianTask, objective: Objective
) -> Float[Tensor, "*runs d d"]:
    """X_pop with dL/dP = -P X_pop, the gradient of `population_loss`.

    infonce: P X_pop = [(I + C)^-1 + (I + C)^-2] P S_e - P A_e, equal to the symmetric form
    S_e^(1/2) [(I + K)^-1 + (I + K)^-2] S_e^(1/2) - A_e with K = S_e^(1/2) P^T P S_e^(1/2).
    """
    check_population(objective)
    s_e, a_e = as_seen(task.data_cov, task.aug_cov, task.views)
    if objective.loss == "infonce":
        root = _square_root(s_e)
        k = root @ product.mT @ product @ root
        inverse = torch.linalg.inv(torch.eye(k.shape[-1], dtype=k.dtype, device=k.device) + k)
        return root @ (inverse + inverse @ inverse) @ root - a_e
    attract, repel = _bilinear_rates(objective)
    return 2 * attract * task.data_cov - 4 * repel * s_e @ product.mT @ product @ s_e


def check_population(objective: Objective) -> None:
    """Raise ValueError for a loss or activation without a population limit in closed form."""
    if objective.loss == "ntxent" or objective.activation != "linear":
        raise ValueError(
            f"the population flow of {objective.loss} with {objective.activation} layers has no closed form; "
            "use a linear network with infonce, dot or spectral, or the sample flow"
        )


def _bilinear_rates(objective: Objective) -> tuple[float, float]:
    """(a, b) of the loss -a tr(P S P^T) + b tr[(P S_e P^T)^2]."""
    if objective.loss == "spectral":
        return 2.0, 1.0
    assert objective.temperature is not None
    return 1 / objective.temperature, 1 / (2 * objective.temperature**2)


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


def _square_root(cov: Tensor) -> Tensor:
    variances, vectors = torch.linalg.eigh(cov)
    return vectors * variances.clamp_min(0).sqrt() @ vectors.T
