"""The flow of BYOL and SimSiam in NumPy against the readable formulas, and against flows that take them."""

import numpy as np
import pytest
import torch
from helpers.flow import packed

from dyncollapse import GaussianTask, SelfDistillation, gaussian_init, population_flow
from dyncollapse.dynamics._moment_field import MomentField
from dyncollapse.dynamics.distillation import moment_equation, velocities
from dyncollapse.model.self_distillation import OnlineMoments

METHODS = {"simsiam": SelfDistillation(1.5), "byol": SelfDistillation(2.0, 0.5), "kept": SelfDistillation(0.0)}
WIDTHS = [(3, 2), (3, 4, 2), (3, 2, 4, 3)]


def problem(generator, widths, objective, views):
    factors = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    task = GaussianTask(factors[0] @ factors[0].T, factors[1] @ factors[1].T, views)
    weights = gaussian_init(list(widths), generator, scale=0.7)
    target = gaussian_init(list(widths), generator, scale=0.7) if objective.target_rate is not None else ()
    predictor = torch.randn(widths[-1], widths[-1], generator=generator, dtype=torch.float64)
    return weights, [predictor, *target], OnlineMoments.of_task(task)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
@pytest.mark.parametrize("objective", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("widths", WIDTHS)
def test_velocity_and_derivative_are_those_of_the_formulas(widths, objective, views, weight_decay, generator):
    weights, state, moments = problem(generator, widths, objective, views)
    field = MomentField([tuple(w.shape) for w in weights], moments, objective, weight_decay)
    parameters, depth = [*weights, *state], len(weights)
    gradients = objective.moment_gradient(weights, moments, state)
    expected = velocities(objective, depth, parameters, gradients, weight_decay)
    y = packed(parameters)
    np.testing.assert_allclose(field.velocity(0.0, y), packed(expected), rtol=0, atol=1e-12)
    direction = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    along = objective.moment_curvature(weights, moments, state)(direction)
    expected = velocities(objective, depth, direction, along, weight_decay)
    np.testing.assert_allclose(field.linearise(0.0, y).times(packed(direction)), packed(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", [None, "DOP853", "LSODA"])
@pytest.mark.parametrize("objective", METHODS.values(), ids=METHODS)
def test_runs_together_and_one_by_one_end_alike(objective, method, generator):
    task = GaussianTask.block(3, 2, 0.5, views="two-sided")
    weights = gaussian_init([3, 3], generator, (2,), 0.5)
    predictor = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    settings = {"objective": objective, "weight_decay": 0.05, "rtol": 1e-9}
    together = population_flow(weights, task, 4.0, predictor=predictor, method=method, **settings)
    for run in range(2):
        alone = population_flow((weights[0][run],), task, 4.0, predictor=predictor[run], **settings)
        torch.testing.assert_close(together.product[:, run], alone.product, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(together.predictor[:, run], alone.predictor, rtol=1e-6, atol=1e-7)


def test_one_run_on_a_cpu_takes_arrays(generator):
    weights, _, moments = problem(generator, (3, 4, 2), SelfDistillation(), "two-sided")
    assert moment_equation(weights, moments, SelfDistillation(), 0.0).field is not None
    several = tuple(torch.stack([w, w]) for w in weights)
    assert moment_equation(several, moments, SelfDistillation(), 0.0).field is None


def test_what_is_not_finite_stays_so(generator):
    objective = METHODS["byol"]
    weights, state, moments = problem(generator, (3, 4, 2), objective, "two-sided")
    field, y = MomentField([tuple(w.shape) for w in weights], moments, objective), packed([*weights, *state])
    y[4] = np.nan
    assert not np.isfinite(field.velocity(0.0, y)).all()
