"""Trajectories on one time axis: how far apart they are, how that shrinks, and which limit it is owed to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from torch import Tensor

from dyncollapse.dynamics.trajectory import Trajectory


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


@dataclass(frozen=True, eq=False)
class LimitDistances:
    """What separates SGD and a flow on few batches from the population flow, limit by limit, each (t,).

    `learning_rate`: SGD on fresh batches of N, from the expected flow at N, its limit lr -> 0;
    `batches`: the flow on M fixed batches of N, from the expected flow at N, its limit M -> infinity;
    `samples`: the expected flow at N, from the population flow, its limit N -> infinity.
    """

    time: Float[Tensor, " t"]
    learning_rate: Float[Tensor, " t"]
    batches: Float[Tensor, " t"]
    samples: Float[Tensor, " t"]

    @property
    def largest(self) -> str:
        """The limit whose distance rises highest: "learning rate", "batches" or "samples"."""
        names = ("learning rate", "batches", "samples")
        highest = torch.stack([self.learning_rate, self.batches, self.samples]).amax(-1)
        return names[int(highest.argmax())]


def limit_distances(sgd: Trajectory, flow: Trajectory, expected: Trajectory, population: Trajectory) -> LimitDistances:
    """Distances of each limit's two sides at SGD's recorded times that all cover: `relative_distance`, mean over runs.

    All start from the same weights. The expected flow at N follows the mean force of all batches of N, which no
    finite record does: pass a sample flow on M' batches, many more than `flow` has and independent of them, or, where
    all runs share one start, the mean of such flows over R runs. It is off by about sqrt(M / (R M')) of `batches`
    itself, and distances below that are not resolved. Raises ValueError when the records share no time or their
    networks differ in shape (ours).
    """
    others = (flow, expected, population)
    start, end = max(float(o.time[0]) for o in others), min(float(o.time[-1]) for o in others)
    times = sgd.time[(sgd.time >= start) & (sgd.time <= end)]
    if not len(times):
        raise ValueError(
            f"the trajectories share no time: SGD has records from t = {float(sgd.time[0]):g} to "
            f"{float(sgd.time[-1]):g}, the flows cover t = {start:g} to {end:g}"
        )
    sgd, flow, expected, population = (
        Trajectory(times, (_product_at(path, times),), torch.zeros_like(times)) for path in (sgd, *others)
    )
    pairs = ((sgd, expected), (flow, expected), (expected, population))
    return LimitDistances(times, *(relative_distance(a, b)[1].reshape(len(times), -1).mean(-1) for a, b in pairs))


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
