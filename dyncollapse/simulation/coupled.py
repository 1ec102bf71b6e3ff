"""Modes of covariances that do not commute, in the order and the units of a simulation's dimensions."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dyncollapse.model.pair_moments import Task
from dyncollapse.simulation.dimensions import assigned
from dyncollapse.simulation.distillation import ESCAPED
from dyncollapse.theory.coupled_modes import coupled_forces
from dyncollapse.theory.followed_modes import FollowedModes
from dyncollapse.theory.mode_forces import ModeForces
from dyncollapse.theory.rest_modes import RestModes, rest_modes

# Variance at rest that stands for an infinite one, over the largest finite one: round-off then leaves 4 digits of that.
STANDS_FOR_INFINITY = 1e12


@dataclass(frozen=True, eq=False)
class Coupled:
    """Modes of covariances that do not commute.

    Weight decay and the metric of barlow turn the modes of the rest point away from those that are followed.

    Attributes:
        followed: The modes (k,) that are followed.
        rest: Modes (r,) of the rest point.
        forces: The forces on these, each with the variance that faster ones leave it.
    """

    followed: FollowedModes
    rest: RestModes
    forces: ModeForces

    def values_at_rest(self) -> Float[Tensor, " k"]:
        """Singular values of P S_e^(1/2) at rest, assigned to the followed modes as `mode_dimensions` assigns them.

        As many are above 0 as modes of the rest point live.
        """
        variance = self.rest.variance[self.rest.alive]
        unbounded = torch.isinf(variance)
        highest = STANDS_FOR_INFINITY * max([1.0, *variance[~unbounded].tolist()])
        size = torch.where(unbounded, highest, variance).sqrt()
        product = size.unsqueeze(1) * self.rest.directions[:, self.rest.alive].T
        values = assigned(self.followed.seen_by(product), self.followed.orthonormal, self.followed.groups)
        return torch.where(values.square() > highest / 2, torch.inf, values)

    def learning_times(self, start: Float[Tensor, " k"], depth: int) -> Float[Tensor, " k"]:
        """Time to half of the variance at rest, from singular values of P S_e^(1/2) along the followed modes.

        Each followed mode stands for the mode of the rest point that has most of it.
        """
        assert self.followed.root is not None
        overlap = (self.followed.orthonormal.T @ self.followed.root @ self.rest.directions).square()
        ours, theirs = linear_sum_assignment(overlap.cpu().numpy(), maximize=True)
        begin = start.new_zeros(len(self.rest.variance))
        begin[theirs] = start[ours]
        times = start.new_full(start.shape, torch.inf)
        times[ours] = self.forces.learning_times(begin / self.forces.view_var.sqrt(), ESCAPED, 0.0, depth)[theirs]
        return times


def coupled(
    task: Task, followed: FollowedModes, loss: tuple[str, float | None, float | None], weight_decay: float
) -> Coupled:
    """The modes of one layer, or of any number without weight decay.

    Args:
        task: Covariances or moments that do not commute.
        followed: Its `followed_modes`.
        loss: A loss by name, its temperature and its invariance.
        weight_decay: That of one layer.

    Returns:
        The modes.

    Raises:
        ValueError: For inputs without data, which this loss leaves as they started.
    """
    name, temperature, invariance = loss
    rest = rest_modes(task, name, temperature, invariance=invariance, weight_decay=weight_decay)
    forces = coupled_forces(task, rest, name, temperature, invariance=invariance, weight_decay=weight_decay)
    return Coupled(followed, rest, forces)
