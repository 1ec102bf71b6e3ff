import math

import pytest
import torch
from helpers.equilibria import LOSSES, task_in
from helpers.reference import VIEWS, rotation

from dyncollapse import FlowFailed, Objective, escape_time, growth_rates, mode_flow, modes, population_force


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
def test_growth_rates_are_the_force_at_zero(loss, temperature, views, generator):
    task = task_in(rotation(generator, 4), [0.5, 2, 1, 0.7], [1.2, 0.4, 3, 0.1], views)
    force = population_force(torch.zeros(2, 4, dtype=torch.float64), task, Objective(loss, temperature))
    v = modes(task).directions
    expected = (v.T @ force @ v).diagonal()
    torch.testing.assert_close(growth_rates(task, loss, temperature), expected, rtol=1e-12, atol=1e-12)


def test_one_layer_escapes_exponentially():
    start = torch.full((1,), 1e-3, dtype=torch.float64)
    at = escape_time(1e-3, 0.5, 0.7)
    path = mode_flow([start], torch.tensor([0.7], dtype=torch.float64), at)
    assert float(path.product[-1]) == pytest.approx(0.5, rel=1e-7)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_deeper_modes_escape_where_their_flow_blows_up(depth):
    p0, growth = 1e-2, 0.7
    at = escape_time(p0, 1.0, growth, depth)
    layers = [torch.full((1,), p0 ** (1 / depth), dtype=torch.float64)] * depth
    force = torch.tensor([growth], dtype=torch.float64)
    assert float(mode_flow(layers, force, 0.5 * at).product[-1]) < 10 * p0
    # p' = L p^(3 - 2/L) x0 reaches infinity at t_esc, where p has grown by (1 - t / t_esc)^(-L / (2 L - 2)).
    near = float(mode_flow(layers, force, 0.999 * at, rtol=1e-11).product[-1])
    assert near == pytest.approx(p0 * 1e-3 ** (-depth / (2 * depth - 2)), rel=1e-5)
    with pytest.raises(FlowFailed):
        mode_flow(layers, force, 1.001 * at)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_escape_time_has_its_limits(depth):
    assert escape_time(0.5, 0.5, 1.0, depth) == 0
    assert escape_time(0.6, 0.5, 1.0, depth) == 0
    for start, target, growth in ((0.1, 0.5, 0.0), (0.1, 0.5, -1.0), (0.0, 0.5, 1.0), (0.1, 0.0, 1.0)):
        assert escape_time(start, target, growth, depth) == math.inf
    assert escape_time(0.1, 0.5, 0.5, depth) == pytest.approx(2 * escape_time(0.1, 0.5, 1.0, depth))
    later = [escape_time(start, 0.5, 1.0, depth) for start in (1e-1, 1e-3, 1e-6)]
    assert later == sorted(later)
    assert later[0] > 0
    assert math.isfinite(escape_time(0.1, math.inf, 1.0, depth)) == (depth > 1)


def test_escape_times_leave_no_range_and_no_nan():
    # Twenty layers from 1e-200: p^-(2 - 2/20) overflows, and "never" is what is left.
    assert escape_time(1e-200, 1.0, 1.0, 20) == math.inf
    assert escape_time(1e-320, 1.0, 1.0, 3) == math.inf
    assert math.isfinite(escape_time(1e-100, 1.0, 1.0, 20))
    assert escape_time(0.0, 1.0, 1.0, 3) == math.inf
    nan = float("nan")
    for bad in ((nan, 1, 1), (0.1, nan, 1), (0.1, 1, nan), (-0.1, 1, 1)):
        with pytest.raises(ValueError, match="values are at least 0, none NaN"):
            escape_time(*bad)
    for depth in (0, 1.5, -1):
        with pytest.raises(ValueError, match="a network has at least 1 layer"):
            escape_time(0.1, 1.0, 1.0, depth)
