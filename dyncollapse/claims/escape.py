"""Not in the paper: escape times. A collapsed dimension is dead or waiting."""

import math
from functools import cache

import torch
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from torch import Tensor

from dyncollapse.claims.check import Measured, assume, claim
from dyncollapse.dynamics.flow import population_flow
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.initialisers import gaussian_init
from dyncollapse.model.networks import Weights, end_to_end
from dyncollapse.simulation.dimensions import mode_dimensions
from dyncollapse.simulation.verdict import judge
from dyncollapse.theory.equilibria import escape_time, growth_rates, rest_singular_values

# Two modes with data variances 1 and 1/2, which grow at different rates; rho = 0.3 for both.
_ESCAPING = GaussianTask(torch.diag(torch.tensor([1.0, 0.5])).double(), torch.diag(torch.tensor([0.6, 0.3])).double())


def _predicted(layers: Weights) -> Tensor:
    """`escape_time` of each mode of diagonal layers to half its rest value."""
    starts = end_to_end(layers).diagonal().tolist()
    modes = zip(starts, (rest_singular_values(_ESCAPING) / 2).tolist(), growth_rates(_ESCAPING).tolist(), strict=True)
    return torch.tensor([escape_time(*mode, len(layers)) for mode in modes], dtype=torch.float64)


def _measured(layers: Weights) -> Tensor:
    """The time at which each mode of diagonal layers passes half its rest value, with infinitely many samples.

    A coarse grid of times brackets it. The flow through that bracket, from the state at its beginning, is interpolated
    on a fine grid, so that the time is as exact as the solver.
    """
    times, found = torch.linspace(0, 1.2 * float(_predicted(layers).max()) + 20, 200, dtype=torch.float64), []
    coarse = population_flow(layers, _ESCAPING, times, rtol=1e-7, atol=1e-12)
    for mode, path in enumerate(_log_shares(coarse).T):
        i = int((path > 0).nonzero()[0])
        fine = torch.linspace(0, float(times[i] - times[i - 1]), 100, dtype=torch.float64)
        start = tuple(w[i - 1] for w in coarse.weights)
        shares = _log_shares(population_flow(start, _ESCAPING, fine, rtol=1e-7, atol=1e-12))[:, mode]
        passing = brentq(CubicSpline(fine.numpy(), shares.numpy()), 0, float(fine[-1]))
        found.append(float(times[i - 1]) + passing)
    return torch.tensor(found, dtype=torch.float64)


def _log_shares(path: Trajectory) -> Tensor:
    """Logarithm (t, modes) of each mode over half its rest value."""
    values = path.product.diagonal(dim1=-2, dim2=-1)
    return values.log() - (rest_singular_values(_ESCAPING) / 2).log()


@cache
def _measured_balanced(p0: float, depth: int) -> Tensor:
    return _measured(_balanced(p0, depth))


def _balanced(p0: float, depth: int) -> Weights:
    return (p0 ** (1 / depth) * torch.eye(2, dtype=torch.float64),) * depth


def _error_of_difference(depth: int) -> float:
    """Relative error of the difference between the escape times of two starts, for the worse of two modes."""
    slow, fast = 1e-3, 1e-2
    predicted = _predicted(_balanced(slow, depth)) - _predicted(_balanced(fast, depth))
    measured = _measured_balanced(slow, depth) - _measured_balanced(fast, depth)
    return float((measured / predicted - 1).abs().max())


# For the larger start, 1e-2, the law neglects terms of order p0^2 = 1e-4 of the time, with a coefficient below 1 where
# s_e is at most 1.
NEXT_ORDER = 1e-4


@claim("escape-one-layer", "not in the paper (5f)", "relative error of the difference between two starts")
def escape_one_layer() -> Measured:
    """One layer's mode leaves zero after log(p* / p0) / x0, with x0 = 2 s_e (1 - rho).

    The time at which a mode passes half its rest value is measured from starts of 1e-2 and 1e-3, for two modes with
    different rates, and the difference of the two times is compared with that of `escape_time`. The time itself is
    longer by a constant that does not depend on the start, because the force fades on the way; from 1e-3 this must be
    less than a tenth of the time. The difference is free of that constant. It is exact up to terms of order p0^2 =
    1e-4, which is the bound; the solver's error is smaller.
    """
    late, law = _measured_balanced(1e-3, 1), _predicted(_balanced(1e-3, 1))
    assume(float((late / law - 1).abs().max()) < 0.1, "the time itself is within a tenth")
    return Measured(_error_of_difference(1), NEXT_ORDER)


@claim("escape-deep", "not in the paper (5f)", "relative error of the difference between two starts")
def escape_deep() -> Measured:
    """A mode of L >= 2 layers leaves zero after p0^-(2 - 2/L) / (2 (L - 1) x0): a power of its start, not a log.

    Balanced layers of depth 2 to 5 with two modes, from starts of 1e-2 and 1e-3: the difference of the two times is
    measured and bounded as in `escape-one-layer`. This waiting is the implicit regularisation.
    """
    return Measured(max(_error_of_difference(depth) for depth in (2, 3, 4, 5)), NEXT_ORDER)


@claim("escape-bound", "not in the paper (5f)", "longest escape time over that of balanced layers")
def escape_bound() -> Measured:
    """Among aligned layers with the same product, balanced ones escape last: their escape time bounds all others.

    p'/p = x sum_l (p / s_l)^2 is at least x L p^(2-2/L), because the mean of L numbers is no less than their geometric
    mean. Layers of depth 2 to 4 with p0 = 1e-3 have singular values that differ by factors of up to 2 and up to 10;
    there are infinitely many samples. The time at which a mode passes half its rest value is divided by that of
    balanced layers. Control: balanced layers must take the closed form's time within half a percent.
    """
    p0, ratios = 1e-3, []
    for depth in (2, 3, 4):
        balanced = _balanced(p0, depth)
        longest = _measured_balanced(p0, depth)
        assume(float((longest / _predicted(balanced) - 1).abs().max()) < 0.005, "balanced layers take the law's time")
        for factor in (2.0, 10.0):
            tilt = factor ** torch.linspace(-0.5, 0.5, depth, dtype=torch.float64)
            tilted = tuple(t * w for t, w in zip(tilt, balanced, strict=True))
            ratios.append(float((_measured(tilted) / longest).max()))
    return Measured(max(ratios), 1.0)


@claim("dead-or-waiting", "not in the paper (5f)", "dimensions whose fate contradicts their rho")
def dead_or_waiting() -> Measured:
    """A collapsed dimension with rho < 1 escapes by its escape time; one with rho >= 1 never does.

    Two layers with four modes, rho = 0.2, 0.5, 1.5 and 3, infinitely many samples and a Gaussian start of 0.01. At t =
    10 all four count as collapsed, and the closed form gives the two with rho < 1 an escape time. By twice the later of
    these times both must have passed half their rest values. At a hundred times that, the other two must not have
    grown.
    """
    variances, rho = torch.ones(4, dtype=torch.float64), torch.tensor([0.2, 0.5, 1.5, 3.0], dtype=torch.float64)
    task = GaussianTask(torch.diag(variances), torch.diag(2 * rho * variances))
    weights = gaussian_init([4] * 3, torch.Generator().manual_seed(0), scale=0.01)
    early = population_flow(weights, task, 10.0).final()
    small, rest, rates = mode_dimensions(early, task).singular_value, rest_singular_values(task), growth_rates(task)
    assume(float(small.max()) < 1e-2, "all dimensions are small at t = 10")
    modes = zip(small.tolist(), rest.tolist(), rates.tolist(), strict=True)
    times = [escape_time(p0, level, x0, 2) for p0, level, x0 in modes]
    assume([math.isfinite(t) for t in times] == [True, True, False, False], "two of four are given an escape time")
    later = population_flow(early, task, [2 * max(times[:2]), 200 * max(times[:2])])
    after, long_after = (mode_dimensions(tuple(w[i] for w in later.weights), task).singular_value for i in (0, 1))
    fates = judge(mode_dimensions(early, task), scale=1.0, rest=rest).fates
    assume(fates == ["waiting", "waiting", "dead", "dead"], "the diagnosis says so beforehand")
    wrong = (after[:2] < rest[:2] / 2).sum() + (long_after[2:] > small[2:].max()).sum()
    return Measured(int(wrong), 0)
