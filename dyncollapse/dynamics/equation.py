"""A flow as an ordinary differential equation: what a solver has to know about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dyncollapse.model.networks import Weights


class Linearisation(Protocol):
    """The derivative J of a velocity at one point, without its matrix."""

    def times(self, direction: np.ndarray) -> np.ndarray:
        """Return J v."""

    def preconditioner(self, gamma: float) -> Callable[[np.ndarray], np.ndarray] | None:  # noqa: ARG002
        """Return an approximation of v -> (1 - gamma J)^-1 v, or None where 1 will do or none is known."""
        return None


@dataclass(frozen=True)
class Field:
    """A velocity on the vector y of all parameters, weights first and then the others, each row by row.

    Attributes:
        velocity: dy / dt at (t, y).
        linearise: Its derivative with respect to y at (t, y), or None.
        preconditioned: Whether `linearise` has a preconditioner.
    """

    velocity: Callable[[float, np.ndarray], np.ndarray]
    linearise: Callable[[float, np.ndarray], Linearisation] | None = None
    preconditioned: bool = False


Tangent = Callable[[float, Weights], Callable[[Sequence[Tensor]], Sequence[Tensor]]]


@dataclass(frozen=True)
class Equation:
    """A flow as an ordinary differential equation for the parameters, weights first and then the others.

    The others are biases (*runs, out), or matrices: a predictor and the layers of a target. It need not be the flow of
    a gradient.

    Attributes:
        velocity: Their velocities at flow time t.
        loss: The loss at flow time t, one per run.
        jacobian: Derivative of the velocity with respect to all parameters of one run, or None.
        tangent: Derivative of the velocity along any direction of the parameters, at (t, parameters), or None.
        field: The same velocity on the vector of all parameters of one run, faster or with a derivative, or None.
        smooth: Whether the velocity is; ReLU's jumps.
        own_loss: Name of a user's own loss, for messages, or None.
        steady: Whether the loss is a function of the parameters alone, also of many states (t, *runs, ...) at once.
    """

    velocity: Callable[[float, Weights], Sequence[Tensor]]
    loss: Callable[[float, Weights], Tensor]
    jacobian: Callable[[float, Weights], Tensor] | None = None
    tangent: Tangent | None = None
    field: Field | None = None
    smooth: bool = True
    own_loss: str | None = None
    steady: bool = False

    def losses(self, times: Sequence[float], path: Weights) -> Tensor:
        """The losses (t, *runs) at the states (t, *runs, ...) of a path; empty without any."""
        if self.steady and len(times):
            return self.loss(times[0], path)
        losses = [self.loss(t, tuple(p[i] for p in path)) for i, t in enumerate(times)]
        return torch.stack(losses) if losses else torch.empty(0)
