"""Modes that disturb each other: their effective variances, and when they are learnt, against population flows."""

import math

import pytest
import torch
from helpers.reference import VIEWS
from scipy.linalg import expm
from scipy.stats import spearmanr

from dyncollapse import GaussianTask, Objective, mode_forces, population_flow, rest_modes
from dyncollapse.theory.coupled_modes import along_directions, coupled_forces, effective_variances
from dyncollapse.theory.modes import relative_commutator

DIM = 6
LOSSES = ["infonce", "spectral", "vcreg", "barlow"]
# Largest factor between predicted and integrated times, and their least rank correlation, over the tasks below (four
# seeds; the median is within 1.25). Barlow's modes are independent of each other, up to the start's cross terms.
FACTOR, ORDER = 2.2, 0.9


def turned_task(seed, views):
    """Data and augmentation with variances over two decades, each in a basis of its own."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.linalg.qr(torch.randn(DIM, DIM, generator=generator, dtype=torch.float64))[0] for _ in range(2))
    data = torch.logspace(0.5, -1.5, DIM, dtype=torch.float64)
    noise = data if views == "two-sided" else torch.logspace(-0.5, -2, DIM, dtype=torch.float64)
    return GaussianTask(a * data @ a.T, b * noise @ b.T, views)


def settled_after(path, patterns, goal):
    """Time after which the variance along each mode stays at half of its rest value or above, and below three times."""
    product = path.product if path.product.ndim == 3 else path.product[:, 0]
    variance = (product @ patterns).square().sum(1)
    near = (variance >= goal) & (variance <= 3 * goal)
    last = len(near) - near.flip(0).logical_not().to(torch.int64).argmax(0)
    return torch.where(near[-1], path.time[last.clamp_max(len(near) - 1)], math.inf)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_times_are_those_of_the_population_flow(loss, views, weight_decay):
    task = turned_task(3, views)
    assert relative_commutator(task) > 0.1
    rest = rest_modes(task, loss, weight_decay=weight_decay)
    forces = coupled_forces(task, rest, loss, weight_decay=weight_decay)
    start = 1e-3 * torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    patterns = task.seen[0] @ rest.directions
    times = forces.learning_times(((start @ patterns).square().sum(0) / forces.view_var).sqrt())
    living = torch.isfinite(times)
    assert living.tolist() == rest.alive.tolist()
    grid = torch.linspace(0, 3 * float(times[living].max()), 800, dtype=torch.float64)
    path = population_flow((start,), task, grid, objective=Objective(loss), weight_decay=weight_decay)
    found = settled_after(path, patterns, rest.variance / 2)
    both = living & torch.isfinite(found)  # the negative correlations of barlow's start carry some beyond their rest
    assert int(both.sum()) >= (2 if loss == "barlow" else int(living.sum()))
    ratio = found[both] / times[both]
    assert float(ratio.min()) > 1 / FACTOR
    assert float(ratio.max()) < FACTOR
    assert spearmanr(found[both], times[both]).statistic >= ORDER


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("loss", LOSSES)
def test_commuting_covariances_have_the_forces_of_their_modes(loss, views):
    task = GaussianTask(torch.diag(torch.tensor([2.0, 1.0, 0.5])).double(), 0.3 * torch.eye(3).double(), views)
    coupled, single = coupled_forces(task, rest_modes(task, loss), loss), mode_forces(task, loss)
    for attribute in ("growth", "view_var"):
        torch.testing.assert_close(getattr(coupled, attribute).sort().values, getattr(single, attribute).sort().values)
    times, expected = (forces.learning_times(1e-2).sort().values for forces in (coupled, single))
    torch.testing.assert_close(times, expected)


def test_a_direction_is_learnt_with_the_mode_that_brings_half_of_its_variance():
    task = GaussianTask(torch.diag(torch.tensor([2.0, 1.0])).double(), torch.diag(torch.tensor([0.5, 1.0])).double())
    rest = rest_modes(task, "vcreg")  # variances 1 - rho = 7/8 and 1/2
    view_cov, angle = task.seen[0], torch.tensor([0.3, 1.4], dtype=torch.float64)
    white = torch.stack([angle.cos(), angle.sin()])  # one direction near each mode
    variance, time = along_directions(
        view_cov, rest, torch.diag(view_cov.diagonal().rsqrt()) @ white, torch.tensor([1.0, 9.0]).double()
    )
    torch.testing.assert_close(variance, 7 / 8 * angle.cos().square() + 1 / 2 * angle.sin().square())
    assert time.tolist() == [1.0, 9.0]


def test_effective_variances_give_the_slow_rate_of_two_coupled_modes():
    # dy/dt = y S along the modes, after the fast one is at rest: it follows, and the slow one has a Schur complement.
    among = torch.tensor([[4.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    values, turn = torch.linalg.eigh(among)
    directions = (turn / values.sqrt()) @ turn.T  # U with U^T S_e U = I, and W^T S_e W = S_e
    found = effective_variances(among, directions, torch.ones(2, dtype=torch.float64))
    assert found.tolist() == pytest.approx([4.0, 1 - 1 / 4])
    # The first mode held at rest against the growth of both: y1 = -y2 S12 / S11, the fixed point of its own fast decay.
    matrix = torch.tensor([[-1000 * 4.0, -1000.0], [1.0, 1.0]])
    slow = max(torch.linalg.eigvals(torch.tensor(expm(matrix.numpy() / 1000))).real.log().tolist()) * 1000
    assert slow == pytest.approx(0.75, rel=0.02)
