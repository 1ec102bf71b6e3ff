"""The population limit: infinitely many Gaussian samples, loss and force in closed form."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dyncollapse.model.objective import Objective, named_loss
from dyncollapse.model.own_loss import LossWithPopulation, check_limit, check_number
from dyncollapse.model.pair_moments import Task
from dyncollapse.model.precision import outside_autocast
from dyncollapse.theory.limits import POPULATION_LOSSES, Limit, population_limit

POPULATION_FACTOR = 10
"""Batches of at least POPULATION_FACTOR x `negatives_needed` pairs count as infinitely many samples.

A rule of thumb: the expected flow of such batches then rests at the population's p^2 up to about one part in
POPULATION_FACTOR. Measured in tests/theory/test_population_negatives.py for 2 to 16 equal modes, rho from 0.1 to 0.6
and N from 32 to 512: p^2 is within 5 % and, for Eq. 2, the rate of return within 10 %. With N = `negatives_needed`
p^2 can be half of it. `population_valid` applies the rule.
"""


@outside_autocast
def population_loss(product: Float[Tensor, "*runs m d"], task: Task, objective: Objective) -> Float[Tensor, "*runs"]:
    """Loss in the limit of infinitely many negatives, up to log N, for a linear network with product P.

    infonce: tr(P A_e P^T) / 2 - logdet(I + C) / 2 - tr((I + C)^-1 C) / 2 with C = P S_e P^T;
    dot: -tr(P G P^T) / tau + tr[(P S_e P^T)^2] / (2 tau^2); spectral: -2 tr(P G P^T) + tr[(P S_e P^T)^2];
    vcreg: |P S_e P^T - I|^2 + lambda tr(P A_e P^T); barlow: |P G P^T - I|^2. G is S for independent noise.

    Args:
        product: P (*runs, m, d).
        task: Covariances and view convention.
        objective: The loss, with linear layers.

    Returns:
        One loss per run.

    Raises:
        ValueError: For ntxent, ReLU and objectives with a loss of their own, which have no such closed form here, and
            for a product that differs from the task in inputs or precision.

    References:
        docs/explanation/beyond-the-paper.md, section 5a.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> population_loss(torch.zeros(2, 2), GaussianTask.block(2, 1, dtype=torch.float32), Objective()).item()
        0.0
    """
    if (own := _own_limit(objective)) is not None:
        _check_product(product, task)
        loss = check_limit(own, "population_loss", own.population_loss(product, task), product.shape[:-2], product)
        return check_number(own, "population_loss", loss, product)
    check_population(objective)
    _check_product(product, task)
    s_e, a_e = task.seen
    c = product @ s_e @ product.mT
    if objective.loss == "infonce":
        identity_plus_c = torch.eye(c.shape[-1], dtype=c.dtype, device=c.device) + c
        return (
            _trace(product @ a_e @ product.mT)
            - torch.logdet(identity_plus_c)
            - _trace(torch.linalg.solve_ex(identity_plus_c, c).result)  # which does not raise
        ) / 2
    limit = objective_limit(task, objective)
    assert limit.repulsion is not None
    spread = product @ limit.metric @ product.mT
    attraction = _trace(product @ limit.growth @ product.mT)
    return limit.repulsion / 4 * _trace(spread @ spread) - attraction / 2 + limit.per_output * product.shape[-2]


@outside_autocast
def population_force(
    product: Float[Tensor, "*runs m d"], task: Task, objective: Objective
) -> Float[Tensor, "*runs d d"]:
    """X_pop with dL/dP = -P X_pop, the gradient of `population_loss`.

    infonce: P X_pop = [(I + C)^-1 + (I + C)^-2] P S_e - P A_e with C = P S_e P^T, equal to the symmetric form
    X_pop = S_e^(1/2) [(I + K)^-1 + (I + K)^-2] S_e^(1/2) - A_e with K = S_e^(1/2) P^T P S_e^(1/2). The others:
    X_pop = X0 - r M P^T P M, see `Limit`.

    Args:
        product: P (*runs, m, d).
        task: Covariances and view convention.
        objective: The loss, with linear layers.

    Returns:
        X_pop (*runs, d, d), symmetric for infonce.

    Raises:
        ValueError: As `population_loss`.

    References:
        docs/explanation/beyond-the-paper.md, section 5a.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> task = GaussianTask.block(2, 1, aug_strength=1.5, data_var=0.5)
        >>> force = population_force(torch.zeros(2, 2, dtype=torch.float64), task, Objective())
        >>> force.diagonal().round(decimals=9).tolist()  # 2 s - a: the second mode decays
        [1.0, -0.5]
    """
    if (own := _own_limit(objective)) is not None:
        _check_product(product, task)
        shape = (*product.shape[:-2], task.dim, task.dim)
        return check_limit(own, "population_force", own.population_force(product, task), shape, product)
    return _force_and_kernels(product, task, objective)[0]


@outside_autocast
def population_jacobian(
    product: Float[Tensor, "m d"], task: Task, objective: Objective
) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d m d"]]:
    """P X_pop and its derivative with respect to P.

    dX = -sum_i L_i (dP^T P + P^T dP) R_i with symmetric L_i, R_i: (N1, N1 + N2) and (N2, N1) for infonce, where
    N_q = S_e^(1/2) (I + K)^-q S_e^(1/2), and r (M, M) for the others.

    Args:
        product: P (m, d) of one run.
        task: Covariances and view convention.
        objective: The loss, with linear layers.

    Returns:
        P X_pop (m, d), and the derivative, whose entry [a, b, c, e] is d(P X)_ab / dP_ce.

    Raises:
        ValueError: As `population_loss`.

    References:
        docs/explanation/beyond-the-paper.md, section 5a.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> task = GaussianTask.block(1, 0, data_var=0.5)  # at P = 0, X = 2 s = 1
        >>> pulled, derivative = population_jacobian(torch.zeros(1, 1, dtype=torch.float64), task, Objective())
        >>> round(derivative.item(), 9)
        1.0
    """
    force, *kernels = _force_and_kernels(product, task, objective)
    left, right = (torch.stack(matrices) for matrices in kernels)
    m, d = product.shape
    # d(PX) = dP X - sum_i [(P L_i P^T) dP R_i + (P L_i) dP^T (P R_i)]: sums of products of two small matrices.
    p_left, p_right = product @ left, product @ right
    straight_left = torch.cat([torch.eye(m, dtype=force.dtype, device=force.device)[None], -p_left @ product.mT])
    straight = straight_left.flatten(1).mT @ torch.cat([force[None], right]).flatten(1)  # (a c)(e b)
    crossed = p_left.flatten(1).mT @ p_right.flatten(1)  # (a e)(c b)
    derivative = crossed.view(m, d, m, d).permute(0, 3, 2, 1).contiguous().neg_()
    return product @ force, derivative.add_(straight.view(m, m, d, d).permute(0, 3, 1, 2))


@outside_autocast
def negatives_needed(
    product: Float[Tensor, "*runs m d"], task: Task, objective: Objective | None = None
) -> Float[Tensor, "*runs"]:
    """How many negatives the population limit needs: E[k^2] / E[k]^2 of one negative's kernel k, mean over anchors.

    To first order the loss of N pairs falls short of its limit by (this - 1) / 2N, and by the positive's own term,
    which is of similar size. For infonce it is prod_k (1 + c_k)^(3/2) / (1 + 3 c_k)^(1/2) over the eigenvalues c_k of
    C = P S_e P^T. For dot it is det(I - 2 C^2 / tau^2)^(-1/2), infinite once 2 c_k^2 >= tau^2 for some k. For spectral
    it is 0, since that loss has the population's expectation at every N. For vcreg and barlow, which have no negatives,
    N pairs repel by up to 1 + (this / N) times as much as the limit, and it is 1 + tr(C)^2 / tr(C^2), for barlow
    1 + tr(C)^2 / tr[(P G P^T)^2].

    Args:
        product: P (*runs, m, d).
        task: Covariances and view convention.
        objective: The loss; infonce unless given.

    Returns:
        One number per run.

    Raises:
        ValueError: As `population_loss`.

    References:
        docs/explanation/beyond-the-paper.md, section 5h.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> task, grown = GaussianTask.block(16, 8), 4 * torch.eye(16, dtype=torch.float64)
        >>> negatives_needed(0 * grown, task).item(), f"{negatives_needed(grown, task):.0e}"  # at zero, and grown
        (1.0, '5e+11')
    """
    objective = objective or Objective()
    check_population(objective)
    _check_product(product, task)
    s_e, _ = task.seen
    c = torch.linalg.eigvalsh(product @ s_e @ product.mT).clamp_min(0)
    if objective.loss == "infonce":
        return ((3 * torch.log1p(c) - torch.log1p(3 * c)).sum(-1) / 2).exp()
    if objective.loss == "spectral":
        return torch.zeros_like(c.sum(-1))
    if objective.loss in ("vcreg", "barlow"):
        limit = objective_limit(task, objective)
        repelled = torch.linalg.eigvalsh(product @ limit.metric @ product.mT).square().sum(-1)
        return 1 + torch.where(repelled > 0, c.sum(-1).square() / repelled, 0.0)
    assert objective.temperature is not None
    left = 1 - 2 * (c / objective.temperature).square()
    return (-left.clamp_min(0).log().sum(-1) / 2).exp()


def population_valid(
    product: Float[Tensor, "*runs m d"], task: Task, batch_size: int, objective: Objective | None = None
) -> Bool[Tensor, "*runs"]:
    """Whether batches of N pairs behave as the population: N >= POPULATION_FACTOR negatives_needed.

    Args:
        product: P (*runs, m, d).
        task: Covariances and view convention.
        batch_size: N.
        objective: The loss; infonce unless given.

    Returns:
        One truth value per run.

    Raises:
        ValueError: As `population_loss`.

    References:
        docs/explanation/beyond-the-paper.md, section 5h.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> sizes = torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64)  # of P, one per run
        >>> products = sizes[:, None, None] * torch.eye(4, dtype=torch.float64)
        >>> population_valid(products, GaussianTask.block(4, 2), 128).tolist()
        [True, True, False]
    """
    return batch_size >= POPULATION_FACTOR * negatives_needed(product, task, objective)


def check_population_limit(objective: Objective) -> None:
    """Raise ValueError unless the population limit is a closed form, or is brought by a loss of one's own."""
    if _own_limit(objective) is None:
        check_population(objective)


def check_population(objective: Objective) -> None:
    """Raise ValueError for a loss or activation without a population limit in closed form."""
    if named_loss(objective) not in POPULATION_LOSSES or objective.activation != "linear":
        raise ValueError(
            f"the population flow of {objective.loss} with {objective.activation} layers has no closed form; "
            f"use a linear network with one of {', '.join(POPULATION_LOSSES)}, or the sample flow"
        )


def _own_limit(objective: Any) -> LossWithPopulation | None:
    """A loss of one's own that brings its population limit, or None; ValueError for it with ReLU layers."""
    own = objective.population if isinstance(objective, Objective) else None
    if own is not None and objective.activation != "linear":
        raise ValueError(f"the population limit of {objective.name} is for linear layers, not {objective.activation}")
    return own


def _check_product(product: Tensor, task: Task) -> None:
    cov = task.seen[0]
    if product.ndim < 2 or product.shape[-1] != task.dim or product.dtype != cov.dtype:
        raise ValueError(
            f"the product is {tuple(product.shape)} of {product.dtype}, the task has {task.dim} inputs of {cov.dtype}; "
            "give a product (*runs, m, d) with the task's inputs and precision"
        )


def objective_limit(task: Task, objective: Objective) -> Limit:
    """Population limit of an objective.

    Args:
        task: Covariances or moments, and view convention.
        objective: A named loss with a closed form, with linear layers.

    Returns:
        Its force at zero and its repulsion.
    """
    return population_limit(task, named_loss(objective), objective.temperature, objective.invariance)


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


def _force_and_kernels(product: Tensor, task: Task, objective: Objective) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """X, and the L_i and R_i of its derivative; see `population_jacobian`."""
    check_population(objective)
    _check_product(product, task)
    if objective.loss != "infonce":
        limit = objective_limit(task, objective)
        assert limit.repulsion is not None
        left = limit.repulsion * limit.metric
        return limit.growth - left @ product.mT @ product @ limit.metric, [left], [limit.metric]
    root = task.seen_root
    seen = product @ root
    k = seen.mT @ seen
    k.diagonal(dim1=-2, dim2=-1).add_(1)
    half = torch.linalg.inv(k) @ root
    first, second = root @ half, half.mT @ half
    both = first + second
    return both - task.seen[1], [first, second], [both, first]
