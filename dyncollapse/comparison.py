"""Two trajectories on one time axis: how far apart they are, and how that shrinks with the learning rate."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from torch import Tensor

from dyncollapse.trajectory import Trajectory


def relative_distance(a: Trajectory, b: Trajectory) -> tuple[Float[Tensor, " t"], Float[Tensor, "t *runs"]]:
    """Times and |P_a(t) - P_b(t)|_F / |P_b(t)|_F at those of a's recorded times that b covers.

    `b` is read off at its recorded times where they coincide with a's and by a cubic spline in t elsewhere.
    Raises ValueError when the records share no time or their networks differ in shape.
    """
    if a.product.shape[1:] != b.product.shape[1:]:
        raise ValueError(
            f"the trajectories hold products of shape {tuple(a.product.shape[1:])} and {tuple(b.product.shape[1:])}; "
            "compare the same networks"
        )
    covered = (a.time >= b.time[0]) & (a.time <= b.time[-1])
    if not covered.any():
        raise ValueError(
            f"the trajectories share no time: t = {float(a.time[0]):g} to {float(a.time[-1]):g} "
            f"and t = {float(b.time[0]):g} to {float(b.time[-1]):g}"
        )
    times = a.time[covered]
    p_a, p_b = a.product.to(torch.float64).cpu()[covered], _product_at(b, times)
    scale = torch.linalg.matrix_norm(p_b)
    gap = torch.linalg.matrix_norm(p_a - p_b)
    return times, torch.where(gap == 0, 0.0, gap / scale)


def order_of_convergence(steps: Sequence[float], errors: Sequence[float]) -> float:
    """Least-squares slope of log error against log step size. Raises ValueError for fewer than two or zero errors."""
    steps_, errors_ = np.asarray(steps, dtype=float), np.asarray(errors, dtype=float)
    if steps_.shape != errors_.shape or steps_.size < 2 or not (steps_ > 0).all() or not (errors_ > 0).all():
        raise ValueError(f"steps {list(steps)} and errors {list(errors)} have no slope; give two or more, all above 0")
    return float(np.polyfit(np.log(steps_), np.log(errors_), 1)[0])


def _product_at(trajectory: Trajectory, times: Tensor) -> Tensor:
    product = trajectory.product.to(torch.float64).cpu()
    if torch.equal(times, trajectory.time):
        return product
    return torch.from_numpy(CubicSpline(trajectory.time.numpy(), product.numpy(), axis=0)(times.numpy()))
