"""Sample flows under losses without a force: vicreg, whose hinge has a kink, and barlow-normalised, which is smooth."""

from functools import cache

import pytest
import torch
from helpers.reference import seeded

from dyncollapse import GaussianTask, Objective, gaussian_init, sample_flow, stack_pairs, train


def problem(generator, batches=2):
    task = GaussianTask.block(4, 2, 0.7, views="two-sided")
    pairs = [task.sample(20, generator) for _ in range(batches)]
    return gaussian_init([4, 3], generator, (), 0.5), stack_pairs(pairs)


def test_vicregs_flow_is_what_small_steps_of_sgd_approach(generator):
    weights, pairs = problem(generator)
    objective = Objective("vicreg")
    flow = sample_flow(weights, pairs, 10.0, objective=objective)
    assert (flow.meta["method"], flow.meta["rtol"]) == ("RK45", 1e-3)
    std = pairs.anchor @ flow.weights[0][-1].T
    assert float((std.std(-2) - 1).abs().min()) < 5e-3  # it slides along a kink
    sgd = train(weights, pairs, lr=0.005, steps=2000, objective=objective)
    assert float((flow.product[-1] - weights[0]).norm() / flow.product[-1].norm()) > 0.3
    # Each crossing of a kink costs up to rtol of a weight.
    assert float((sgd.product[-1] - flow.product[-1]).norm() / flow.product[-1].norm()) < 1e-2


def test_a_flow_over_the_hinge_without_an_end_is_refused_before_it_starts(generator):
    weights, pairs = problem(generator)
    with pytest.raises(ValueError, match=r"jumps at kinks.* takes \d+ evaluations at rtol 0.001, so about .* at 1e-08"):
        sample_flow(weights, pairs, 10.0, objective=Objective("vicreg"), rtol=1e-8)


def test_an_unkinked_stretch_of_vicregs_flow_is_exact(generator):
    # All deviations stay below 1 until t = 0.5, and the loss is smooth there.
    weights, pairs = problem(generator)
    weights = (0.1 * weights[0],)
    rough, exact = (
        sample_flow(weights, pairs, 0.5, objective=Objective("vicreg"), rtol=rtol, max_evaluations=10**8)
        for rtol in (1e-3, 1e-8)
    )
    assert float((pairs.anchor @ exact.weights[0][-1].T).std(-2).max()) < 1
    assert float((exact.product[-1] - weights[0]).norm()) > 0.01
    torch.testing.assert_close(rough.product, exact.product, rtol=0, atol=1e-3)


@cache
def smooth_flow(method=None, rtol=None):
    weights, pairs = problem(seeded(0))
    return weights, sample_flow(weights, pairs, 5.0, objective=Objective("barlow-normalised"), method=method, rtol=rtol)


@pytest.mark.parametrize("method", ["DOP853", "CVODE", "LSODA"])
def test_flows_need_no_curvature(method):
    (weights, path), (_, reference) = smooth_flow(method), smooth_flow(rtol=1e-10)
    assert float((path.product[-1] - weights[0]).norm()) > 0.05
    torch.testing.assert_close(path.product, reference.product, rtol=0, atol=1e-5)
    assert bool(torch.isfinite(path.loss).all())
