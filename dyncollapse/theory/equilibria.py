"""Closed forms of the population flow: thresholds, rest points, growth rates and escape times."""

import math
import sys

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.choices import LOSSES, VIEWS
from dyncollapse.model.gaussian import as_seen
from dyncollapse.model.pair_moments import Task
from dyncollapse.model.precision import outside_autocast
from dyncollapse.theory.limits import (
    POPULATION_LOSSES,
    check_weight_decay,
    loss_terms,
    vcreg_invariance,
)
from dyncollapse.theory.mode_forces import ModeForces, forces_along, mode_forces
from dyncollapse.theory.modes import modes
from dyncollapse.theory.rest_modes import rest_modes
from dyncollapse.theory.ties import by_gain


def collapse_threshold(
    data_var: float,
    views: str = "one-sided",
    loss: str = "infonce",
    *,
    temperature: float | None = None,
    invariance: float | None = None,
    weight_decay: float = 0.0,
    correlation: float = 0.0,
) -> float | None:
    """Smallest augmentation variance at which a mode of this data variance rests at zero (Corollary 1).

    Args:
        data_var: s, a variance.
        views: The view convention.
        loss: The loss by name.
        temperature: tau of the dot loss, which matters with weight decay only.
        invariance: lambda / mu of vcreg, 1 unless given.
        weight_decay: w of one layer.
        correlation: c between -1 and 1, of the noises of two-sided views: their covariance is c times theirs.

    Returns:
        2 s for Eq. 2 with one-sided views, and 2 s / lambda for vcreg; for vcreg with two-sided views s / (lambda - 1)
        where lambda > 1. With noises of negative correlation s / -c for the other losses, from which on the views are
        negatively correlated. Weight decay lowers each. 0 where weight decay alone keeps the mode at zero. None where
        additive noise cannot collapse a mode: for Eq. 2 with independent two-sided noises, for the dot-product,
        spectral and Barlow Twins losses with independent noises. None as well for losses without a closed form here,
        and for dot with weight decay and without temperature.

    Raises:
        ValueError: For unknown views or losses, a variance that is negative or not finite, a correlation out of range,
            and one of one-sided views.

    References:
        Jing et al. 2022, Corollary 1; docs/explanation/beyond-the-paper.md, section 5c; docs/explanation/one-axis.md.

    Examples:
        >>> collapse_threshold(0.5), collapse_threshold(0.5, "two-sided")  # k = 1 in the paper's Fig. 3
        (1.0, None)
        >>> collapse_threshold(0.5, "two-sided", "vcreg", invariance=3.0)
        0.25
        >>> collapse_threshold(0.5, "two-sided", correlation=-0.5)
        1.0
    """
    for name, value, allowed in (("views", views, VIEWS), ("loss", loss, LOSSES)):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")
    if not 0 <= data_var < math.inf:
        raise ValueError(f"data_var is {data_var}; it is a variance, finite and at least 0")
    check_weight_decay(weight_decay)
    vcreg_invariance(loss, invariance)
    if not -1 <= correlation <= 1 or (correlation and views == "one-sided"):
        raise ValueError(f"correlation is {correlation}; it lies between -1 and 1, and is 0 for one-sided views")
    if loss not in POPULATION_LOSSES or (loss == "dot" and temperature is None and weight_decay):
        return None
    if loss == "dot" and temperature is None:
        temperature = 1.0  # it multiplies all of the force
    terms = loss_terms(loss, views, temperature, invariance)
    # Growth at zero is start - slope a: S_e is s or s + a, A_e is a or 2 (1 - c) a, and G is s or s + c a.
    of_pairs = 2 * (1 - correlation) * terms.difference + correlation * terms.shared
    on_noise = terms.difference if views == "one-sided" else terms.view + of_pairs
    start, slope = (terms.view + terms.shared) * data_var - weight_decay, -on_noise
    if start <= 0 and (weight_decay > 0 or slope > 0):
        return 0.0
    return start / slope if slope > 0 else None


def rest_singular_values(
    task: Task,
    loss: str = "infonce",
    temperature: float | None = None,
    *,
    invariance: float | None = None,
    weight_decay: float = 0.0,
    depth: int = 1,
    outputs: int | None = None,
) -> Float[Tensor, " d"]:
    """Singular value p* of each mode at the population flow's rest point.

    infonce: p*^2 = (1/u - 1) / s_e with u = (-1 + sqrt(1 + 8 rho)) / 2, and 0 for rho >= 1; infinite at rho = 0,
    where nothing stops the growth. dot: p*^2 = tau s / s_e^2; spectral: p*^2 = s / s_e^2; vcreg:
    p*^2 = (1 - lambda rho) / s_e; barlow: p*^2 = 1 / s. Modes without data variance rest at 0. Without weight decay p*
    does not depend on the depth.

    Args:
        task: Covariances, which must commute, and view convention; `rest_modes` takes any.
        loss: The loss by name.
        temperature: tau of the dot loss.
        invariance: lambda / mu of vcreg, 1 unless given.
        weight_decay: w of every layer.
        depth: Number of aligned, balanced layers, which matters with weight decay only.
        outputs: Width of the narrowest layer, where it leaves room for fewer modes: the others rest at 0. Of modes of
            equal gain those that grow fastest from small starts find room, and of equal rate the least augmented.

    Returns:
        p* (d,), in the order of `modes(task)`.

    Raises:
        ValueError: For losses without a closed form, for covariances that do not commute, and for dot without its
            temperature.

    References:
        docs/explanation/beyond-the-paper.md, section 5b; docs/explanation/one-axis.md.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> rest_singular_values(GaussianTask.block(2, 1, aug_strength=2.0)).tolist()  # not augmented; collapsed
        [inf, 0.0]
    """
    forces = mode_forces(task, loss, temperature, invariance)
    variance = forces.rest_variance(weight_decay, depth)
    if outputs is not None and outputs < len(variance):
        common = modes(task)
        _, differences = as_seen(common.data_var, common.aug_var, task.views)
        order = by_gain(_priority(forces, variance, weight_decay, depth), forces.growth, -differences)
        variance = variance.index_fill(0, torch.tensor(order[outputs:], device=variance.device), 0.0)
    return torch.where(variance > 0, variance / forces.view_var, 0.0).sqrt()


def _priority(forces: ModeForces, variance: Tensor, weight_decay: float, depth: int) -> Tensor:
    """What rises with the gain of each mode at rest: its root, or what is known to more digits where the gain is small.

    For infonce and one layer the gain depends on (x0 - w) / s_e alone.
    """
    if forces.repulsion is None and not (weight_decay and depth > 1):
        return torch.where(forces.view_var > 0, (forces.growth - weight_decay) / forces.view_var, -torch.inf)
    return forces.gain(variance, weight_decay).clamp_min(0).sqrt()


def rest_variance(
    ratio: Tensor,
    signal: Tensor,
    loss: str = "infonce",
    temperature: float | None = None,
    gap: Tensor | None = None,
    *,
    invariance: float | None = None,
) -> Tensor:
    """Embedding variance c* of a mode at the population flow's rest point.

    infonce: c* = 1/u - 1 with u = (-1 + sqrt(1 + 8 rho)) / 2, 0 from rho = 1 on and infinite at rho = 0;
    dot: tau s / s_e; spectral: s / s_e, vcreg: 1 - lambda rho, and barlow: s_e / s, each where it is above 0.

    Args:
        ratio: Rho.
        signal: The share s / s_e of signal, or g / s_e with the covariance g between views: 1 - rho for two-sided ones.
        loss: The loss by name.
        temperature: tau of the dot loss.
        gap: 1 - rho, where it is known to more digits than `ratio` gives: the share of signal for two-sided views.
        invariance: lambda / mu of vcreg, 1 unless given.

    Returns:
        c*, in the shape of `ratio`.

    Raises:
        ValueError: For losses without a closed form, and for dot without its temperature.

    References:
        docs/explanation/beyond-the-paper.md, section 5b; docs/explanation/one-axis.md.

    Examples:
        >>> rest_variance(torch.tensor([3 / 8, 1.0]), torch.ones(2)).tolist()
        [1.0, 0.0]
    """
    terms, shape = loss_terms(loss, "one-sided", temperature, invariance), ratio.shape
    ratio, signal = ratio.reshape(-1), signal.broadcast_to(shape).reshape(-1)
    growth = terms.view + terms.shared * signal
    if loss == "infonce" and gap is not None:
        growth = terms.pull * gap.broadcast_to(shape).reshape(-1)
    elif terms.difference:
        growth = growth + 2 * terms.difference * ratio
    growth = growth.broadcast_to(ratio.shape)
    return forces_along(loss, terms, growth, torch.ones_like(ratio), signal, ratio).rest_variance().reshape(shape)


@outside_autocast
def rest_gram(
    task: Task,
    loss: str = "infonce",
    temperature: float | None = None,
    *,
    invariance: float | None = None,
    weight_decay: float = 0.0,
    outputs: int | None = None,
) -> Float[Tensor, "d d"]:
    """P*^T P* at the population flow's rest point, for covariances that need not commute.

    P*^T P* = U diag(c*) U^T, with U and c* of `rest_modes`. It is the only minimum where `outputs` is at least the
    number of modes with c* > 0. P* itself is determined up to a rotation of the embedding.

    Args:
        task: Covariances or moments, and view convention.
        loss: The loss by name.
        temperature: tau of the dot loss.
        invariance: lambda / mu of vcreg, 1 unless given.
        weight_decay: w of one layer.
        outputs: Width of the narrowest layer; d unless given.

    Returns:
        P*^T P* (d, d). Inputs that carry neither data nor augmentation keep their initial weights, and count as 0 here.

    Raises:
        ValueError: Where there is no rest point (infonce with rho = 0: the mode grows without bound) or where it
            depends on the start, as for `rest_modes`.

    References:
        docs/explanation/beyond-the-paper.md, section 5b; docs/explanation/one-axis.md.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> rest_gram(GaussianTask.block(2, 2, aug_strength=3 / 8, data_var=0.5)).round(decimals=9).diagonal().tolist()
        [2.0, 2.0]
    """
    found = rest_modes(task, loss, temperature, invariance=invariance, weight_decay=weight_decay, outputs=outputs)
    free = int(found.variance.isinf().sum())
    if free:
        raise ValueError(
            f"{free} of {task.dim} modes are not augmented at all and grow without bound; augment every direction, add "
            "weight decay, or read single modes off rest_modes, whose c* is infinite there"
        )
    return found.gram


def growth_rates(
    task: Task,
    loss: str = "infonce",
    temperature: float | None = None,
    *,
    invariance: float | None = None,
) -> Float[Tensor, " d"]:
    """Force x0 on each mode at W = 0 (Theorem 1).

    2 s_e (1 - rho) for infonce, 2 s / tau for dot, 4 s for spectral and barlow, 4 s_e (1 - lambda rho) for vcreg.

    Args:
        task: Covariances, which must commute, and view convention.
        loss: The loss by name.
        temperature: tau of the dot loss.
        invariance: lambda / mu of vcreg, 1 unless given.

    Returns:
        x0 (d,), in the order of `modes`: the rate at which one layer's mode grows from zero, or decays.

    Raises:
        ValueError: For covariances that do not commute, for losses without a closed form, and for dot without its
            temperature.

    References:
        docs/explanation/beyond-the-paper.md, section 5f; docs/explanation/one-axis.md.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> growth_rates(GaussianTask.block(2, 1, aug_strength=3.0, data_var=0.5)).tolist()
        [1.0, -2.0]
    """
    return mode_forces(task, loss, temperature, invariance).growth


def escape_time(start: float, target: float, growth: float, depth: int = 1) -> float:
    """Flow time at which an aligned, balanced mode leaves the neighbourhood of zero.

    One layer: log(target / start) / x0. L >= 2: start^-(2 - 2/L) / (2 (L - 1) x0), which does not depend on the target
    as long as that is well above the start.

    Args:
        start: Singular value p of the product at t = 0.
        target: Value that it has to reach.
        growth: The force x0, as from `growth_rates`.
        depth: Number of layers L.

    Returns:
        The time: 0 when the start is at the target already, infinite when the force does not push outwards or the start
        is exactly 0.

    Raises:
        ValueError: For a depth that is no whole number from 1 on, a negative start or target, and NaN.

    References:
        docs/explanation/beyond-the-paper.md, section 5f.

    Examples:
        >>> round(escape_time(1e-4, 1.0, 1.0), 3), round(escape_time(1e-4, 1.0, 1.0, depth=2))
        (9.21, 5000)
    """
    if depth < 1 or depth != int(depth):
        raise ValueError(f"depth is {depth}; a network has at least 1 layer")
    if not (start >= 0 and target >= 0) or math.isnan(growth):
        raise ValueError(f"start, target and growth are {start}, {target}, {growth}; values are at least 0, none NaN")
    if growth <= 0 or start == 0 or target == 0:
        return math.inf
    if start >= target:
        return 0.0
    if depth == 1:
        return (math.log(target) - math.log(start)) / growth
    log_time = -(2 - 2 / depth) * math.log(start) - math.log(2 * (depth - 1)) - math.log(growth)
    return math.exp(log_time) if log_time < math.log(sys.float_info.max) else math.inf
