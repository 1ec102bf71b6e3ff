"""Closed forms of the population flow: thresholds, rest points, growth rates and escape times."""

import math
import sys

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.choices import LOSSES, VIEWS
from dyncollapse.model.gaussian import GaussianTask, as_seen
from dyncollapse.model.losses import loss_temperature
from dyncollapse.model.precision import outside_autocast
from dyncollapse.theory.modes import at_threshold, generalised_modes, modes


def collapse_threshold(data_var: float, views: str = "one-sided", loss: str = "infonce") -> float | None:
    """Smallest augmentation variance at which a mode of this data variance rests at zero.

    2 s for Eq. 2 with one-sided views. None where additive noise cannot collapse a mode: two-sided views, and
    the dot-product and spectral losses; ntxent has no closed form here and gives None as well.
    Raises ValueError for unknown views or losses, and for a variance that is negative or not finite.
    """
    for name, value, allowed in (("views", views, VIEWS), ("loss", loss, LOSSES)):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")
    if not 0 <= data_var < math.inf:
        raise ValueError(f"data_var is {data_var}; it is a variance, finite and at least 0")
    return 2 * data_var if loss == "infonce" and views == "one-sided" else None


def rest_singular_values(
    task: GaussianTask, loss: str = "infonce", temperature: float | None = None
) -> Float[Tensor, " d"]:
    """Singular value p* of each of `modes(task)` at the population flow's rest point, any depth.

    infonce: p*^2 = (1/u - 1) / s_e with u = (-1 + sqrt(1 + 8 rho)) / 2, and 0 for rho >= 1; infinite at rho = 0,
    where nothing stops the growth. dot: p*^2 = tau s / s_e^2; spectral: p*^2 = s / s_e^2.
    Modes without data variance rest at 0. Raises ValueError for ntxent.
    """
    m = modes(task)
    s_e, _ = as_seen(m.data_var, m.aug_var, task.views)
    signal = torch.where(m.data_var > 0, m.data_var / s_e, 0.0)
    gap = signal if task.views == "two-sided" else None
    squared = torch.where(m.data_var > 0, rest_variance(m.ratio, signal, loss, temperature, gap) / s_e, 0.0)
    return squared.sqrt()


def rest_variance(
    ratio: Tensor, signal: Tensor, loss: str = "infonce", temperature: float | None = None, gap: Tensor | None = None
) -> Tensor:
    """Embedding variance c* of a mode at the population flow's rest point, from rho and the share s / s_e of signal.

    infonce: c* = 1/u - 1 with u = (-1 + sqrt(1 + 8 rho)) / 2, 0 from rho = 1 on and infinite at rho = 0;
    dot: tau s / s_e; spectral: s / s_e. `gap` is 1 - rho where that is known to more digits: two-sided it is the share
    of signal, however close rho comes to 1. Raises ValueError for ntxent.
    """
    if loss == "infonce":
        loss_temperature(loss, temperature)
        gap = 1 - ratio if gap is None else gap
        u = 4 * ratio / (1 + torch.sqrt(1 + 8 * ratio))  # (sqrt(1 + 8 rho) - 1) / 2 without its cancellation
        v = 4 * gap / (3 + torch.sqrt((1 + 8 * (1 - gap)).clamp_min(0)))  # 1 - u, likewise
        return torch.where(ratio < 1, torch.where(ratio < 0.5, 1 / u - 1, v / (1 - v)), 0.0)
    if loss in ("dot", "spectral"):
        return bilinear_temperature(loss, temperature) * signal
    raise ValueError(f"{loss} has no rest point in closed form; choose infonce, dot or spectral")


@outside_autocast
def rest_gram(task: GaussianTask, loss: str = "infonce", temperature: float | None = None) -> Float[Tensor, "d d"]:
    """P*^T P* at the population flow's rest point, for covariances that need not commute; P* is free up to rotation.

    P X = 0 makes S_e^(1/2) P^T P S_e^(1/2) commute with the whitened augmentation, so that
    P*^T P* = U diag(c*) U^T with U and rho of `generalised_modes` and c* of `rest_variance`: the only minimum, as
    long as the network is at least as wide as the number of modes with c* > 0.
    Inputs that carry neither data nor augmentation keep whatever they started with and are left out.
    Raises ValueError where there is no rest point (infonce with rho = 0: the mode grows without bound) or where it
    depends on the start (dot and spectral with singular S_e).
    """
    ratio, directions = generalised_modes(task)
    free = int((ratio <= 100 * task.dim * torch.finfo(ratio.dtype).eps * ratio[-1:].sum()).sum())
    if loss == "infonce" and free:
        raise ValueError(
            f"{free} of {task.dim} modes are not augmented at all and grow without bound; "
            "augment every direction, or read single modes off rest_singular_values"
        )
    if loss != "infonce" and len(ratio) < task.dim:
        raise ValueError(
            f"{task.dim - len(ratio)} of {task.dim} input directions carry no data, and the {loss} loss leaves them as "
            "they started; restrict the task to the range of its data covariance"
        )
    signal = ((directions.T @ task.data_cov) * directions.T).sum(-1)
    gap = signal.clamp_min(0) if task.views == "two-sided" else None
    return directions * rest_variance(ratio, signal, loss, temperature, gap) @ directions.T


def growth_rates(task: GaussianTask, loss: str = "infonce", temperature: float | None = None) -> Float[Tensor, " d"]:
    """x0, the force on each mode at W = 0: 2 s_e (1 - rho) for infonce, 2 s / tau for dot, 4 s for spectral.

    Raises ValueError for covariances that do not commute, for ntxent, and for dot without its temperature.
    """
    m = modes(task)
    if loss == "infonce":
        loss_temperature(loss, temperature)
        # Two-sided 2 s_e - a_e = 2 s, without its cancellation.
        pull = m.aug_var if task.views == "one-sided" else torch.zeros_like(m.aug_var)
        return torch.where(at_threshold(m.ratio), 0.0, 2 * m.data_var - pull)
    if loss in ("dot", "spectral"):
        return (2 if loss == "dot" else 4) * m.data_var / bilinear_temperature(loss, temperature)
    raise ValueError(f"{loss} has no growth rate in closed form; choose infonce, dot or spectral")


def escape_time(start: float, target: float, growth: float, depth: int = 1) -> float:
    """Flow time at which an aligned, balanced mode leaves the neighbourhood of zero.

    One layer: log(target / start) / x0. L >= 2: start^-(2 - 2/L) / (2 (L - 1) x0), in which the target drops
    out as long as it is well above the start. 0 when the start is at the target already, infinite when the
    force x0 = `growth` does not push outwards or the start is exactly 0.
    Raises ValueError for a depth that is no whole number from 1 on, a negative start or target, and NaN.
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


def bilinear_temperature(loss: str, temperature: float | None) -> float:
    """Return the temperature of the dot loss, 1 for the spectral one; ValueError where it is missing or unusable."""
    if loss == "spectral":
        loss_temperature(loss, temperature)
        return 1.0
    if temperature is None:
        raise ValueError("the dot loss needs its temperature to have a rest point; pass temperature=")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; it must be finite and above 0")
    return temperature
