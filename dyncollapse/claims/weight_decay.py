"""Not in the paper: what weight decay kills, sharply with one layer and by hysteresis with two."""

import math

import torch
from scipy.optimize import brentq, minimize_scalar
from torch import Tensor

from dyncollapse.claims.beyond_one_layer import AT_REST
from dyncollapse.claims.check import Measured, assume, claim
from dyncollapse.claims.one_axis import BARLOW, CONVEX, rest_of, settle
from dyncollapse.claims.paper_one_layer import ROUND_OFF
from dyncollapse.claims.populations import moments_of, skewed_pairs
from dyncollapse.claims.sampling import SIGMAS
from dyncollapse.dynamics.flow import population_flow
from dyncollapse.dynamics.training import train
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.initialisers import balanced_init, gaussian_init
from dyncollapse.model.objective import Objective
from dyncollapse.theory.limits import population_limit
from dyncollapse.theory.mode_forces import mode_forces

SOURCE = "not in the paper (one-axis.md, weight-decay)"


@claim("decay-every-loss", SOURCE, "relative difference of P^T P at rest")
def decay_every_loss() -> Measured:
    """One layer under any of the losses dies from the weight decay w on that reaches the largest eigenvalue of X0.

    Weight decay takes w I from the force at zero; elsewhere the rest point is that of `rest_modes` with w. Moments of
    60 skewed pairs in both orders, which do not commute, for the spectral, dot-product and Barlow loss. w is
    0.3, 0.99 and 1.01 times the largest eigenvalue of X0: the second must leave one direction alive and the last none.
    Differences are relative to the rest point, or to 1e-3 where that is smaller. What remains is the solver's error.
    """
    task, worst = moments_of(skewed_pairs(60, 3, torch.Generator().manual_seed(0))), 0.0
    start = gaussian_init([3, 3], torch.Generator().manual_seed(0), scale=0.5)
    for objective in (*CONVEX[1:3], BARLOW):
        limit = population_limit(task, objective.name, objective.temperature, objective.invariance)
        threshold = float(torch.linalg.eigvalsh(limit.growth)[-1])
        for share, alive in ((0.3, None), (0.99, 1), (1.01, 0)):
            p, rest = (
                settle(start, task, objective, share * threshold),
                rest_of(task, objective, None, share * threshold),
            )
            assume(alive is None or int(rest.alive.sum()) == alive, "the threshold is the eigenvalue of X0")
            worst = max(worst, float((p.T @ p - rest.gram).norm()) / max(float(rest.gram.norm()), 1e-3))
    return Measured(worst, AT_REST)


def _exponent(task: GaussianTask, weight_decay: float) -> tuple[float, float]:
    """Mean over 16 runs of SGD of the exponent d log p / dt near zero, and its standard error."""
    runs, steps, lr, generator = 16, 80, 0.05, torch.Generator().manual_seed(0)
    start = balanced_init([task.dim] * 2, generator, (runs,), 1e-4, 0.0)
    stream = task.stream(128, generator, (runs,))
    path = train(start, stream, lr=lr, steps=steps, weight_decay=weight_decay, records=2)
    p = path.singular_values.log().mean(-1)
    # An Euler step of lr turns the exponent x into log(1 + lr x) / lr.
    found = torch.expm1((p[-1] - p[0]) / steps) / lr
    return float(found.mean()), float(found.std()) / runs**0.5


@claim("decay-threshold-sgd", SOURCE, "distance of the threshold w / s from 2 (1 - 1/N)")
def decay_threshold_sgd() -> Measured:
    """Weight decay gives two-sided views the threshold that noise cannot: a mode dies from w = 2 s on.

    SGD on Eq. 2 with fresh batches of N = 128 starts at 1e-4, with two-sided noise of 3 s and weight decay of 1.8 s and
    2.2 s. The growth rate must be positive at the first and negative at the second, and the straight line through the
    two rates crosses zero at the measured threshold. Batches of N pairs lower the force at zero by a share 1 / N. The
    bound is five standard errors over 16 runs. Control: without weight decay the mode must grow at 2 s (1 - 1/N), noise
    or not.
    """
    s, n = 0.5, 128
    task = GaussianTask.block(2, 2, 3 * s, s, "two-sided")
    (free, free_error), (low, low_error), (high, high_error) = (_exponent(task, share * s) for share in (0, 1.8, 2.2))
    assume(abs(free - 2 * s * (1 - 1 / n)) < SIGMAS * free_error, "noise does not change the growth")
    assume(high < 0 < low, "the mode grows at w = 1.8 s and dies at w = 2.2 s")
    crossing = 1.8 + 0.4 * low / (low - high)
    error = 0.4 * math.hypot(low_error * high, high_error * low) / (low - high) ** 2
    assume(SIGMAS * error < 0.1, "the threshold is measured to 5 %")
    return Measured(abs(crossing - 2 * (1 - 1 / n)), SIGMAS * error)


def _lift(p: float, s: float, a: float, loss: str) -> float:
    """Product p x(p) of one mode with two-sided views, written out: x = s_e (u + u^2) - a_e for Eq. 2."""
    s_e = s + a
    c = p**2 * s_e
    u = 1 / (1 + c)
    return p * (s_e * (u + u * u) - 2 * a if loss == "infonce" else 4 * (s - s_e * c))


@claim("decay-bistable", SOURCE, "largest difference of singular values at rest")
def decay_bistable() -> Measured:
    """Two balanced layers rest where p x(p) = w: bistable below w_c = max p x(p), dead from every start above it.

    Modes of Eq. 2 and the spectral loss, s = 1/2 and a = 0.3, two-sided; x(p) is written out here and its maximum and
    the two roots of p x(p) = w found numerically. With w = 0.6 w_c flows from 5 % above the smaller root must rest at
    the larger one, those from 5 % below it at zero; with w = 1.05 w_c flows from twice the rest value without decay
    must die. w_c is compared with `critical_weight_decay`, and the larger root with `rest_variance`. What remains is
    the solver's error. Control: with one layer and the same w the smaller start lives.
    """
    s, a, worst = 0.5, 0.3, 0.0
    task = GaussianTask.block(2, 2, a, s, "two-sided")
    for objective in (Objective(), Objective("spectral")):
        loss, forces = objective.name, mode_forces(task, objective.name)
        free = math.sqrt(float(forces.rest_variance()[0]) / (s + a))
        top = minimize_scalar(
            lambda p, k=loss: -_lift(p, s, a, k), bounds=(0, free), method="bounded", options={"xatol": 1e-9}
        )
        critical = -float(top.fun)
        assume(abs(float(forces.critical_weight_decay(2)[0]) / critical - 1) < ROUND_OFF, "w_c is the maximum")
        w = 0.6 * critical
        small, large = (
            brentq(lambda p, k=loss, w=w: _lift(p, s, a, k) - w, *ends, xtol=1e-15)
            for ends in ((0.0, top.x), (top.x, free))
        )
        rest = math.sqrt(float(forces.rest_variance(w, 2)[0]) / (s + a))
        assume(abs(rest / large - 1) < ROUND_OFF, "the package has the larger root")
        alone = (0.95 * small * torch.eye(2, dtype=torch.float64),)
        assume(float(settle(alone, task, objective, w).norm()) > 0.1, "one layer is not bistable")
        cases = [(1.05 * small, w, large), (0.95 * small, w, 0.0), (2 * free, 1.05 * critical, 0.0)]
        for start, decay, expected in cases:
            worst = max(worst, abs(_rest_of_two(task, objective, start, decay) - expected))
    return Measured(worst, AT_REST)


def _rest_of_two(task: GaussianTask, objective: Objective, start: float, weight_decay: float) -> float:
    """Singular value of P where two balanced layers rest."""
    weights = balanced_init([task.dim] * 3, torch.Generator().manual_seed(0), (), math.sqrt(start), 0.0)
    path = population_flow(weights, task, 1e3, objective=objective, weight_decay=weight_decay, rtol=1e-7, atol=1e-13)
    return float(path.singular_values[-1].max())


@claim("decay-critical-spectral", SOURCE, "relative error of w_c")
def decay_critical_spectral() -> Measured:
    """Two layers under a loss of fourth order have w_c = (2/3) x0 p0 / sqrt(3), p0 their rest value without decay.

    x(p) = x0 (1 - p^2 / p0^2), so that p x(p) is largest at p0 / sqrt(3). For the spectral, dot-product, vcreg and
    Barlow loss on four commuting modes the package's numerical maximum is compared with this. Control: for Eq. 2, which
    is not of fourth order, the formula must be off by a tenth. The maximum of a smooth function is found to round-off.
    """
    s, a = torch.tensor([0.3, 0.5, 1.0, 2.0], dtype=torch.float64), torch.tensor([0.2, 0.4, 0.1, 1.0]).double()
    task = GaussianTask(torch.diag(s), torch.diag(a), "two-sided")

    def error(objective: Objective) -> float:
        forces = mode_forces(task, objective.name, objective.temperature, objective.invariance)
        rest = (forces.rest_variance() / forces.view_var).sqrt()
        expected: Tensor = 2 / 3 * forces.growth * rest / math.sqrt(3)
        return float((forces.critical_weight_decay(2) / expected - 1).abs().max())

    assume(error(Objective()) > 0.1, "Eq. 2 has another maximum")
    return Measured(max(error(objective) for objective in (*CONVEX[1:4], BARLOW)), ROUND_OFF)
