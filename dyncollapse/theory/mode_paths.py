"""The size of single modes over time, by inverting the time that each takes from its start."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicHermiteSpline
from torch import Tensor

from dyncollapse.model.array_arguments import takes_arrays
from dyncollapse.theory.limits import check_weight_decay
from dyncollapse.theory.mode_forces import ModeForces

# Panels of a path in log p, and nodes of the quadrature on each. Four times as many change p by 3e-7 of it at most.
PANELS, NODES = 800, 6
# A path ends within e^-NEAR of its rest point. One without a rest point is followed until p^2 s_e = e^(2 FAR), where
# round-off takes over the force; that is beyond any time below 1e12.
NEAR, FAR = 22.0, 16.0


@takes_arrays
def mode_paths(
    forces: ModeForces,
    start: Float[Tensor, " k"],
    time: Float[Tensor, " t"],
    weight_decay: float = 0.0,
    depth: int = 1,
) -> Float[Tensor, "t k"]:
    """Singular value of each mode over flow time, for layers that are aligned and balanced.

    p solves d log p / dt = L (p^(2 - 2/L) x(p^2 s_e) - w). It never turns back, so that time is an integral over log p,
    the one of `ModeForces.learning_times`; here that is inverted.

    Args:
        forces: The force on each mode.
        start: Singular value p of the product at t = 0, one per mode.
        time: Ascending flow times t = lr x steps.
        weight_decay: w, of every layer.
        depth: Number of layers L.

    Returns:
        p, in the order of the forces.

    Raises:
        ValueError: For a start that is negative or not finite, times that are negative or do not ascend, a negative
            weight decay and a depth below 1.

    References:
        docs/explanation/one-axis.md; docs/explanation/beyond-the-paper.md, section 5f.

    Examples:
        >>> from dyncollapse import GaussianTask, mode_forces
        >>> forces = mode_forces(GaussianTask.block(2, 1, aug_strength=3.0), "infonce")
        >>> mode_paths(forces, [0.001, 0.001], [0.0, 5.0]).round(decimals=5).tolist()  # about e^5 and e^-10 times that
        [[0.001, 0.001], [0.14721, 0.0]]
    """
    check_weight_decay(weight_decay)
    start, time = start.to(torch.float64), time.to(torch.float64)
    _check(start, time, depth)
    moving = start > 0
    begin = start[moving].log().numpy()
    found = np.zeros((len(time), len(start)))
    if len(time) and len(begin):
        part = _only(forces, moving)
        rest = (part.rest_variance(weight_decay, depth) / part.view_var).sqrt().log().numpy()
        found[:, moving.numpy()] = _Paths(part, weight_decay, depth).at(begin, rest, time.numpy())
    return torch.from_numpy(found)


def _check(start: Tensor, time: Tensor, depth: int) -> None:
    if not bool(((start >= 0) & start.isfinite()).all()):
        raise ValueError("start holds a negative singular value, NaN or infinity; all are finite and at least 0")
    if not bool((time.isfinite() & (time >= 0)).all() and (time.diff() > 0).all()):
        raise ValueError("time must hold ascending flow times, finite and at least 0")
    if depth < 1 or depth != int(depth):
        raise ValueError(f"depth is {depth}; a network has at least 1 layer")


def _only(forces: ModeForces, chosen: Tensor) -> ModeForces:
    """The forces on some of the modes."""
    growth, view_var, ratio = (part[chosen].double() for part in (forces.growth, forces.view_var, forces.ratio))
    return ModeForces(growth, view_var, ratio, None if forces.repulsion is None else forces.repulsion[chosen].double())


class _Paths:
    """Paths of k modes in log p."""

    def __init__(self, forces: ModeForces, weight_decay: float, depth: int) -> None:
        self.forces, self.decay, self.depth = forces, weight_decay, depth
        self.growth, self.view_var = forces.growth.numpy(), forces.view_var.numpy()

    def speed(self, log_p: Float[np.ndarray, "*any k"]) -> Float[np.ndarray, "*any k"]:
        """The derivative of log p in time."""
        force = self.forces.at(torch.from_numpy(np.exp(2 * log_p) * self.view_var)).numpy()
        return self.depth * (np.exp((2 - 2 / self.depth) * log_p) * force - self.decay)

    @np.errstate(all="ignore")  # what has died underflows, and takes infinitely long
    def at(
        self, begin: Float[np.ndarray, " k"], rest: Float[np.ndarray, " k"], time: Float[np.ndarray, " t"]
    ) -> Float[np.ndarray, "t k"]:
        """P at the times, from log p = `begin`; `rest` is log p*, infinite without a rest point other than zero."""
        first = self.speed(begin)
        edges = self._edges(begin, rest, first, float(time[-1]))
        x, weights = np.polynomial.legendre.leggauss(NODES)
        steps = np.diff(edges, axis=0)
        nodes = edges[:-1] + steps * ((x + 1) / 2)[:, None, None]
        taken = steps / 2 * (weights[:, None, None] / self.speed(nodes)).sum(0)
        passed = np.concatenate([np.zeros((1, len(begin))), taken.cumsum(0)])
        speeds = self.speed(edges)
        columns = []
        for k in range(len(begin)):
            # The path ends where round-off takes over the force.
            going = np.isfinite(passed[:, k]) & np.concatenate([[True], np.diff(passed[:, k]) > 0])
            known = slice(0, len(going) if going.all() else int(going.argmin()))
            if first[k] == 0 or known.stop < 2:
                columns.append(np.full(len(time), begin[k]))
                continue
            spline = CubicHermiteSpline(passed[known, k], edges[known, k], speeds[known, k])
            columns.append(spline(np.minimum(time, passed[known.stop - 1, k])))
        return np.exp(np.stack(columns, axis=-1))

    def _edges(
        self, begin: Float[np.ndarray, " k"], rest: Float[np.ndarray, " k"], first: Float[np.ndarray, " k"], end: float
    ) -> Float[np.ndarray, "n k"]:
        """Places in log p that the paths pass, dense where the speed changes."""
        even = np.linspace(0, 1, PANELS + 1)[:, None]
        # softplus(s) is a distance: even steps far from the rest point, even factors close to it.
        distance = np.abs(rest - begin)
        farthest = distance + np.log(-np.expm1(-distance))
        to_rest = rest - np.sign(first) * np.logaddexp(0, farthest * (1 - even) - NEAR * even)
        up = begin + even * (np.maximum(begin, -np.log(self.view_var) / 2) + FAR - begin)
        at_zero = np.abs(self.growth - self.decay) if self.depth == 1 else self.depth * self.decay
        down = begin - np.expm1(even * np.log1p(1 + end * np.maximum(np.abs(first), at_zero)))
        heads_for_it = np.isfinite(rest) & ((rest - begin) * first > 0)
        return np.where(heads_for_it, to_rest, np.where(first > 0, up, down))
