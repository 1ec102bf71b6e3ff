"""What CVODE adds to a flow: no matrices, allowances that end a run, and silence on the terminal."""

import importlib.util
import os
import sys
import tracemalloc

import pytest
import torch
from helpers.flow import population_problem

from dyncollapse import (
    FlowFailed,
    GaussianTask,
    Interrupted,
    Objective,
    gaussian_init,
    mode_flow,
    population_flow,
    sample_flow,
)
from dyncollapse.dynamics import _cvode

TIMES = [0.0, 0.3, 2.0, 6.0]


def test_it_is_the_default_and_the_same_to_the_bit_each_time(generator):
    weights, task = population_problem(generator)
    first, second = (population_flow(weights, task, TIMES) for _ in range(2))
    assert first.meta["method"] == "CVODE"
    assert torch.equal(first.product, second.product)
    assert first.time.tolist() == TIMES
    assert first.meta["jacobian_products"] == second.meta["jacobian_products"] > 0


def test_asking_for_more_times_changes_none_of_the_steps(generator):
    weights, task = population_problem(generator)
    few, many = (
        population_flow(weights, task, times) for times in (TIMES, torch.linspace(0, 6, 61, dtype=torch.float64))
    )
    assert few.meta["evaluations"] == many.meta["evaluations"]
    torch.testing.assert_close(many.product[[0, 3, 20, 60]], few.product, rtol=0, atol=1e-12)


def test_memory_grows_with_the_weights_and_not_with_their_square():
    weights = gaussian_init([64, 64, 64], torch.Generator().manual_seed(0), (), 0.1)
    tracemalloc.start()
    population_flow(weights, GaussianTask.block(64, 32, 1.5), 0.05)  # what a step needs is there from the first
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (2 * 64**2) ** 2 * 8 / 10  # a Jacobian has 512 MiB


@pytest.mark.parametrize("method", ["CVODE", "LSODA", "DOP853"])
def test_an_allowance_ends_a_flow_and_keeps_what_it_reached(method, generator):
    weights, task = population_problem(generator)
    whole = population_flow(weights, task, TIMES, method=method)
    with pytest.raises(
        FlowFailed, match=r"all 60 evaluations that it was allowed are used up\. .*max_evaluations"
    ) as ended:
        population_flow(weights, task, TIMES, method=method, max_evaluations=60)
    path = ended.value.trajectory
    assert 1 <= len(path.time) < 4
    assert 0 < ended.value.time < 6
    torch.testing.assert_close(path.product[0], whole.product[0], rtol=0, atol=0)
    with pytest.raises(ValueError, match="max_evaluations is 0; it must be a whole number of at least 1"):
        population_flow(weights, task, TIMES, method=method, max_evaluations=0)


def test_ctrl_c_inside_an_evaluation_keeps_the_record(generator, monkeypatch):
    weights, task = population_problem(generator)
    calls, velocity = [], _cvode.Calls.velocity

    def interrupted(self, tick, y, result):
        calls.append(tick)
        if len(calls) == 100:
            raise KeyboardInterrupt
        velocity(self, tick, y, result)

    monkeypatch.setattr(_cvode.Calls, "velocity", interrupted)
    with pytest.raises(Interrupted) as stopped:
        population_flow(weights, task, torch.linspace(0, 6, 61, dtype=torch.float64))
    assert 1 < len(stopped.value.trajectory.time) < 61


def test_a_blow_up_is_one_line_and_nothing_is_printed(capfd):
    # s' = s^3 for two equal layers: s = 1 reaches infinity at t = 1 / 2.
    values = [torch.ones(1, dtype=torch.float64)] * 2
    before = os.environ.get(_cvode.WARNINGS)
    with pytest.raises(FlowFailed, match=r"the flow cannot be continued beyond t = 0\.49999") as failed:
        mode_flow(values, torch.ones(1, dtype=torch.float64), [0.25, 1.0], method="CVODE")
    assert failed.value.time == pytest.approx(0.5, rel=1e-6)
    assert failed.value.trajectory.time.tolist() == [0.25]
    assert float(failed.value.trajectory.product) == pytest.approx(1 / (1 - 2 * 0.25), rel=1e-6)
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""
    assert os.environ.get(_cvode.WARNINGS) == before


def test_steps_that_are_lost_in_the_round_off_of_t_are_silent(capfd):
    start, depth = 1e-12, 2
    layers = (torch.diag(torch.tensor([0.7, start], dtype=torch.float64) ** (1 / depth)),) * depth
    task = GaussianTask(0.5 * torch.eye(2, dtype=torch.float64), 0.3 * torch.eye(2, dtype=torch.float64))
    path = population_flow(layers, task, 2 / (2 * start * 0.7))  # twice the escape time: a mode moves within 1 of 1e12
    assert float(path.product[0, 1, 1]) > 1
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_three_layers_need_no_preconditioner():
    weights = gaussian_init([8] * 4, torch.Generator().manual_seed(0), (), 0.3)
    task = GaussianTask.block(8, 4, 1.5)
    path, other = (population_flow(weights, task, 100.0, method=method) for method in ("CVODE", "LSODA"))
    torch.testing.assert_close(path.singular_values[-1][:4], other.singular_values[-1][:4], rtol=1e-6, atol=0)


@pytest.mark.parametrize("objective", [Objective(), Objective("dot", 1.0), Objective("spectral")], ids=str)
def test_it_rests_where_the_closed_form_says(objective):
    task = GaussianTask.block(4, 4, 0.5)
    path = population_flow(
        gaussian_init([4, 4], torch.Generator().manual_seed(0), (), 0.3), task, 1e4, objective=objective
    )
    other = population_flow(path.final(), task, 1e4, objective=objective, method="LSODA")
    assert path.meta["rest_time"] is not None
    torch.testing.assert_close(path.singular_values[-1], other.singular_values[-1], rtol=1e-8, atol=0)


def test_lsoda_stands_in_where_scikit_sundae_is_missing(generator, monkeypatch):
    weights, task = population_problem(generator)
    find = importlib.util.find_spec
    monkeypatch.setattr(_cvode, "find_spec", lambda name: None if name == "sksundae" else find(name))
    with pytest.warns(UserWarning, match="scikit-sundae is not installed, so LSODA integrates"):
        path = population_flow(weights, task, 1.0)
    assert path.meta["method"] == "LSODA"
    with pytest.raises(
        ValueError, match=r"method CVODE needs scikit-sundae, which has wheels .*; or choose method LSODA"
    ):
        population_flow(weights, task, 1.0, method="CVODE")


def test_a_flow_may_last_longer_than_anyone_waits(generator):
    weights, task = gaussian_init([2, 2], generator, (), 0.3), GaussianTask.block(2, 2, 0.5)
    path = population_flow(weights, task, [1e3, 1e60])
    torch.testing.assert_close(path.singular_values[1], path.singular_values[0], rtol=1e-7, atol=0)


@pytest.mark.parametrize(("given", "plain"), [(4, 12), (6, 4)])
def test_the_preconditioner_is_used_where_it_pays(given, plain):
    # Products per solution with it and without; the dearer way is tried again now and then.
    choice, used = _cvode.Choice(), []
    for _ in range(100):
        used.append(choice.using)
        choice.settle(given if choice.using else plain, 1)
    pays = given < plain
    assert used.count(pays) > 80
    assert (not pays) in used[2:]


def test_a_way_without_hope_is_tried_once():
    choice, used = _cvode.Choice(), []
    for _ in range(100):
        used.append(choice.using)
        choice.settle(1 if choice.using else 1000, 1)
    assert used.count(False) == 1


def test_modes_that_grow_for_ever_keep_their_digits():
    weights = gaussian_init([8, 8, 8], torch.Generator().manual_seed(0), (), 0.3)
    *grown, exact = (
        population_flow(weights, GaussianTask.block(8, 4, 1.5), 1e6, **settings).singular_values[-1][:4]
        for settings in ({"atol": 1e-6}, {"atol": None}, {"method": "LSODA", "rtol": 1e-11, "atol": 1e-13})
    )
    for found in grown:
        # A thousand steps of rtol 1e-8, of which CVODE takes three tenths.
        torch.testing.assert_close(found, exact, rtol=5e-7, atol=0)


def test_what_others_print_during_a_flow_is_printed(capsys):
    class Talking:
        def __call__(self, z, z_pos, _negatives):
            sys.stdout.write("said\n")
            return (z - z_pos).square().sum(-1).mean(-1)

    pairs = GaussianTask.block(3, 2, 0.7).sample(8, torch.Generator().manual_seed(0))
    start = gaussian_init([3, 2], torch.Generator().manual_seed(0))
    path = sample_flow(start, pairs, 1.0, objective=Objective(Talking()), method="CVODE")
    assert capsys.readouterr().out.count("said\n") >= path.meta["evaluations"]


def test_a_loss_with_a_gradient_of_its_own_needs_no_curvature():
    class Pull:
        def __call__(self, z, z_pos, _negatives):
            return (z - z_pos).square().sum(-1).mean(-1)

        def gradient(self, z, z_pos, _negatives):
            g = 2 * (z - z_pos) / z.shape[-2]
            return g, -g

    pairs = GaussianTask.block(3, 2, 0.7).sample(8, torch.Generator().manual_seed(0))
    start = gaussian_init([3, 2], torch.Generator().manual_seed(0))
    ends = [sample_flow(start, pairs, 1.0, objective=Objective(Pull()), method=m).product for m in ("CVODE", "DOP853")]
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-6)
