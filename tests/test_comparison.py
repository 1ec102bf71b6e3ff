import pytest
import torch
from reference import normal

from dyncollapse import (
    GaussianTask,
    Objective,
    Trajectory,
    gaussian_init,
    order_of_convergence,
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
    weights = gaussian_init([4] * (depth + 1), generator, (3,), 0.5)
    pairs = GaussianTask.block(4, 2, 0.5, views=views).sample(16, generator, (3,))
    flow = sample_flow(weights, pairs, 2.0, objective=objective, rtol=1e-10)
    moved = (flow.product[-1] - Trajectory(flow.time, tuple(w[None] for w in weights), flow.loss).product[0]).norm()
    assert float(moved) > 0.1
    # Powers of two: lr x steps is exactly 2. The error, of order 1e-2 and below, is far above the flow's 1e-10.
    rates = [2.0**-e for e in (5, 6, 7, 8)]
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
