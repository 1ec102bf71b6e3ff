"""Compiled softmax sums and forces equal their formulas, at any distance and in both precisions."""

import numpy as np
import pytest
import torch
from helpers.reference import VIEWS
from numba import njit
from scipy.special import softmax

from dyncollapse import GaussianTask, Objective, Pairs, gaussian_init
from dyncollapse.model import _forces_compiled
from dyncollapse.model._forces_compiled import (
    LEAST,
    LEAST_32,
    MOST,
    MOST_32,
    infonce_losses,
    power_of_2,
    softmax_sums,
    softmax_sums_along,
)
from dyncollapse.model.forces import mean_force, mean_force_along

RANGES = [(np.float64, LEAST, MOST), (np.float32, LEAST_32, MOST_32)]


@njit
def powers(x):
    return np.array([power_of_2(one) for one in x])


@pytest.mark.parametrize(("kind", "least", "most"), RANGES)
def test_powers_of_2_are_exact_to_round_off(kind, least, most):
    x = np.random.default_rng(0).uniform(least, most, 2000).astype(kind)
    exact = 2.0 ** x.astype(np.longdouble)
    found = powers(x)
    assert found.dtype == kind
    assert np.abs(found / exact - 1).max() < 2 * np.finfo(kind).eps
    whole = np.array([least, -1, 0, 1, most], kind)
    assert (powers(whole) == 2.0**whole).all()


@pytest.mark.parametrize(("kind", "least", "most"), RANGES)
def test_powers_beyond_reach_are_0_or_the_largest(kind, least, most):
    below, beyond = np.array([least - 1, -np.inf], kind), np.array([most + 1, np.inf], kind)
    assert (powers(below) == 0).all()
    assert (powers(beyond) == kind(2) ** kind(most)).all()
    assert np.isnan(powers(np.array([np.nan], kind))).all()


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("n", [1, 7, 600])  # the last in several parts
@pytest.mark.parametrize("far", [0.0, 300.0, 1e4, -1e4])  # of the positives, to base 2
def test_sums_are_those_of_the_softmax_without_its_positives(far, n, kind):
    rng = np.random.default_rng(0)
    rows, columns, shift, y = (rng.standard_normal(shape) for shape in ((n, 3), (n, 3), n, (n, 2)))
    own = rng.standard_normal(n) + far
    logits = np.log(2) * (rows @ columns.T + shift)
    np.fill_diagonal(logits, np.log(2) * own)
    b = softmax(logits, 1)
    np.fill_diagonal(b, 0)
    r, c, by = (np.empty(shape, kind) for shape in (n, n, (n, 2)))
    softmax_sums(*(array.astype(kind) for array in (rows, columns, shift, own, y)), (r, c, by))
    # Weights are powers of logits with that round-off; sums of n of them.
    bound = 10 * np.finfo(kind).eps * (1 + abs(far)) * np.sqrt(n)
    for found, expected in ((r, b.sum(1)), (c, b.sum(0)), (by, b @ y)):
        assert np.abs(found - expected).max() <= bound * np.abs(expected).max() + n * np.finfo(kind).tiny


@pytest.mark.parametrize(("kind", "most"), [(np.float64, MOST), (np.float32, MOST_32)])
def test_sums_are_finite_where_the_squares_of_inputs_are(kind, most):
    rng, n = np.random.default_rng(0), 600
    rows, shift, y = rng.standard_normal((n, 3)), rng.standard_normal(n), rng.uniform(0.5, 1, (n, 2))
    largest = np.sqrt(np.finfo(kind).max) / 2
    own = np.full(n, -float(most) + 15)  # the negatives' powers of 2 against it nearly reach the largest
    sums = tuple(np.empty(shape, kind) for shape in (n, n, (n, 2)))
    softmax_sums(*(a.astype(kind) for a in (rows, rows, shift, own)), (largest * y).astype(kind), sums)
    logits = np.log(2) * (rows @ rows.T + shift)
    np.fill_diagonal(logits, -np.inf)  # beside the others the positive has no weight
    b = softmax(logits, 1)
    np.testing.assert_allclose(sums[2] / kind(largest), b @ y, rtol=100 * np.finfo(kind).eps * float(most))


@pytest.mark.parametrize(("kind", "most"), [(np.float64, MOST), (np.float32, MOST_32)])
def test_derivatives_of_sums_are_finite_where_they_are_in_range(kind, most):
    rng, n = np.random.default_rng(0), 600
    rows, shift, y = rng.standard_normal((n, 3)), rng.standard_normal(n), rng.uniform(0.5, 1, (n, 2))
    left, right = rng.standard_normal((2, n, 4))
    large = np.finfo(kind).max ** 0.45  # whose square times a few hundred is within range
    own = np.full(n, -float(most) + 15)
    given = [a.astype(kind) for a in (rows, rows, shift, own)]
    changes = [(scale * a).astype(kind) for scale, a in ((large, left), (1.0, right), (0.0, shift), (0.0, own))]
    sums = tuple(np.empty(shape, kind) for shape in (n, n, (n, 2)))
    softmax_sums_along(tuple(given), tuple(changes), (large * y).astype(kind), sums)
    logits = np.log(2) * (rows @ rows.T + shift)
    np.fill_diagonal(logits, -np.inf)
    b = softmax(logits, 1)
    tilt = left @ right.T
    moved = b * (tilt - (b * tilt).sum(1, keepdims=True))
    bound = 100 * np.finfo(kind).eps * float(most) * (np.abs(moved) @ y).max()
    np.testing.assert_allclose(sums[2] / kind(large) / kind(large), moved @ y, rtol=0, atol=bound)


@pytest.mark.parametrize("n", [1, 7, 600])
@pytest.mark.parametrize("far", [0.0, 300.0, -1e4])
def test_sums_change_with_the_logits_as_the_softmax_does(far, n):
    rng = np.random.default_rng(1)
    rows, columns, shift, y = (rng.standard_normal(shape) for shape in ((n, 3), (n, 3), n, (n, 2)))
    left, right, change = (rng.standard_normal(shape) for shape in ((n, 4), (n, 4), n))
    own, own_change = rng.standard_normal(n) + far, rng.standard_normal(n)
    logits, tilt = np.log(2) * (rows @ columns.T + shift), left @ right.T + change
    np.fill_diagonal(logits, np.log(2) * own)
    np.fill_diagonal(tilt, own_change)
    alpha = softmax(logits, 1)
    tilt -= own_change[:, None]  # d alpha = alpha (tilt - its mean), whatever is taken from a row of it
    moved = alpha * (tilt - (alpha * tilt).sum(1, keepdims=True))
    np.fill_diagonal(moved, 0)
    found = tuple(np.empty(shape) for shape in (n, n, (n, 2)))
    softmax_sums_along((rows, columns, shift, own), (left, right, change, own_change), y, found)
    bound = 30 * np.finfo(float).eps * (1 + abs(far)) * np.sqrt(n)
    size = np.abs(moved)  # of what is summed: sums of rows vanish with the positive's weight
    sums = ((moved.sum(1), size.sum(1)), (moved.sum(0), size.sum(0)), (moved @ y, size @ np.abs(y)))
    for one, (expected, summed) in zip(found, sums, strict=True):
        assert np.abs(one - expected).max() <= bound * summed.max() + n * np.finfo(float).tiny


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("temperature", [0.01, 0.5])  # logits of thousands, and of order 10
@pytest.mark.parametrize(("runs", "batches"), [((), ()), ((2,), (3,))])
def test_force_of_the_dot_product_is_the_one_that_is_differentiated(runs, batches, temperature, views, generator):
    (product,) = gaussian_init([6, 4], generator, runs, 0.5)
    pairs = GaussianTask.block(6, 2, views=views).sample(12, generator, (*batches, *runs))
    expected, _ = mean_force_along(product, pairs, "dot", temperature)
    found = mean_force(product, pairs, "dot", temperature)
    bound = 1e-14 / temperature * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=bound)
    single = mean_force(
        product.float(), Pairs(pairs.anchor, pairs.positive, views).to(torch.float32), "dot", temperature
    )
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=bound * 2**29)


@pytest.mark.parametrize("views", VIEWS)
def test_a_positive_at_infinite_distance_costs_infinity(views):
    x = torch.arange(8, dtype=torch.float64).view(4, 2)
    far = x.clone()
    far[0, 1] = 1e160  # whose square overflows
    pairs, identity, losses = Pairs(x, far, views), torch.eye(2, dtype=torch.float64), np.empty(1)
    infonce_losses(*(a.numpy()[None] for a in (identity, x, far)), views == "one-sided", losses)
    assert losses[0] == Objective().value((identity,), pairs) == np.inf


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("loss", ["infonce", "dot"])
def test_an_offset_is_an_input_that_is_always_1(loss, views, kind, generator):
    pairs = GaussianTask.block(4, 2, views=views).sample(6, generator, (3,))
    one = torch.ones(3, 6, 1, dtype=torch.float64)
    affine = Pairs(torch.cat([pairs.anchor, one], -1), torch.cat([pairs.positive, one], -1), views)
    product = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    settings, objective = (() if loss == "infonce" else (0.5,)), Objective(loss, None if loss == "infonce" else 0.5)
    arrays = [a.numpy().astype(kind) for a in (product[None], pairs.anchor, pairs.positive)]
    forces, losses = np.empty((3, 5, 5), kind), np.empty(3, kind)
    find, judge = (getattr(_forces_compiled, f"{loss}_{what}") for what in ("forces", "losses"))
    find(*arrays, views == "one-sided", *settings, forces)
    judge(*arrays, views == "one-sided", *settings, losses)
    bound = 1e-14 if kind == np.float64 else 1e-5
    np.testing.assert_allclose(forces.mean(0), objective.force(product, affine), rtol=0, atol=20 * bound)
    np.testing.assert_allclose(losses.mean(), objective.value((product,), affine), rtol=bound)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("loss", ["infonce", "dot"])
@pytest.mark.parametrize("offset", [False, True])
def test_forces_along_a_change_are_their_derivative(offset, loss, views, generator):
    task, temperature = GaussianTask.block(4, 2, views=views), None if loss == "infonce" else 0.5
    pairs, one = task.sample(6, generator, (3,)), torch.ones(3, 6, 1, dtype=torch.float64)
    affine = Pairs(torch.cat([pairs.anchor, one], -1), torch.cat([pairs.positive, one], -1), views) if offset else pairs
    inputs = affine.anchor.shape[-1]
    product, direction = torch.randn(2, 2, inputs, generator=generator, dtype=torch.float64)
    _, along = mean_force_along(product, affine, loss, temperature)
    half, changes = product.mT @ direction, np.empty((3, inputs, inputs))
    moving = torch.cat([product, half + half.mT]).numpy()[None]
    follow, settings = getattr(_forces_compiled, f"{loss}_forces_along"), (() if loss == "infonce" else (temperature,))
    follow(moving, pairs.anchor.numpy(), pairs.positive.numpy(), views == "one-sided", *settings, changes)
    np.testing.assert_allclose(changes.mean(0), along(direction), rtol=0, atol=1e-12)
