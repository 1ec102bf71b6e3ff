"""Flows that leave the range of numbers end early and say so, by any method; times and starts out of range."""

import math

import numpy as np
import pytest
import torch

from dyncollapse import FlowFailed, GaussianTask, Objective, frozen_flow, mode_flow, population_flow, sample_flow
from dyncollapse.dynamics.solver import METHODS

ONE, EYE = torch.ones(1, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
BLOCK = GaussianTask.block(2, 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("depth", [2, 3])
def test_a_blow_up_ends_soon_by_any_method(method, depth):
    # Equal layers of 1: p' = L p^(3 - 2/L) is infinite at t = 1 / (2 (L - 1)).
    exact = 1 / (2 * (depth - 1))
    with pytest.raises(
        FlowFailed, match=r"the flow cannot be continued beyond t = .*infinity in finite time"
    ) as failed:
        mode_flow([ONE] * depth, ONE, [exact / 2, 1.0], method=method, rtol=1e-6, max_evaluations=20_000)
    assert failed.value.time == pytest.approx(exact, rel=1e-4)
    assert "evaluations" not in str(failed.value)
    assert failed.value.trajectory.time.tolist() == [exact / 2]


@pytest.mark.parametrize("method", METHODS)
def test_exponential_growth_ends_at_the_largest_number(method):
    with pytest.raises(FlowFailed, match=r"its weights leave the range of numbers, which ends at 1e\+290") as failed:
        mode_flow([1e140 * ONE], ONE, [1.0, 1e4], method=method, rtol=1e-3)
    assert failed.value.time == pytest.approx(150 * math.log(10), abs=5)
    assert float(failed.value.trajectory.product[0]) == pytest.approx(1e140 * math.e, rel=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_a_thousandfold_growth_at_a_late_time_is_no_blow_up(method):
    # Two equal layers of size 1e-4 wait 5e7 for their escape, and rest soon after.
    path = population_flow((1e-4 * EYE[:1, :1],) * 2, GaussianTask.block(1, 0), [1e7, 1e9], method=method, rtol=1e-4)
    assert float(path.product[0]) < 1e-7
    assert float(path.product[1]) > 1


class Barrier:
    """Pushes P up to 1/2, where its force ends."""

    def __call__(self, z, _z_pos, _negatives):
        return -z.square().sum(-1).mean(-1)

    def population_loss(self, product, _task):
        return -product.square().sum((-2, -1))

    def population_force(self, product, _task):
        return 2 * torch.eye(product.shape[-1], dtype=product.dtype) * (0.5 - product.abs().amax((-2, -1))).log() / -1


@pytest.mark.parametrize("method", ["CVODE", "LSODA", "BDF", "DOP853"])
def test_a_velocity_that_ends_is_said_to_be_that_of_the_own_loss(method):
    with pytest.raises(FlowFailed, match="beyond it the velocity, from the loss Barrier, is NaN or infinite") as failed:
        population_flow((0.1 * EYE,), BLOCK, [0.01, 1e3], objective=Objective(Barrier()), method=method)
    assert failed.value.trajectory.time.tolist() == [0.01]
    assert 0.1 < float(failed.value.trajectory.product.max()) < 0.5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1e155, 1e200, 1e295])
def test_a_start_out_of_range_is_refused(size, method):
    refused = r"at the start, where the largest weight is 1e\+\d+, the loss or the velocity is NaN.*of another size"
    with pytest.raises(ValueError, match=refused):
        population_flow((size * EYE,), BLOCK, 1.0, method=method)
    with pytest.raises(ValueError, match=refused):
        sample_flow((size * EYE,), BLOCK.sample(8, torch.Generator().manual_seed(0)), 1.0, method=method)


@pytest.mark.parametrize("size", [1e10, 1e100, 1e145])
def test_a_large_start_is_as_quick_as_others(size):
    path = population_flow((size * EYE,), BLOCK, 1.0, max_evaluations=2000)
    # Augmentation of variance 1 along the second input shrinks it; nothing moves the first.
    assert float(path.product[0, 0, 0] / size) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("time", [1e-150, 1e-100, 1e-20, 5e-16])
def test_early_times_are_right(time, method):
    path = population_flow((0.5 * EYE,), BLOCK, [0.0, time], method=method)
    assert path.time.tolist() == [0.0, time]
    torch.testing.assert_close(path.product[1], path.product[0], rtol=0, atol=2e-15)
    moved = frozen_flow((0.5 * EYE,), EYE / time, time, method=method)
    assert float(moved.product[0, 0, 0]) == pytest.approx(0.5 * math.e, rel=1e-6)


@pytest.mark.parametrize("time", [5e-324, 1e-310, 1e-200, [0.0, 1e-305], [1e-300, 1.0]])
def test_times_too_close_to_the_start_are_refused(time):
    with pytest.raises(ValueError, match=r"a time is [\d.e-]+; times above 0 must be at least 1e-150"):
        population_flow((0.5 * EYE,), BLOCK, time)
    with pytest.raises(ValueError, match="must be at least 1e-150"):
        frozen_flow((EYE,), EYE, time, method="expm")


@pytest.mark.parametrize("method", ["CVODE", "LSODA", "DOP853"])
def test_times_that_round_to_one_tick_are_all_recorded(method):
    times = [0.0, 9.0, np.nextafter(9.0, 10.0)]
    path = population_flow((0.5 * EYE,), BLOCK, times, method=method)
    assert path.time.tolist() == times
    torch.testing.assert_close(path.product[2], path.product[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [1e-300, 1e-170])
def test_a_temperature_whose_square_underflows_is_refused_in_one_line(temperature):
    with pytest.raises(ValueError, match=r"at the start, .* the loss or the velocity is NaN, infinite or out of range"):
        population_flow((EYE,), BLOCK, 1.0, objective=Objective("dot", temperature))


@pytest.mark.parametrize("temperature", [1e170, 1e300])
def test_a_temperature_whose_square_overflows_leaves_the_weights_where_they_are(temperature):
    path = population_flow((EYE,), BLOCK, 1.0, objective=Objective("dot", temperature))
    torch.testing.assert_close(path.weights[0][-1], EYE, rtol=1e-12, atol=0)
