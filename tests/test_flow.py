import math
from functools import partial

import numpy as np
import pytest
import torch
from reference import normal, random_covariance, rotation
from scipy.linalg import expm

import dyncollapse.solver as solver_module
from dyncollapse import (
    FlowFailed,
    GaussianTask,
    Interrupted,
    Objective,
    Pairs,
    end_to_end,
    frozen_flow,
    gaussian_init,
    imbalance,
    mode_flow,
    population_flow,
    population_force,
    sample_flow,
    train,
    uniform_biases,
)

VIEWS = ("one-sided", "two-sided")
TASK = GaussianTask.block(4, 2, 0.7)
FORCE = torch.diag(torch.tensor([0.5, 0.2, -0.1, -0.6], dtype=torch.float64))


def draw(generator, depth=2, views="one-sided", runs=(), scale=0.5, n=10):
    weights = gaussian_init([4] * (depth + 1), generator, runs, scale)
    return weights, GaussianTask.block(4, 2, 0.7, views=views).sample(n, generator, runs)


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


def moved(path):
    return float((path.product[-1] - path.product[0]).norm() / path.product[0].norm())


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
    with pytest.raises(FlowFailed, match=r"cannot be continued beyond the last recorded time .* of 1.2") as failed:
        frozen_flow(layers, force, late)
    path = failed.value.trajectory
    assert path.time.tolist() == late[:-1]
    for i, t in enumerate(late[:-1]):
        assert float(path.product[i]) == pytest.approx(p0 / (1 - t), rel=1e-7)


@pytest.mark.parametrize("loss", ["infonce", "dot", "ntxent"])
def test_rotated_data_rotate_the_first_layer(loss, generator):
    weights, pairs = draw(generator, 2, "two-sided")
    q, r = rotation(generator, 4), rotation(generator, 4)
    flow = partial(sample_flow, time=1.0, objective=Objective(loss, None if loss == "infonce" else 1.0))
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


def test_interruption_keeps_the_record(generator):
    weights, pairs = draw(generator)

    def stop(t, end):
        assert end == 5.0
        if t > 2:
            raise KeyboardInterrupt

    times = np.linspace(0, 5, 51)
    with pytest.raises(Interrupted, match="interrupted at t = ") as stopped:
        sample_flow(weights, pairs, times, progress=stop)
    path = stopped.value.trajectory
    assert len(path.time) > 2
    assert path.time[0] == 0
    assert (path.time.diff() > 0).all()
    # Kept at the solver's own steps: each state must be the flow's at the time it claims.
    expected = sample_flow(weights, pairs, path.time)
    torch.testing.assert_close(path.product, expected.product, rtol=0, atol=1e-7)


def test_interruption_before_the_first_record(generator):
    weights, pairs = draw(generator)

    def stop(_t, _end):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        sample_flow(weights, pairs, [1.0, 2.0], progress=stop)
    assert len(stopped.value.trajectory.time) == 0


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


def test_rest_is_found_whenever_the_flow_is_asked_until_later(generator):
    weights = gaussian_init([3, 3], generator, scale=0.5)
    task = GaussianTask.block(3, 3, 0.5)
    times = [population_flow(weights, task, until).meta["rest_time"] for until in (100.0, 1000.0)]
    assert times[0] is not None
    # The moment is read off where the speed crosses 10 rtol, which is as sharp as the solver's noise lets it be.
    assert times[1] == pytest.approx(times[0], rel=0.2)


IMPLICIT = ("LSODA", "BDF", "Radau")
LOSSES = [("infonce", None), ("dot", 0.7), ("spectral", None)]


def population_problem(generator, depth=2, views="one-sided", runs=()):
    """Rectangular layers and covariances that do not commute."""
    task = GaussianTask(random_covariance(generator, 4), random_covariance(generator, 4) / 2, views)
    return gaussian_init([4, 3, 5][: depth + 1], generator, runs, 0.5), task


def solver_calls(monkeypatch):
    """What the flow hands to solve_ivp, call by call."""
    calls, solve = [], solver_module.solve_ivp

    def spy(fun, span, start, *rest, **options):
        calls.append({"fun": fun, "span": span, "start": start, **options})
        return solve(fun, span, start, *rest, **options)

    monkeypatch.setattr(solver_module, "solve_ivp", spy)
    return calls


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
@pytest.mark.parametrize("method", IMPLICIT)
def test_the_solver_gets_the_exact_jacobian(method, loss, temperature, weight_decay, generator, monkeypatch):
    weights, task = population_problem(generator)
    calls = solver_calls(monkeypatch)
    population_flow(
        weights, task, 0.1, objective=Objective(loss, temperature), weight_decay=weight_decay, method=method, rtol=1e-4
    )
    (call,) = calls
    h, tick, y = 1e-5, 0.7, call["start"]
    columns = [(call["fun"](tick, y + h * unit) - call["fun"](tick, y - h * unit)) / (2 * h) for unit in np.eye(len(y))]
    expected = np.stack(columns, axis=1)
    # h^2 times third derivatives of some hundreds at most, next to round-off over h.
    np.testing.assert_allclose(call["jac"](tick, y), expected, rtol=0, atol=1e-8 * np.abs(expected).max() + 1e-7)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
@pytest.mark.parametrize("depth", [1, 2])
def test_implicit_and_explicit_methods_agree(depth, loss, temperature, views, generator):
    weights, task = population_problem(generator, depth, views)
    times = [0.0, 0.3, 2.0, 6.0]
    paths = {
        method: population_flow(
            weights, task, times, objective=Objective(loss, temperature), weight_decay=0.1, rtol=1e-7, method=method
        )
        for method in ("DOP853", "LSODA", "BDF")
    }
    for method, path in paths.items():
        assert all(torch.equal(w[0], v) for w, v in zip(path.weights, weights, strict=True)), method
        assert moved(path) > 0.1
        # A hundred steps and more at rtol 1e-7 each, which escape from W = 0 multiplies.
        torch.testing.assert_close(path.product, paths["DOP853"].product, rtol=0, atol=2e-5)
        assert path.meta["method"] == method
        assert ("jacobians" in path.meta) == (method != "DOP853")
    if depth == 2:
        kept = imbalance(*weights)
        for path in paths.values():
            for t, w1, w2 in zip(path.time, *path.weights, strict=True):
                expected = torch.exp(-2 * 0.1 * t) * kept
                torch.testing.assert_close(imbalance(w1, w2), expected, rtol=0, atol=1e-5)


def test_radau_agrees(generator):
    weights, task = population_problem(generator)
    exact = population_flow(weights, task, [0.5, 5.0], rtol=1e-12, method="DOP853")
    for method in ("Radau", "LSODA", "BDF"):
        path = population_flow(weights, task, [0.5, 5.0], rtol=1e-7, method=method)
        torch.testing.assert_close(path.product, exact.product, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["LSODA", "BDF"])
def test_implicit_errors_shrink_with_the_tolerance(method, generator):
    weights, task = population_problem(generator)
    exact = population_flow(weights, task, 3.0, rtol=1e-12, method="DOP853").product
    errors = [
        float((population_flow(weights, task, 3.0, rtol=rtol, method=method).product - exact).norm())
        for rtol in (1e-4, 1e-6, 1e-8)
    ]
    # Two digits of tolerance give at least one of accuracy.
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-6


@pytest.mark.parametrize("runs", [(1,), (3,), (2, 2)])
def test_runs_of_an_implicit_flow_are_single_flows(runs, generator):
    weights, task = population_problem(generator, runs=runs)
    together = population_flow(weights, task, [0.0, 1.0, 5.0])
    assert together.product.shape == (3, *runs, 5, 4)
    assert together.loss.shape == (3, *runs)
    alone = [population_flow(tuple(w[index] for w in weights), task, [0.0, 1.0, 5.0]) for index in np.ndindex(*runs)]
    for index, path in zip(np.ndindex(*runs), alone, strict=True):
        for w, single in zip(together.weights, path.weights, strict=True):
            assert torch.equal(w[:, *index], single)
        assert torch.equal(together.loss[:, *index], path.loss)
    for count in ("evaluations", "jacobians"):
        assert together.meta[count] == sum(path.meta[count] for path in alone)
    explicit = population_flow(weights, task, [0.0, 1.0, 5.0], method="DOP853")
    torch.testing.assert_close(explicit.product, together.product, rtol=0, atol=1e-5)


def test_runs_rest_when_the_last_of_them_does(generator):
    task, weights = GaussianTask.block(3, 3, 0.5), gaussian_init([3, 3], generator, (2,), 0.5)
    single = [population_flow((weights[0][run],), task, 1e3).meta["rest_time"] for run in range(2)]
    assert population_flow(weights, task, 1e3).meta["rest_time"] == max(single)
    assert population_flow(weights, task, 1.0).meta["rest_time"] is None
    # From zero nothing ever moves; the other run goes on.
    weights[0][0] = 0
    path = population_flow(weights, task, 1e3)
    assert not path.product[:, 0].any()
    assert path.meta["rest_time"] == single[1]


def test_long_flows_take_few_evaluations(generator):
    weights, task = gaussian_init([4, 4, 4], generator, (), 0.3), GaussianTask.block(4, 2, 1.5)
    implicit, explicit = (population_flow(weights, task, 40.0, method=method) for method in ("LSODA", "DOP853"))
    assert 0 < implicit.meta["jacobians"] < implicit.meta["evaluations"]
    # Unaugmented modes grow, and with them the fastest rate, which bounds explicit steps: evaluations grow like t^2.
    assert implicit.meta["evaluations"] < explicit.meta["evaluations"] / 3
    # Four more decades are a few hundred steps more in log time.
    assert population_flow(weights, task, 1e6).meta["evaluations"] < 3 * implicit.meta["evaluations"]


def test_conserved_quantity_survives_a_long_stiff_flow():
    weights = gaussian_init([16, 16, 16], torch.Generator().manual_seed(0), (), 0.1)
    path = population_flow(weights, GaussianTask.block(16, 8, 1.5), [0.0, 1e2, 1e4, 1e6])
    assert moved(path) > 1
    # C is quadratic, which implicit multistep methods keep only to their tolerance, 1e-8 of the Gram matrices.
    assert path.imbalance_drift is not None
    assert path.imbalance_drift < 1e-8
    # Half of the modes are unaugmented and grow for ever, the other half is dead: rho = 1.5.
    values = path.singular_values[-1]
    assert float(values[7]) > 10
    assert float(values[8]) < 1e-5


def stop_after(share):
    def progress(t, end):
        if t > share * end:
            raise KeyboardInterrupt

    return progress


def test_interruption_in_a_later_run_keeps_the_finished_ones(generator):
    weights, task = population_problem(generator, runs=(3,))
    times = np.linspace(0, 5, 6)
    first = population_flow(tuple(w[0] for w in weights), task, times)
    with pytest.raises(Interrupted) as stopped:
        population_flow(weights, task, times, progress=stop_after(0.5))
    path = stopped.value.trajectory
    assert path.time.tolist() == times.tolist()
    assert path.product.shape == (6, 1, 5, 4)
    assert torch.equal(path.product[:, 0], first.product)
    assert torch.equal(path.loss[:, 0], first.loss)
    assert path.meta["evaluations"] == first.meta["evaluations"]


def test_interruption_in_the_first_run_keeps_its_part(generator):
    weights, task = population_problem(generator, runs=(3,))
    with pytest.raises(Interrupted, match="interrupted at t = ") as stopped:
        population_flow(weights, task, np.linspace(0, 5, 51), progress=stop_after(0.2))
    path = stopped.value.trajectory
    assert 2 < len(path.time) < 51
    assert path.product.shape == (len(path.time), 1, 5, 4)
    expected = population_flow(tuple(w[0] for w in weights), task, path.time)
    torch.testing.assert_close(path.product[:, 0], expected.product, rtol=0, atol=1e-6)
    with pytest.raises(Interrupted) as stopped:
        population_flow(weights, task, [1.0, 2.0], progress=stop_after(0))
    assert stopped.value.trajectory.product.shape == (0, 1, 5, 4)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_failure_of_a_run_keeps_the_finished_ones(broken, generator, monkeypatch):
    weights, task = population_problem(generator, runs=(3,))
    times = [0.0, 1.0, 2.0, 3.0]
    whole, solve, calls = population_flow(weights, task, times), solver_module.solve_ivp, []

    def give_up(*arguments, **options):
        solution = solve(*arguments, **options)
        calls.append(solution)
        if len(calls) == broken + 1:
            solution.t, solution.y, solution.success = solution.t[:2], solution.y[:, :2], False
            solution.message = "Enough."
        return solution

    monkeypatch.setattr(solver_module, "solve_ivp", give_up)
    with pytest.raises(FlowFailed, match=r"beyond the last recorded time 1 of 3: Enough\.") as failed:
        population_flow(weights, task, times)
    path = failed.value.trajectory
    if broken:
        assert path.time.tolist() == times
        assert torch.equal(path.product, whole.product[:, :broken])
    else:
        assert path.time.tolist() == times[:2]
        assert torch.equal(path.product, whole.product[:2, :1])


@pytest.mark.parametrize("runs", [(), (1,), (3,)])
def test_progress_climbs_over_all_runs_to_the_end(runs, generator):
    weights, task = population_problem(generator, runs=runs)
    seen = []
    population_flow(weights, task, [1.0, 5.0], progress=lambda t, end: seen.append((t, end)))
    shares, ends = zip(*seen, strict=True)
    assert set(ends) == {5.0}
    assert list(shares) == sorted(shares)
    assert shares[0] >= 0
    assert shares[-1] == pytest.approx(5.0, rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weight_decay": math.nan}, "weight decay is nan"),
        ({"weight_decay": -1.0}, "weight decay is -1.0"),
        ({"rtol": -1.0}, "rtol between 0 and 1"),
        ({"method": "Euler"}, "choose one of DOP853"),
        ({"atol": math.nan}, "atol finite"),
    ],
)
def test_unusable_solver_settings_are_refused(settings, words, generator):
    weights, _ = draw(generator)
    with pytest.raises(ValueError, match=words):
        population_flow(weights, TASK, 1.0, **settings)


def test_weights_that_do_not_read_the_task_are_refused(generator):
    for shape in ((3, 3), (0, 4, 4)):
        with pytest.raises(ValueError, match="must read the task's 4 inputs"):
            population_flow((normal(generator, *shape),), TASK, 1.0)
