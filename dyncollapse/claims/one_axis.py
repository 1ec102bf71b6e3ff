"""Not in the paper: rest points of every loss on one axis, the ratio rho of augmentation to data spread."""

import math

import torch
from torch import Tensor

from dyncollapse.claims.beyond_one_layer import AT_REST
from dyncollapse.claims.check import Measured, assume, claim
from dyncollapse.claims.paper_one_layer import ROUND_OFF
from dyncollapse.claims.populations import moments_of, skewed_pairs, unlike
from dyncollapse.claims.sampling import SIGMAS, resting_square
from dyncollapse.dynamics.flow import population_flow
from dyncollapse.dynamics.training import train
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.initialisers import balanced_init, gaussian_init
from dyncollapse.model.objective import Objective
from dyncollapse.model.pair_moments import PairMoments, Task
from dyncollapse.theory.population import population_force
from dyncollapse.theory.rest_modes import RestModes, rest_modes

SOURCE = "not in the paper (one-axis.md, rest)"
BARLOW = Objective("barlow")
CONVEX = (
    Objective(),
    Objective("spectral"),
    Objective("dot", 0.5),
    *(Objective("vcreg", invariance=weight) for weight in (0.5, 1.0, 2.0)),
)
RHO = torch.tensor([0.2, 0.4, 0.8, 1.3, 1.8], dtype=torch.float64)
VIEW_VARS = torch.tensor([1.0, 0.5, 2.0, 0.8, 1.2], dtype=torch.float64)


def rest_of(task: Task, objective: Objective, outputs: int | None = None, weight_decay: float = 0.0) -> RestModes:
    """Closed form of an objective's rest point."""
    return rest_modes(
        task,
        objective.name,
        objective.temperature,
        invariance=objective.invariance,
        outputs=outputs,
        weight_decay=weight_decay,
    )


def commuting(views: str, rho: Tensor = RHO, view_vars: Tensor = VIEW_VARS) -> Task:
    """Modes along the axes with the given rho and variances of a view."""
    if views == "one-sided":
        return GaussianTask(torch.diag(view_vars), torch.diag(2 * rho * view_vars))
    return PairMoments.from_covariances(torch.diag(view_vars), torch.diag((1 - rho) * view_vars))


def settle(weights: tuple[Tensor, ...], task: Task, objective: Objective, weight_decay: float = 0.0) -> Tensor:
    """P where the population flow rests."""
    path = population_flow(weights, task, 1e6, objective=objective, weight_decay=weight_decay, rtol=1e-8, atol=1e-13)
    return path.product[-1]


def _variances(objective: Objective, rho: Tensor) -> Tensor:
    """Embedding variance at rest of two-sided views, as the note's table has it."""
    if objective.loss == "infonce":
        u = (torch.sqrt(1 + 8 * rho) - 1) / 2
        return torch.where(rho < 1, 1 / u - 1, 0.0)
    if objective.loss == "barlow":
        return torch.where(rho < 1, 1 / (1 - rho), 0.0)
    weight = 1.0 if objective.invariance is None else objective.invariance
    return (objective.temperature or 1.0) * (1 - weight * rho).clamp_min(0)


@claim("rest-on-one-axis", SOURCE, "largest difference of embedding variances")
def rest_on_one_axis() -> Measured:
    """Along commuting modes the embedding variance at rest is a function of rho alone, and each loss has its own.

    It is 1/u - 1 with u + u^2 = 2 rho for Eq. 2, 1 - rho for the spectral loss, tau (1 - rho) for dot products, 1 -
    (lambda / mu) rho for vcreg, here with ratios 0.5, 1 and 2, and 1 / (1 - rho) for Barlow Twins; each is 0 where it
    is not positive, and for Barlow Twins from rho = 1 on. Population flows of two-sided moments with rho from 0.2 to
    1.8 are integrated until they rest, from a random start. Barlow's starts along the modes, since negatively
    correlated ones otherwise mix in (see `barlow-mixes`). Embedding variances are compared with these formulas, and
    `rest_modes` must agree with them to round-off. What remains is the solver's error. Control: the number of living
    modes must differ between losses, five for vcreg with half the coefficient and two with twice.
    """
    task, worst, alive = commuting("two-sided"), 0.0, list[int]()
    for objective in (*CONVEX, BARLOW):
        start = gaussian_init([5, 5], torch.Generator().manual_seed(0), scale=0.5)
        if objective is BARLOW:
            start = (0.3 * torch.eye(5, dtype=torch.float64),)
        p, expected = settle(start, task, objective), _variances(objective, RHO)
        predicted = VIEW_VARS * rest_of(task, objective).gram.diagonal()
        assume(unlike(predicted, expected) < ROUND_OFF, f"rest_modes has the formula of {objective.name}")
        worst = max(worst, float((p.square().sum(0) * VIEW_VARS - expected).abs().max()))
        alive.append(int((expected > 0).sum()))
    assume(alive == [3, 3, 3, 5, 3, 2, 3], "each loss kills its own modes")
    return Measured(worst, AT_REST)


@claim("rest-any-moments", SOURCE, "relative difference of P^T P at rest")
def rest_any_moments() -> Measured:
    """For any two moments each loss rests at U diag(c*) U^T, with U the eigenvectors of A_e relative to S_e.

    Moments of 60 skewed pairs in both orders and of one-sided views of them, which do not commute; two-sided, the views
    of some direction are negatively correlated. For Barlow Twins U are eigenvectors of G, and the pairs have positive
    correlations only. Population flows of one layer, for vcreg with lambda = mu of two, are integrated until they rest.
    What remains is the solver's error. Controls: some mode must die, and a diagonal U must be wrong.
    """
    worst, dead, generator = 0.0, 0, torch.Generator().manual_seed(1)
    pairs, shared = skewed_pairs(60, 4, generator, opposed=2.5), skewed_pairs(60, 4, generator)
    cases: list[tuple[Objective, Task]] = [(objective, moments_of(pairs)) for objective in CONVEX[:5]]
    clean = PairMoments.from_pairs((pairs.anchor + pairs.positive) / 2, pairs.positive, "one-sided")
    cases += [(objective, clean) for objective in (CONVEX[0], CONVEX[5])]
    cases += [(BARLOW, moments_of(shared))]
    assume(float(torch.linalg.eigvalsh(cases[-1][1].shared)[0]) > 0, "positive correlations only")
    for objective, task in cases:
        weights = gaussian_init([4] * (3 if objective is CONVEX[4] else 2), generator, scale=0.5)
        p, rest = settle(weights, task, objective), rest_of(task, objective)
        worst, dead = max(worst, unlike(p.T @ p, rest.gram)), dead + int((~rest.alive).sum())
        assume(unlike(torch.diag(rest.gram.diagonal()), rest.gram) > 0.01, "the modes are no axes")
    assume(dead > 0, "some mode dies")
    return Measured(worst, AT_REST)


@claim("vcreg-is-spectral", SOURCE, "relative difference of the forces")
def vcreg_is_spectral() -> Measured:
    """With two-sided views and lambda = mu, vcreg has the population flow of the spectral loss.

    Its force at zero 4 S_e - 2 lambda A_e is then 4 G, the spectral loss's, and both have the repulsion 4 S_e P^T P
    S_e. The forces are compared at random P, for moments of 60 skewed pairs in both orders. The bound is round-off.
    Controls: with lambda = 2 mu, and with one-sided views, the forces must differ by 1 % or more.
    """
    generator = torch.Generator().manual_seed(0)
    pairs = skewed_pairs(60, 4, generator, opposed=1.0)
    task, p = moments_of(pairs), 0.5 * torch.randn(3, 4, generator=generator, dtype=torch.float64)
    spectral, equal, double = CONVEX[1], CONVEX[4], CONVEX[5]
    expected = population_force(p, task, spectral)
    assume(unlike(population_force(p, task, double), expected) > 0.01, "the coefficient matters")
    one_sided = GaussianTask(task.view_cov, task.difference_cov)
    forces = (population_force(p, one_sided, objective) for objective in (equal, spectral))
    assume(unlike(*forces) > 0.01, "the view convention matters")
    return Measured(unlike(population_force(p, task, equal), expected), ROUND_OFF)


def _exponent(task: GaussianTask, objective: Objective) -> tuple[float, float]:
    """Mean over 16 runs of SGD of the exponent d log p / dt near zero, and its standard error."""
    runs, steps, lr, generator = 16, 60, 0.02, torch.Generator().manual_seed(0)
    start = balanced_init([task.dim] * 2, generator, (runs,), 1e-4, 0.0)
    path = train(start, task.stream(128, generator, (runs,)), lr=lr, steps=steps, objective=objective, records=2)
    p = path.singular_values.log().mean(-1)
    # An Euler step of lr turns the exponent x into log(1 + lr x) / lr.
    found = torch.expm1((p[-1] - p[0]) / steps) / lr
    return float(found.mean()), float(found.std()) / runs**0.5


@claim("vcreg-threshold", SOURCE, "distance of the threshold in lambda / mu from (1 - 1/N) / rho")
def vcreg_threshold() -> Measured:
    """A mode dies under vcreg from lambda / mu = 1 / rho on, also where two-sided views share signal.

    SGD on fresh batches of N = 128 from 1e-4, two-sided views with a = 3 s, so that rho = 3/4, and lambda / mu 10 %
    below and above 4/3. The growth rate must be positive below and negative above, and the straight line through both
    crosses zero at the measured threshold. Batches of N lower the force of the covariance by a share 1 / N but not that
    of lambda, so that theirs is (1 - 1/N) / rho. The bound is five standard errors over 16 runs. Control: 5 % from the
    threshold must be told apart.
    """
    task, n = GaussianTask.block(2, 2, 1.5, 0.5, "two-sided"), 128
    (low, low_error), (high, high_error) = (
        _exponent(task, Objective("vcreg", invariance=share * 4 / 3)) for share in (0.9, 1.1)
    )
    assume(high < 0 < low, "the mode grows below the threshold and dies above it")
    width = 0.2 * 4 / 3
    crossing = 0.9 * 4 / 3 + width * low / (low - high)
    error = width * math.hypot(low_error * high, high_error * low) / (low - high) ** 2
    assume(SIGMAS * error < 0.05 * 4 / 3, "the threshold is measured to 5 %")
    return Measured(abs(crossing - (1 - 1 / n) * 4 / 3), SIGMAS * error)


def _rests(objective: Objective, time: float, lr: float) -> Measured:
    """The relative distance at which SGD rests from the closed form: the worst of noise 1/2 and 3/2 times s."""
    s, worst = 0.5, Measured(0.0, 1.0)
    for ratio in (0.5, 1.5):
        task = GaussianTask.block(2, 2, ratio * s, s, "two-sided")
        deviation, band = resting_square(task, objective, time, lr, batch=256)
        assume(band < 0.2, "the band is narrow")
        if abs(deviation) / band >= worst.value / worst.bound:
            worst = Measured(abs(deviation), band)
    return worst


@claim("vcreg-rest-sgd", SOURCE, "relative deviation of p^2 from the closed form")
def vcreg_rest_sgd() -> Measured:
    """SGD on vcreg rests at p^2 = [1 - (lambda / mu) rho] / s_e, up to a share `negatives_needed` / N.

    As in `authors-loss-rest`: 16 runs on fresh batches of 256 start at 0.7 of the rest value. lambda / mu = 1, noise
    1/2 and 3/2 times the data variance, two-sided. The bound is that shift by finite batches plus five standard errors.
    """
    return _rests(Objective("vcreg"), 3.0, 1e-2)


@claim("barlow-rest-sgd", SOURCE, "relative deviation of p^2 from the closed form")
def barlow_rest_sgd() -> Measured:
    """SGD on Barlow Twins' cross-covariance rests at p^2 = 1 / g, up to a share `negatives_needed` / N.

    As in `vcreg-rest-sgd`. g is the data variance: noise does not move the rest value of p but raises the embedding's
    variance to 1 / (1 - rho).
    """
    return _rests(BARLOW, 3.0, 1e-2)
