"""Not in the paper: when each mode is learnt, under every loss, and Barlow Twins' steps in closed form."""

import torch
from torch import Tensor

from dyncollapse.claims.check import Measured, assume, claim
from dyncollapse.claims.one_axis import BARLOW, SOURCE, commuting
from dyncollapse.dynamics.flow import population_flow
from dyncollapse.model.choices import VIEWS
from dyncollapse.model.objective import Objective
from dyncollapse.theory.mode_forces import ModeForces, mode_forces

# Variances at a given time, by an explicit solver at rtol 1e-8: errors of its steps add up while modes grow.
SOLVED = 1e-5
RHO = torch.tensor([0.1, 0.4, 0.7, 1.3], dtype=torch.float64)
VIEW_VARS = torch.tensor([1.0, 0.5, 2.0, 0.8], dtype=torch.float64)


def _aligned(depth: int, size: float) -> tuple[Tensor, ...]:
    """Balanced layers along the axes whose product is `size` times the identity."""
    return tuple(size ** (1 / depth) * torch.eye(len(RHO), dtype=torch.float64) for _ in range(depth))


def _forces(objective: Objective, views: str) -> ModeForces:
    task = commuting(views, RHO, VIEW_VARS)
    return mode_forces(task, objective.name, objective.temperature, objective.invariance)


@claim("learning-times", SOURCE, "largest relative error of the embedding variance at the predicted time")
def learning_times() -> Measured:
    """Each mode reaches half its rest value when the integral of dc / c' says, under every loss, for any depth.

    A balanced, aligned mode of depth L obeys c' = 2 L p^(2 - 2/L) x(c) c. `learning_times` integrates it numerically
    from p = 0.02; the population flow from aligned layers is integrated up to these times, and each mode's variance is
    compared with half its rest value. Five losses, one and two layers, both view conventions in turn; a mode with rho
    above 1 must be predicted never to be learnt wherever it dies. Control: the times of different modes must differ by
    more than a factor of two. What remains is the solver's error.
    """
    worst = 0.0
    cases = [(Objective(), 1), (Objective("spectral"), 2), (Objective("dot", 0.5), 1)]
    cases += [(Objective("vcreg", invariance=0.8), 2), (BARLOW, 1), (BARLOW, 2), (Objective(), 2)]
    for k, (objective, depth) in enumerate(cases):
        views = "two-sided" if objective is BARLOW else VIEWS[k % 2]
        forces = _forces(objective, views)
        times, rest = forces.learning_times(0.02, 0.5, depth=depth), forces.rest_variance()
        learnt = times[:-1] if float(rest[-1]) == 0 else times
        assume(bool(times.isfinite().equal(rest > 0)), "what dies is never learnt, and the others are")
        assume(float(learnt.max() / learnt.min()) > 2, "modes are learnt one after the other")
        order = learnt.argsort()
        path = population_flow(
            _aligned(depth, 0.02),
            commuting(views, RHO, VIEW_VARS),
            learnt[order].tolist(),
            objective=objective,
            method="DOP853",
        )
        for step, mode in enumerate(order.tolist()):
            found = float(path.product[step].square().sum(0)[mode] * VIEW_VARS[mode])
            worst = max(worst, abs(found / (0.5 * float(rest[mode])) - 1))
    return Measured(worst, SOLVED)


@claim("barlow-sigmoid", SOURCE, "largest relative error of the singular values")
def barlow_sigmoid() -> Measured:
    """From an aligned start Barlow Twins follows sigma(t) = e^(4 g t) / sqrt(sigma_0^-2 + (e^(8 g t) - 1) g).

    The closed form of Simon et al. (2023), with g the eigenvalue of G. A population flow from sigma_0 = 1e-4 I is
    compared with it at the step times -ln(sigma_0^2 g) / (8 g) of all modes with g > 0, and half way to them. At its
    step time each mode must be at sigma^2 = 1 / (2 g) up to sigma_0^2 g. Control: with g as of S_e, noise and all, the
    formula must be off by a tenth. What remains is the solver's error.
    """
    g, start = ((1 - RHO) * VIEW_VARS)[:3], 1e-4
    steps = -(start**2 * g).log() / (8 * g)
    times = torch.cat([steps / 2, steps]).sort().values
    task = commuting("two-sided", RHO, VIEW_VARS)
    path = population_flow(_aligned(1, start), task, times.tolist(), objective=BARLOW, method="DOP853")
    found = path.product.diagonal(dim1=-2, dim2=-1)[:, :3]

    def sigmoid(values: Tensor) -> Tensor:
        rise = values * times[:, None]
        return (4 * rise).exp() / torch.sqrt(start**-2 + torch.expm1(8 * rise) * values)

    assume(float((found / sigmoid(VIEW_VARS[:3]) - 1).abs().max()) > 0.1, "noise is not part of g")
    halves = [float(found[times == step, k]) ** 2 * float(g[k]) for k, step in enumerate(steps)]
    assume(max(abs(half - 0.5) for half in halves) < 2 * start**2 * float(g.max()) + 1e-6, "steps are at half height")
    return Measured(float((found / sigmoid(g) - 1).abs().max()), SOLVED)
