"""Trajectories on one time axis: how far apart they are, how that shrinks, and which limit accounts for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from torch import Tensor

from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.array_arguments import array_fields


def relative_distance(a: Trajectory, b: Trajectory) -> tuple[Float[Tensor, " t"], Float[Tensor, "t *runs"]]:
    """Relative distance |P_a(t) - P_b(t)|_F / |P_b(t)|_F of two trajectories.

    Args:
        a: Compared at its recorded times.
        b: Evaluated at a's times: exactly where both recorded the same times, by a cubic spline in t otherwise.

    Returns:
        Those of a's times that b covers (t,), and the distances (t, *runs).

    Raises:
        ValueError: When the records share no time, their networks differ in shape, or the time of one counts the steps
            of an optimiser.

    Examples:
        >>> time = torch.tensor([0.0, 1.0])
        >>> a, b = (Trajectory(time, (scale * torch.ones(2, 1, 1),), time) for scale in (1.5, 1.0))
        >>> relative_distance(a, b)[1].tolist()
        [0.5, 0.5]
    """
    _check_clocks(a, b)
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


@array_fields
@dataclass(frozen=True, eq=False)
class LimitDistances:
    """What separates SGD and a flow on few batches from the population flow, limit by limit.

    Attributes:
        time: Flow times (t,).
        learning_rate: Distance of SGD on fresh batches of N from the expected flow at N, its limit lr -> 0.
        batches: Distance of the flow on M fixed batches of N from the expected flow at N, its limit M -> infinity.
        samples: Distance of the expected flow at N from the population flow, its limit N -> infinity.

    References:
        docs/explanation/theory.md, section 2.

    Examples:
        >>> time, far, near = torch.tensor([1.0, 2.0]), torch.tensor([0.1, 0.3]), torch.tensor([0.1, 0.1])
        >>> LimitDistances(time, learning_rate=near, batches=far, samples=near).largest
        'batches'
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
    """Distances between the two sides of each limit: `relative_distance`, averaged over the runs.

    All four start from the same weights. The expected flow at N follows the mean force of all batches of N, so it has
    to be approximated. Pass a sample flow on M' batches, many more than `flow` has and independent of them. Where all
    runs share one start, pass the mean of such flows over R runs. The error is about sqrt(M / (R M')) times `batches`;
    smaller distances are not resolved.

    Args:
        sgd: SGD on fresh batches of N.
        flow: The sample flow on M fixed batches of N.
        expected: The expected flow at N, approximated as above.
        population: The population flow.

    Returns:
        The distances at those of SGD's recorded times that all cover.

    Raises:
        ValueError: When the records share no time or their networks differ in shape.

    References:
        docs/explanation/theory.md, section 2, names the three limits.

    Examples:
        >>> time = torch.tensor([0.0, 1.0])
        >>> paths = [Trajectory(time, (scale * torch.ones(2, 1, 1),), time) for scale in (1.5, 1.1, 1.0, 1.0)]
        >>> limit_distances(*paths).largest
        'learning rate'
    """
    others = (flow, expected, population)
    _check_clocks(sgd, *others)
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
    """Least-squares slope of log error against log step size.

    Args:
        steps: Step sizes, two or more.
        errors: The error at each of them.

    Returns:
        The order: errors shrink as step ** order.

    Raises:
        ValueError: For fewer than two pairs, and values that are not above 0.

    Examples:
        >>> round(order_of_convergence([0.1, 0.2, 0.4], [0.01, 0.04, 0.16]), 6)
        2.0
    """
    steps_, errors_ = np.asarray(steps, dtype=float), np.asarray(errors, dtype=float)
    if steps_.shape != errors_.shape or steps_.size < 2 or not (steps_ > 0).all() or not (errors_ > 0).all():
        raise ValueError(f"steps {list(steps)} and errors {list(errors)} have no slope; give two or more, all above 0")
    return float(np.polyfit(np.log(steps_), np.log(errors_), 1)[0])


def _check_clocks(*paths: Trajectory) -> None:
    """Raise ValueError where the time of some records is flow time, and that of others counts steps."""
    clocks = {path.meta.get("time", "flow"): path.meta.get("optimiser", "SGD") for path in paths}
    if len(clocks) > 1:
        raise ValueError(
            f"the time of one record is flow time, that of the other counts steps of {clocks['steps']}; compare "
            "records of one kind"
        )


def _product_at(trajectory: Trajectory, times: Tensor) -> Tensor:
    product = trajectory.product.to(torch.float64).cpu()
    if torch.equal(times, trajectory.time):
        return product
    return torch.from_numpy(CubicSpline(trajectory.time.numpy(), product.numpy(), axis=0)(times.numpy()))
