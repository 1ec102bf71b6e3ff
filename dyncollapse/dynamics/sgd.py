"""SGD: how a step changes the parameters."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dyncollapse.dynamics.optimisers import Factory
from dyncollapse.model.objective import Objective
from dyncollapse.model.self_distillation import SelfDistillation


@dataclass(frozen=True)
class Rule:
    """How a step changes the parameters.

    Attributes:
        lr: Learning rate.
        objective: What is minimised, or stepped against a target.
        momentum: Heavy-ball momentum, as in torch.optim.SGD.
        weight_decay: Its product with the parameter is added to the gradient.
        optimiser: Makes the optimiser that takes the steps in place of these three settings, or None.
    """

    lr: float
    objective: Objective | SelfDistillation
    momentum: float = 0.0
    weight_decay: float = 0.0
    optimiser: Factory | None = None

    @property
    def unit(self) -> float:
        """What a step adds to the time: lr / (1 - momentum) of flow time, or 1 for an optimiser."""
        return 1.0 if self.optimiser is not None else self.lr / (1 - self.momentum)


def sgd_step(
    parameters: Sequence[Tensor], velocities: Sequence[Tensor], gradients: Sequence[Tensor], rule: Rule
) -> None:
    """Take one step of SGD in place: v <- momentum v + dL/dw + weight_decay w, then w <- w - lr v.

    Args:
        parameters: Weights and biases w.
        velocities: v, one for each; not used without momentum.
        gradients: dL/dw, one for each.
        rule: The settings; those that are 0 cost nothing.

    Examples:
        >>> import torch
        >>> w = torch.ones(1)
        >>> sgd_step([w], [], [torch.ones(1)], Rule(0.25, Objective()))
        >>> w.item()
        0.75
    """
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        update = gradient.add(parameter, alpha=rule.weight_decay) if rule.weight_decay else gradient
        if rule.momentum:
            update = velocities[i].mul_(rule.momentum).add_(update)
        parameter.sub_(update, alpha=rule.lr)
