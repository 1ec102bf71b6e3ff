"""Starts of any size escape from zero when the exact solution says, dead modes decay as it says, signs stay."""

import math

import numpy as np
import pytest
import torch
from helpers.reference import escape_duration, normal, population_mode_force

from dyncollapse import (
    FlowFailed,
    GaussianTask,
    Objective,
    Pairs,
    end_to_end,
    escape_time,
    frozen_flow,
    gaussian_init,
    mode_flow,
    population_flow,
    sample_flow,
)

DATA_VAR, TARGET = 0.5, 0.1
STARTS = [1e-2, 1e-5, 1e-11, 1e-40, 1e-150]


def diagonal(*values, depth=1):
    return (torch.diag(torch.tensor(values, dtype=torch.float64) ** (1 / depth)),) * depth


def block(*aug_vars):
    aug_cov = torch.diag(torch.tensor(aug_vars, dtype=torch.float64))
    return GaussianTask(DATA_VAR * torch.eye(len(aug_vars), dtype=torch.float64), aug_cov)


def crossing(time, error):
    """Times at which a mode that is right to a relative `error` in time is below and above its target."""
    return [time * (1 - error), time * (1 + error)]


@pytest.mark.parametrize("method", ["DOP853", "LSODA", "CVODE"])
@pytest.mark.parametrize("start", STARTS)
def test_one_layer_escapes_at_the_exact_time_from_any_start(start, method):
    # Beside it a mode that rests from the start, and one that is dead.
    time = escape_duration(start, TARGET, population_mode_force(DATA_VAR, 0.3), 1)
    path = population_flow(diagonal(0.7, start, start), block(0.3, 0.3, 1.3), crossing(time, 1e-6), method=method)
    before, after = path.product[:, 1, 1].tolist()
    assert before < TARGET < after
    dead = path.product[-1, 2, 2].item()
    # x = -0.3, constant to p^2: exp(-0.3 t) until it is lost in round-off of its start.
    assert dead == pytest.approx(start * math.exp(-0.3 * time), rel=1e-3 + start**2, abs=1e-15 * start)
    assert dead > -1e-15 * start
    assert path.product[0, 0, 0] > 1  # which rests at 1.655
    # The law of theory.md 5f says the same but for what it leaves out: the force that fades as p comes near 0.1.
    assert escape_time(start, TARGET, 0.7) == pytest.approx(time, abs=0.1)


@pytest.mark.parametrize("method", ["BDF", "Radau", "RK45"])
def test_other_methods_escape_from_small_starts_too(method):
    time = escape_duration(1e-14, TARGET, population_mode_force(DATA_VAR, 0.3), 1)
    path = population_flow(diagonal(0.7, 1e-14), block(0.3, 0.3), crossing(time, 1e-5), method=method, rtol=1e-7)
    assert path.product[0, 1, 1] < TARGET < path.product[1, 1, 1]


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("start", [1e-3, 1e-6, 1e-12])
def test_deep_networks_escape_at_the_exact_time(start, depth):
    time = escape_duration(start, TARGET, population_mode_force(DATA_VAR, 0.3), depth)
    path = population_flow(diagonal(0.7, start, depth=depth), block(0.3, 0.3), crossing(time, 1e-5))
    assert path.product[0, 1, 1] < TARGET < path.product[1, 1, 1]
    # The law leaves out what the target and the fading force change: a share of about (start / target)^(2 - 2/L).
    assert path.product[1, 1, 1] == pytest.approx(1.655248668, rel=1e-6) or start > 1e-12  # rests by then
    law = escape_time(start, TARGET, 0.7, depth)
    assert law == pytest.approx(time, rel=2 * (start / TARGET) ** (2 - 2 / depth) + 1e-9)


@pytest.mark.parametrize("method", ["DOP853", "LSODA", "CVODE"])
@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("start", [1e-14, 1e-40, 1e-150])
def test_deep_networks_wait_for_a_power_of_any_start(start, depth, method):
    # Half of the escape time is left to a mode 2^(1 / (2 - 2/L)) times as large; the dead one decays by the same law.
    half, power = escape_time(start, 1.0, 0.7, depth) / 2, 2 - 2 / depth
    path = population_flow(diagonal(start, start, depth=depth), block(0.3, 1.3), half, method=method)
    grown, dead = path.product[0].diagonal().tolist()
    assert grown == pytest.approx(start * 2 ** (1 / power), rel=1e-5)
    assert dead == pytest.approx(start * (1 + 0.3 / 1.4) ** (-1 / power), rel=1e-5)


@pytest.mark.parametrize("method", ["DOP853", "LSODA", "CVODE"])
def test_runs_of_different_sizes_escape_each_at_its_own_time(method):
    starts = (1e-3, 1e-30, 1e-150)
    times = [escape_duration(s, TARGET, population_mode_force(DATA_VAR, 0.3), 1) for s in starts]
    weights = torch.stack([diagonal(0.7, s)[0] for s in starts])
    asked = [moment for time in times for moment in crossing(time, 1e-6)]
    path = population_flow((weights,), block(0.3, 0.3), asked, method=method)
    for run in range(len(starts)):
        before, after = path.product[2 * run : 2 * run + 2, run, 1, 1].tolist()
        assert before < TARGET < after


@pytest.mark.parametrize(
    ("loss", "start"), [("infonce", 1e-3), ("infonce", 1e-150), ("dot", 1e-14), ("spectral", 1e-14)]
)
def test_sample_flow_escapes_at_the_exact_time_from_any_start(loss, start):
    x, noise = normal(torch.Generator().manual_seed(0), 2, 8, 1)
    x_pos = x + 0.3 * noise
    pairs, objective = Pairs(x, x_pos, "two-sided"), Objective(loss, 1.0 if loss == "dot" else None)

    def force(p):
        # dp/dt = p x(p), from autograd on the loss, one p at a time as its own run.
        layers = torch.from_numpy(p.reshape(-1, 1, 1)).requires_grad_()
        (slope,) = torch.autograd.grad(objective.value((layers,), pairs).sum(), layers)
        return (-slope / layers).detach().numpy().reshape(p.shape)

    time = escape_duration(start, TARGET, force, 1)
    path = sample_flow(
        (torch.full((1, 1), start, dtype=torch.float64),), pairs, crossing(time, 1e-6), objective=objective
    )
    assert path.product[0] < TARGET < path.product[1]


@pytest.mark.parametrize("method", ["DOP853", "RK45", "LSODA"])
@pytest.mark.parametrize("start", [1e-3, 1e-14, 1e-150])
def test_frozen_and_mode_flow_of_one_layer_grow_by_exponentials(start, method):
    rates = torch.tensor([1.0, 0.7, -0.5], dtype=torch.float64)
    time, values = math.log(TARGET / start), torch.full((3,), start, dtype=torch.float64)
    paths = (
        frozen_flow((torch.diag(values),), torch.diag(rates), time, method=method),
        mode_flow([values], rates, time, method=method),
    )
    for path in paths:
        found = path.product[0].diagonal()
        # Each of up to some thousand steps adds up to 1e-8.
        torch.testing.assert_close(found[:2], (values * torch.exp(rates * time))[:2], rtol=1e-5, atol=0)
        assert float(found[2]) == pytest.approx(start * math.exp(-0.5 * time), rel=1e-4, abs=1e-15 * start)


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("start", [1e-2, 1e-14, 1e-100, 1e-150])
def test_blow_up_time_is_reported_from_any_start(start, depth):
    # p' = L p^(3 - 2/L) x is infinite at t = p0^-(2 - 2/L) / (2 (L - 1) x).
    exact = start ** -(2 - 2 / depth) / (2 * (depth - 1) * 0.7)
    values = [torch.full((1,), start ** (1 / depth), dtype=torch.float64)] * depth
    force = torch.full((1,), 0.7, dtype=torch.float64)
    flows = (
        lambda until: mode_flow(values, force, [0.5 * exact, until]),
        lambda until: frozen_flow(tuple(torch.diag(v) for v in values), torch.diag(force), [0.5 * exact, until]),
    )
    for flow in flows:
        with pytest.raises(FlowFailed, match=r"beyond t = [\d.e+]+ of [\d.e+]+, where the largest") as failed:
            flow(1.1 * exact)
        assert failed.value.time == pytest.approx(exact, rel=1e-6)
        path = failed.value.trajectory
        assert path.time.tolist() == [0.5 * exact]
        # Half of the time is left to a mode 2^(1 / (2 - 2/L)) times as large.
        assert float(path.product) == pytest.approx(start * 2 ** (1 / (2 - 2 / depth)), rel=1e-5)


@pytest.mark.parametrize(("atol", "until"), [(None, 105.0), (0.0, 900.0)])
@pytest.mark.parametrize("method", ["DOP853", "LSODA", "CVODE"])
def test_dead_modes_of_a_random_start_decay_as_they_should(method, atol, until, generator):
    weights, task = gaussian_init([4, 4], generator, (), 0.1), block(0.3, 0.3, 1.3, 1.3)
    times = [60.0, until]
    path = population_flow(weights, task, times, method=method, atol=atol)
    # Rows of P orthogonal to its living columns see x = s (1 + 1) - a = -0.3 once P is small along the dead ones.
    living = torch.linalg.qr(path.product[..., :2]).Q
    dead = path.product[..., 2:] - living @ (living.mT @ path.product[..., 2:])
    sizes = dead.abs().amax((-2, -1))
    assert float(sizes[1] / sizes[0]) == pytest.approx(math.exp(-0.3 * (until - 60)), rel=1e-3)
    # Far below what an absolute tolerance of 1e-10 leaves.
    assert float(sizes[1]) < (1e-14 if atol is None else 1e-110)


def test_relative_tolerance_is_refused_where_a_weight_starts_at_exactly_zero(generator):
    task = GaussianTask(torch.eye(2, dtype=torch.float64), torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"atol is 0, but 2 weight\(s\) are exactly 0 at the start and move"):
        population_flow(diagonal(0.1, 0.1), task, 1.0, atol=0)
    for flow in (
        lambda: population_flow(diagonal(0.1, 0.1), block(0.3, 0.3), 1.0, atol=0),  # zeros that stay
        lambda: population_flow(gaussian_init([2, 2], generator), task, 1.0, atol=0),
        lambda: sample_flow(gaussian_init([2, 2], generator), task.sample(8, generator), 1.0, atol=0),
        lambda: mode_flow([torch.ones(2)], torch.ones(2), 1.0, atol=0),
    ):
        assert flow().meta["atol"] == 1e-300


@pytest.mark.parametrize("start", [1e-3, 1e-14, 1e-150])
def test_relu_networks_escape_from_any_start(start):
    # One positive sample and one negative: each half of a two-layer network is linear, and so is its escape.
    x = torch.tensor([[1.0], [0.4], [-0.5]], dtype=torch.float64)
    pairs, objective = Pairs(x, 1.1 * x), Objective(activation="relu")
    layers = (torch.full((1, 1), start, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    linear = Pairs(x.clamp_min(0), (1.1 * x).clamp_min(0))
    path = sample_flow(layers, pairs, 3.0, objective=objective)
    exact = sample_flow(layers, linear, 3.0)
    assert float(path.product / start) == pytest.approx(float(exact.product / start), rel=1e-3)
    assert float(path.product) > 1.1 * start
    assert path.meta["atol"] == pytest.approx(1e-5 * start)


def test_tolerances_follow_the_smallest_scale_of_each_weight():
    eps = np.finfo(float).eps
    path = population_flow(diagonal(0.5, 1e-40), block(0.3, 0.3), 1.0)
    assert path.meta["atol"] == pytest.approx(eps * 1e-40)
    assert path.meta["largest_atol"] == pytest.approx(eps * 0.5)
    assert population_flow(diagonal(1e9, 1e9), block(0.3, 0.3), 1.0).meta["largest_atol"] == pytest.approx(1e-10)
    assert population_flow((torch.zeros(2, 2),), block(0.3, 0.3), 1.0).meta["atol"] == pytest.approx(eps)
    given = population_flow(diagonal(0.5, 1e-40), block(0.3, 0.3), 1.0, atol=1e-7)
    assert given.meta["atol"] == given.meta["largest_atol"] == 1e-7


@pytest.mark.parametrize("method", ["DOP853", "RK45", "LSODA", "CVODE"])
@pytest.mark.parametrize("depth", [1, 2])
def test_signs_of_modes_stay(depth, method):
    # No mode of an aligned flow crosses zero, large steps or not.
    starts = (0.5, -1e-3, 1e-6, -1e-14)
    top = torch.diag(torch.tensor(starts, dtype=torch.float64).abs() ** (1 / depth))
    signs = torch.diag(torch.tensor(starts, dtype=torch.float64).sign())
    path = population_flow(
        (top @ signs, *(top,) * (depth - 1)), block(0.3, 0.3, 1.3, 0.3), torch.linspace(1, 80, 80), method=method
    )
    modes = path.product.diagonal(dim1=-2, dim2=-1)
    assert (modes.sign() == torch.tensor(starts).sign()).all()
    assert torch.equal(end_to_end(path.final()), path.product[-1])
