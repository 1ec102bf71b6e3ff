"""Exactly at the threshold modes are counted as such, whatever round-off says, and nowhere else."""

import itertools
import math

import pytest
import torch
from helpers.reference import VIEWS, normal, rotation

from dyncollapse import (
    GaussianTask,
    collapse_threshold,
    escape_time,
    generalised_modes,
    growth_rates,
    modes,
    population_flow,
    rest_gram,
    rest_singular_values,
)
from dyncollapse.theory.modes import at_threshold, augmentation_ratio

PRECISIONS = (torch.float64, torch.float32)


def rotated(frame, variances, scale=3.0):
    """A covariance with the round-off of a product, other than that of twice itself for another scale."""
    cov = scale * ((frame * (variances / scale)) @ frame.T)
    return (cov + cov.T) / 2


@pytest.mark.parametrize("condition", [1.0, 10.0, 1e3])
@pytest.mark.parametrize("d", [2, 5, 32])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_twice_the_data_is_the_threshold_in_any_basis(dtype, d, condition, generator):
    frame = rotation(generator, d).to(dtype)
    variances = torch.logspace(0, -math.log10(condition), d, dtype=dtype)
    task = GaussianTask(rotated(frame, variances), rotated(frame, 2 * variances, 7.0))
    assert (modes(task).ratio == 1).all()
    assert (generalised_modes(task)[0] == 1).all()
    assert at_threshold(modes(task).ratio).all()
    assert not rest_singular_values(task).any()
    assert not rest_gram(task).any()
    assert not growth_rates(task).any()
    assert escape_time(1e-3, 1.0, float(growth_rates(task)[0])) == math.inf


@pytest.mark.parametrize("factor", [1 - 1e-9, 1 + 1e-9])
def test_just_beside_the_threshold_modes_are_alive_or_dead(factor, generator):
    frame, variances = rotation(generator, 5), torch.tensor([0.1, 0.3, 0.5, 1.0, 2.0], dtype=torch.float64)
    task = GaussianTask(rotated(frame, variances), rotated(frame, 2 * factor * variances, 7.0))
    assert not at_threshold(modes(task).ratio).any()
    assert int((generalised_modes(task)[0] < 1).sum()) == int((modes(task).ratio < 1).sum()) == (5 if factor < 1 else 0)
    # c* = (2/3) (1 - rho) to first order.
    expected = (2 / 3 * (1 - factor) / variances if factor < 1 else 0 * variances).sort().values
    torch.testing.assert_close(rest_singular_values(task).square().sort().values, expected, rtol=1e-5, atol=0)
    assert ((growth_rates(task) > 0) == (factor < 1)).all()


@pytest.mark.parametrize("d", [4, 16])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_threshold_modes_of_covariances_without_common_axes_are_counted(dtype, d, generator):
    root, frame = normal(generator, d, d), rotation(generator, d)
    root = 0.3 * torch.eye(d, dtype=torch.float64) + root @ root.T / d
    ratio = torch.cat([torch.full((d // 2,), 1.0), torch.linspace(0.3, 3.0, d // 2)]).to(torch.float64)
    covs = root @ root, 2 * root @ (frame * ratio) @ frame.T @ root
    task = GaussianTask(*(((c + c.T) / 2).to(dtype) for c in covs))
    found, _ = generalised_modes(task)
    assert int(at_threshold(found).sum()) == d // 2
    assert int((found < 1).sum()) == int((ratio < 1).sum())
    rank = torch.linalg.matrix_rank(rest_gram(task), hermitian=True, rtol=1e-3)
    assert int(rank) == int((ratio < 1).sum())


@pytest.mark.parametrize("noise", [1.0, 1e3, 1e12, 1e17, 1e30])
def test_two_sided_noise_never_reaches_the_threshold(noise, generator):
    # At a = 1e17 s, 1 - rho = s / (s + a) is below round-off of 1.
    s, frame = 0.5, rotation(generator, 3)
    plain = GaussianTask.block(3, 3, noise, s, "two-sided")
    eye = torch.ones(3, dtype=torch.float64)
    turned = GaussianTask(rotated(frame, s * eye), rotated(frame, noise * eye), "two-sided")
    v = 4 * (s / (s + noise)) / (3 + math.sqrt(9 - 8 * s / (s + noise)))
    expected = torch.full((3,), v / (1 - v) / (s + noise), dtype=torch.float64)
    for task in (plain, turned):
        for ratio in (modes(task).ratio, generalised_modes(task)[0]):
            assert (ratio < 1).all()
        torch.testing.assert_close(rest_singular_values(task).square(), expected, rtol=1e-9, atol=0)
        torch.testing.assert_close(torch.linalg.eigvalsh(rest_gram(task)), expected, rtol=1e-9, atol=0)
        torch.testing.assert_close(growth_rates(task), 2 * s * eye, rtol=1e-12, atol=0)


def test_two_sided_directions_without_data_are_at_the_threshold(generator):
    frame = rotation(generator, 4)
    covs = (torch.tensor(v, dtype=torch.float64) for v in ([1.0, 0.5, 0.0, 0.0], [0.3, 1.0, 1.0, 2.0]))
    task = GaussianTask(*(rotated(frame, v) for v in covs), "two-sided")
    for ratio in (modes(task).ratio, generalised_modes(task)[0]):
        assert at_threshold(ratio).tolist() == [False, False, True, True]
    assert (rest_singular_values(task) > 0).tolist() == [True, True, False, False]
    assert growth_rates(task)[2:].tolist() == [0, 0]


@pytest.mark.parametrize("views", VIEWS)
def test_tasks_without_data_or_noise_have_ratios_of_their_own(views):
    zero, eye = torch.zeros(2, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    empty = 1.0 if views == "two-sided" else math.inf
    for data, noise, ratio, rest, growth in (
        (zero, zero, 0.0, 0.0, 0.0),
        (zero, eye, empty, 0.0, 0.0 if views == "two-sided" else -1.0),
        (eye, zero, 0.0, math.inf, 2.0),
    ):
        task = GaussianTask(data, noise, views)
        assert modes(task).ratio.tolist() == [ratio] * 2
        assert rest_singular_values(task).tolist() == [rest] * 2
        assert growth_rates(task).tolist() == [growth] * 2
        found, directions = generalised_modes(task)
        expected = {"one-sided": 0 if data is zero else 2, "two-sided": 2 if bool(data.any() or noise.any()) else 0}
        assert found.tolist() == [ratio] * expected[views]
        assert directions.shape == (2, expected[views])


@pytest.mark.parametrize("views", VIEWS)
def test_ratio_of_variances_is_on_its_own_side_of_one(views):
    data, noise = torch.tensor([*itertools.product((-1e-20, 0.5, 1e-30), repeat=2)], dtype=torch.float64).T
    ratio = augmentation_ratio(data, noise, views)
    assert not ratio.isnan().any()
    assert (ratio >= 0).all()
    if views == "two-sided":
        assert ((ratio < 1) == ((data > 0) | (noise <= 0))).all()


def test_the_threshold_itself_is_where_the_population_flow_dies_by_a_power_only():
    # c' = 2 c s (u + u^2 - 2) = -6 s c^2 + ...: p^2 s -> 1 / (6 s t), where beside it modes live or die exponentially.
    s = 0.5
    threshold = collapse_threshold(s)
    assert threshold == 2 * s
    task, times = GaussianTask.block(1, 1, threshold, s), [1e3, 1e5]
    path = population_flow((torch.full((1, 1), 0.3, dtype=torch.float64),), task, times)
    c = path.product.flatten().square() * s
    torch.testing.assert_close(c * torch.tensor(times) * 6 * s, torch.ones(2, dtype=torch.float64), rtol=0.02, atol=0)
