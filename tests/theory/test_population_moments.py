"""Population limits of measured moments: exact for the losses that see second moments only, whatever the samples."""

import pytest
import torch
from helpers.equilibria import root_of
from helpers.population_losses import LOSSES, population_value
from helpers.reference import VIEWS, normal

from dyncollapse import (
    Objective,
    PairMoments,
    Pairs,
    gaussian_init,
    negatives_needed,
    population_flow,
    population_force,
    population_loss,
    rest_gram,
    sample_flow,
)

OBJECTIVES = {f"{name}-{tau or weight}": Objective(name, tau, invariance=weight) for name, tau, weight in LOSSES}


def masked(generator, n=60, d=3, views="two-sided"):
    """Heavy-tailed samples of which views hide single entries: nothing here is Gaussian."""
    x = normal(generator, n, d) ** 3 @ (torch.eye(d, dtype=torch.float64) + normal(generator, d, d) / 3) / 2
    masks = [(torch.rand(n, d, generator=generator) > 0.3).double() for _ in range(2)]
    first, second = x * masks[0], x * masks[1]
    first, second = (x if views == "one-sided" else first), second
    centre = first.mean(0) if views == "one-sided" else (first.mean(0) + second.mean(0)) / 2
    return first - centre, second - centre


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_force_are_those_of_the_literature(loss, views, generator):
    task = PairMoments.from_pairs(*masked(generator, views=views), views)
    objective = Objective(loss[0], loss[1], invariance=loss[2])
    p = normal(generator, 2, 3).requires_grad_()
    value = population_value(p, task, *loss)
    (slope,) = torch.autograd.grad(value, p)
    torch.testing.assert_close(population_loss(p.detach(), task, objective), value.detach())
    torch.testing.assert_close(-p.detach() @ population_force(p.detach(), task, objective), slope)


@pytest.mark.parametrize(("loss", "views"), [("vcreg", "one-sided"), ("vcreg", "two-sided"), ("barlow", "two-sided")])
def test_a_batch_that_is_its_own_population_has_the_populations_flow(loss, views, generator):
    # Barlow's cross-covariance of one-sided pairs has an antisymmetric part, which G leaves out.
    # The moments of one fixed batch are all that these losses see of it. Both views of a pair are used in both orders,
    # as a distribution of two views drawn alike would give them.
    x, y = masked(generator, views=views)
    if views == "two-sided":
        x, y = torch.cat([x, y]), torch.cat([y, x])
    pairs, task = Pairs(x, y, views), PairMoments.from_pairs(x, y, views)
    weights = gaussian_init([3, 3, 3], generator, (), 0.5)
    times = [0.5, 3.0]
    on_samples = sample_flow(weights, pairs, times, objective=Objective(loss))
    of_moments = population_flow(weights, task, times, objective=Objective(loss))
    scale = float(of_moments.product.abs().max())
    torch.testing.assert_close(on_samples.product, of_moments.product, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("method", ["CVODE", "LSODA"])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("depth", [1, 2])
def test_the_flow_of_measured_moments_ends_at_their_rest_point(depth, objective, method, generator):
    task = PairMoments.from_pairs(*masked(generator))
    chosen = OBJECTIVES[objective]
    expected = rest_gram(task, chosen.loss, chosen.temperature, invariance=chosen.invariance)
    weights = gaussian_init([3] * (depth + 1), generator, (), 0.4)
    product = population_flow(weights, task, 1e5, objective=chosen, method=method).product[-1]
    # Modes that die through two layers do so like 1 / t in P.
    torch.testing.assert_close(product.T @ product, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))
    velocity = root_of(expected) @ population_force(root_of(expected), task, chosen)
    assert float(velocity.abs().max()) < 1e-6 * float(expected.abs().max())


@pytest.mark.parametrize("loss", ["vcreg", "barlow"])
def test_a_batch_repels_more_than_the_population(loss, generator):
    # E tr(C_N^2) = tr(C^2) (1 + negatives_needed / N) for Gaussian pairs, with N - 1 for N because batches are centred.
    task = PairMoments.from_covariances(torch.eye(3).double(), torch.diag(torch.tensor([0.8, 0.5, 0.2])).double())
    p = torch.diag(torch.tensor([1.0, 0.8, 0.5], dtype=torch.float64))
    n, batches = 40, 20_000
    pairs = task.gaussian_task().sample(n, generator, (batches,))
    values = Objective(loss).embedding_loss(pairs.anchor @ p.T, pairs.positive @ p.T)
    metric = task.view_cov if loss == "vcreg" else task.shared
    repelled, shift = (p @ metric @ p.T).square().sum(), (p @ task.difference_cov @ p.T).trace()
    drawn = repelled * (1 + negatives_needed(p, task, Objective(loss)) / (n - 1)) * (1 - 1 / n) ** 2
    expected = drawn - 2 * (1 - 1 / n) * (p @ metric @ p.T).trace() + 3 + (shift if loss == "vcreg" else 0.0)
    error = float(values.std()) / batches**0.5
    limit = float(population_loss(p, task, Objective(loss)))
    assert float(values.mean()) - limit > 10 * error
    assert float(values.mean()) == pytest.approx(float(expected), abs=5 * error)
