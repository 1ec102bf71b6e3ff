"""Not in the paper: BYOL and SimSiam, linear with a linear predictor (5j)."""

import math
from typing import Any

import torch

from dyncollapse.claims.check import Measured, assume, claim
from dyncollapse.dynamics.flow import population_flow, sample_flow
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.initialisers import gaussian_init
from dyncollapse.model.pair_moments import PairMoments
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.self_distillation import SelfDistillation
from dyncollapse.theory.self_distillation import byol_rest, predictor_imbalance

METHODS = (SelfDistillation(), SelfDistillation(2.0, 0.5))  # SimSiam, and BYOL with a faster predictor


@claim("byol-any-distribution", "not in the paper (5j)", "largest relative difference of P and of the predictor")
def byol_any_distribution() -> Measured:
    """The flow of linear BYOL and SimSiam is that of infinitely many samples with the same S_e and G, for any data.

    40 binary vectors and their negatives, so that the means vanish, each with half of its entries masked at random as
    the other view, and every pair in both orders. Two layers with weight decay from a Gaussian start to t = 5: the
    sample flow on these pairs against the population flow of their measured moments. The remaining difference is the
    solvers' error at rtol 1e-10.
    """
    generator = torch.Generator().manual_seed(0)
    x, mask = torch.randint(0, 2, (2, 40, 4), generator=generator).double()
    anchor, positive = torch.cat([x, -x]), torch.cat([x * mask, -x * mask])
    pairs = Pairs(torch.cat([anchor, positive]), torch.cat([positive, anchor]), "two-sided")
    moments = PairMoments.from_pairs(pairs.anchor, pairs.positive)
    weights, differences = gaussian_init([4] * 3, generator, scale=0.5), []
    predictor = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    for objective in METHODS:
        kwargs: dict[str, Any] = {"objective": objective, "predictor": predictor, "weight_decay": 0.01, "rtol": 1e-10}
        sample = sample_flow(weights, pairs, [0.0, 5.0], **kwargs)
        population = population_flow(weights, moments, 5.0, **kwargs)
        assume(float((sample.product[-1] - sample.product[0]).norm()) > 0.1, "the encoder moves")
        assert sample.predictor is not None
        assert population.predictor is not None
        for one, other in ((sample.product, population.product), (sample.predictor, population.predictor)):
            differences.append(float((one[-1] - other[-1]).norm() / other[-1].norm()))
    return Measured(max(differences), 1e-7)


@claim("byol-threshold", "not in the paper (5j)", "largest error of P's singular value at the end, over that at eta_c")
def byol_threshold() -> Measured:
    """Weight decay eta kills a mode from eta_c = g^2 / (4 s_e) on, below it p* = (g + sqrt(g^2 - 4 eta s_e)) / (2 s_e).

    SimSiam, and BYOL with rates 2 and 0.5, of one mode at rho = 1/4, 1/2 and 3/4 (two-sided, eta_c = g (1 - rho) / 4),
    at 0.95 and 1.05 eta_c, in balance from 1.2 times the value at eta_c. Below eta_c the flow must end at the formula's
    value, above at 0, at t = 60 / eta_c: near the threshold it passes a bottleneck that takes a quarter of that. The
    bound is 1e-4 of the value at eta_c.
    """
    errors = []
    for objective in METHODS:
        root = objective.predictor_rate**0.5
        for rho in (0.25, 0.5, 0.75):
            task = GaussianTask.block(1, 1, rho / (1 - rho), 1.0, "two-sided")
            critical = float(byol_rest(task).critical_decay)
            predictor = torch.full((1, 1), 0.6 * (1 - rho)).double()  # 1.2 times g / (2 s_e)
            for factor in (0.95, 1.05):
                decay = factor * critical
                path = population_flow(
                    (predictor / root,),
                    task,
                    60 / critical,
                    objective=objective,
                    predictor=predictor,
                    weight_decay=decay,
                    method="LSODA",  # which is quick with two weights
                )
                rest = float(byol_rest(task, decay, predictor_rate=objective.predictor_rate).encoder)
                errors.append(abs(float(path.product[-1]) - rest) / ((1 - rho) / 2 / root))
    return Measured(max(errors), 1e-4)


@claim("byol-imbalance", "not in the paper (5j)", "largest relative deviation of the imbalance")
def byol_imbalance() -> Measured:
    """W_p^T W_p - r W_L W_L^T stays constant along every flow of BYOL and SimSiam; weight decay makes it e^(-2 eta t).

    Two layers of unequal widths and a predictor from Gaussian starts, on covariances that do not commute, with eta = 0
    and 0.1 to t = 8. The remaining deviation is the solver's error at rtol 1e-9. By then the predictor has moved by
    more than a tenth, as the check requires.
    """
    generator, deviations = torch.Generator().manual_seed(0), []
    factors = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64) / 2
    task = GaussianTask(factors[0] @ factors[0].T, factors[1] @ factors[1].T, "two-sided")
    weights = gaussian_init([3, 5, 4], generator, scale=0.6)
    predictor = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    for objective in METHODS:
        for decay in (0.0, 0.1):
            path = population_flow(
                weights,
                task,
                [0.0, 8.0],
                objective=objective,
                predictor=predictor,
                weight_decay=decay,
                rtol=1e-9,
                method="DOP853",
            )
            assert path.predictor is not None
            assume(float((path.predictor[-1] - predictor).norm()) > 0.1, "the predictor moves")
            start, end = predictor_imbalance(path.weights, path.predictor, objective.predictor_rate)
            expected = start * math.exp(-2 * decay * 8.0)
            deviations.append(float((end - expected).norm() / expected.norm()))
    return Measured(max(deviations), 1e-7)
