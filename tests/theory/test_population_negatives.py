"""How many negatives the population limit takes, and how many a batch has."""

import math

import pytest
import torch
from helpers.reference import VIEWS, normal, random_covariance

from dyncollapse import (
    POPULATION_FACTOR,
    GaussianTask,
    Objective,
    effective_negatives,
    infonce_weights,
    negatives_needed,
    population_valid,
)


def problem(generator, views, largest, m=3, d=4):
    """A task without special directions and a product whose embedding variances are at most `largest`."""
    task = GaussianTask(random_covariance(generator, d), random_covariance(generator, d), views)
    p = normal(generator, m, d)
    return task, p * (largest / torch.linalg.matrix_norm(embedded(task, p), 2)).sqrt()


def embedded(task, p):
    seen = task.data_cov if task.views == "one-sided" else task.data_cov + task.aug_cov
    return p @ seen @ p.mT


def drawn(generator, cov, *shape):
    return normal(generator, *shape, len(cov)) @ torch.linalg.cholesky(cov).T


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("objective", [Objective(), Objective("dot", 0.5)], ids=lambda o: o.loss)
@pytest.mark.seeds(3)
def test_needed_is_the_mean_over_anchors_of_the_kernels_relative_second_moment(objective, views, generator):
    tau = objective.temperature
    # Light tails keep the Monte Carlo honest: the mean over anchors of the dot loss needs c^2 well below tau^2 / 2.
    task, p = problem(generator, views, 1.0 if tau is None else 0.4 * tau)
    c = embedded(task, p)
    z, y = drawn(generator, c, 2_000), drawn(generator, c, 20_000)
    # Kernels exp(-|z - y|^2 / 2) but for exp(-|z|^2 / 2), which cancels for each anchor.
    offset = y.square().sum(-1) / 2 if tau is None else torch.zeros(len(y), dtype=torch.float64)
    k = ((b @ y.T / (tau or 1.0)).sub_(offset).exp_() for b in z.split(100))
    ratios = torch.cat([(b.square().mean(1) / b.mean(1).square()) for b in k])
    # Five standard errors over the anchors; on top the second moment's own error with 20000 negatives, about
    # sqrt(E k^4 / (E k^2)^2 / 20000), below 2 % here.
    assert float(ratios.mean()) > 1.2
    wanted = float(negatives_needed(p, task, objective))
    assert float(ratios.mean()) == pytest.approx(wanted, abs=5 * float(ratios.std()) / 2_000**0.5 + 0.02 * wanted)


@pytest.mark.seeds(3)
def test_an_anchor_at_the_centre_needs_fewest(generator):
    # What an anchor at the centre needs, prod (1 + c) / (1 + 2 c)^(1/2), is a lower bound and falls behind as c grows.
    task, p = problem(generator, "one-sided", 1.5)
    c = torch.linalg.eigvalsh(embedded(task, p))
    y = drawn(generator, embedded(task, p), 400_000)
    k = (-y.square().sum(-1) / 2).exp()
    at_centre = float(((1 + c) / (1 + 2 * c).sqrt()).prod())
    # The relative error of both moments is below 1 % with 400000 draws.
    assert float(k.square().mean() / k.mean().square()) == pytest.approx(at_centre, rel=0.01)
    assert float(negatives_needed(p, task)) > at_centre


@pytest.mark.seeds(3)
def test_the_log_partition_falls_short_by_half_of_needed_less_one_over_n(generator):
    n, anchors = 32, 100_000
    task, p = problem(generator, "one-sided", 1.0, m=2, d=2)
    c = embedded(task, p)
    z, y = drawn(generator, c, anchors), drawn(generator, c, anchors, n)
    found = torch.logsumexp(-(z.unsqueeze(1) - y).square().sum(-1) / 2, -1) - math.log(n)
    eye = torch.eye(2, dtype=torch.float64)
    limit = -(torch.logdet(eye + c) + (z @ torch.linalg.inv(eye + c) * z).sum(-1)) / 2
    gap, needed = found - limit, float(negatives_needed(p, task))
    # Five standard errors, and the next order of the expansion, which goes with the square of needed / n.
    tolerance = 5 * float(gap.std()) / anchors**0.5 + 2 * (needed / n) ** 2
    assert float(gap.mean()) == pytest.approx(-(needed - 1) / (2 * n), abs=tolerance)
    assert (needed - 1) / (2 * n) > tolerance


@pytest.mark.parametrize("objective", [Objective(), Objective("dot", 3.0)], ids=lambda o: o.loss)
@pytest.mark.parametrize("views", VIEWS)
def test_needed_is_one_per_run_and_blind_to_rotations(objective, views, generator):
    task, _ = problem(generator, views, 1.0)
    p = 0.5 * normal(generator, 2, 5, 4, 4)
    needed = negatives_needed(p, task, objective)
    assert needed.shape == (2, 5)
    rotation = torch.linalg.qr(normal(generator, 4, 4))[0]
    torch.testing.assert_close(negatives_needed(rotation @ p, task, objective), needed, rtol=1e-10, atol=0)
    for i in range(2):
        for j in range(5):
            torch.testing.assert_close(needed[i, j], negatives_needed(p[i, j], task, objective), rtol=1e-10, atol=0)


def test_needed_at_the_ends_of_its_range(generator):
    task, p = problem(generator, "one-sided", 1.0)
    assert float(negatives_needed(0 * p, task)) == 1
    assert float(negatives_needed(p, task, Objective("spectral"))) == 0
    # (1 + c)^(3/2) / (1 + 3 c)^(1/2) tends to c / sqrt(3) per mode; logs carry it past the range of (1 + c)^(3/2).
    line = GaussianTask.block(1, 1, 0.0, 1.0)
    far = torch.tensor([[1e140]], dtype=torch.float64)
    assert float(negatives_needed(far, line)) == pytest.approx(1e280 / 3**0.5, rel=1e-10)
    assert not math.isfinite(float(negatives_needed(1e100 * p, task)))
    # The dot kernel's second moment, averaged over anchors, ceases to exist at c = tau / sqrt(2).
    for factor, finite in ((0.999, True), (1.001, False)):
        edge = torch.tensor([[(factor * 0.5 / 2**0.5) ** 0.5]], dtype=torch.float64)
        assert math.isfinite(float(negatives_needed(edge, line, Objective("dot", 0.5)))) is finite


def test_rank_deficient_products_need_what_their_own_dimensions_need(generator):
    task, p = problem(generator, "two-sided", 1.0, m=2)
    wide = torch.cat([p, torch.zeros(3, 4, dtype=torch.float64)])
    torch.testing.assert_close(negatives_needed(wide, task), negatives_needed(p, task), rtol=1e-10, atol=0)


def test_losses_without_a_population_limit_are_refused(generator):
    task, p = problem(generator, "two-sided", 1.0)
    for objective in (Objective("ntxent"), Objective(activation="relu")):
        with pytest.raises(ValueError, match="no closed form"):
            negatives_needed(p, task, objective)


def test_population_is_valid_from_a_multiple_of_needed_on(generator):
    task, p = problem(generator, "one-sided", 2.0)
    p = torch.stack([0.1 * p, p])
    enough = int(torch.ceil(POPULATION_FACTOR * negatives_needed(p, task))[1])
    assert population_valid(p, task, enough).tolist() == [True, True]
    assert population_valid(p, task, enough - 1).tolist() == [True, False]
    assert not population_valid(1e100 * p, task, 10**9).any()


def test_uniform_and_one_hot_rows_bound_the_effective_number():
    n = 7
    uniform, hot = torch.full((3, n, n), 1 / n, dtype=torch.float64), torch.eye(n, dtype=torch.float64).expand(3, n, n)
    torch.testing.assert_close(effective_negatives(uniform), torch.full((3,), float(n), dtype=torch.float64))
    assert effective_negatives(hot).tolist() == [1.0, 1.0, 1.0]


def test_effective_number_is_the_mean_over_rows_of_their_own(generator):
    alpha = torch.softmax(3 * normal(generator, 2, 3, 6, 6), -1)
    found = effective_negatives(alpha)
    assert found.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            rows = [math.exp(-sum(float(a) * math.log(float(a)) for a in row)) for row in alpha[i, j]]
            assert float(found[i, j]) == pytest.approx(sum(rows) / 6, rel=1e-12)


def test_effective_number_does_not_depend_on_the_order_of_samples(generator):
    z, z_pos, order = normal(generator, 9, 3), normal(generator, 9, 3), torch.randperm(9, generator=generator)
    alpha, shuffled = infonce_weights(z, z_pos), infonce_weights(z[order], z_pos[order])
    torch.testing.assert_close(effective_negatives(shuffled), effective_negatives(alpha), rtol=1e-12, atol=0)
    torch.testing.assert_close(effective_negatives(alpha[:, order]), effective_negatives(alpha), rtol=1e-12, atol=0)


def test_k_equal_candidates_count_as_k():
    row = torch.tensor([0.25, 0.25, 0.25, 0.25, 0, 0], dtype=torch.float64)
    assert float(effective_negatives(row.expand(6, 6))) == pytest.approx(4, rel=1e-12)


def test_separated_embeddings_have_no_effective_negatives(generator):
    # Far apart, every anchor's weight is its positive's: what is left of the negatives exerts no force.
    z = normal(generator, 32, 3)
    found = [float(effective_negatives(infonce_weights(s * z, s * z))) for s in (1e-8, 1.0, 1e4)]
    assert found[0] == pytest.approx(32, rel=1e-10)
    assert 1 < found[1] < 32
    assert found[2] == pytest.approx(1, rel=1e-10)
