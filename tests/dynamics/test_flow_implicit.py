import numpy as np
import pytest
import torch
from helpers.flow import moved, population_problem
from helpers.reference import VIEWS

import dyncollapse.dynamics._scipy as solver_module
from dyncollapse import GaussianTask, Objective, gaussian_init, imbalance, population_flow

WITH_MATRICES = ("LSODA", "BDF", "Radau")
LOSSES = [("infonce", None), ("dot", 0.7), ("spectral", None)]


def solver_calls(monkeypatch, method):
    """What the flow hands to SciPy's solver, call by call."""
    calls, solver = [], solver_module.SOLVERS[method]

    def spy(fun, begin, start, end, **options):
        calls.append({"fun": fun, "start": start, **options})
        return solver(fun, begin, start, end, **options)

    monkeypatch.setitem(solver_module.SOLVERS, method, spy)
    return calls


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
@pytest.mark.parametrize("method", WITH_MATRICES)
def test_the_solver_gets_the_exact_jacobian(method, loss, temperature, weight_decay, generator, monkeypatch):
    weights, task = population_problem(generator)
    calls = solver_calls(monkeypatch, method)
    population_flow(
        weights, task, 0.1, objective=Objective(loss, temperature), weight_decay=weight_decay, method=method, rtol=1e-4
    )
    (call,) = calls
    h, tick, y = 1e-5, 0.7, call["start"]
    columns = [(call["fun"](tick, y + h * unit) - call["fun"](tick, y - h * unit)) / (2 * h) for unit in np.eye(len(y))]
    expected = np.stack(columns, axis=1)
    # h^2 times third derivatives of some hundreds at most, next to round-off over h.
    np.testing.assert_allclose(call["jac"](tick, y), expected, rtol=0, atol=1e-8 * np.abs(expected).max() + 1e-7)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
@pytest.mark.parametrize("depth", [1, 2])
def test_implicit_and_explicit_methods_agree(depth, loss, temperature, views, generator):
    weights, task = population_problem(generator, depth, views)
    times = [0.0, 0.3, 2.0, 6.0]
    paths = {
        method: population_flow(
            weights, task, times, objective=Objective(loss, temperature), weight_decay=0.1, rtol=1e-7, method=method
        )
        for method in ("DOP853", "LSODA", "BDF", "CVODE")
    }
    for method, path in paths.items():
        assert all(torch.equal(w[0], v) for w, v in zip(path.weights, weights, strict=True)), method
        assert moved(path) > 0.1
        # A hundred steps and more at rtol 1e-7 each, which escape from W = 0 multiplies.
        torch.testing.assert_close(path.product, paths["DOP853"].product, rtol=0, atol=2e-5)
        assert path.meta["method"] == method
        assert ("jacobians" in path.meta) == (method in ("LSODA", "BDF"))
        assert ("jacobian_products" in path.meta) == (method == "CVODE")
    if depth == 2:
        kept = imbalance(*weights)
        for path in paths.values():
            for t, w1, w2 in zip(path.time, *path.weights, strict=True):
                expected = torch.exp(-2 * 0.1 * t) * kept
                torch.testing.assert_close(imbalance(w1, w2), expected, rtol=0, atol=1e-5)


def test_radau_agrees(generator):
    weights, task = population_problem(generator)
    exact = population_flow(weights, task, [0.5, 5.0], rtol=1e-12, method="DOP853")
    for method in ("Radau", "LSODA", "BDF", "CVODE"):
        path = population_flow(weights, task, [0.5, 5.0], rtol=1e-7, method=method)
        torch.testing.assert_close(path.product, exact.product, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["LSODA", "BDF", "CVODE"])
def test_implicit_errors_shrink_with_the_tolerance(method, generator):
    weights, task = population_problem(generator)
    exact = population_flow(weights, task, 3.0, rtol=1e-12, method="DOP853").product
    errors = [
        float((population_flow(weights, task, 3.0, rtol=rtol, method=method).product - exact).norm())
        for rtol in (1e-4, 1e-6, 1e-8)
    ]
    # Two digits of tolerance give at least one of accuracy.
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-6


@pytest.mark.parametrize("runs", [(1,), (3,), (2, 2)])
def test_runs_of_an_implicit_flow_are_single_flows(runs, generator):
    weights, task = population_problem(generator, runs=runs)
    together = population_flow(weights, task, [0.0, 1.0, 5.0])
    assert together.product.shape == (3, *runs, 5, 4)
    assert together.loss.shape == (3, *runs)
    alone = [population_flow(tuple(w[index] for w in weights), task, [0.0, 1.0, 5.0]) for index in np.ndindex(*runs)]
    for index, path in zip(np.ndindex(*runs), alone, strict=True):
        for w, single in zip(together.weights, path.weights, strict=True):
            assert torch.equal(w[:, *index], single)
        assert torch.equal(together.loss[:, *index], path.loss)
    for count in ("evaluations", "jacobian_products"):
        assert together.meta[count] == sum(path.meta[count] for path in alone)
    explicit = population_flow(weights, task, [0.0, 1.0, 5.0], method="DOP853")
    torch.testing.assert_close(explicit.product, together.product, rtol=0, atol=1e-5)


def test_runs_rest_when_the_last_of_them_does(generator):
    task, weights = GaussianTask.block(3, 3, 0.5), gaussian_init([3, 3], generator, (2,), 0.5)
    single = [population_flow((weights[0][run],), task, 1e3).meta["rest_time"] for run in range(2)]
    assert population_flow(weights, task, 1e3).meta["rest_time"] == max(single)
    assert population_flow(weights, task, 1.0).meta["rest_time"] is None
    # From zero nothing ever moves; the other run goes on.
    weights[0][0] = 0
    path = population_flow(weights, task, 1e3)
    assert not path.product[:, 0].any()
    assert path.meta["rest_time"] == single[1]


def test_long_flows_take_few_evaluations(generator):
    weights, task = gaussian_init([4, 4, 4], generator, (), 0.3), GaussianTask.block(4, 2, 1.5)
    implicit, explicit = (population_flow(weights, task, 40.0, method=method) for method in ("CVODE", "DOP853"))
    assert implicit.meta["jacobian_products"] > 0
    # Unaugmented modes grow, and with them the fastest rate, which bounds explicit steps: evaluations grow like t^2.
    assert implicit.meta["evaluations"] < explicit.meta["evaluations"] / 3
    # Four more decades are a few hundred steps more in log time.
    assert population_flow(weights, task, 1e6).meta["evaluations"] < 3 * implicit.meta["evaluations"]


def test_conserved_quantity_survives_a_long_stiff_flow():
    weights = gaussian_init([16, 16, 16], torch.Generator().manual_seed(0), (), 0.1)
    path = population_flow(weights, GaussianTask.block(16, 8, 1.5), [0.0, 1e2, 1e4, 1e6])
    assert moved(path) > 1
    # C is quadratic, which implicit multistep methods keep only to their tolerance, 1e-8 of the Gram matrices.
    assert path.imbalance_drift is not None
    assert path.imbalance_drift < 1e-8
    # Half of the modes are unaugmented and grow for ever, the other half is dead: rho = 1.5.
    values = path.singular_values[-1]
    assert float(values[7]) > 10
    assert float(values[8]) < 1e-5
