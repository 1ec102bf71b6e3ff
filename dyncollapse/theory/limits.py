"""The population limit of every loss with one: its force at zero, and what stops the growth."""

from dataclasses import dataclass
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.losses import loss_invariance, loss_temperature
from dyncollapse.model.pair_moments import Task
from dyncollapse.theory.modes import COVARIANCE_ROUND_OFF, along

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
        terms: Sum of the absolute terms of X0 (d, d), by which its round-off is judged.

    References:
        docs/explanation/one-axis.md.
    """

    growth: Float[Tensor, "d d"]
    metric: Float[Tensor, "d d"]
    pull: float
    push: Float[Tensor, "d d"]
    repulsion: float | None
    per_output: float
    terms: Float[Tensor, "d d"]

    def growth_along(self, u: Float[Tensor, "d k"], weight_decay: float = 0.0) -> Float[Tensor, " k"]:
        """u^T (X0 - w I) u for every column u, and 0 where that is round-off of its terms.

        Args:
            u: Directions.
            weight_decay: w of one layer.

        Returns:
            One value per column.

        Examples:
            >>> from dyncollapse import GaussianTask
            >>> limit = population_limit(GaussianTask.block(2, 1, aug_strength=1.0), "infonce")
            >>> limit.growth_along(torch.eye(2, dtype=torch.float64), weight_decay=0.5).tolist()
            [0.5, -0.5]
        """
        taken = weight_decay * u.square().sum(0)
        found, terms = along(u, self.growth) - taken, along(u.abs(), self.terms) + taken
        return torch.where(
            found.abs() <= COVARIANCE_ROUND_OFF * len(u) * torch.finfo(found.dtype).eps * terms, 0.0, found
        )


@dataclass(frozen=True)
class LossTerms:
    """How the limit of a loss is made of the moments S_e, A_e and G, or of their values along a mode.

    X0 = view S_e + difference A_e + shared G, and push = by_difference A_e + by_noise (S_e - G): each without
    cancellation under its view convention.

    Attributes:
        view: Coefficient of S_e in X0.
        difference: Coefficient of A_e in X0.
        shared: Coefficient of G in X0.
        pull: As in `Limit`.
        by_difference: Coefficient of A_e in the push.
        by_noise: Coefficient of S_e - G in the push.
        repulsion: As in `Limit`.
        per_output: As in `Limit`.
    """

    view: float
    difference: float
    shared: float
    pull: float
    by_difference: float
    by_noise: float
    repulsion: float | None
    per_output: float = 0.0


def loss_terms(loss: str, views: str, temperature: float | None = None, invariance: float | None = None) -> LossTerms:
    """Coefficients of a named loss.

    Args:
        loss: One of POPULATION_LOSSES.
        views: The view convention.
        temperature: tau of the dot loss.
        invariance: lambda / mu of vcreg, 1 unless given.

    Returns:
        The coefficients.

    Raises:
        ValueError: For other losses, and coefficients that are missing, out of range or of another loss.

    Examples:
        >>> terms = loss_terms("vcreg", "one-sided", invariance=0.5)
        >>> terms.view, terms.difference, terms.shared  # 4 S_e - 2 lambda A_e
        (4.0, -1.0, 0.0)
    """
    check_closed_form(loss)
    factor, tau = vcreg_invariance(loss, invariance), dot_temperature(loss, temperature)
    one_sided = views == "one-sided"
    if loss == "infonce":
        # Two-sided, 2 S_e - A_e is 2 G.
        growth = (2.0, -1.0, 0.0) if one_sided else (0.0, 0.0, 2.0)
        return LossTerms(*growth, pull=2.0, by_difference=1.0, by_noise=0.0, repulsion=None)
    if loss == "vcreg":
        # Two-sided, S_e - A_e / 2 is G.
        growth = (4.0, -2 * factor, 0.0) if one_sided else (4 * (1 - factor), 0.0, 4 * factor)
        return LossTerms(*growth, pull=4.0, by_difference=2 * factor, by_noise=0.0, repulsion=4.0, per_output=1.0)
    if loss == "barlow":
        return LossTerms(0.0, 0.0, 4.0, pull=4.0, by_difference=0.0, by_noise=0.0, repulsion=4.0, per_output=1.0)
    pull, repulsion = (4.0, 4.0) if loss == "spectral" else (2 / tau, 2 / tau / tau)
    push = (0.0, pull) if one_sided else (pull / 2, 0.0)
    return LossTerms(0.0, 0.0, pull, pull, *push, repulsion)


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
        ValueError: As `loss_terms`.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> population_limit(GaussianTask.block(1, 1, 0.5), "vcreg").growth.item()  # 4 s - 2 lambda a
        1.0
    """
    terms = loss_terms(loss, task.views, temperature, invariance)
    (s_e, a_e), g = task.seen, task.shared
    growth = terms.view * s_e + terms.difference * a_e + terms.shared * g
    push = terms.by_difference * a_e + terms.by_noise * (s_e - g)
    metric = g if loss == "barlow" else s_e
    absolute = abs(terms.view) * s_e.abs() + abs(terms.difference) * a_e.abs() + abs(terms.shared) * g.abs()
    return Limit(growth, metric, terms.pull, push, terms.repulsion, terms.per_output, absolute)


def check_weight_decay(weight_decay: float) -> None:
    """Raise ValueError unless a weight decay is a number, finite and at least 0."""
    if not isinstance(weight_decay, Real) or not 0 <= weight_decay < float("inf"):
        raise ValueError(f"weight decay is {weight_decay}; it must be finite and at least 0")


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
