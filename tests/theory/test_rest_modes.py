import math

import pytest
import torch
from helpers.equilibria import root_of
from helpers.population_losses import LOSSES, minimised, population_value
from helpers.reference import EPS, VIEWS, normal, random_covariance

from dyncollapse import (
    GaussianTask,
    Objective,
    PairMoments,
    generalised_modes,
    modes,
    population_flow,
    rest_gram,
    rest_modes,
    rest_singular_values,
)
from dyncollapse.theory.limits import population_limit


def unlike_moments(generator, d=4, views="two-sided"):
    """Measured moments of dependent views: nothing commutes, and some directions are negatively correlated."""
    shared = normal(generator, 60, d) @ normal(generator, d, d)
    common = torch.linspace(-0.7, 1.5, d, dtype=torch.float64) * normal(generator, 60, d)
    x = shared + 0.7 * normal(generator, 60, d) + 2 * common.abs().sqrt() * common.sign()
    y = shared + 0.7 * normal(generator, 60, d) - 2 * common.abs().sqrt()
    return PairMoments.from_pairs(x, y, views)


def gaussian(generator, views, d=4):
    s, a = (0.2 * torch.eye(d, dtype=torch.float64) + random_covariance(generator, d) for _ in range(2))
    return GaussianTask(s, a, views)


TASKS = {
    "gaussian one-sided": lambda g: gaussian(g, "one-sided"),
    "gaussian two-sided": lambda g: gaussian(g, "two-sided"),
    "measured one-sided": lambda g: unlike_moments(g, views="one-sided"),
    "measured two-sided": unlike_moments,
}


def slope_at(p, task, *loss, **decay):
    p = p.clone().requires_grad_()
    return torch.autograd.grad(population_value(p, task, *loss, **decay), p)[0]


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", TASKS)
def test_brute_force_finds_the_rest_point(kind, loss, weight_decay, generator):
    task = TASKS[kind](generator)
    if loss[0] == "barlow" and not weight_decay and bool((torch.linalg.eigvalsh(task.shared) < 0).any()):
        weight_decay = 1e-3  # without any the minimum is not unique, see below
    found = rest_modes(task, loss[0], loss[1], invariance=loss[2], weight_decay=weight_decay)
    p = minimised(normal(generator, task.dim, task.dim) / 2, task, *loss, weight_decay=weight_decay)
    scale = float(found.gram.abs().max().clamp_min(1))
    # BFGS ends within about 1e-8 of the minimum in P; a mode that dies ends within sqrt(1e-16) of zero.
    torch.testing.assert_close(p.T @ p, found.gram, rtol=0, atol=1e-5 * scale)
    slope = slope_at(root_of(found.gram), task, *loss, weight_decay=weight_decay)
    assert float(slope.abs().max()) < 1e-6 * scale  # root of the round-off of dead modes
    alive = int((torch.linalg.eigvalsh(p.T @ p) > 1e-4 * scale).sum())
    assert int(found.alive.sum()) == alive


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss[0] != "barlow"])
@pytest.mark.parametrize("kind", TASKS)
def test_views_have_variance_one_along_each_direction(kind, loss, generator):
    task = TASKS[kind](generator)
    found = rest_modes(task, loss[0], loss[1], invariance=loss[2], weight_decay=0.1)
    u, eye = found.directions, torch.eye(task.dim, dtype=torch.float64)
    torch.testing.assert_close(u.T @ task.seen[0] @ u, eye, rtol=0, atol=1e-10)
    x0 = population_limit(task, *loss).growth - 0.1 * eye
    torch.testing.assert_close(u.T @ x0 @ u, torch.diag(found.growth), rtol=0, atol=1e-9)
    embedding = root_of(found.gram)
    variances = torch.linalg.eigvalsh(embedding @ task.seen[0] @ embedding.T).sort(descending=True).values
    torch.testing.assert_close(variances, found.variance.sort(descending=True).values, rtol=0, atol=1e-9)


@pytest.mark.parametrize("outputs", [1, 2, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_narrow_layers_keep_the_modes_of_largest_gain(loss, outputs, generator):
    task = gaussian(generator, "two-sided")
    decay = 0.01 if loss[0] == "barlow" else 0.0  # without any, all of its modes gain the same
    found = rest_modes(task, loss[0], loss[1], invariance=loss[2], outputs=outputs, weight_decay=decay)
    p = minimised(normal(generator, outputs, task.dim), task, *loss, weight_decay=decay)
    scale = float(found.gram.abs().max().clamp_min(1))
    torch.testing.assert_close(p.T @ p, found.gram, rtol=0, atol=1e-5 * scale)
    assert found.room.tolist() == [True] * outputs + [False] * (task.dim - outputs)


def test_barlow_without_weight_decay_has_many_minima():
    """Its loss is zero on any m modes, and along hyperbolas that mix in negatively correlated directions."""
    g = torch.diag(torch.tensor([1.0, 0.5, -0.5], dtype=torch.float64))
    task = PairMoments.from_covariances(torch.eye(3, dtype=torch.float64), g)
    for angle in (0.0, 0.7):
        p = torch.tensor([[0.0, 2**0.5 * math.cosh(angle), 2**0.5 * math.sinh(angle)]], dtype=torch.float64)
        assert float(population_value(p, task, "barlow")) < 1e-28
    # The rest point that is returned is that of vanishing weight decay.
    exact = rest_modes(task, "barlow", outputs=1)
    for weight_decay in (1e-3, 1e-6):
        torch.testing.assert_close(
            rest_modes(task, "barlow", outputs=1, weight_decay=weight_decay).gram, exact.gram, rtol=0, atol=weight_decay
        )


@pytest.mark.parametrize("views", VIEWS)
def test_each_loss_has_its_own_threshold_in_rho(views):
    # One axis for all losses: rho from 0 to 2 along commuting directions, two-sided with negatively correlated views.
    rho = torch.tensor([0.1, 0.4, 0.9, 1.0, 1.2, 1.7], dtype=torch.float64)
    s_e = torch.tensor([1.0, 2.0, 0.5, 1.0, 0.7, 3.0], dtype=torch.float64)
    if views == "two-sided":
        task = PairMoments.from_covariances(torch.diag(s_e), torch.diag(s_e * (1 - rho)))
    else:
        task = GaussianTask(torch.diag(s_e), torch.diag(2 * rho * s_e))
    u = (-1 + (1 + 8 * rho).sqrt()) / 2
    gamma = 1 - rho if views == "two-sided" else torch.ones_like(rho)
    expected = {
        ("infonce", None, None): torch.where(rho < 1, 1 / u - 1, 0.0),
        ("spectral", None, None): gamma.clamp_min(0),
        ("dot", 0.5, None): 0.5 * gamma.clamp_min(0),
        ("vcreg", None, 0.5): (1 - 0.5 * rho).clamp_min(0),
        ("vcreg", None, 2.0): (1 - 2 * rho).clamp_min(0),
        ("barlow", None, None): torch.where(gamma > 0, 1 / gamma, 0.0),
    }
    for (loss, temperature, invariance), variance in expected.items():
        found = rest_modes(task, loss, temperature, invariance=invariance)
        torch.testing.assert_close(found.variance.sort().values, variance.sort().values, rtol=1e-9, atol=1e-9)
        single = rest_singular_values(task, loss, temperature, invariance=invariance)
        data = modes(task)
        view = data.data_var + data.aug_var if views == "two-sided" else data.data_var
        torch.testing.assert_close((single.square() * view).sort().values, variance.sort().values, rtol=0, atol=1e-9)


def test_weight_decay_gives_two_sided_views_a_threshold():
    # a_e + w >= 2 s_e, that is w >= 2 s along each direction.
    task = GaussianTask.block(3, 3, 0.7, 0.5, "two-sided")
    assert rest_modes(task, weight_decay=0.999).alive.all()
    assert not rest_modes(task, weight_decay=1.001).alive.any()
    unaugmented = GaussianTask.block(2, 0, 0.0, 0.5)
    assert rest_modes(unaugmented).variance.isinf().all()
    assert rest_gram(unaugmented, weight_decay=0.1).isfinite().all()


@pytest.mark.parametrize("loss", ["spectral", "dot", "vcreg", "barlow"])
def test_inputs_without_data(loss, generator):
    root = normal(generator, 4, 2)
    task = GaussianTask(root @ root.T, 0.3 * root @ root.T, "two-sided")
    temperature = 0.5 if loss == "dot" else None
    if loss == "barlow":
        assert rest_modes(task, loss).alive.sum() == 2
    else:
        with pytest.raises(ValueError, match="2 of 4 input directions carry no data"):
            rest_modes(task, loss, temperature)
    decayed = rest_gram(task, loss, temperature, weight_decay=0.01)
    p = minimised(normal(generator, 4, 4), task, loss, temperature, weight_decay=0.01)
    torch.testing.assert_close(p.T @ p, decayed, rtol=0, atol=1e-5 * float(decayed.abs().max()))


def test_ratios_of_moments_may_exceed_one_under_two_sided_views(generator):
    task = unlike_moments(generator)
    ratio, u = generalised_modes(task)
    gamma = torch.linalg.eigvals(torch.linalg.solve(task.view_cov, task.shared)).real.sort(descending=True).values
    torch.testing.assert_close(ratio, 1 - gamma, rtol=0, atol=1e5 * EPS)
    assert int((ratio > 1).sum()) == int((gamma < 0).sum()) >= 1
    torch.testing.assert_close(u.T @ task.view_cov @ u, torch.eye(task.dim, dtype=torch.float64), rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match=r"do not commute .*rest_modes"):
        rest_singular_values(task)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "ntxent"}, "ntxent has no population limit in closed form"),
        ({"loss": "dot"}, "needs its temperature"),
        ({"loss": "spectral", "invariance": 2.0}, "the spectral loss has none"),
        ({"loss": "vcreg", "invariance": -1.0}, "finite and at least 0"),
        ({"weight_decay": -1.0}, "weight decay is -1"),
        ({"outputs": 0}, "outputs is 0"),
        ({"loss": "vcreg", "temperature": 0.1}, "temperature"),
    ],
)
def test_unusable_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        rest_modes(GaussianTask.block(2, 1), **settings)


# Covariances whose modes gain equally under some loss: by their views' variance, by their augmentation, or altogether.
TIES = {
    "one-sided, all gain 1": ([0.3, 2.0, 1.0], [0.2, 0.1, 0.4], "one-sided"),
    "one-sided, one variance": ([1.0, 1.0, 1.0], [0.5, 0.1, 3.0], "one-sided"),
    "two-sided, one rho": ([0.5, 2.0, 1.0], [0.25, 1.0, 0.5], "two-sided"),
    "two-sided, one signal": ([1.0, 1.0, 1.0], [0.7, 0.2, 1.5], "two-sided"),
}


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", TIES)
def test_modes_of_equal_gain_fill_the_outputs_in_one_order(kind, loss, outputs, generator):
    data, aug, views = TIES[kind]
    frame = torch.linalg.qr(normal(generator, 3, 3))[0]
    s, a = (frame * torch.tensor(values, dtype=torch.float64) @ frame.T for values in (data, aug))
    task, name = GaussianTask(s, a, views), loss[:2]
    for decay in (0.0, 0.05):
        given = {"invariance": loss[2], "weight_decay": decay, "outputs": outputs}
        single, common = rest_singular_values(task, *name, **given), modes(task).directions
        gram = rest_gram(task, *name, **given)
        torch.testing.assert_close(gram, common * single.square() @ common.T, rtol=0, atol=1e-9)
        assert int((single > 0).sum()) == outputs


def test_the_fastest_of_equal_modes_is_the_one_that_fills_an_output():
    task = GaussianTask(torch.diag(torch.tensor([0.5, 2.0, 1.0])).double(), 0.1 * torch.eye(3).double())
    assert rest_gram(task, "spectral", outputs=1).diagonal().tolist() == [0.0, pytest.approx(0.5), 0.0]
    start = 1e-7 * torch.randn(1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    path = population_flow((start,), task, 9.0, objective=Objective("spectral"))
    torch.testing.assert_close(path.product[-1].abs(), torch.tensor([[0.0, 0.5**0.5, 0.0]]).double(), rtol=0, atol=1e-2)
