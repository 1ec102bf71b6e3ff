import pytest
import torch
from helpers.reference import rotation

from dyncollapse import (
    GaussianTask,
    excess_error,
    growth_rates,
    layer_values_at_rest,
    modes,
    population_flow,
    probe_cost,
    protection_rate,
    rest_singular_values,
)

TASK = GaussianTask.block(4, 4, 0.3, 0.5)


def aligned(task, first, second, generator):
    """Two layers aligned with the modes of the task, of given singular values."""
    v, hidden, out = modes(task).directions, rotation(generator, 4), rotation(generator, 4)
    return hidden * first @ v.T, out * second @ hidden.T


def test_the_representation_of_a_dead_embedding_is_protected_by_the_imbalance(generator):
    task = GaussianTask(torch.eye(4).double() / 2, torch.diag(torch.tensor([0.2, 0.4, 1.6, 2.0])).double())
    first = torch.tensor([0.6, 0.3, 0.9, 0.3], dtype=torch.float64)
    second = torch.tensor([0.2, 0.5, 0.3, 0.8], dtype=torch.float64)
    weights = aligned(task, first, second, generator)
    rest, imbalance = rest_singular_values(task), first**2 - second**2
    s1, s2 = layer_values_at_rest(rest, imbalance)
    assert (rest > 0).tolist() == [True, True, False, False]
    torch.testing.assert_close(s1 * s2, rest, rtol=0, atol=1e-14)
    torch.testing.assert_close(s1**2 - s2**2, imbalance, rtol=0, atol=1e-14)
    end = population_flow(weights, task, [200.0])
    for layer, expected in zip(end.weights, (s1, s2), strict=True):
        found = torch.linalg.svdvals(layer[-1])
        torch.testing.assert_close(found, expected.sort(descending=True).values, rtol=0, atol=1e-6)
    # Protected where the encoder started larger, lost with the embedding where it started smaller.
    assert float(s1[2]) == pytest.approx((0.9**2 - 0.3**2) ** 0.5)
    assert float(s1[3]) == 0


def test_dead_modes_decay_at_the_protection_rate(generator):
    task = GaussianTask(torch.eye(4).double() / 2, torch.diag(torch.tensor([1.4, 1.6, 1.8, 2.0])).double())
    first, second = torch.full((4,), 0.9).double(), torch.full((4,), 0.4).double()
    rate = protection_rate(growth_rates(task), first**2 - second**2)
    path = population_flow(aligned(task, first, second, generator), task, [30.0, 40.0], atol=0.0)
    decay = (path.singular_values[0] / path.singular_values[1]).log() / 10
    torch.testing.assert_close(decay.sort().values, rate.sort().values, rtol=1e-4, atol=0)


def test_a_ridge_probe_pays_for_each_dimension(generator):
    s = torch.tensor([1.0, 0.5, 2.0, 0.8], dtype=torch.float64)
    p = torch.tensor([1.0, 0.1, 0.01, 0.0], dtype=torch.float64)
    beta, ridge = torch.tensor([1.0, -1.0, 0.5, 2.0], dtype=torch.float64), 0.02
    x = GaussianTask(torch.diag(s), torch.zeros(4, 4).double()).clean((400_000,), generator)
    z, y = x * p, x @ beta
    solved = torch.linalg.solve(z.T @ z / len(z) + ridge * torch.eye(4).double(), z.T @ y / len(z))
    expected = excess_error(beta, s, p**2 * s, ridge)
    # Moments of n samples are off by sqrt(2 / n) relative.
    assert float((y - z @ solved).square().mean()) == pytest.approx(float(expected), rel=5 * (2 / 4e5) ** 0.5)
    assert probe_cost(s, p**2 * s, ridge)[-1] == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: layer_values_at_rest(-one, one), "negative number"),
        (lambda one: probe_cost(one, one, 0.0), "ridge is 0"),
        (lambda one: probe_cost(one, -one, 1.0), "below 0"),
    ],
)
def test_unusable_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.ones(2))


def test_values_of_any_size_leave_no_range():
    product, imbalance = torch.tensor([1e-200, 0.0, 1.0]).double(), torch.tensor([0.0, 0.0, 1e200]).double()
    product[0], imbalance[2] = 1e-200, 1e200
    first, second = layer_values_at_rest(product, imbalance)
    torch.testing.assert_close(first, torch.tensor([1e-100, 0.0, 1e100], dtype=torch.float64))
    torch.testing.assert_close(second, torch.tensor([1e-100, 0.0, 1e-100], dtype=torch.float64))
