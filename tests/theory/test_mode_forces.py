import math

import pytest
import torch
from helpers.reference import VIEWS
from scipy.integrate import solve_ivp

from dyncollapse import GaussianTask, PairMoments, balanced_init, mode_forces, population_flow
from dyncollapse.theory.limits import population_limit

DIM = 4
RHO = torch.tensor([0.1, 0.4, 0.7, 1.3], dtype=torch.float64)
VIEW = torch.tensor([1.0, 0.5, 2.0, 0.8], dtype=torch.float64)
LOSSES = [
    ("infonce", None, None),
    ("dot", 0.5, None),
    ("spectral", None, None),
    ("vcreg", None, 0.8),
    ("barlow", None, None),
]


def task_of(views):
    if views == "one-sided":
        return GaussianTask(torch.diag(VIEW), torch.diag(2 * RHO * VIEW))
    return PairMoments.from_covariances(torch.diag(VIEW), torch.diag(VIEW * (1 - RHO)))


def mode_path(forces, k, start, depth, weight_decay, end):
    """p(end) of one mode by a solver, from dp/dt = L p (p^(2 - 2/L) x - w), in log p."""
    growth, s_e = float(forces.growth[k]), float(forces.view_var[k])
    repulsion = None if forces.repulsion is None else float(forces.repulsion[k])

    def velocity(_t, log_p):
        p = math.exp(log_p[0])
        c = p**2 * s_e
        drag = s_e * (2 - 1 / (1 + c) - 1 / (1 + c) ** 2) if repulsion is None else repulsion * c
        return [depth * (p ** (2 - 2 / depth) * (growth - drag) - weight_decay)]

    found = solve_ivp(velocity, (0, end), [math.log(start)], method="LSODA", rtol=1e-12, atol=1e-13)
    return math.exp(found.y[0, -1])


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("loss", LOSSES)
def test_forces_are_those_of_the_limit(loss, views):
    task = task_of(views)
    forces, limit = mode_forces(task, *loss), population_limit(task, *loss)
    torch.testing.assert_close(forces.growth, limit.growth.diagonal())
    torch.testing.assert_close(forces.at(torch.zeros(DIM).double()), forces.growth)
    c = torch.tensor([0.3, 0.7, 1.1, 0.2], dtype=torch.float64)
    if limit.repulsion is not None:
        squared = c / forces.view_var
        expected = limit.growth.diagonal() - limit.repulsion * limit.metric.diagonal().square() * squared
    else:
        expected = VIEW * (1 / (1 + c) + 1 / (1 + c) ** 2) - task.seen[1].diagonal()
    torch.testing.assert_close(forces.at(c), expected)
    rest = forces.rest_variance()
    alive = rest > 0
    assert float(forces.at(rest)[alive].abs().max()) < 1e-12
    torch.testing.assert_close(alive, forces.growth > 0)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_mode_is_at_the_level_when_predicted(loss, depth):
    forces = mode_forces(task_of("two-sided"), *loss)
    times = forces.learning_times(0.05, 0.5, depth=depth)
    assert times[-1] == math.inf  # dies
    for k in range(DIM - 1):
        p = mode_path(forces, k, 0.05, depth, 0.0, float(times[k]))
        assert p**2 * float(VIEW[k]) == pytest.approx(0.5 * float(forces.rest_variance()[k]), rel=1e-7)


def test_barlow_follows_its_sigmoid():
    # Simon et al. 2023: sigma(t) = e^(4 g t) / sqrt(sigma_0^-2 + (e^(8 g t) - 1) g), half of 1 / g at the time below.
    forces, start = mode_forces(task_of("two-sided"), "barlow"), 1e-3
    g = (VIEW * (1 - RHO))[:3]
    times = forces.learning_times(start, 0.5)[:3]
    squared = (8 * g * times).exp() / (start**-2 + torch.expm1(8 * g * times) * g)
    torch.testing.assert_close(squared, 0.5 / g, rtol=1e-9, atol=0)
    # Their step time -ln(sigma_0^2 g) / (8 g) is where the mode leaves the logistic's foot: half of 1 / g.
    torch.testing.assert_close(times, -(start**2 * g).log() / (8 * g), rtol=1e-4, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_weight_decay_of_one_layer_moves_the_rest_point(loss):
    forces, w = mode_forces(task_of("two-sided"), *loss), 0.4
    rest = forces.rest_variance(w)
    alive = rest > 0
    assert alive.tolist() == (forces.growth > w).tolist() == (forces.critical_weight_decay() > w).tolist()
    torch.testing.assert_close(
        forces.at(rest)[alive], torch.full((int(alive.sum()),), w, dtype=torch.float64), rtol=1e-10, atol=0
    )


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98, 1.02, 1.2])
@pytest.mark.parametrize("loss", LOSSES)
def test_two_layers_are_bistable_below_the_critical_weight_decay(loss, share):
    forces = mode_forces(task_of("two-sided"), *loss)
    critical = forces.critical_weight_decay(2)
    for k in range(3):
        w = share * float(critical[k])
        rest = float(forces.rest_variance(w, 2)[k] / VIEW[k]) ** 0.5
        assert (rest > 0) == (share < 1)
        if rest > 0:
            c = torch.full((DIM,), rest**2, dtype=torch.float64) * VIEW
            assert rest * float(forces.at(c)[k]) == pytest.approx(w, rel=1e-9)
        # Slow just beside the critical value, where the ghost of the rest point holds a mode up.
        end = 400 / (w * abs(share - 1) ** 0.5)
        for start, survives in ((3 * float(forces.rest_variance()[k].sqrt()), share < 1), (1e-3 * w, False)):
            p = mode_path(forces, k, start, 2, w, end)
            assert p == pytest.approx(rest if survives else 0.0, rel=1e-5, abs=1e-5)
            time = forces.learning_times(start, 0.5, w, 2)[k]
            assert float(time) == (0.0 if survives else math.inf)


def test_the_population_flow_of_two_layers_shows_the_hysteresis(generator):
    # The same weight decay: large starts live, small starts die.
    task = GaussianTask.block(3, 3, 0.3, 0.5)
    forces = mode_forces(task)
    w = 0.8 * float(forces.critical_weight_decay(2)[0])
    rest = float((forces.rest_variance(w, 2) / forces.view_var).sqrt()[0])
    for size, expected in ((2.0, rest), (0.05, 0.0)):
        weights = balanced_init([3, 3, 3], generator, (), size, 0.0)
        end = population_flow(weights, task, 400.0, weight_decay=w).singular_values[-1]
        torch.testing.assert_close(end, torch.full((3,), expected, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.learning_times(0.1, 1.0), "level is 1.0"),
        (lambda f: f.learning_times(-0.1), "negative singular value"),
        (lambda f: f.rest_variance(-1.0), "weight decay is -1"),
        (lambda f: f.critical_weight_decay(0), "depth is 0"),
    ],
)
def test_unusable_settings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(mode_forces(task_of("two-sided")))


def test_starts_at_the_level_and_at_zero():
    forces = mode_forces(task_of("two-sided"))
    assert forces.learning_times(100.0).tolist() == [0, 0, 0, math.inf]
    assert forces.learning_times(0.0).tolist() == [math.inf] * 4
    unbounded = mode_forces(GaussianTask.block(2, 1, 0.5, 0.5))
    assert unbounded.rest_variance()[0] == math.inf
    assert 0 < unbounded.learning_times(0.1)[0] < math.inf
