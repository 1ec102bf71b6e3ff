import pytest
import torch
from helpers.reference import normal

from dyncollapse import (
    GaussianTask,
    Objective,
    Trajectory,
    gaussian_init,
    limit_distances,
    order_of_convergence,
    population_flow,
    relative_distance,
    sample_flow,
    train,
)


def path(times, product):
    times = torch.as_tensor(times, dtype=torch.float64)
    return Trajectory(times, (torch.stack([product(t) for t in times]),), torch.zeros(len(times)))


def relative(a, b):
    return torch.linalg.matrix_norm(a - b) / torch.linalg.matrix_norm(b)


def test_distance_on_a_common_axis_is_its_definition(generator):
    p, q = normal(generator, 5, 2, 3, 4), normal(generator, 5, 2, 3, 4)
    axis = torch.arange(5, dtype=torch.float64)
    times, distance = relative_distance(*(Trajectory(axis, (w,), torch.zeros(5, 2)) for w in (p, q)))
    assert torch.equal(times, axis)
    assert distance.shape == (5, 2)
    for t in range(5):
        for run in range(2):
            expected = ((p[t, run] - q[t, run]) ** 2).sum().sqrt() / (q[t, run] ** 2).sum().sqrt()
            torch.testing.assert_close(distance[t, run], expected, rtol=1e-12, atol=0)


def test_distance_compares_products_not_layers(generator):
    w1, w2 = normal(generator, 3, 4, 4), normal(generator, 3, 4, 4)
    axis = torch.arange(3, dtype=torch.float64)
    two, one = Trajectory(axis, (w1, w2), torch.zeros(3)), Trajectory(axis, (w2 @ w1,), torch.zeros(3))
    assert not relative_distance(two, one)[1].any()


def test_a_cubic_path_is_read_off_exactly_between_records(generator):
    # The spline reproduces cubic polynomials, so what remains is round-off.
    coefficients = normal(generator, 4, 2, 3, 3)

    def cubic(t):
        return sum(c * t**k for k, c in enumerate(coefficients)) + 10 * torch.eye(3, dtype=torch.float64)

    b = path([0.0, 0.7, 1.1, 2.0, 3.0], cubic)
    a = path([0.0, 0.5, 1.0, 2.9], lambda t: 1.25 * cubic(t))
    times, distance = relative_distance(a, b)
    assert torch.equal(times, a.time)
    torch.testing.assert_close(distance, torch.full((4, 2), 0.25, dtype=torch.float64), rtol=1e-11, atol=0)


def test_only_times_that_both_cover_count(generator):
    w = normal(generator, 2, 2)
    a, b = path([0.0, 1.0, 2.0, 3.0], lambda t: (1 + t) * w), path([0.5, 1.5, 2.5], lambda _t: w)
    times, distance = relative_distance(a, b)
    assert times.tolist() == [1.0, 2.0]
    torch.testing.assert_close(distance, torch.tensor([1.0, 2.0], dtype=torch.float64), rtol=1e-12, atol=0)


def test_a_single_common_time_suffices(generator):
    w = normal(generator, 2, 2)
    times, distance = relative_distance(path([0.0, 1.0], lambda _t: 2 * w), path([1.0], lambda _t: w))
    assert (times.tolist(), distance.tolist()) == ([1.0], [1.0])


def test_distance_to_and_from_zero():
    zero, one = torch.zeros(2, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    assert relative_distance(path([0.0], lambda _t: zero), path([0.0], lambda _t: zero))[1].tolist() == [0.0]
    assert relative_distance(path([0.0], lambda _t: zero), path([0.0], lambda _t: one))[1].tolist() == [1.0]
    assert relative_distance(path([0.0], lambda _t: one), path([0.0], lambda _t: zero))[1].tolist() == [float("inf")]


def test_float32_paths_are_compared_in_float64(generator):
    w = normal(generator, 2, 2)
    half = Trajectory(torch.zeros(1, dtype=torch.float64), (w.float().unsqueeze(0),), torch.zeros(1))
    distance = relative_distance(half, path([0.0], lambda _t: w))[1]
    assert distance.dtype == torch.float64
    assert 0 < float(distance) < torch.finfo(torch.float32).eps


def test_incomparable_paths_are_refused(generator):
    w = normal(generator, 2, 3)
    a = path([0.0, 1.0], lambda _t: w)
    with pytest.raises(ValueError, match=r"shape \(2, 3\) and \(3, 2\); compare the same networks"):
        relative_distance(a, path([0.0], lambda _t: w.T))
    with pytest.raises(ValueError, match="share no time: t = 0 to 1 and t = 2 to 3"):
        relative_distance(a, path([2.0, 3.0], lambda _t: w))


@pytest.mark.parametrize("order", [0.5, 1.0, 4.0])
def test_order_of_a_power_law_is_its_exponent(order):
    steps = [0.1, 0.03, 0.01]
    assert order_of_convergence(steps, [7 * step**order for step in steps]) == pytest.approx(order, abs=1e-12)


@pytest.mark.parametrize(
    ("steps", "errors"),
    [([0.1], [1.0]), ([0.1, 0.2], [1.0, 0.0]), ([0.1, 0.2], [1.0]), ([0.0, 0.1], [1.0, 2.0]), ([], [])],
)
def test_errors_without_a_slope_are_refused(steps, errors):
    with pytest.raises(ValueError, match="have no slope; give two or more, all above 0"):
        order_of_convergence(steps, errors)


@pytest.mark.parametrize(
    ("views", "objective"),
    [("one-sided", Objective()), ("two-sided", Objective()), ("two-sided", Objective("dot", 1.0))],
    ids=["one-sided", "two-sided", "dot"],
)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_sgd_on_a_fixed_batch_tends_to_its_flow_at_first_order(depth, views, objective):
    generator = torch.Generator().manual_seed(depth)
    weights = gaussian_init([4] * (depth + 1), generator, (2,), 0.5)
    pairs = GaussianTask.block(4, 2, 0.5, views=views).sample(16, generator, (2,))
    flow = sample_flow(weights, pairs, 2.0, objective=objective, rtol=1e-8)
    moved = (flow.product[-1] - Trajectory(flow.time, tuple(w[None] for w in weights), flow.loss).product[0]).norm()
    assert float(moved) > 0.1
    # Powers of two: lr x steps is exactly 2. The error, of order 1e-2 and below, is far above the flow's 1e-8.
    rates = [2.0**-e for e in (5, 6, 7)]
    errors = []
    for rate in rates:
        sgd = train(weights, pairs, lr=rate, steps=round(2 / rate), objective=objective, records=2)
        times, distance = relative_distance(sgd, flow)
        assert times.tolist() == [2.0]
        errors.append(float(distance.mean()))
    assert order_of_convergence(rates, errors) == pytest.approx(1, abs=0.15)
    assert errors[-1] < 0.05


def test_distance_is_not_symmetric_but_vanishes_together(generator):
    w, v = normal(generator, 2, 2), normal(generator, 2, 2)
    a, b = path([0.0], lambda _t: w), path([0.0], lambda _t: v)
    torch.testing.assert_close(relative_distance(a, b)[1][0], relative(w, v), rtol=1e-12, atol=0)
    torch.testing.assert_close(relative_distance(b, a)[1][0], relative(v, w), rtol=1e-12, atol=0)
    assert relative_distance(a, a)[1].tolist() == [0.0]


def test_a_path_that_is_not_a_number_is_not_at_distance_0():
    ones = torch.ones(2, 2, 2, dtype=torch.float64)
    good, bad = (Trajectory(torch.tensor([0.0, 1.0]), (w,), torch.zeros(2)) for w in (ones, ones * float("nan")))
    assert relative_distance(bad, good)[1].isnan().all()


AXIS = [0.0, 0.5, 1.0, 2.0]


@pytest.mark.parametrize("planted", ["learning rate", "batches", "samples"])
def test_the_limit_that_was_planted_is_named_with_its_distance(planted, generator):
    # Paths (1 + e t) (1 + t) W: each pair of neighbours in the chain is e t apart, relative to the second.
    w, e = normal(generator, 3, 4, 4), dict.fromkeys(("learning rate", "batches", "samples"), 1e-3) | {planted: 0.1}

    def scaled(factor):
        return path(AXIS, lambda t: factor(t) * (1 + t) * w)

    sgd = scaled(lambda t: (1 + e["learning rate"] * t) * (1 + e["samples"] * t))
    flow = scaled(lambda t: (1 - e["batches"] * t) * (1 + e["samples"] * t))
    found = limit_distances(sgd, flow, scaled(lambda t: 1 + e["samples"] * t), scaled(lambda _t: 1.0))
    assert found.largest == planted
    assert found.time.tolist() == AXIS
    for name in e:
        distance = getattr(found, name.replace(" ", "_"))
        torch.testing.assert_close(distance, e[name] * found.time, rtol=1e-11, atol=1e-14)


def test_limit_distances_are_means_over_runs_of_relative_distances(generator):
    axis = torch.tensor(AXIS, dtype=torch.float64)
    sgd, flow, expected, population = (
        Trajectory(axis, (normal(generator, 4, 2, 3, 3, 3),), torch.zeros(4, 2, 3)) for _ in range(4)
    )
    found = limit_distances(sgd, flow, expected, population)
    for distance, pair in (
        (found.learning_rate, (sgd, expected)),
        (found.batches, (flow, expected)),
        (found.samples, (expected, population)),
    ):
        torch.testing.assert_close(distance, relative_distance(*pair)[1].mean((1, 2)), rtol=1e-12, atol=0)


def test_limit_distances_are_read_at_the_times_of_sgd_that_all_flows_cover(generator):
    w = normal(generator, 2, 2)
    sgd = path([0.0, 1.0, 1.5, 2.0, 3.0], lambda t: (1 + t) * w)
    flow, expected = (path([0.5, 1.0, 2.0, 2.5], lambda t: 2 * (1 + t) * w) for _ in range(2))
    population = path([0.0, 1.0, 2.0], lambda t: 4 * (1 + t) * w)
    found = limit_distances(sgd, flow, expected, population)
    # The spline reproduces straight lines up to round-off.
    assert found.time.tolist() == [1.0, 1.5, 2.0]
    torch.testing.assert_close(found.learning_rate, torch.full((3,), 0.5, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.batches, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-15)
    torch.testing.assert_close(found.samples, torch.full((3,), 0.5, dtype=torch.float64), rtol=1e-12, atol=0)


def test_limits_of_paths_without_a_common_time_or_shape_are_refused(generator):
    w = normal(generator, 2, 2)
    early, late = path([0.0, 1.0], lambda _t: w), path([2.0, 3.0], lambda _t: w)
    with pytest.raises(ValueError, match="SGD has records from t = 0 to 1, the flows cover t = 2 to 3"):
        limit_distances(early, late, late, late)
    with pytest.raises(ValueError, match="compare the same networks"):
        limit_distances(early, early, early, path([0.0, 1.0], lambda _t: normal(generator, 3, 2)))


@pytest.mark.parametrize(
    ("lr", "batches", "n", "largest"),
    [(0.5, 32, 32, "learning rate"), (0.01, 1, 32, "batches"), (0.02, 64, 4, "samples")],
)
def test_real_runs_are_owed_to_the_limit_that_was_taken_least_far(lr, batches, n, largest):
    generator, runs, time = torch.Generator().manual_seed(0), 8, 2.0
    task = GaussianTask.block(2, 2, 0.1)
    start = tuple(w.expand(runs, 2, 2) for w in gaussian_init([2, 2], generator, (), 0.3))
    sgd = train(start, task.stream(n, generator, (runs,)), lr=lr, steps=round(time / lr), records=8)
    flow = sample_flow(start, task.sample(n, generator, (batches, runs)), sgd.time, rtol=1e-6)
    many = sample_flow(start, task.sample(n, generator, (128, runs)), sgd.time, rtol=1e-6)
    population = population_flow(start, task, sgd.time)
    found = limit_distances(sgd, flow, many, population)
    distances = {"learning rate": found.learning_rate, "batches": found.batches, "samples": found.samples}
    assert found.largest == largest
    assert torch.equal(found.time, sgd.time)
    assert all(float(d[0]) == 0 and float(d[-1]) > 0 for d in distances.values())
    # A margin over chance: means over 8 runs of distances that vary by about a third. Measured: 2.6, 7.6 and 1.7.
    others = max(float(d.max()) for name, d in distances.items() if name != largest)
    assert float(distances[largest].max()) > 1.5 * others


def test_steps_of_an_optimiser_are_not_compared_with_flow_time():
    time = torch.tensor([0.0, 1.0])
    flow, adam = (
        Trajectory(time, (torch.ones(2, 1, 1),), time, (), meta)
        for meta in ({}, {"optimiser": "Adam", "time": "steps"})
    )
    with pytest.raises(ValueError, match="the other counts steps of Adam; compare records of one kind"):
        relative_distance(adam, flow)
    with pytest.raises(ValueError, match="the other counts steps of Adam"):
        limit_distances(adam, flow, flow, flow)
    assert relative_distance(adam, adam)[1].tolist() == [0.0, 0.0]
