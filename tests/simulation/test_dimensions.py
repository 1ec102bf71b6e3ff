import pytest
import torch
from helpers.reference import VIEWS, normal, random_covariance

from dyncollapse import (
    GaussianTask,
    PairMoments,
    gaussian_init,
    generalised_modes,
    judge,
    linear_dimensions,
    mode_dimensions,
    population_flow,
    rest_modes,
)


def without_common_modes(generator, views, d=4):
    s, a = (0.2 * torch.eye(d, dtype=torch.float64) + random_covariance(generator, d) for _ in range(2))
    return GaussianTask(s, 2 * a, views)


@pytest.mark.parametrize("views", VIEWS)
def test_modes_of_covariances_that_do_not_commute_end_at_their_rest_values(views, generator):
    task = without_common_modes(generator, views)
    weights = gaussian_init([4, 4], generator, (3,), 0.3)
    end = tuple(w[-1] for w in population_flow(weights, task, 1e4).weights)
    found, rest = mode_dimensions(end, task), rest_modes(task)
    assert found.whitened
    torch.testing.assert_close(found.ratio[0], rest.ratio)
    torch.testing.assert_close(found.singular_value.square(), rest.variance.expand(3, 4), rtol=0, atol=1e-7)
    fates = [str(one.fate) for one in judge(found, scale=1.0, rest=rest.variance.sqrt()).dimensions]
    assert fates == ["alive" if alive else "dead" for alive in rest.alive.tolist()]


@pytest.mark.parametrize("outputs", [2, 6])
def test_narrow_and_wide_embeddings_of_measured_moments(outputs, generator):
    x = normal(generator, 50, 4) @ normal(generator, 4, 4)
    task = PairMoments.from_pairs(x, x + normal(generator, 50, 4))
    weights = gaussian_init([4, outputs], generator, (), 0.3)
    end = tuple(w[-1] for w in population_flow(weights, task, 1e4).weights)
    found = mode_dimensions(end, task)
    expected = rest_modes(task, outputs=outputs).variance
    torch.testing.assert_close(found.singular_value[:4].square(), expected, rtol=0, atol=1e-6)
    assert found.ratio.isnan().tolist() == [False] * 4 + [True] * (outputs - 4)
    assert linear_dimensions(end, task).singular_value.shape == (outputs,)


def test_inputs_without_data_are_no_dimensions(generator):
    root, other = normal(generator, 4, 2), normal(generator, 4, 4)
    task = GaussianTask(root @ root.T, other @ other.T / 4)
    found = mode_dimensions((torch.eye(4, dtype=torch.float64),), task)
    assert found.singular_value.shape == (4,)
    assert found.ratio.isnan().tolist() == [False, False, True, True]
    torch.testing.assert_close(found.ratio[:2], generalised_modes(task)[0])


def test_negatively_correlated_views_are_dead_and_positively_correlated_ones_alive():
    gamma = torch.tensor([0.6, 0.2, -0.4], dtype=torch.float64)
    task = PairMoments.from_covariances(torch.eye(3, dtype=torch.float64), torch.diag(gamma))
    end = population_flow((0.3 * torch.eye(3, dtype=torch.float64),), task, 200.0)
    found = mode_dimensions(tuple(w[-1] for w in end.weights), task)
    assert not found.whitened
    assert [str(one.fate) for one in judge(found).dimensions] == ["alive", "alive", "dead"]
    torch.testing.assert_close(found.ratio, 1 - gamma)
