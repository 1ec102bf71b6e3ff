"""Closed forms of linear BYOL and SimSiam: rest points, the weight decay that kills a mode, and times of learning.

A mode is a common eigenvector of S_e and G. In balance, with predictor p along it and W_P = P's singular value
(p / sqrt(r))^L for L layers and predictor rate r, the mode obeys dp/dt = p [f(p) - eta] with
f(p) = r^(1 - L) p^(2 L - 1) (g - p s_e).
"""

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.integrate import quad
from torch import Tensor

from dyncollapse.model.array_arguments import array_fields
from dyncollapse.model.networks import Weights
from dyncollapse.model.pair_moments import Task
from dyncollapse.model.precision import full_precision, outside_autocast
from dyncollapse.theory.modes import modes

# Halvings of an interval after which it is as short as round-off allows.
HALVINGS = 120


@array_fields
@dataclass(frozen=True, eq=False)
class ByolRest:
    """Where the modes of linear BYOL and SimSiam rest.

    Zero is a rest point of every mode; with weight decay it is stable, too.

    Attributes:
        directions: One mode per column (d, d), in the order of `modes`.
        signal: g (d,), the variance of G along each mode.
        view_var: s_e (d,), the variance of S_e.
        critical_decay: Weight decay (d,) above which zero is the only rest point: g^2 / (4 s_e) for one layer, which is
            g (1 - rho) / 4 for two-sided views.
        predictor: Value p* (d,) of the predictor at the stable rest point; 0 for modes that die.
        encoder: Singular value (d,) of P there.
        basin: Singular value (d,) of P at the unstable rest point: a balanced SimSiam mode that starts above it reaches
            the stable one, and below it dies. 0 without weight decay, infinite for modes that die from any start. A
            mode below it can still take over the output of a living one that rests lower.
        weight_decay: eta.
        predictor_rate: r.
        depth: Number of layers L.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> rest = byol_rest(GaussianTask.block(1, 1, 0.5, views="two-sided"), 0.04)  # g = 0.5, s_e = 1
        >>> [round(value.item(), 3) for value in (rest.critical_decay, rest.encoder, rest.basin)]
        [0.062, 0.4, 0.1]
    """

    directions: Float[Tensor, "d d"]
    signal: Float[Tensor, " d"]
    view_var: Float[Tensor, " d"]
    critical_decay: Float[Tensor, " d"]
    predictor: Float[Tensor, " d"]
    encoder: Float[Tensor, " d"]
    basin: Float[Tensor, " d"]
    weight_decay: float
    predictor_rate: float
    depth: int


@outside_autocast
def byol_rest(task: Task, weight_decay: float = 0.0, *, predictor_rate: float = 1.0, depth: int = 1) -> ByolRest:
    """Rest points of linear BYOL and SimSiam, mode by mode.

    One layer rests at p* = (g + sqrt(g^2 - 4 eta s_e)) / (2 s_e). With weight decay every rest point other than zero is
    balanced, so that P's singular value is p* / sqrt(r). Without decay p* = g / s_e, and the values of P are those
    of a start in balance (`balanced_predictor`): others keep their imbalance. The target's rate moves no rest point,
    since the target of a flow at rest equals the encoder.

    Args:
        task: Covariances; S_e and G must commute.
        weight_decay: eta, on encoder and predictor.
        predictor_rate: r, as in `SelfDistillation`, above 0.
        depth: Number of layers L of the encoder, whose layers are balanced.

    Returns:
        The rest points.

    Raises:
        ValueError: For covariances that do not commute, and settings out of range.

    References:
        Tian, Chen, Ganguli 2021, Section 3; docs/explanation/beyond-the-paper.md, section 5j.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> rest = byol_rest(GaussianTask.block(2, 1, 1.5, views="two-sided"), 0.1)  # s_e = 0.5 and 2
        >>> rest.critical_decay.tolist(), [round(value, 4) for value in rest.encoder.tolist()]
        ([0.125, 0.03125], [0.7236, 0.0])
    """
    directions = modes(task).directions
    s_e, g = (_variances(directions, cov) for cov in (task.seen[0], task.shared))
    return byol_rest_along(directions, g, s_e, weight_decay, predictor_rate=predictor_rate, depth=depth)


def byol_rest_along(
    directions: Float[Tensor, "d k"],
    signal: Float[Tensor, " k"],
    view_var: Float[Tensor, " k"],
    weight_decay: float = 0.0,
    *,
    predictor_rate: float = 1.0,
    depth: int = 1,
) -> ByolRest:
    """Rest points of linear BYOL and SimSiam along directions that act on no other.

    Args:
        directions: One mode per column.
        signal: g of each; above s_e where the other view of one-sided pairs varies more than the anchor.
        view_var: s_e of each.
        weight_decay: eta.
        predictor_rate: r, as in `SelfDistillation`, above 0.
        depth: Number of layers L of the encoder.

    Returns:
        The rest points, in the order of the directions.

    Raises:
        ValueError: For settings out of range.

    Examples:
        >>> one = torch.ones(1)
        >>> byol_rest_along(torch.eye(1), 2 * one, one).predictor.item()  # g / s_e
        2.0
    """
    for name, value, allowed, fine in (
        ("weight_decay", weight_decay, "finite and at least 0", 0 <= weight_decay < math.inf),
        ("predictor_rate", predictor_rate, "finite and above 0", 0 < predictor_rate < math.inf),
        ("depth", depth, "a whole number of at least 1", depth >= 1 and depth == int(depth)),
    ):
        if not fine:
            raise ValueError(f"{name} is {value}; it must be {allowed}")
    g, s_e = signal, view_var
    fed = (g > 0) & (s_e > 0)
    top = torch.where(fed, g * (2 * depth - 1) / (2 * depth * s_e), 0.0)  # where f is largest
    critical = torch.where(fed, predictor_rate ** (1 - depth) * top ** (2 * depth - 1) * g / (2 * depth), 0.0)
    alive = fed & (weight_decay <= critical)
    if depth == 1:
        root = (g.square() - 4 * weight_decay * s_e).clamp_min(0).sqrt()
        upper, lower = (g + root) / (2 * s_e), 2 * weight_decay / (g + root)
    else:
        eta = weight_decay * predictor_rate ** (depth - 1)
        upper = _crossing(top, torch.where(fed, g / s_e, 0.0), g, s_e, eta, depth)
        lower = _crossing(top, torch.zeros_like(top), g, s_e, eta, depth)
    predictor = torch.where(alive, upper, 0.0)
    encoder, basin = ((p / predictor_rate**0.5) ** depth for p in (predictor, lower))
    basin = torch.where(alive, basin, torch.inf)
    return ByolRest(directions, g, s_e, critical, predictor, encoder, basin, weight_decay, predictor_rate, depth)


def byol_learning_times(rest: ByolRest, start: Float[Tensor, "..."] | float, level: float = 0.5) -> Float[Tensor, " d"]:
    """Flow time at which the variance of each balanced SimSiam mode reaches a share of its rest value.

    It holds for modes with an output of their own, and is the integral of dp / (p [f(p) - eta]) with
    f(p) = r^(1 - L) p^(2 L - 1) (g - p s_e). BYOL's target lags behind, so that BYOL takes longer.

    Args:
        rest: The rest points.
        start: Singular value of P along each mode at t = 0.
        level: The share, between 0 and 1.

    Returns:
        Times (d,); 0 for modes that are there already, infinite for those that die.

    Raises:
        ValueError: For a level outside (0, 1) and a negative start.

    References:
        docs/explanation/beyond-the-paper.md, section 5j.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> rest = byol_rest(GaussianTask.block(2, 1, 1.5, views="two-sided"), 0.02)
        >>> [round(time, 2) for time in byol_learning_times(rest, 0.1).tolist()]
        [31.82, 31.82]
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it is a share of the rest value, above 0 and below 1")
    starts = torch.as_tensor(start, dtype=rest.encoder.dtype).expand_as(rest.encoder)
    if not bool((starts >= 0).all()):
        raise ValueError("start has values below 0 or NaN; singular values are at least 0")
    ends, columns = level**0.5 * rest.encoder, (rest.signal, rest.view_var, rest.basin)
    rows = zip(*(column.tolist() for column in (starts, ends, *columns)), strict=True)
    return rest.encoder.new_tensor([_time(rest, *row) for row in rows])


@full_precision
def predictor_imbalance(
    weights: Weights, predictor: Float[Tensor, "*runs m m"], predictor_rate: float = 1.0
) -> Float[Tensor, "*runs m m"]:
    """W_p^T W_p - r W_L W_L^T, which every flow of BYOL and SimSiam keeps, and weight decay shrinks as e^(-2 eta t).

    Args:
        weights: One tensor (*runs, out, in) per layer; the last one counts.
        predictor: W_p (*runs, m, m).
        predictor_rate: r, as in `SelfDistillation`.

    Returns:
        The imbalance (*runs, m, m), whatever the data, the target and its rate.

    References:
        Tian, Chen, Ganguli 2021, Theorem 1; docs/explanation/beyond-the-paper.md, section 5j.

    Examples:
        >>> predictor_imbalance((torch.eye(2),), 2 * torch.eye(2), predictor_rate=3.0).diagonal().tolist()
        [1.0, 1.0]
    """
    return predictor.mT @ predictor - predictor_rate * weights[-1] @ weights[-1].mT


def _variances(directions: Tensor, cov: Tensor) -> Tensor:
    """Diagonal of the covariance among the modes; ValueError where it has other entries. Round-off counts as 0."""
    among = directions.T @ cov @ directions
    variances, largest = among.diagonal(), float(cov.abs().max())
    tolerance = 100 * len(cov) * torch.finfo(cov.dtype).eps * largest
    if float((among - torch.diag(variances)).abs().max()) > tolerance:
        raise ValueError(
            "the covariances of views and of pairs do not commute, and no rest point is known in closed form"
        )
    return torch.where(variances.abs() <= tolerance, 0.0, variances)


def _crossing(inside: Tensor, outside: Tensor, g: Tensor, s_e: Tensor, eta: float, depth: int) -> Tensor:
    """Where p^(2 L - 1) (g - p s_e) falls to eta, between a point above it and one below."""
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        above = middle ** (2 * depth - 1) * (g - middle * s_e) >= eta
        inside, outside = torch.where(above, middle, inside), torch.where(above, outside, middle)
    return outside


def _time(rest: ByolRest, start: float, end: float, g: float, s_e: float, basin: float) -> float:
    if end == 0 or start <= basin:
        return math.inf
    if start >= end:
        return 0.0
    power, scale = 2 * rest.depth - 1, rest.predictor_rate ** (1 - rest.depth)
    p_start, p_end = (rest.predictor_rate**0.5 * value ** (1 / rest.depth) for value in (start, end))

    def pace(u: float) -> float:
        p = math.exp(u)
        return 1 / (scale * p**power * (g - p * s_e) - rest.weight_decay)

    edges = [math.log(p_start) + (math.log(p_end) - math.log(p_start)) * i / 16 for i in range(17)]
    return sum(quad(pace, a, b, epsabs=0, epsrel=1e-10, limit=200)[0] for a, b in itertools.pairwise(edges))
