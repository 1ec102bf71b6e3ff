import math

import pytest
import torch
from helpers.reference import VIEWS, normal, random_covariance

from dyncollapse import (
    GaussianTask,
    Objective,
    collapse_threshold,
    end_to_end,
    gaussian_init,
    infonce,
    layer_gradients,
    layer_jacobian,
    negatives_needed,
    population_flow,
    population_force,
    population_jacobian,
    population_loss,
    population_valid,
    sample_flow,
    train,
)

OBJECTIVES = [
    Objective(),
    Objective("dot"),
    Objective("dot", 0.7),
    Objective("spectral"),
    Objective("vcreg"),
    Objective("vcreg", invariance=0.4),
    Objective("barlow"),
]


def task_of(generator, views, d=4, ranks=(None, None)):
    return GaussianTask(*(random_covariance(generator, d, rank) for rank in ranks), views)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.loss}-{o.temperature or o.invariance}")
@pytest.mark.parametrize("m", [2, 4, 6])
@pytest.mark.parametrize("ranks", [(None, None), (2, 3)])
def test_force_is_the_gradient_of_the_loss(m, objective, views, ranks, generator):
    task = task_of(generator, views, ranks=ranks)
    assert float((task.data_cov @ task.aug_cov - task.aug_cov @ task.data_cov).norm()) > 1e-2
    p = normal(generator, 3, m, 4).requires_grad_()
    values = population_loss(p, task, objective)
    (gradient,) = torch.autograd.grad(values.sum(), p)
    force = population_force(p.detach(), task, objective)
    assert (values.shape, force.shape) == ((3,), (3, 4, 4))
    size = float(gradient.abs().max())
    torch.testing.assert_close(gradient, -p.detach() @ force, rtol=0, atol=1e-12 * size)
    torch.testing.assert_close(force, force.mT, rtol=0, atol=1e-12 * float(force.abs().max()))


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("name", ["infonce", "dot", "spectral", "vcreg", "barlow"])
@pytest.mark.seeds(3)
def test_sample_loss_and_force_tend_to_the_populations(name, views, generator):
    eye, n, batches = torch.eye(3, dtype=torch.float64), 1500, 8
    task = GaussianTask(eye + random_covariance(generator, 3), random_covariance(generator, 3) / 4, views)
    objective = Objective(name, 1.0 if name == "dot" else None)
    p = normal(generator, 3, 3)
    # An embedding variance of 0.3 keeps the exponentials' tails light, so that n negatives sample them well.
    p = p * (0.3 / torch.linalg.matrix_norm(p @ (task.data_cov + task.aug_cov) @ p.T, 2)).sqrt()
    drawn = [task.sample(n, generator) for _ in range(batches)]
    slopes = torch.stack([objective.gradient((p,), batch)[0] for batch in drawn])
    values = torch.stack([objective.value((p,), batch) for batch in drawn])
    expected = -p @ population_force(p, task, objective)
    limit = float(population_loss(p, task, objective)) + (math.log(n) if name in ("infonce", "dot") else 0.0)
    # Five standard errors of the mean over batches. On top a bias: the log of a mean of n exponentials falls
    # short by their relative variance, about 1 here, over 2 n.
    tolerance = 5 * float(slopes.std(0).max()) / batches**0.5 + 2 / n
    assert float(expected.abs().max()) > 5 * tolerance
    torch.testing.assert_close(slopes.mean(0), expected, rtol=0, atol=tolerance)
    assert abs(float(values.mean()) - limit) < 5 * float(values.std()) / batches**0.5 + 2 / n


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.loss}-{o.temperature or o.invariance}")
def test_loss_is_blind_to_rotations_of_the_embedding(objective, views, generator):
    task, p = task_of(generator, views), normal(generator, 4, 4)
    q = torch.linalg.qr(normal(generator, 4, 4))[0]
    torch.testing.assert_close(population_loss(q @ p, task, objective), population_loss(p, task, objective))
    torch.testing.assert_close(population_force(q @ p, task, objective), population_force(p, task, objective))


@pytest.mark.parametrize("views", VIEWS)
def test_force_at_zero_is_twice_the_data_less_the_augmentation(views, generator):
    task, zero = task_of(generator, views), torch.zeros(3, 4, dtype=torch.float64)
    s, a = task.data_cov, task.aug_cov
    # Two-sided, 2 (S + A) - 2 A: the augmentation cancels, which is why it cannot collapse anything.
    infonce = 2 * s - a if views == "one-sided" else 2 * s
    torch.testing.assert_close(population_force(zero, task, Objective()), infonce, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(population_force(zero, task, Objective("dot", 0.5)), 4 * s, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(population_force(zero, task, Objective("spectral")), 4 * s, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("data_var", [0.5, 1.0, 2.0])
def test_force_on_a_small_mode_changes_sign_at_the_threshold(data_var):
    threshold = collapse_threshold(data_var)
    p = torch.diag(torch.tensor([1e-3, 1e-3], dtype=torch.float64))
    for factor, sign in ((0.99, 1), (1.01, -1)):
        task = GaussianTask.block(2, 1, factor * threshold, data_var)
        assert float(population_force(p, task, Objective())[1, 1]) * sign > 0


def test_two_sided_views_never_collapse_a_mode():
    p = 1e-6 * torch.eye(2, dtype=torch.float64)
    for strength in (1.0, 1e2, 1e4):
        # p^2 strength = 1e-8 at most keeps the mode small, where the force is 2 s - O(strength^2 p^2).
        force = population_force(p, GaussianTask.block(2, 1, strength, 0.5, "two-sided"), Objective())
        assert float(force[1, 1]) == pytest.approx(1.0, abs=5e-4)


def test_dot_flow_solves_its_riccati_equation(generator):
    # Two-sided with S + A = I: Q = P^T P obeys Q' = B Q + Q B - (4 / tau^2) Q^2 with B = 2 S / tau.
    s = torch.diag(torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64))
    eye, tau, t, w = torch.eye(3, dtype=torch.float64), 0.7, 1.3, 0.5 * normal(generator, 3, 3)
    path = population_flow((w,), GaussianTask(s, eye - s, "two-sided"), t, objective=Objective("dot", tau), rtol=1e-10)
    b = 2 * s.diagonal() / tau
    growth, integral = torch.diag(torch.exp(b * t)), torch.diag((torch.exp(2 * b * t) - 1) / (2 * b))
    middle = torch.linalg.inv(eye + 4 / tau**2 * w @ integral @ w.T)
    expected = growth @ w.T @ middle @ w @ growth
    torch.testing.assert_close(path.product[-1].T @ path.product[-1], expected, rtol=0, atol=1e-8)
    assert float((expected - w.T @ w).norm()) > 0.1


@pytest.mark.parametrize("call", [population_loss, population_force, population_jacobian])
@pytest.mark.parametrize("objective", [Objective("ntxent"), Objective(activation="relu")])
def test_what_has_no_closed_form_is_refused(call, objective):
    task = GaussianTask.block(2, 1, views="two-sided")
    with pytest.raises(
        ValueError, match="has no closed form; use a linear network with one of infonce, dot, spectral, vcreg"
    ):
        call(torch.eye(2, dtype=torch.float64), task, objective)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.loss}-{o.temperature or o.invariance}")
@pytest.mark.parametrize(("m", "ranks"), [(2, (None, None)), (4, (2, 3)), (6, (None, 1))])
def test_population_jacobian_is_the_derivative_of_the_velocity(m, ranks, objective, views, generator):
    task, p = task_of(generator, views, ranks=ranks), normal(generator, m, 4)
    pulled, derivative = population_jacobian(p, task, objective)
    torch.testing.assert_close(pulled, p @ population_force(p, task, objective), rtol=1e-13, atol=1e-13)
    expected = torch.autograd.functional.jacobian(lambda p: p @ population_force(p, task, objective), p)
    size = float(expected.abs().max())
    torch.testing.assert_close(derivative, expected, rtol=0, atol=1e-12 * size)
    # The velocity is minus a gradient, so its derivative is minus a Hessian.
    torch.testing.assert_close(derivative, derivative.permute(2, 3, 0, 1), rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("objective", [OBJECTIVES[0], *OBJECTIVES[2:]], ids=lambda o: o.loss)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_jacobian_of_the_layers_equals_autograd(depth, objective, views, generator):
    weights, task = gaussian_init([4, 3, 5, 2, 3][: depth + 1], generator, (), 0.7), task_of(generator, views)
    assert float((task.data_cov @ task.aug_cov - task.aug_cov @ task.data_cov).norm()) > 1e-2

    def velocity(*layers):
        product = end_to_end(layers)
        return layer_gradients(layers, product @ population_force(product, task, objective))

    got = layer_jacobian(weights, *population_jacobian(end_to_end(weights), task, objective))
    blocks = torch.autograd.functional.jacobian(velocity, weights)
    expected = torch.cat(
        [torch.cat([b.reshape(w.numel(), -1) for b in row], 1) for w, row in zip(weights, blocks, strict=True)]
    )
    size = float(expected.abs().max())
    assert size > 1e-2
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12 * size)
    torch.testing.assert_close(got, got.T, rtol=0, atol=1e-12 * size)


def test_population_jacobian_at_zero_is_the_force_there(generator):
    task = task_of(generator, "one-sided")
    zero, eye = torch.zeros(3, 4, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    pulled, derivative = population_jacobian(zero, task, Objective())
    assert not pulled.any()
    expected = torch.einsum("ac,eb->abce", eye, 2 * task.data_cov - task.aug_cov)
    torch.testing.assert_close(derivative, expected, rtol=1e-12, atol=1e-13)


def own_loss(z, z_pos, negatives):
    return 2 * infonce(z, z_pos, negatives)


class Stranger:
    loss, temperature, activation = "infonce", None, "linear"

    def check_views(self, views):
        pass


POPULATION_USES = [
    lambda w, task, objective: population_flow((w,), task, 1.0, objective=objective),
    lambda w, task, objective: population_loss(w, task, objective),
    lambda w, task, objective: population_force(w, task, objective),
    lambda w, task, objective: population_jacobian(w, task, objective),
    lambda w, task, objective: negatives_needed(w, task, objective),
    lambda w, task, objective: population_valid(w, task, 128, objective),
]


@pytest.mark.parametrize("use", POPULATION_USES)
def test_objectives_of_ones_own_are_refused_by_what_they_are(use, generator):
    w, task = normal(generator, 3, 3), GaussianTask.block(3, 3, 0.5, views="two-sided")
    with pytest.raises(
        ValueError, match="no closed form is known for own_loss, a loss of your own; use the sample flow"
    ):
        use(w, task, Objective(own_loss))
    with pytest.raises(ValueError, match="of type Stranger; closed forms are known for Objective only"):
        use(w, task, Stranger())


def test_a_loss_of_ones_own_is_what_sgd_and_the_sample_flow_minimise(generator):
    weights = gaussian_init([3, 3, 3], generator, (), 0.5)
    pairs = GaussianTask.block(3, 3, 0.5, views="two-sided").sample(6, generator)
    twice, once = Objective(own_loss), Objective()
    for own, plain in zip(*(o.gradient(weights, pairs) for o in (twice, once)), strict=True):
        torch.testing.assert_close(own, 2 * plain, rtol=1e-10, atol=1e-12)
    # Twice the loss goes the same way in half the time.
    fast, slow = (
        sample_flow(weights, pairs, 0.5, objective=twice),
        sample_flow(weights, pairs, 1.0, objective=once),
    )
    torch.testing.assert_close(fast.product, slow.product, rtol=0, atol=1e-6)
    steps = [train(weights, pairs, lr=lr, steps=3, objective=o) for lr, o in ((0.01, twice), (0.02, once))]
    torch.testing.assert_close(steps[0].final()[0], steps[1].final()[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "product", [torch.zeros(2, 2, dtype=torch.float64), torch.zeros(4, 3)], ids=["inputs", "precision"]
)
def test_a_product_that_does_not_fit_the_task_is_refused(product):
    task = GaussianTask.block(3, 1)
    for use in (population_loss, population_force, population_jacobian, negatives_needed):
        with pytest.raises(ValueError, match=r"the task has 3 inputs of torch\.float64; give a product"):
            use(product, task, Objective())
