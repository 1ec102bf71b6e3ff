"""The force on single modes as a function of their size: rest values, critical weight decay and learning times.

A mode of a linear network has embedding variance c = p^2 s_e, where p is its singular value. Aligned, balanced layers
stay aligned, and dp/dt = L p (p^(2 - 2/L) x(c) - w) for L layers with weight decay w.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import brentq, minimize_scalar
from torch import Tensor

from dyncollapse.model.array_arguments import array_fields, takes_arrays
from dyncollapse.model.gaussian import as_seen
from dyncollapse.model.pair_moments import PairMoments, Task
from dyncollapse.theory.limits import LossTerms, check_weight_decay, loss_terms
from dyncollapse.theory.modes import COVARIANCE_ROUND_OFF, at_threshold, modes

# Nodes of the quadrature over log c. The integrand is smooth, and over each of the panels nearly an exponential.
PANELS, NODES = 96, 12


@array_fields
@dataclass(frozen=True, eq=False)
class ModeForces:
    """Force x(c) on each of k modes with embedding variance c, of infinitely many samples.

    x(c) = x0 - s_e [2 - 1 / (1 + c) - 1 / (1 + c)^2] for infonce, and x(c) = x0 - b c for the others.

    Attributes:
        growth: x0 (k,), the force at zero.
        view_var: s_e (k,).
        ratio: Effective rho (k,): 1 - x0 over what x0 would be without augmentation.
        repulsion: b (k,); None for infonce.

    References:
        docs/explanation/one-axis.md.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> forces = mode_forces(GaussianTask.block(1, 1, 0.5, views="two-sided"), "spectral")
        >>> forces.rest_variance().tolist()  # 1 - rho
        [0.5]
    """

    growth: Float[Tensor, " k"]
    view_var: Float[Tensor, " k"]
    ratio: Float[Tensor, " k"]
    repulsion: Float[Tensor, " k"] | None

    @takes_arrays
    def at(self, variance: Float[Tensor, "*any k"]) -> Float[Tensor, "*any k"]:
        """Force x(c).

        Args:
            variance: c of each mode.

        Returns:
            x(c).
        """
        if self.repulsion is not None:
            return self.growth - self.repulsion * variance
        share = variance / (1 + variance)  # 1 - 1 / (1 + c), without cancellation at small c
        return self.growth - self.view_var * (share * (3 - share))

    def rest_variance(self, weight_decay: float = 0.0, depth: int = 1) -> Float[Tensor, " k"]:
        """Embedding variance c* at the stable rest point other than zero, or 0 without one.

        Args:
            weight_decay: w, of every layer.
            depth: Number of layers L, balanced and aligned.

        Returns:
            c* (k,), infinite where nothing stops the growth. For L >= 2 and w > 0 zero is stable as well: only starts
            beyond an unstable point between the two reach c*.

        Raises:
            ValueError: For a negative weight decay and a depth below 1.
        """
        _check(weight_decay, depth)
        if depth > 1 and weight_decay > 0:
            found = [self._decayed(k, weight_decay, depth) for k in range(len(self.growth))]
            return self.growth.new_tensor(found)
        growth = self.growth - weight_decay
        if self.repulsion is not None:
            return torch.where(growth > 0, growth / self.repulsion, 0.0)
        left = growth / (2 * self.view_var)  # 1 - rho, where weight decay adds to a_e
        ratio = self.ratio + weight_decay / (2 * self.view_var)
        return torch.where((self.view_var > 0) & (growth > 0), infonce_rest(ratio, left), 0.0)

    @takes_arrays
    def gain(self, variance: Float[Tensor, " k"], weight_decay: float = 0.0) -> Float[Tensor, " k"]:
        """How much a mode of one layer lowers the loss when it grows from zero to c.

        Args:
            variance: c of each mode.
            weight_decay: w.

        Returns:
            The integral of x(c) - w over p^2 / 2: infinite where c is.
        """
        squared = torch.where(self.view_var > 0, variance / self.view_var, 0.0)
        slope = (self.growth - weight_decay) * squared
        if self.repulsion is not None:
            return (slope - self.repulsion * variance * squared / 2) / 2
        drag = 2 * variance - variance.log1p() - variance / (1 + variance)
        return torch.where(variance.isinf(), torch.inf, (slope - drag) / 2)

    def critical_weight_decay(self, depth: int = 1) -> Float[Tensor, " k"]:
        """Weight decay from which on zero is the only rest point: the maximum of p^(2 - 2/L) x.

        Args:
            depth: Number of layers L.

        Returns:
            w_c (k,): x0 for one layer, 0 for modes that die without any decay.

        Raises:
            ValueError: For a depth below 1.
        """
        _check(0.0, depth)
        if depth == 1:
            return self.growth.clamp_min(0)
        return self.growth.new_tensor([self._steepest(k, depth)[1] for k in range(len(self.growth))])

    @takes_arrays
    def learning_times(
        self, start: Float[Tensor, "..."] | float, level: float = 0.5, weight_decay: float = 0.0, depth: int = 1
    ) -> Float[Tensor, " k"]:
        """Flow time at which each mode's embedding variance reaches `level` times its rest value.

        Args:
            start: Singular value p of the product at t = 0, one or one per mode.
            level: Between 0 and 1. A mode without a finite rest value counts as learnt at c = 1, for infonce the width
                of its kernel.
            weight_decay: w, of every layer.
            depth: Number of layers L, balanced and aligned.

        Returns:
            Times (k,): 0 where the start is beyond the level, infinite for modes that never reach it.

        Raises:
            ValueError: For a level outside (0, 1), a negative start or weight decay, and a depth below 1.

        References:
            docs/explanation/one-axis.md; Simon et al. 2023 for barlow.
        """
        _check(weight_decay, depth)
        if not 0 < level < 1:
            raise ValueError(
                f"level is {level}; a mode approaches its rest value for ever: give a number between 0 and 1"
            )
        start = torch.as_tensor(start, dtype=self.growth.dtype).expand(self.growth.shape)
        if not bool((start >= 0).all()):
            raise ValueError("start holds a negative singular value or NaN; all are at least 0")
        rest = self.rest_variance(weight_decay, depth)
        target = torch.where(torch.isfinite(rest), level * rest, 1.0)
        begin = start.square() * self.view_var
        never, already = (rest == 0) | (begin == 0), (begin >= target) & (rest > 0)
        times = torch.where(already, rest.new_zeros(()), torch.inf)
        open_ = ~(never | already)
        if not bool(open_.any()):
            return times
        log_begin, log_end = begin[open_].log(), target[open_].log()
        nodes, shares = _panels(self.growth)
        c = (log_begin + (log_end - log_begin) * nodes[:, None]).exp()  # (nodes, modes)
        part = ModeForces(
            self.growth[open_],
            self.view_var[open_],
            self.ratio[open_],
            None if self.repulsion is None else self.repulsion[open_],
        )
        power = (c / part.view_var) ** (1 - 1 / depth)  # p^(2 - 2/L)
        speed = 2 * depth * (power * part.at(c) - weight_decay)  # of log c
        # A start below the unstable point decays to zero.
        stuck = (speed <= 0).any(0)
        taken = (log_end - log_begin) * (shares[:, None] / speed).sum(0)
        times[open_] = torch.where(stuck, torch.inf, taken)
        return times

    def _lift(self, k: int, depth: int, log_p: float) -> float:
        """p^(2 - 2/L) x(p^2 s_e) of one mode."""
        c = float(self.view_var[k]) * math.exp(2 * log_p)
        share = c / (1 + c)
        drag = float(self.view_var[k]) * share * (3 - share) if self.repulsion is None else float(self.repulsion[k]) * c
        return math.exp((2 - 2 / depth) * log_p) * (float(self.growth[k]) - drag)

    def _steepest(self, k: int, depth: int) -> tuple[float, float]:
        """Return log p at the maximum of p^(2 - 2/L) x, and the maximum."""
        if not float(self.growth[k]) > 0 or not float(self.view_var[k]) > 0:
            return -math.inf, 0.0
        # Far below the scale s_e^(-1/2) x is constant, far above it falls; the maximum lies within a few factors of it.
        scale = -math.log(float(self.view_var[k])) / 2
        rest = float(self.rest_variance()[k])
        edge = scale + (math.log(rest) / 2 if 0 < rest < math.inf else 20.0)
        found = minimize_scalar(
            lambda log_p: -self._lift(k, depth, log_p),
            bounds=(edge - 40, edge),
            method="bounded",
            options={"xatol": 1e-12},
        )
        return float(found.x), max(0.0, -float(found.fun))

    def _decayed(self, k: int, weight_decay: float, depth: int) -> float:
        at, most = self._steepest(k, depth)
        if most <= weight_decay:
            return 0.0
        high = at + 1.0
        while self._lift(k, depth, high) > weight_decay:
            high += 1.0
        log_p = brentq(lambda value: self._lift(k, depth, value) - weight_decay, at, high, xtol=1e-14)
        return float(self.view_var[k]) * math.exp(2 * log_p)


def mode_forces(
    task: Task, loss: str = "infonce", temperature: float | None = None, invariance: float | None = None
) -> ModeForces:
    """Forces on the common modes of covariances that commute.

    Args:
        task: Covariances, which must commute, and view convention.
        loss: A loss with a population limit in closed form.
        temperature: tau of the dot loss.
        invariance: lambda / mu of vcreg, 1 unless given.

    Returns:
        Forces in the order of `modes(task)`.

    Raises:
        ValueError: For covariances that do not commute, and losses without a closed form.

    Examples:
        >>> from dyncollapse import GaussianTask
        >>> mode_forces(GaussianTask.block(2, 1, 3.0, 0.5)).growth.tolist()
        [1.0, -2.0]
    """
    terms, common = loss_terms(loss, task.views, temperature, invariance), modes(task)
    s_e, a_e = as_seen(common.data_var, common.aug_var, task.views)
    g = _shared(task, common.directions, common.data_var)
    growth = terms.view * s_e + terms.difference * a_e + terms.shared * g
    size = abs(terms.view) * s_e + abs(terms.difference) * a_e + abs(terms.shared) * g.abs()
    growth = torch.where(growth.abs() <= COVARIANCE_ROUND_OFF * torch.finfo(g.dtype).eps * size, 0.0, growth)
    gamma = torch.where(s_e > 0, g / s_e, 0.0)
    # Rho is settled where round-off cannot tell it from 1, and with it the force.
    ratio = (2 * terms.by_difference * common.ratio + terms.by_noise * (1 - gamma)) / terms.pull
    if loss == "infonce":
        growth = torch.where(at_threshold(common.ratio), 0.0, growth)
    return forces_along(loss, terms, growth, s_e, gamma, ratio)


def forces_along(
    loss: str, terms: LossTerms, growth: Tensor, view_var: Tensor, signal: Tensor, ratio: Tensor
) -> ModeForces:
    """Forces on modes from what the moments are along each.

    Args:
        loss: The loss by name.
        terms: Its coefficients.
        growth: x0.
        view_var: s_e.
        signal: g / s_e, the share of the variance that both views have.
        ratio: Effective rho.

    Returns:
        The forces, with b = r s_e, and for barlow r g^2 / s_e.
    """
    metric = view_var * signal.square() if loss == "barlow" else view_var
    return ModeForces(growth, view_var, ratio, None if terms.repulsion is None else terms.repulsion * metric)


def infonce_rest(ratio: Tensor, gap: Tensor) -> Tensor:
    """c* = 1/u - 1 of Eq. 2, u = (-1 + sqrt(1 + 8 rho)) / 2; 0 from rho = 1 on and infinite at rho = 0.

    Args:
        ratio: Rho.
        gap: 1 - rho, as precisely as it is known.

    Returns:
        c*.
    """
    u = 4 * ratio / (1 + torch.sqrt(1 + 8 * ratio))  # (sqrt(1 + 8 rho) - 1) / 2 without cancellation
    v = 4 * gap / (3 + torch.sqrt((1 + 8 * (1 - gap)).clamp_min(0)))  # 1 - u, likewise
    return torch.where(ratio < 1, torch.where(ratio < 0.5, 1 / u - 1, v / (1 - v)), 0.0)


def _shared(task: Task, directions: Tensor, data_var: Tensor) -> Tensor:
    """Variance of G along common modes."""
    if not isinstance(task, PairMoments) or task.views == "two-sided":
        return data_var
    rotated = directions.T @ task.shared @ directions
    beside = rotated - torch.diag(rotated.diagonal())
    if float(beside.abs().max()) > 100 * task.dim * torch.finfo(rotated.dtype).eps * float(rotated.abs().max()):
        raise ValueError("the covariance between the views does not commute with that of a view; use rest_modes")
    return rotated.diagonal().clone()


def _panels(like: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on (0, 1), in PANELS equal panels."""
    x, weights = np.polynomial.legendre.leggauss(NODES)
    places = (np.arange(PANELS)[:, None] + (x + 1) / 2) / PANELS
    shares = np.broadcast_to(weights / 2 / PANELS, places.shape)
    return tuple(torch.from_numpy(part.ravel().copy()).to(like) for part in (places, shares))  # type: ignore[return-value]


def _check(weight_decay: float, depth: int) -> None:
    check_weight_decay(weight_decay)
    if depth < 1 or depth != int(depth):
        raise ValueError(f"depth is {depth}; a network has at least 1 layer")
