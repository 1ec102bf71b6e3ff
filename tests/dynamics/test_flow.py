import math
from functools import partial

import pytest
import torch
from helpers.flow import draw, moved
from helpers.reference import normal, rotation
from scipy.linalg import expm

from dyncollapse import (
    FlowFailed,
    GaussianTask,
    Objective,
    Pairs,
    end_to_end,
    frozen_flow,
    gaussian_init,
    mode_flow,
    population_flow,
    population_force,
    population_loss,
    sample_flow,
    train,
    uniform_biases,
)

TASK = GaussianTask.block(4, 2, 0.7)
FORCE = torch.diag(torch.tensor([0.5, 0.2, -0.1, -0.6], dtype=torch.float64))


def predictors():
    pairs = TASK.sample(10, torch.Generator().manual_seed(5))
    biases = uniform_biases([4, 4, 4], torch.Generator().manual_seed(6))
    return {
        "sample": partial(sample_flow, pairs=pairs),
        "dot": partial(sample_flow, pairs=pairs, objective=Objective("dot", 1.0)),
        "relu": partial(sample_flow, pairs=pairs, objective=Objective(activation="relu"), biases=biases),
        "population": partial(population_flow, task=TASK),
        "frozen": partial(frozen_flow, force=FORCE / 2),
        "mode": lambda weights, time: mode_flow([w.diagonal() for w in weights], FORCE.diagonal() / 2, time=time),
    }


def start(name):
    weights = gaussian_init([4, 4, 4], torch.Generator().manual_seed(1), (), 0.3)
    return tuple(torch.diag(w.diagonal()) for w in weights) if name == "mode" else weights


@pytest.mark.parametrize("name", predictors())
def test_flow_at_zero_is_the_start(name):
    weights, flow = start(name), predictors()[name]
    path = flow(weights, time=[0.0, 1.5])
    assert path.time.tolist() == [0.0, 1.5]
    assert all(torch.equal(w[0], v) for w, v in zip(path.weights, weights, strict=True))
    assert moved(path) > 0.01
    alone = flow(weights, time=0.0)
    assert alone.time.tolist() == [0.0]
    assert all(torch.equal(w[0], v) for w, v in zip(alone.weights, weights, strict=True))


@pytest.mark.parametrize("name", predictors())
def test_many_times_equal_one_time_each(name):
    weights, flow = start(name), predictors()[name]
    times = [0.3, 0.9, 1.5]
    together = flow(weights, time=torch.tensor(times, dtype=torch.float64))
    assert together.time.tolist() == times
    # Between steps the solver interpolates, to an order below its own; ReLU networks are solved to 1e-4 only.
    tolerance = 1e-2 if name == "relu" else 1e-7
    for i, time in enumerate(times):
        torch.testing.assert_close(together.product[i], flow(weights, time=time).product[0], rtol=0, atol=tolerance)
    assert float((together.product[2] - together.product[0]).norm()) > 0.01


@pytest.mark.parametrize("name", ["sample", "dot", "population", "frozen", "mode"])
def test_restart_midway_equals_straight_through(name):
    weights, flow = start(name), predictors()[name]
    half = flow(weights, time=[0.0, 0.7])
    again = flow(half.final(), time=[0.0, 0.8])
    assert min(moved(half), moved(again)) > 1e-3
    torch.testing.assert_close(again.product[-1], flow(weights, time=1.5).product[-1], rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["sample", "dot", "relu", "population", "frozen"])
def test_flow_starts_down_the_gradient_and_never_climbs(name):
    weights, flow = start(name), predictors()[name]
    path = flow(weights, time=torch.linspace(0, 3, 30, dtype=torch.float64))
    assert (path.loss.diff() < 0).all()
    settings = flow.keywords
    if "pairs" in settings:
        objective, biases = settings.get("objective", Objective()), settings.get("biases", ())
        slopes = objective.gradient(weights, settings["pairs"], biases)
        h = 1e-4
        first = flow(weights, time=[0.0, h])
        for p, slope in zip((*first.weights, *first.biases), slopes, strict=True):
            # A forward difference errs by h times a second derivative of order 1.
            torch.testing.assert_close((p[1] - p[0]) / h, -slope, rtol=0, atol=100 * h * float(slopes[0].abs().max()))


@pytest.mark.parametrize("runs", [(), (2,)])
def test_frozen_flow_of_one_layer_is_the_matrix_exponential(runs, generator):
    root = normal(generator, *runs, 4, 4)
    force, (w,) = (root + root.mT) / 2, gaussian_init([4, 3], generator, runs, 1.0)
    times = [0.0, 0.5, 2.0]
    solved, closed = frozen_flow((w,), force, times, rtol=1e-12), frozen_flow((w,), force, times, method="expm")
    for i, t in enumerate(times):
        expected = w @ torch.from_numpy(expm((t * force).numpy()))
        for path in (solved, closed):
            torch.testing.assert_close(path.product[i], expected, rtol=1e-8, atol=1e-8)
            trace = (path.product[i] @ force * path.product[i]).sum((-2, -1))
            torch.testing.assert_close(path.loss[i], -trace / 2, rtol=1e-12, atol=1e-12)
    assert moved(closed) > 0.1


@pytest.mark.parametrize("method", ["expm", "DOP853"])
@pytest.mark.parametrize("times", [2.0, [0.0, 2.0]])
def test_runs_may_share_one_frozen_force(times, method, generator):
    weights = gaussian_init([4, 3], generator, (3,), 1.0)
    path = frozen_flow(weights, FORCE, times, method=method)
    expected = weights[0] @ torch.matrix_exp(2 * FORCE)
    torch.testing.assert_close(path.product[-1], expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("late", [[1.2], [0.1, 0.3, 1.2]], ids=["nothing recorded", "partial record"])
def test_two_frozen_layers_blow_up_in_finite_time(late):
    # Balanced, p' = 2 p^2 x, so p(t) = p0 / (1 - 2 p0 x t): infinite at t = 1 for p0 = x = 1 / sqrt(2).
    p0 = x = 0.5**0.5
    layers, force = (torch.full((1, 1), p0**0.5, dtype=torch.float64),) * 2, torch.full((1, 1), x, dtype=torch.float64)
    with pytest.raises(FlowFailed, match=r"beyond t = 1 of 1\.2, where the largest weight") as failed:
        frozen_flow(layers, force, late)
    assert failed.value.time == pytest.approx(1, rel=1e-7)
    path = failed.value.trajectory
    assert path.time.tolist() == late[:-1]
    for i, t in enumerate(late[:-1]):
        assert float(path.product[i]) == pytest.approx(p0 / (1 - t), rel=1e-7)


@pytest.mark.parametrize("loss", ["infonce", "dot", "ntxent", "vcreg", "barlow"])
def test_rotated_data_rotate_the_first_layer(loss, generator):
    weights, pairs = draw(generator, 2, "two-sided")
    q, r = rotation(generator, 4), rotation(generator, 4)
    flow = partial(sample_flow, time=1.0, objective=Objective(loss, 1.0 if loss in ("dot", "ntxent") else None))
    here = flow(weights, pairs)
    turned = Pairs(pairs.anchor @ q.T, pairs.positive @ q.T, pairs.views)
    there = flow((weights[0] @ q.T, r @ weights[1]), turned)
    assert float((here.product[-1] - end_to_end(weights)).norm()) > 1e-2
    # The step sizes differ, for their norm is not invariant: the solver's tolerance of 1e-8 remains.
    torch.testing.assert_close(there.weights[0], here.weights[0] @ q.T, rtol=0, atol=1e-6)
    torch.testing.assert_close(there.weights[1], r @ here.weights[1], rtol=0, atol=1e-6)


def test_order_of_the_samples_changes_nothing_and_runs_do_not_mix(generator):
    weights, pairs = draw(generator, 2, runs=(2,))
    order = torch.randperm(10, generator=generator)
    here = sample_flow(weights, pairs, 2.0)
    there = sample_flow(weights, Pairs(pairs.anchor[:, order], pairs.positive[:, order]), 2.0)
    torch.testing.assert_close(there.product, here.product, rtol=0, atol=1e-9)
    alone = sample_flow(tuple(w[1] for w in weights), Pairs(pairs.anchor[1], pairs.positive[1]), 2.0)
    torch.testing.assert_close(alone.product[0], here.product[0, 1], rtol=0, atol=1e-7)


def test_methods_agree_and_report_themselves(generator):
    weights, pairs = draw(generator)
    paths = [sample_flow(weights, pairs, 2.0, method=method) for method in ("DOP853", "RK45", "LSODA")]
    for path in paths[1:]:
        torch.testing.assert_close(path.product, paths[0].product, rtol=0, atol=1e-6)
    assert [path.meta["method"] for path in paths] == ["DOP853", "RK45", "LSODA"]
    assert paths[0].meta["evaluations"] > 10


def test_flow_comes_to_rest_where_the_force_vanishes(generator):
    task, weights = GaussianTask.block(3, 3, 0.5), gaussian_init([3, 3], generator, scale=0.5)
    path = population_flow(weights, task, [100.0, 200.0], rtol=1e-12, atol=1e-16)
    assert 0 < path.meta["rest_time"] < 200
    assert float((path.product[0] - weights[0]).norm()) > 0.1
    velocity = path.product[1] @ population_force(path.product[1], task, Objective())
    assert float(velocity.abs().max()) < 1e-9
    assert sample_flow(weights, task.sample(8, generator), 0.1).meta["rest_time"] is None


def test_same_input_same_bits(generator):
    weights, pairs = draw(generator, runs=(2,))
    first, again = (sample_flow(weights, pairs, [0.5, 1.0]) for _ in range(2))
    assert torch.equal(first.product, again.product)
    other = sample_flow(*draw(generator, runs=(2,)), [0.5, 1.0])
    assert not torch.equal(first.product, other.product)


@pytest.mark.parametrize("bias", [False, True])
def test_relu_flow_follows_small_steps_of_sgd(bias, generator):
    weights, pairs = draw(generator, 2, n=16)
    biases = uniform_biases([4, 4, 4], generator) if bias else ()
    objective = Objective(activation="relu")
    flow = sample_flow(weights, pairs, [0.0, 0.5], objective=objective, biases=biases)
    sgd = train(weights, pairs, lr=1e-3, steps=500, objective=objective, biases=biases, records=2)
    assert moved(flow) > 0.01
    # SGD errs by its rate, 1e-3, the flow by its rtol, 1e-4, and both by the jumps they step over.
    for got, expected in zip((*flow.weights, *flow.biases), (*sgd.weights, *sgd.biases), strict=True):
        torch.testing.assert_close(got[-1], expected[-1], rtol=0, atol=1e-2)


def test_a_start_at_rest_is_at_rest_from_the_beginning(generator):
    zero = (torch.zeros(4, 4, dtype=torch.float64),)
    path = sample_flow(zero, TASK.sample(8, generator), 1.0)
    assert not path.product.any()
    assert path.meta["rest_time"] == 0


def test_rest_is_found_whenever_the_flow_is_asked_until_later(generator):
    weights = gaussian_init([3, 3], generator, scale=0.5)
    task = GaussianTask.block(3, 3, 0.5)
    times = [population_flow(weights, task, until).meta["rest_time"] for until in (100.0, 1000.0)]
    assert times[0] is not None
    # The moment is read off where the speed crosses 10 rtol, which is as sharp as the solver's noise lets it be.
    assert times[1] == pytest.approx(times[0], rel=0.2)


@pytest.mark.parametrize("time", [-1.0, [], [1.0, 1.0], [2.0, 1.0], float("nan"), [0.0, math.inf], [[0.0, 1.0]]])
@pytest.mark.parametrize("name", predictors())
def test_unusable_times_are_refused(name, time):
    with pytest.raises(ValueError, match="give one finite number or an increasing vector, none below 0"):
        predictors()[name](start(name), time=time)


def test_unusable_starts_are_refused(generator):
    weights, pairs = draw(generator)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="the initial weights hold NaN or infinity; give finite weights"):
            sample_flow((weights[0], bad * weights[1]), pairs, 1.0)
    with pytest.raises(ValueError, match="do not chain"):
        sample_flow((weights[0][:2], weights[1]), pairs, 1.0)
    with pytest.raises(ValueError, match="the closed form is for one layer, not 2; use method='DOP853'"):
        frozen_flow(weights, FORCE, 1.0, method="expm")
    with pytest.raises(ValueError, match=r"exp\(X t\) overflows before t = 10000"):
        frozen_flow(weights[:1], FORCE, 1e4, method="expm")
    for settings in (Objective("ntxent"), Objective(activation="relu")):
        with pytest.raises(ValueError, match="has no closed form"):
            population_flow(weights, GaussianTask.block(4, 2, views="two-sided"), 1.0, objective=settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weight_decay": math.nan}, "weight decay is nan"),
        ({"weight_decay": -1.0}, "weight decay is -1.0"),
        ({"rtol": -1.0}, "rtol between 2.2e-14 and 1"),
        ({"rtol": 0.0}, "rtol between 2.2e-14 and 1"),
        ({"rtol": 1e-15}, "rtol between 2.2e-14 and 1"),
        ({"method": "Euler"}, "choose one of DOP853"),
        ({"atol": math.nan}, "atol finite"),
    ],
)
def test_unusable_solver_settings_are_refused(settings, words, generator):
    weights, pairs = draw(generator)
    for flow, source in ((population_flow, TASK), (sample_flow, pairs)):
        with pytest.raises(ValueError, match=words):
            flow(weights, source, 1.0, **settings)


def test_weights_that_do_not_read_the_task_are_refused(generator):
    with pytest.raises(ValueError, match="must read the task's 4 inputs"):
        population_flow((normal(generator, 3, 3),), TASK, 1.0)


@pytest.mark.parametrize("method", ["CVODE", "DOP853"])
@pytest.mark.parametrize("loss", ["infonce", "spectral"])
def test_recorded_losses_are_those_of_the_recorded_states(loss, method, generator):
    weights, task = gaussian_init([4, 4, 3], generator, (2,), 0.5), GaussianTask.block(4, 2, 0.5)
    path = population_flow(weights, task, [0.0, 1.0, 2.0], objective=Objective(loss), method=method)
    alone = torch.stack([population_loss(product, task, Objective(loss)) for product in path.product])
    torch.testing.assert_close(path.loss, alone, rtol=1e-12, atol=1e-12)
    assert path.loss.shape == (3, 2)
