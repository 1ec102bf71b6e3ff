"""The fast population field against the readable formulas, and its preconditioner against the inverse."""

import numpy as np
import pytest
import torch
from helpers.flow import packed
from helpers.reference import VIEWS, random_covariance

from dyncollapse import GaussianTask, Objective, end_to_end, gaussian_init, population_flow
from dyncollapse.dynamics._population_compiled import fill_point
from dyncollapse.dynamics._population_field import PopulationField
from dyncollapse.model.networks import layer_gradients, layer_jacobian
from dyncollapse.theory.population import population_force, population_jacobian

LOSSES = [("infonce", None), ("dot", 0.7), ("spectral", None)]
WIDTHS = [(5, 4), (4, 5), (5, 3, 4), (4, 6, 2, 3)]
GAMMA = 10.0


def problem(generator, widths, loss="infonce", temperature=None, views="one-sided", scale=0.5):
    d = widths[0]
    task = GaussianTask(random_covariance(generator, d), random_covariance(generator, d) / 2, views)
    return gaussian_init(list(widths), generator, (), scale), task, Objective(loss, temperature)


def field_of(weights, task, objective, weight_decay=0.0):
    return PopulationField([tuple(w.shape) for w in weights], task, objective, weight_decay)


def matrix(function, size):
    return np.stack([function(unit) for unit in np.eye(size)], axis=1)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
def test_the_field_is_the_formula(loss, temperature, widths, views, weight_decay, generator):
    weights, task, objective = problem(generator, widths, loss, temperature, views)
    field, product, y = field_of(weights, task, objective, weight_decay), end_to_end(weights), packed(weights)
    pulled = layer_gradients(weights, product @ population_force(product, task, objective))
    expected = packed([p - weight_decay * w for p, w in zip(pulled, weights, strict=True)])
    np.testing.assert_allclose(field.velocity(0.0, y), expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    jacobian = layer_jacobian(weights, *population_jacobian(product, task, objective)).numpy()
    jacobian -= weight_decay * np.eye(len(y))
    found = matrix(field.linearise(0.0, y).times, len(y))
    np.testing.assert_allclose(found, jacobian, rtol=0, atol=1e-13 * np.abs(jacobian).max())


@pytest.mark.parametrize("loss", ["infonce", "spectral"])
def test_diagonal_covariances_are_like_any_other(loss, generator):
    weights, task = gaussian_init([4, 3], generator, (), 0.5), GaussianTask.block(4, 2, 1.3)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    turned = GaussianTask(turn @ task.data_cov @ turn.T, turn @ task.aug_cov @ turn.T)
    y, given = packed(weights), packed([weights[0] @ turn.T])
    one, other = (field_of(weights, each, Objective(loss)) for each in (task, turned))
    v = np.random.default_rng(0).standard_normal(12)
    rotate = np.kron(np.eye(3), turn.numpy())
    np.testing.assert_allclose(rotate @ one.velocity(0.0, y), other.velocity(0.0, given), rtol=0, atol=1e-13)
    changes = one.linearise(0.0, y).times(v), other.linearise(0.0, given).times(rotate @ v)
    np.testing.assert_allclose(rotate @ changes[0], changes[1], rtol=0, atol=1e-13)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e200])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("loss", ["infonce", "spectral"])
def test_what_is_not_finite_stays_so(loss, depth, number, generator):
    weights, task, objective = problem(generator, (3,) * (depth + 1), loss)
    field, y, v = field_of(weights, task, objective), packed(weights), np.ones(9 * depth)
    # A weight so large that its square overflows is no better.
    y[4] = number
    assert not np.isfinite(field.velocity(0.0, y)).all()
    assert not np.isfinite(field.linearise(0.0, y).times(v)).all()
    v[0] = np.nan
    assert not np.isfinite(field.linearise(0.0, packed(weights)).times(v)).all()


def test_the_field_does_not_confuse_two_points(generator):
    weights, task, objective = problem(generator, (4, 3))
    field, y = field_of(weights, task, objective), packed(weights)
    first, moved = field.velocity(0.0, y), y.copy()
    moved[0] += 1
    assert not np.allclose(field.velocity(0.0, moved), first)
    moved[:] = y  # an array that a solver uses again
    np.testing.assert_array_equal(field.velocity(0.0, moved), first)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("depth", [1, 2])
def test_the_preconditioner_is_the_inverse_where_modes_are_aligned(depth, weight_decay):
    # Each mode is an input of its own. What it leaves out is the force itself, which is 0 at rest, and the exchange of
    # two modes, which vanishes where one of them is dead.
    task = GaussianTask.block(3, 2, 1.3)
    rest = torch.diag(torch.tensor([30.0, 0.0, 0.0], dtype=torch.float64))
    weights, objective = (rest,) * depth, Objective()
    field, y = field_of(weights, task, objective, weight_decay), packed(weights)
    linear = field.linearise(0.0, y)
    solve = linear.preconditioner(GAMMA)
    assert solve is not None
    jacobian = matrix(linear.times, len(y))
    product = matrix(solve, len(y)) @ (np.eye(len(y)) - GAMMA * jacobian)
    assert GAMMA * np.abs(np.linalg.eigvalsh(jacobian)).max() > 5
    eigenvalues = np.linalg.eigvals(product).real
    # Without it they reach from 1 to 1 + gamma times the largest rate.
    assert eigenvalues.min() > 0.5
    assert eigenvalues.max() < 2


def test_the_preconditioner_is_linear_and_left_out_where_nothing_is_stiff(generator):
    weights, task, objective = problem(generator, (4, 4, 4), scale=2.0)
    linear = field_of(weights, task, objective).linearise(0.0, packed(weights))
    assert linear.preconditioner(1e-9) is None
    solve = linear.preconditioner(10.0)
    a, b = np.random.default_rng(0).standard_normal((2, 32))
    np.testing.assert_allclose(solve(2 * a - b), 2 * solve(a) - solve(b), rtol=0, atol=1e-12)


def test_the_form_for_a_gpu_is_the_same(generator):
    weights, task, objective = problem(generator, (4, 3, 5), scale=2.0)
    shapes, y, v = [tuple(w.shape) for w in weights], packed(weights), np.random.default_rng(0).standard_normal(27)
    plain, tensors = (PopulationField(shapes, task, objective, 0.1, library) for library in (np, torch))
    np.testing.assert_allclose(tensors.velocity(0.0, y), plain.velocity(0.0, y), rtol=0, atol=1e-12)
    one, other = plain.linearise(0.0, y), tensors.linearise(0.0, y)
    np.testing.assert_allclose(other.times(v), one.times(v), rtol=0, atol=1e-11)
    solve, same = one.preconditioner(10.0), other.preconditioner(10.0)
    np.testing.assert_allclose(same(v), solve(v), rtol=0, atol=1e-12)


def test_functions_are_compiled_once_whatever_the_dimension():
    for dim in (1, 2):
        population_flow((torch.ones(dim, dim, dtype=torch.float64),), GaussianTask.block(dim, 1), 1.0)
    assert len(fill_point.signatures) == 1
