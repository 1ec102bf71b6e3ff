"""vcreg and barlow: values, gradients, what they are blind to, and their limits at given and at measured moments."""

import pytest
import torch
from helpers import reference
from helpers.gradients import assert_as_one
from helpers.reference import EPS, VIEWS, normal, problems, random_covariance, rotation
from hypothesis import given

from dyncollapse import GaussianTask, Objective, PairMoments, Pairs, barlow, sample_flow, spectral, train, vcreg
from dyncollapse.model.moment_losses import barlow_gradients, vcreg_gradients

LOSSES = {
    "vcreg": (lambda z, z_pos, views: vcreg(z, z_pos, views, 0.7), lambda *given: vcreg_gradients(*given, 0.7)),
    "barlow": (lambda z, z_pos, _views: barlow(z, z_pos), lambda z, z_pos, _views: barlow_gradients(z, z_pos)),
}


def trace(matrix):
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


@pytest.mark.parametrize("name", LOSSES)
@given(problem=problems())
def test_loss_equals_the_loops(name, problem):
    x, x_pos, p, views = problem
    z, z_pos = x @ p.mT, x_pos @ p.mT
    rows = zip(z.reshape(-1, *z.shape[-2:]), z_pos.reshape(-1, *z.shape[-2:]), strict=True)
    slow = torch.stack([reference.loss(name, a, b, views, invariance=0.7) for a, b in rows])
    size = 1 + float(max(z.abs().max(), z_pos.abs().max())) ** 4 * z.shape[-1] ** 2
    got = LOSSES[name][0](z, z_pos, views)
    assert got.shape == x.shape[:-2]
    torch.testing.assert_close(got.flatten(), slow, rtol=0, atol=100 * EPS * size)


@pytest.mark.parametrize("name", LOSSES)
@given(problem=problems())
def test_gradients_are_autograds(name, problem):
    x, x_pos, p, views = problem
    leaves = [(rows @ p.mT).requires_grad_() for rows in (x, x_pos)]
    value, gradients = LOSSES[name]
    expected = torch.autograd.grad(value(*leaves, views).sum(), leaves)
    size = 1 + float(max(z.detach().abs().max() for z in leaves))
    for got, slope in zip(gradients(*(z.detach() for z in leaves), views), expected, strict=True):
        torch.testing.assert_close(got, slope, rtol=0, atol=1e-13 * size**3)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [1e-70, 1e-8, 1.0, 1e70])
def test_any_norm_whose_fourth_power_exists(name, views, scale, generator):
    leaves = [(scale * normal(generator, 6, 3)).requires_grad_() for _ in range(2)]
    value, gradients = LOSSES[name]
    got = value(*leaves, views)
    torch.testing.assert_close(got, reference.loss(name, *leaves, views, invariance=0.7), rtol=1e-12, atol=0)
    expected = torch.autograd.grad(got, leaves)
    assert_as_one(gradients(*(z.detach() for z in leaves), views), expected, 1e-12)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_blind_to_rotations_offsets_and_order(name, views, generator):
    z, z_pos = normal(generator, 7, 4), normal(generator, 7, 4)
    loss, q, order = LOSSES[name][0], rotation(generator, 4), torch.randperm(7, generator=generator)
    value = loss(z, z_pos, views)
    shift = 3 * normal(generator, 4)
    for one, other in ((z @ q.T, z_pos @ q.T), (z + shift, z_pos + shift), (z[order], z_pos[order])):
        torch.testing.assert_close(loss(one, other, views), value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(loss(z_pos, z, "two-sided"), loss(z, z_pos, "two-sided"), rtol=1e-13, atol=0)
    # The covariance across views has no convention; vcreg's is the anchors' alone for one-sided views.
    assert (float(abs(loss(z, z_pos, "one-sided") - loss(z, z_pos, "two-sided"))) > 1e-3) == (name == "vcreg")


def test_only_vcreg_sees_an_offset_between_the_views(generator):
    z, z_pos, shift = normal(generator, 7, 4), normal(generator, 7, 4), normal(generator, 4)
    torch.testing.assert_close(barlow(z, z_pos + shift), barlow(z, z_pos), rtol=1e-12, atol=1e-12)
    pull = (z - z_pos).square().sum(-1).mean()
    moved = (z - z_pos - shift).square().sum(-1).mean()
    torch.testing.assert_close(vcreg(z, z_pos + shift) - vcreg(z, z_pos), moved - pull, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("invariance", [0.0, 0.3, 2.0])
def test_one_batch_is_the_limit_at_its_own_moments(invariance, generator):
    x, p = normal(generator, 9, 4) + 3, normal(generator, 3, 4)
    x_pos = x + normal(generator, 9, 4)
    moments, q = PairMoments.from_pairs(x, x_pos, "one-sided"), p.T @ p
    s_e, a_e = moments.seen
    expected = (p @ s_e @ p.T - torch.eye(3)).square().sum() + invariance * trace(p @ a_e @ p.T)
    objective, pairs = Objective("vcreg", invariance=invariance), Pairs(x, x_pos)
    torch.testing.assert_close(objective.value((p,), pairs), expected, rtol=1e-12, atol=0)
    force = 4 * s_e - 4 * s_e @ q @ s_e - 2 * invariance * a_e
    torch.testing.assert_close(objective.force(p, pairs), force, rtol=0, atol=1e-12 * float(force.abs().max()))


def test_barlow_of_both_orders_is_the_limit_at_the_batches_moments(generator):
    # Every pair in both orders: the covariance across views is then symmetric.
    x, p = normal(generator, 9, 4), normal(generator, 3, 4)
    x_pos = x + normal(generator, 9, 4)
    both, both_pos = torch.cat([x, x_pos]), torch.cat([x_pos, x])
    g, q = PairMoments.from_pairs(both, both_pos).shared, p.T @ p
    objective, pairs = Objective("barlow"), Pairs(both, both_pos, "two-sided")
    expected = (p @ g @ p.T - torch.eye(3)).square().sum()
    torch.testing.assert_close(objective.value((p,), pairs), expected, rtol=1e-12, atol=0)
    force = 4 * g - 4 * g @ q @ g
    torch.testing.assert_close(objective.force(p, pairs), force, rtol=0, atol=1e-12 * float(force.abs().max()))


def expected_loss(name, p, task, n, invariance):
    """The mean loss over Gaussian batches of n, exactly: Wick's theorem for the second moments about the mean."""
    (s_e, a_e), g, eye = task.seen, task.shared, torch.eye(p.shape[-2], dtype=p.dtype)
    c, across = p @ s_e @ p.T, p @ g @ p.T
    own, spread = (c, trace(c) ** 2) if name == "vcreg" else (across, trace(c) ** 2)
    if name == "barlow" and task.views == "one-sided":
        spread = trace(c) * trace(c + p @ a_e @ p.T)
    held = ((1 - 1 / n) * own - eye).square().sum() + (n - 1) / n**2 * (spread + own.square().sum())
    return held + (invariance * trace(p @ a_e @ p.T) if name == "vcreg" else 0)


@pytest.mark.seeds(3)
@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("name", LOSSES)
def test_mean_over_gaussian_batches_is_the_limit_up_to_one_over_n(name, views, generator):
    task, p = GaussianTask(random_covariance(generator, 4), random_covariance(generator, 4), views), None
    p = normal(generator, 3, 4) / 2
    objective = Objective(name, invariance=0.7 if name == "vcreg" else None)
    for n in (5, 50):
        values = objective.embedding_loss(*(x @ p.T for x in drawn(task, n, generator)), views)
        exact = float(expected_loss(name, p, task, n, 0.7))
        assert abs(float(values.mean()) - exact) < 5 * float(values.std()) / len(values) ** 0.5
    limit, near = (float(expected_loss(name, p, task, n, 0.7)) for n in (1e12, 50))
    c = trace(p @ (task.seen[0] + task.seen[1]) @ p.T)
    assert abs(near - limit) < 4 * float((1 + c) ** 2) / 50


def drawn(task, n, generator, batches=4000):
    pairs = task.sample(n, generator, (batches,))
    return pairs.anchor, pairs.positive


@pytest.mark.seeds(3)
@pytest.mark.parametrize("views", VIEWS)
def test_limits_are_those_of_the_moments_with_many_pairs(views, generator):
    # Relative errors of n moments are sqrt(2 / n) each; five of them, for each of two factors of a 4 x 4 matrix.
    n, task = 400_000, GaussianTask(random_covariance(generator, 4), random_covariance(generator, 4), views)
    pairs, p = task.sample(n, generator), normal(generator, 4, 4) / 2
    (s_e, a_e), q = task.seen, p.T @ p
    bound = 5 * (2 / n) ** 0.5 * 8
    for name, base, repelled in (("vcreg", 4 * s_e - 2 * 0.7 * a_e, s_e), ("barlow", 4 * task.shared, task.shared)):
        force = Objective(name, invariance=0.7 if name == "vcreg" else None).force(p, pairs)
        size = float((s_e + a_e).norm()) * (4 + 4 * float((q @ (s_e + a_e)).norm()))
        assert float((force - base + 4 * repelled @ q @ repelled).norm()) < bound * size


@pytest.mark.parametrize("views", VIEWS)
def test_covariance_form_of_the_spectral_loss_is_biased_and_the_pairwise_form_is_not(views, generator):
    # sum_ij = sum_{i != j} + sum_i: tr(M M_y) = (1 - 1/n) mean_{i != j} (z_i . y_j)^2 + mean_i (z_i . y_i)^2 / n.
    n, z, z_pos = 6, normal(generator, 6, 3), normal(generator, 6, 3)
    y = z if views == "one-sided" else z_pos
    pull = 2 * (z * z_pos).sum(-1).mean()
    pairwise = spectral(z, z_pos, None if views == "one-sided" else z_pos) + pull
    repulsion = trace((z.T @ z / n) @ (y.T @ y / n))
    own = (z * y).sum(-1).square().mean()
    torch.testing.assert_close(repulsion, (1 - 1 / n) * pairwise + own / n, rtol=1e-13, atol=0)


@pytest.mark.seeds(3)
def test_expectations_of_both_forms_of_the_spectral_loss(generator):
    task, n = GaussianTask(random_covariance(generator, 3), random_covariance(generator, 3), "two-sided"), 4
    x, x_pos = drawn(task, n, generator, 40_000)
    c, across = task.seen[0], task.shared
    limit = -2 * trace(across) + c.square().sum()
    values = spectral(x, x_pos, x_pos)
    assert abs(float(values.mean() - limit)) < 5 * float(values.std()) / len(values) ** 0.5
    # E(z_i . z'_i)^2 = tr(G)^2 + |G|^2 + |C|^2 (Wick), in place of |C|^2 for one pair in n.
    moments = -2 * (x * x_pos).sum(-1).mean(-1) + trace((x.mT @ x / n) @ (x_pos.mT @ x_pos / n))
    biased = limit + (trace(across) ** 2 + across.square().sum()) / n
    error = float(moments.std()) / len(moments) ** 0.5
    assert abs(float(moments.mean() - biased)) < 5 * error
    assert abs(float(biased - limit)) > 10 * error


def test_vcreg_at_one_is_the_covariance_form_of_the_spectral_loss(generator):
    z, z_pos = (rows - rows.mean(0) for rows in (normal(generator, 8, 3), normal(generator, 8, 3)))
    own, other, across = (a.T @ b / 8 for a, b in ((z, z), (z_pos, z_pos), (z, z_pos)))
    expected = 3 + (own.square().sum() + other.square().sum()) / 2 - 2 * trace(across)
    torch.testing.assert_close(vcreg(z, z_pos), expected, rtol=1e-13, atol=0)


def generalised(numerator, denominator):
    """Values r and vectors u with N u = r D u and u^T D u = 1."""
    values, axes = torch.linalg.eigh(denominator)
    root = axes / values.sqrt()
    ratio, turned = torch.linalg.eigh(root.T @ numerator @ root)
    return ratio, root @ turned


@pytest.mark.parametrize("invariance", [0.3, 1.0, 2.0])
def test_vcregs_flow_rests_where_the_batchs_moments_say(invariance, generator):
    x = normal(generator, 40, 4) @ (torch.eye(4) + normal(generator, 4, 4) / 4)
    x_pos = x + normal(generator, 40, 4) @ torch.diag(torch.tensor([0.1, 0.5, 0.8, 2.0]).double())
    s_e, a_e = PairMoments.from_pairs(x, x_pos, "one-sided").seen
    ratio, u = generalised(a_e / 2, s_e)
    rest = (u * (1 - invariance * ratio).clamp_min(0)) @ u.T
    start = (normal(generator, 4, 4),)
    objective = Objective("vcreg", invariance=invariance)
    path = sample_flow(start, Pairs(x, x_pos), 300.0, objective=objective, method="CVODE")
    gram = path.weights[0][-1].T @ path.weights[0][-1]
    # rtol 1e-8 per step, and what is left of modes that die.
    torch.testing.assert_close(gram, rest, rtol=0, atol=1e-6 * float(rest.abs().max()))


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_barlows_flow_whitens_a_space_of_positive_shared_covariance(scale, generator):
    x = normal(generator, 40, 4)
    x_pos = x @ torch.diag(torch.tensor([1.0, 0.7, 0.5, -0.5]).double()) + 0.1 * normal(generator, 40, 4)
    pairs = Pairs(torch.cat([x, x_pos]), torch.cat([x_pos, x]), "two-sided")
    moments = PairMoments.from_pairs(pairs.anchor, pairs.positive).shared
    g, v = torch.linalg.eigh(moments)
    assert int((g < 0).sum()) == 1  # negatively correlated views
    start = (scale * normal(generator, 4, 4),)
    path = sample_flow(start, pairs, 200.0, objective=Objective("barlow"), method="CVODE")
    p = path.weights[0][-1]
    held = torch.linalg.eigvalsh(p @ moments @ p.T)
    torch.testing.assert_close(held, torch.tensor([0.0, 1.0, 1.0, 1.0]).double(), rtol=0, atol=1e-6)
    # Any three directions on which G is positive will do. Those of G's eigenvectors win from a small start: along the
    # negative one the start decays before the others have grown.
    rest = (v * torch.where(g > 0, 1 / g, 0.0)) @ v.T
    error = float((p.T @ p - rest).abs().max() / rest.abs().max())
    assert error < 1e-5 if scale < 1 else error > 1e-2


@pytest.mark.parametrize("name", LOSSES)
def test_sgd_rests_at_the_variance_of_its_batch_size(name, generator):
    n, m, s, a, runs, lr = 64, 3, 1.0, 0.5, 32, 0.01
    task = GaussianTask.block(m, m, a, data_var=s, views="two-sided")
    objective = Objective(name, invariance=0.7 if name == "vcreg" else None)
    start = torch.eye(m, dtype=torch.float64).expand(runs, m, m) * 0.6
    path = train((start,), task.stream(n, generator, (runs,)), lr=lr, steps=1500, objective=objective)
    squares = path.weights[0][-1].square().sum((-2, -1)) / m  # p^2 of m equal modes
    # Minimise `expected_loss` over p^2 for equal modes of the signal s and of the variance s + a that views have.
    shrink, noise = 1 - 1 / n, (n - 1) / n**2
    if name == "vcreg":
        rest = (shrink - 0.7 * a / (s + a)) / (shrink**2 + noise * (1 + m)) / (s + a)
    else:
        rest = shrink / (shrink**2 + noise * (m * ((s + a) / s) ** 2 + 1)) / s
    # SGD's noise adds lr x (variance of a batch's gradient) / (2 x curvature) to every squared weight. In batches of 64
    # that variance is below the curvature, 8 (s + a)^2 rest or more, so that lr rest bounds it.
    bound = 5 * float(squares.std()) / runs**0.5 + lr * rest
    assert abs(float(squares.mean()) - rest) < bound
    assert bound < 0.1 * rest
