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
    """Smallest augmentation variance at which a mode of this data variance rests at zero (Corollary 1).

    Args:
        data_var: s, a variance.
        views: The view convention.
        loss: The loss by name.

    Returns:
        2 s for Eq. 2 with one-sided views. None where additive noise cannot collapse a mode: for two-sided views, and
        for the dot-product and spectral losses. None for ntxent as well, which has no closed form here.

    Raises:
        ValueError: For unknown views or losses, and for a variance that is negative or not finite.

    References:
        Jing et al. 2022, Corollary 1; docs/explanation/beyond-the-paper.md, section 5c.

    Examples:
        >>> collapse_threshold(0.5), collapse_threshold(0.5, "two-sided")  # k = 1 in the paper's Fig. 3
        (1.0, None)
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
    """Singular value p* of each mode at the population flow's rest point, at any depth.

    infonce: p*^2 = (1/u - 1) / s_e with u = (-1 + sqrt(1 + 8 rho)) / 2, and 0 for rho >= 1; infinite at rho = 0,
    where nothing stops the growth. dot: p*^2 = tau s / s_e^2; spectral: p*^2 = s / s_e^2. Modes without data variance
    rest at 0.

    Args:
        task: Covariances, which must commute, and view convention.
        loss: The loss by name.
        temperature: tau of the dot loss.

    Returns:
        p* (d,), in the order of `modes(task)`.

    Raises:
        ValueError: For ntxent, for covariances that do not commute, and for dot without its temperature.

    References:
        docs/explanation/beyond-the-paper.md, section 5b.

    Examples:
        >>> rest_singular_values(GaussianTask.block(2, 1, aug_strength=2.0)).tolist()  # not augmented; collapsed
        [inf, 0.0]
    """
    common = modes(task)
    s_e, _ = as_seen(common.data_var, common.aug_var, task.views)
    signal = torch.where(common.data_var > 0, common.data_var / s_e, 0.0)
    gap = signal if task.views == "two-sided" else None
    squared = torch.where(common.data_var > 0, rest_variance(common.ratio, signal, loss, temperature, gap) / s_e, 0.0)
    return squared.sqrt()


def rest_variance(
    ratio: Tensor, signal: Tensor, loss: str = "infonce", temperature: float | None = None, gap: Tensor | None = None
) -> Tensor:
    """Embedding variance c* of a mode at the population flow's rest point.

    infonce: c* = 1/u - 1 with u = (-1 + sqrt(1 + 8 rho)) / 2, 0 from rho = 1 on and infinite at rho = 0;
    dot: tau s / s_e; spectral: s / s_e.

    Args:
        ratio: Rho.
        signal: The share s / s_e of signal.
        loss: The loss by name.
        temperature: tau of the dot loss.
        gap: 1 - rho, where it is known to more digits than `ratio` gives: the share of signal for two-sided views.

    Returns:
        c*, in the shape of `ratio`.

    Raises:
        ValueError: For ntxent, and for dot without its temperature.

    References:
        docs/explanation/beyond-the-paper.md, section 5b.

    Examples:
        >>> rest_variance(torch.tensor([3 / 8, 1.0]), torch.ones(2)).tolist()
        [1.0, 0.0]
    """
    if loss == "infonce":
        loss_temperature(loss, temperature)
        gap = 1 - ratio if gap is None else gap
        u = 4 * ratio / (1 + torch.sqrt(1 + 8 * ratio))  # (sqrt(1 + 8 rho) - 1) / 2 without cancellation
        v = 4 * gap / (3 + torch.sqrt((1 + 8 * (1 - gap)).clamp_min(0)))  # 1 - u, likewise
        return torch.where(ratio < 1, torch.where(ratio < 0.5, 1 / u - 1, v / (1 - v)), 0.0)
    if loss in ("dot", "spectral"):
        return bilinear_temperature(loss, temperature) * signal
    raise ValueError(f"{loss} has no rest point in closed form; choose infonce, dot or spectral")


@outside_autocast
def rest_gram(task: GaussianTask, loss: str = "infonce", temperature: float | None = None) -> Float[Tensor, "d d"]:
    """P*^T P* at the population flow's rest point, for covariances that need not commute.

    P*^T P* = U diag(c*) U^T with U and rho of `generalised_modes` and c* of `rest_variance`. It is the only minimum, as
    long as the network is at least as wide as the number of modes with c* > 0. P* itself is determined up to a rotation
    of the embedding.

    Args:
        task: Covariances and view convention.
        loss: The loss by name.
        temperature: tau of the dot loss.

    Returns:
        P*^T P* (d, d). Inputs that carry neither data nor augmentation keep their initial weights, and count as 0 here.

    Raises:
        ValueError: Where there is no rest point (infonce with rho = 0: the mode grows without bound) or where it
            depends on the start (dot and spectral with singular S_e).

    References:
        docs/explanation/beyond-the-paper.md, section 5b.

    Examples:
        >>> rest_gram(GaussianTask.block(2, 2, aug_strength=3 / 8, data_var=0.5)).round(decimals=9).diagonal().tolist()
        [2.0, 2.0]
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
    """Force x0 on each mode at W = 0: 2 s_e (1 - rho) for infonce, 2 s / tau for dot, 4 s for spectral (Theorem 1).

    Args:
        task: Covariances, which must commute, and view convention.
        loss: The loss by name.
        temperature: tau of the dot loss.

    Returns:
        x0 (d,), in the order of `modes`: the rate at which one layer's mode grows from zero, or decays.

    Raises:
        ValueError: For covariances that do not commute, for ntxent, and for dot without its temperature.

    References:
        docs/explanation/beyond-the-paper.md, section 5f.

    Examples:
        >>> growth_rates(GaussianTask.block(2, 1, aug_strength=3.0, data_var=0.5)).tolist()
        [1.0, -2.0]
    """
    common = modes(task)
    if loss == "infonce":
        loss_temperature(loss, temperature)
        # Two-sided, 2 s_e - a_e = 2 s is computed as such, without cancellation.
        pull = common.aug_var if task.views == "one-sided" else torch.zeros_like(common.aug_var)
        return torch.where(at_threshold(common.ratio), 0.0, 2 * common.data_var - pull)
    if loss in ("dot", "spectral"):
        return (2 if loss == "dot" else 4) * common.data_var / bilinear_temperature(loss, temperature)
    raise ValueError(f"{loss} has no growth rate in closed form; choose infonce, dot or spectral")


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


def bilinear_temperature(loss: str, temperature: float | None) -> float:
    """Temperature in the closed forms of the dot and spectral losses.

    Args:
        loss: "dot" or "spectral".
        temperature: Of dot, or None.

    Returns:
        The temperature of dot, 1 for spectral.

    Raises:
        ValueError: For dot without a temperature or with one not above 0, and for spectral with one.
    """
    if loss == "spectral":
        loss_temperature(loss, temperature)
        return 1.0
    if temperature is None:
        raise ValueError("the dot loss needs its temperature to have a rest point; pass temperature=")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; it must be finite and above 0")
    return temperature
