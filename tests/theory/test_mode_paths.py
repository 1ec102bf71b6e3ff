"""Paths of single modes: against the flow, closed solutions, the times of `learning_times`, and limits."""

import math

import pytest
import torch

from dyncollapse import GaussianTask, ModeForces, Objective, mode_forces, mode_paths, population_flow
from dyncollapse.theory.modes import modes

AUGMENTATION = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0, 1.5, 3.0], dtype=torch.float64)
TIME = torch.cat([torch.zeros(1), torch.logspace(-1, 2, 20)]).double()


def task_of(views="one-sided"):
    return GaussianTask(0.5 * torch.eye(len(AUGMENTATION)).double(), torch.diag(AUGMENTATION), views)


@pytest.mark.parametrize(
    ("loss", "views", "depth", "decay", "start"),
    [
        ("infonce", "one-sided", 1, 0.0, 0.01),
        ("infonce", "one-sided", 1, 0.05, 3.0),
        ("infonce", "two-sided", 3, 0.0, 0.1),
        ("infonce", "one-sided", 2, 0.02, 0.1),  # some modes are below the unstable point
        ("spectral", "two-sided", 2, 0.0, 0.05),
        ("vcreg", "one-sided", 1, 0.0, 2.0),
        ("barlow", "two-sided", 1, 0.0, 0.01),
    ],
)
def test_paths_are_those_of_the_population_flow_from_a_balanced_aligned_start(loss, views, depth, decay, start):
    task = task_of(views)
    layers = (start ** (1 / depth) * torch.eye(task.dim).double(),) * depth
    flow = population_flow(
        layers, task, TIME, objective=Objective(loss), weight_decay=decay, rtol=1e-9, atol=1e-14 * start
    )
    found = mode_paths(mode_forces(task, loss), torch.full((task.dim,), start), TIME, decay, depth)
    order = modes(task).directions.abs().argmax(0)
    wanted = flow.product.diagonal(dim1=-2, dim2=-1)[:, order]
    alive = wanted > 1e-9 * start
    assert torch.allclose(found[alive], wanted[alive], rtol=1e-5, atol=0)  # the flow's tolerance, over its steps
    assert bool((found[~alive] <= 2e-9 * start).all())


def test_a_loss_of_fourth_order_has_the_logistic_solution():
    forces = ModeForces(torch.tensor([2.0, -1.0]), torch.ones(2), torch.zeros(2), torch.tensor([4.0, 4.0]))
    start = torch.tensor([0.1, 0.3], dtype=torch.float64)
    growth, time = forces.growth.double(), TIME[:, None]
    grown = (2 * growth * time).exp()
    square = start.square() * grown / (1 + 4 * start.square() * (grown - 1) / growth)
    assert torch.allclose(mode_paths(forces, start, TIME), square.sqrt(), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("depth", "decay"), [(1, 0.0), (2, 0.0), (3, 0.0), (1, 0.05), (2, 0.02)])
def test_paths_pass_their_level_at_the_learning_time(depth, decay):
    forces, start, level = mode_forces(task_of()), 0.2, 0.3
    times = forces.learning_times(start, level, decay, depth)
    variance = level * forces.rest_variance(decay, depth)
    known = times.isfinite() & (times > 0) & variance.isfinite()
    assert bool(known.any())
    for k in known.nonzero().flatten().tolist():
        path = mode_paths(forces, torch.full((len(times),), start), times[k].reshape(1), decay, depth)
        assert float(path[0, k].square() * forces.view_var[k]) == pytest.approx(float(variance[k]), rel=1e-6)


def test_paths_end_at_rest_and_do_not_turn():
    forces = mode_forces(task_of("two-sided"))
    for start in (1e-5, 0.3, 5.0):
        time = torch.cat([TIME, torch.tensor([1e4, 1e8]).double()])
        path = mode_paths(forces, torch.full((len(AUGMENTATION),), start), time)
        rest = (forces.rest_variance() / forces.view_var).sqrt()
        finite = rest.isfinite()
        assert torch.allclose(path[-1, finite], rest[finite], rtol=1e-8)
        steps = path.diff(dim=0)
        assert bool(((steps >= -1e-12).all(0) | (steps <= 1e-12).all(0)).all())
        # Without augmentation nothing stops the growth: c' = 2 c x with x = s / c once c is large.
        assert float(path[-1, 0].square() * 0.5) == pytest.approx(1e8, rel=1e-3)


def test_modes_at_the_threshold_and_at_zero_stay_or_decay_slowly():
    forces = ModeForces(torch.zeros(2), torch.ones(2), torch.ones(2), torch.ones(2))
    path = mode_paths(forces, torch.tensor([0.0, 0.5]), TIME)
    assert bool((path[:, 0] == 0).all())
    assert torch.allclose(path[:, 1], 1 / (4 + 2 * TIME).sqrt())  # p' = -p^3
    still = ModeForces(torch.zeros(1), torch.ones(1), torch.ones(1), torch.zeros(1))
    assert bool((mode_paths(still, torch.tensor([0.7]), TIME) == torch.tensor(0.7).double()).all())


def test_restarted_midway_a_path_goes_on():
    forces, start = mode_forces(task_of()), torch.full((len(AUGMENTATION),), 0.05).double()
    whole = mode_paths(forces, start, torch.tensor([3.0, 8.0]), depth=2)
    second = mode_paths(forces, whole[0], torch.tensor([5.0]), depth=2)
    assert torch.allclose(second[0], whole[1], rtol=1e-7)


def test_no_modes_and_no_times_give_empty_paths():
    forces = mode_forces(task_of())
    assert mode_paths(forces, torch.ones(len(AUGMENTATION)), torch.zeros(0)).shape == (0, len(AUGMENTATION))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"start": torch.tensor([-1.0] * 7)}, "start"),
        ({"start": torch.tensor([math.nan] * 7)}, "start"),
        ({"time": torch.tensor([1.0, 0.5])}, "time"),
        ({"time": torch.tensor([math.inf])}, "time"),
        ({"weight_decay": -1.0}, "weight decay"),
        ({"depth": 0}, "depth"),
    ],
)
def test_unusable_arguments_are_refused(change, word):
    given = {"forces": mode_forces(task_of()), "start": torch.ones(7), "time": torch.ones(1), **change}
    with pytest.raises(ValueError, match=word):
        mode_paths(**given)
