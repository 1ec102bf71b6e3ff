"""The population limit of every loss with one: its force at zero, and what stops the growth."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.losses import loss_invariance, loss_temperature
from dyncollapse.model.pair_moments import Task

POPULATION_LOSSES = ("infonce", "dot", "spectral", "vcreg", "barlow")


@dataclass(frozen=True, eq=False)
class Limit:
    """The population limit of a loss on a task, for a linear network with Q = P^T P.

    infonce: X = S_e^(1/2) [(I + K)^-1 + (I + K)^-2] S_e^(1/2) - A_e with K = S_e^(1/2) Q S_e^(1/2). All others are of
    fourth order in P, L = -tr(P X0 P^T) / 2 + r tr[(P M P^T)^2] / 4 + constant, so that X = X0 - r M Q M.

    Attributes:
        growth: X0 (d, d), the force at P = 0; X0 = pull M - push.
        metric: M (d, d): S_e, for barlow G.
        pull: The force at zero, per unit of M, without augmentation.
        push: What augmentation takes from it (d, d).
        repulsion: r, or None for infonce.
        per_output: The constant of the loss per output.

    References:
        docs/explanation/one-axis.md.
    """

    growth: Float[Tensor, "d d"]
    metric: Float[Tensor, "d d"]
    pull: float
    push: Float[Tensor, "d d"]
    repulsion: float | None
    per_output: float = 0.0


def population_limit(
    task: Task, loss: str = "infonce", temperature: float | None = None, invariance: float | None = None
) -> Limit:
    """Population limit of a named loss.

    Args:
        task: Covariances or moments, and view convention.
        loss: One of POPULATION_LOSSES.
        temperature: tau of the dot loss.
        invariance: lambda / mu of vcreg, 1 unless given.

    Returns:
        Its force at zero and its repulsion.

    Raises:
        ValueError: For other losses, and coefficients that are missing, out of range or of another loss.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> population_limit(GaussianTask.block(1, 1, 0.5), "vcreg").growth.item()  # 4 s - 2 lambda a
        1.0
    """
    check_closed_form(loss)
    invariance = vcreg_invariance(loss, invariance)
    (s_e, a_e), g, one_sided = task.seen, task.shared, task.views == "one-sided"
    tau = dot_temperature(loss, temperature)
    if loss == "infonce":
        return Limit(2 * s_e - a_e if one_sided else 2 * g, s_e, 2.0, a_e, None)
    if loss == "vcreg":
        push = 2 * invariance * a_e
        # Two-sided, S_e - A_e / 2 is G without cancellation.
        growth = 4 * s_e - push if one_sided else 4 * (1 - invariance) * s_e + 4 * invariance * g
        return Limit(growth, s_e, 4.0, push, 4.0, 1.0)
    if loss == "barlow":
        return Limit(4 * g, g, 4.0, torch.zeros_like(g), 4.0, 1.0)
    pull, repulsion = (4.0, 4.0) if loss == "spectral" else (2 / tau, 2 / tau**2)
    push = pull * (s_e - g) if one_sided else pull / 2 * a_e
    return Limit(pull * g, s_e, pull, push, repulsion)


def check_closed_form(loss: str) -> None:
    """Raise ValueError for a loss without a population limit in closed form."""
    if loss not in POPULATION_LOSSES:
        raise ValueError(f"{loss} has no population limit in closed form; choose {', '.join(POPULATION_LOSSES)}")


def dot_temperature(loss: str, temperature: float | None) -> float:
    """Temperature in closed forms: that of dot, and 1 for others.

    Args:
        loss: A loss by name.
        temperature: Of dot, or None.

    Returns:
        The temperature.

    Raises:
        ValueError: For dot without a temperature, one out of range, and one for a loss that has none.
    """
    if loss == "dot" and temperature is None:
        raise ValueError("the dot loss needs its temperature to have a rest point; pass temperature=")
    return loss_temperature(loss, temperature) or 1.0


def vcreg_invariance(loss: str, invariance: float | None) -> float:
    """Coefficient lambda / mu in closed forms: that of vcreg, and 1 for others; ValueError as `loss_invariance`."""
    found = loss_invariance(loss, invariance)
    return 1.0 if found is None else found
