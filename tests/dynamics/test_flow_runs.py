"""Flows that take their runs one by one, on any number of threads, and statistics along the way."""

import numpy as np
import pytest
import torch
from helpers.flow import draw, population_problem, stop_after

from dyncollapse import (
    FlowFailed,
    GaussianTask,
    Interrupted,
    Objective,
    Pairs,
    Trajectory,
    gaussian_init,
    population_flow,
    sample_flow,
    train,
    uniform_biases,
)
from dyncollapse.dynamics.runs import pairs_of_run
from dyncollapse.runtime.process import torch_threads

TIMES = [0.0, 0.5, 2.0]


@pytest.mark.parametrize("runs", [(1,), (3,), (2, 2)])
@pytest.mark.parametrize("threads", [1, 3])
def test_runs_of_a_sample_flow_are_single_flows(runs, threads, generator):
    weights, pairs = draw(generator, runs=runs)
    biases = uniform_biases([4, 4, 4], generator, runs)
    with torch_threads(threads):
        together = sample_flow(weights, pairs, TIMES, biases=biases)
        assert torch.get_num_threads() == threads
    assert together.product.shape == (3, *runs, 4, 4)
    evaluations = 0
    for index in np.ndindex(*runs):
        own = Pairs(pairs.anchor[index], pairs.positive[index], pairs.views)
        alone = sample_flow(tuple(w[index] for w in weights), own, TIMES, biases=[b[index] for b in biases])
        for many, one in zip((*together.weights, *together.biases), (*alone.weights, *alone.biases), strict=True):
            assert torch.equal(many[:, *index], one)
        assert torch.equal(together.loss[:, *index], alone.loss)
        evaluations += alone.meta["evaluations"]
    assert together.meta["evaluations"] == evaluations


@pytest.mark.parametrize(
    "shape", [(8, 3), (1, 8, 3), (2, 8, 3), (5, 1, 2, 8, 3), (5, 4, 1, 8, 3), (5, 4, 2, 8, 3), (4, 1, 8, 3)]
)
def test_each_run_gets_its_batches_and_those_of_all(shape):
    x = torch.arange(np.prod(shape), dtype=torch.float64).reshape(shape)
    runs = (4, 2)
    everywhere = x.expand(torch.broadcast_shapes(shape, (*runs, 8, 3)))
    for index in np.ndindex(*runs):
        own = pairs_of_run(Pairs(x, -x), index)
        expected = everywhere[..., *index, :, :]
        assert torch.equal(own.anchor.expand(expected.shape), expected)
        assert torch.equal(own.positive, -own.anchor)


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_keeps_the_finished_runs_or_the_part_of_the_first(threads, generator):
    weights, pairs = draw(generator, runs=(3,))
    with torch_threads(threads), pytest.raises(Interrupted) as stopped:
        sample_flow(weights, pairs, torch.linspace(0, 20, 41, dtype=torch.float64), progress=stop_after(0.1))
    path = stopped.value.trajectory
    assert path.product.shape[1] == 1
    assert len(path.time) < 41


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_run_that_fails_ends_them_all(threads, generator):
    weights, task = population_problem(generator, runs=(3,))
    pairs = task.sample(16, generator, (3,))
    weights = tuple(w.clone() for w in weights)
    evaluations = [
        sample_flow(tuple(w[i] for w in weights), pairs_of_run(pairs, (i,)), 3.0).meta["evaluations"] for i in range(3)
    ]
    longest = int(np.argmax(evaluations))
    with torch_threads(threads), pytest.raises(FlowFailed, match="max_evaluations") as failed:
        sample_flow(weights, pairs, [1e-3, 3.0], max_evaluations=max(evaluations) - 1)
    first = next(i for i in range(3) if evaluations[i] >= max(evaluations)) if longest else 0
    assert failed.value.trajectory.product.shape[1] == max(1, first)


def test_statistics_are_kept_along_flows(generator):
    weights, task = population_problem(generator, runs=(2,))
    record = {"norm": lambda layers: layers[0].norm(dim=(-2, -1)), "first": lambda layers: layers[0][..., 0, 0].numpy()}
    pairs = task.sample(16, generator, (2,))
    for path in (
        population_flow(weights, task, TIMES, record=record),
        population_flow(weights, task, TIMES, record=record, method="DOP853"),
        sample_flow(weights, pairs, TIMES, record=record),
    ):
        assert torch.equal(path.statistics["norm"], path.weights[0].norm(dim=(-2, -1)))
        assert path.statistics["first"].shape == (3, 2)
    with pytest.raises(FlowFailed) as failed:
        population_flow(weights, task, TIMES, record=record, max_evaluations=40)
    partial = failed.value.trajectory
    assert torch.equal(partial.statistics["norm"], partial.weights[0].norm(dim=(-2, -1)))
    with pytest.raises(ValueError, match="it must begin with the runs"):
        sample_flow(weights, pairs, 1e9, record={"none": lambda layers: layers[0].norm()})


def test_statistics_of_a_flow_are_saved_with_it(tmp_path, generator):
    weights, task = population_problem(generator)
    path = population_flow(weights, task, TIMES, record=lambda layers: {"trace": layers[0].diagonal().sum()})
    path.save(tmp_path / "path.npz")
    assert torch.equal(Trajectory.load(tmp_path / "path.npz").statistics["trace"], path.statistics["trace"])


class Pull:
    """Attraction alone, whose population limit is tr(P A P^T) for one-sided views."""

    def __call__(self, z, z_pos, _negatives):
        return (z - z_pos).square().sum(-1).mean(-1)

    def population_loss(self, product, task):
        return (product @ task.aug_cov * product).sum((-2, -1))

    def population_force(self, product, task):
        return (-2 * task.aug_cov).expand(*product.shape[:-2], task.dim, task.dim)


@pytest.mark.parametrize("method", ["CVODE", "LSODA", "DOP853"])
@pytest.mark.parametrize("runs", [(), (2,)])
def test_a_loss_of_ones_own_may_bring_its_population_limit(method, runs):
    task, objective = GaussianTask.block(3, 2, 0.7), Objective(Pull())
    weights = gaussian_init([3, 3], torch.Generator().manual_seed(0), runs, 0.5)
    path = population_flow(weights, task, [0.0, 1.5], objective=objective, method=method)
    expected = weights[0] @ torch.linalg.matrix_exp(-2 * 1.5 * task.aug_cov)
    torch.testing.assert_close(path.product[1], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(path.loss[0], (weights[0] @ task.aug_cov * weights[0]).sum((-2, -1)))


def test_a_population_limit_of_ones_own_is_checked():
    class Wrong(Pull):
        def population_force(self, _product, task):
            return task.aug_cov[0]

    task = GaussianTask.block(3, 2, 0.7)
    start = gaussian_init([3, 3], torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"population_force returned \(3,\); it must be a tensor \(3, 3\)"):
        population_flow(start, task, 1.0, objective=Objective(Wrong()))
    with pytest.raises(ValueError, match="is for linear layers, not relu"):
        population_flow(start, task, 1.0, objective=Objective(Pull(), activation="relu"))


def test_a_relu_flow_without_an_end_is_refused_before_it_starts(generator):
    weights, pairs = draw(generator, runs=(2,))
    objective = Objective(activation="relu")
    flow = sample_flow(weights, pairs, 2.0, objective=objective)
    with pytest.raises(
        ValueError, match=r"a run takes \d+ evaluations at rtol 0.0001, so about .* at 1e-12, and max_eval"
    ):
        sample_flow(weights, pairs, 2.0, objective=objective, rtol=1e-12)
    finer = sample_flow(weights, pairs, 2.0, objective=objective, rtol=1e-5)
    assert finer.meta["evaluations"] > flow.meta["evaluations"]
    torch.testing.assert_close(finer.product, flow.product, rtol=0, atol=1e-2)


def test_one_relu_layer_has_no_kinks(generator):
    weights, pairs = draw(generator, depth=1)
    relu, linear = (
        sample_flow(weights, pairs, 2.0, objective=Objective(activation=name)) for name in ("relu", "linear")
    )
    assert relu.meta["method"] == linear.meta["method"] == "DOP853"
    assert torch.equal(relu.product, linear.product)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "a", 10**9])
def test_threads_are_a_whole_number(threads, generator):
    weights, pairs = draw(generator)
    for run in (
        lambda: sample_flow(weights, pairs, 1.0, threads=threads),
        lambda: train(weights, pairs, lr=0.1, steps=1, threads=threads),
    ):
        with pytest.raises(
            ValueError, match=r"threads is .*; it must be (a whole number of at least 1|between 1 and \d+)"
        ):
            run()


@pytest.mark.parametrize("setting", [{"rtol": "a"}, {"atol": "a"}, {"rtol": True}])
def test_tolerances_are_numbers(setting, generator):
    weights, pairs = draw(generator)
    (name,) = setting
    with pytest.raises(ValueError, match=f"{name} is .*; it must be a number"):
        sample_flow(weights, pairs, 1.0, **setting)


def test_a_direction_of_another_shape_is_refused(generator):
    weights, pairs = draw(generator)
    along = Objective().curvature(weights, pairs)
    with pytest.raises(ValueError, match=r"the direction has shapes \[\(4, 4\)\]; give one tensor per weight matrix"):
        along(weights[:1])
