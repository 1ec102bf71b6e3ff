"""The flow of BYOL and SimSiam: gradients behind a stop-gradient, and a target that follows."""

from collections.abc import Callable, Sequence

from torch import Tensor

from dyncollapse.dynamics._moment_field import MomentField
from dyncollapse.dynamics.equation import Equation, Field
from dyncollapse.model.networks import Weights
from dyncollapse.model.objective import Objective
from dyncollapse.model.self_distillation import OnlineMoments, SelfDistillation


def velocities(
    objective: Objective | SelfDistillation,
    depth: int,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    weight_decay: float,
) -> list[Tensor]:
    """Velocities of all parameters: minus gradient and decay of those that learn, then those of a target's layers.

    Args:
        objective: What gives the gradients.
        depth: Number of layers.
        parameters: The layers and the parameters beside them, or a direction of all; the velocity is linear in both.
        gradients: Of all that learn, the first parameters.
        weight_decay: Acts on all that learn.

    Returns:
        One tensor per parameter.
    """
    learnt = [-g - weight_decay * p for p, g in zip(parameters, gradients, strict=False)]
    rate = objective.target_rate if isinstance(objective, SelfDistillation) else None
    if rate is None:
        return learnt
    return [*learnt, *(rate * (w - t) for w, t in zip(parameters[:depth], parameters[depth + 1 :], strict=True))]


def moment_equation(
    weights: Weights, moments: OnlineMoments, objective: SelfDistillation, weight_decay: float
) -> Equation:
    """The flow of a linear network, which sees second moments of the pairs alone.

    Args:
        weights: Layers of the shapes of one run (out, in), or of runs that are integrated together (*runs, out, in).
        moments: Of a task, or of batches.
        objective: Rates of predictor and target.
        weight_decay: Acts on weights and predictor.

    Returns:
        Velocity with its derivative, and loss.
    """
    depth = len(weights)

    def velocity(_t: float, parameters: Weights) -> list[Tensor]:
        gradients = objective.moment_gradient(parameters[:depth], moments, parameters[depth:])
        return velocities(objective, depth, parameters, gradients, weight_decay)

    def tangent(_t: float, parameters: Weights) -> Callable[[Sequence[Tensor]], Sequence[Tensor]]:
        along = objective.moment_curvature(parameters[:depth], moments, parameters[depth:])
        return lambda direction: velocities(objective, depth, direction, along(direction), weight_decay)

    def loss(_t: float, parameters: Weights) -> Tensor:
        return objective.moment_value(parameters[:depth], moments, parameters[depth:])

    if weights[0].ndim > 2 or weights[0].device.type != "cpu":  # several runs, or a GPU
        return Equation(velocity, loss, tangent=tangent, steady=True)
    arrays = MomentField([tuple(w.shape) for w in weights], moments, objective, weight_decay)
    return Equation(velocity, loss, field=Field(arrays.velocity, arrays.linearise), steady=True)
