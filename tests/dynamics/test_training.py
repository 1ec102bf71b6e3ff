import itertools
from functools import partial

import pytest
import torch
from helpers import flow as flow_helpers
from helpers import reference
from helpers.flow import moved
from helpers.reference import VIEWS, normal, rotation
from torch.utils._python_dispatch import TorchDispatchMode

from dyncollapse import (
    Diverged,
    GaussianTask,
    Interrupted,
    Objective,
    Pairs,
    TrainingFailed,
    end_to_end,
    gaussian_init,
    infonce,
    join_streams,
    record_steps,
    sample_flow,
    train,
    uniform_biases,
)
from dyncollapse.dynamics.training import LOOK

draw = partial(flow_helpers.draw, n=8)


def same_bits(a, b):
    return all(torch.equal(p, q) for p, q in zip((*a.weights, *a.biases), (*b.weights, *b.biases), strict=True))


@pytest.mark.parametrize(
    ("loss", "views"),
    [("infonce", "one-sided"), ("infonce", "two-sided"), ("dot", "one-sided"), ("ntxent", "two-sided")],
)
@pytest.mark.parametrize(
    ("depth", "activation", "bias"), [(1, "linear", False), (3, "linear", True), (2, "relu", True)]
)
def test_training_equals_the_slow_loop(loss, views, depth, activation, bias):
    generator = torch.Generator().manual_seed(depth)
    weights, pairs = draw(generator, depth, views, n=5)
    biases = uniform_biases([4] * (depth + 1), generator) if bias else ()
    path = train(weights, pairs, lr=0.02, steps=5, objective=Objective(loss, activation=activation), biases=biases)
    expected = reference.sgd(loss, weights, pairs, 0.02, 5, activation, biases)
    got = [p[-1] for p in (*path.weights, *path.biases)]
    assert moved(path) > 1e-3
    for fast, slow in zip(got, expected, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.8, 0.05)])
def test_steps_are_those_of_torch_sgd(momentum, weight_decay, generator):
    weights, pairs = draw(generator, runs=(2,))
    biases = uniform_biases([4, 4, 4], generator, (2,))
    path = train(
        weights, pairs, lr=0.1, steps=12, biases=biases, momentum=momentum, weight_decay=weight_decay, records=64
    )
    parameters = [p.clone().requires_grad_() for p in (*weights, *biases)]
    optimiser = torch.optim.SGD(parameters, lr=0.1, momentum=momentum, weight_decay=weight_decay)
    for _ in range(12):
        optimiser.zero_grad()
        Objective().value(tuple(parameters[:2]), pairs, parameters[2:]).sum().backward()
        optimiser.step()
    # The same operations in a different order: a few units in the last place of each step.
    for got, expected in zip((*path.weights, *path.biases), parameters, strict=True):
        torch.testing.assert_close(got[-1], expected.detach(), rtol=1e-12, atol=1e-13)
    assert moved(path) > 0.01


def test_time_is_lr_times_steps_and_momentum_speeds_it_up(generator):
    weights, pairs = draw(generator)
    plain = train(weights, pairs, lr=0.1, steps=10)
    heavy = train(weights, pairs, lr=0.1, steps=10, momentum=0.75)
    steps = torch.tensor(record_steps(10), dtype=torch.float64)
    assert torch.equal(plain.time, 0.1 * steps)
    torch.testing.assert_close(heavy.time, 0.4 * steps, rtol=1e-14, atol=0)


def test_record_starts_at_the_start_and_keeps_the_loss(generator):
    weights, pairs = draw(generator, runs=(2,))
    before = [w.clone() for w in weights]
    path = train(weights, pairs, lr=0.1, steps=20, records=8)
    assert path.time[0] == 0
    assert all(torch.equal(w[0], start) for w, start in zip(path.weights, before, strict=True))
    assert all(torch.equal(w, start) for w, start in zip(weights, before, strict=True))
    for i in range(len(path.time)):
        layers = tuple(w[i] for w in path.weights)
        torch.testing.assert_close(path.loss[i], Objective().value(layers, pairs), rtol=1e-14, atol=0)
    assert (path.loss[-1] < path.loss[0]).all()


def test_restart_midway_equals_straight_through(generator):
    weights, pairs = draw(generator)
    straight = train(weights, pairs, lr=0.1, steps=20)
    half = train(weights, pairs, lr=0.1, steps=10)
    again = train(half.final(), pairs, lr=0.1, steps=10)
    assert moved(half) > 1e-3
    assert moved(again) > 1e-3
    assert all(torch.equal(a, b) for a, b in zip(again.final(), straight.final(), strict=True))


@pytest.mark.parametrize("pool", [None, 20])
def test_same_seed_same_bits(pool):
    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        weights, _ = draw(generator, runs=(2,))
        return train(weights, GaussianTask.block(4, 2).stream(8, generator, (2,), pool), lr=0.1, steps=15)

    first, again, other = run(0), run(0), run(1)
    assert same_bits(first, again)
    assert not same_bits(first, other)


def test_a_stream_can_be_trained_on_twice(generator):
    weights, pairs = draw(generator)
    stream = GaussianTask.block(4, 2).stream(8, generator, pool=20)
    first, again = (train(weights, stream, lr=0.1, steps=15) for _ in range(2))
    assert same_bits(first, again)
    assert not same_bits(first, train(weights, pairs, lr=0.1, steps=15))


def test_training_on_a_stream_uses_its_batches_in_order(generator):
    weights, _ = draw(generator)
    stream = GaussianTask.block(4, 2).stream(6, generator)
    path, layers = train(weights, stream, lr=0.1, steps=4), weights
    for batch in itertools.islice(stream, 4):
        slopes = reference.gradients("infonce", layers, batch)
        layers = [w - 0.1 * slope for w, slope in zip(layers, slopes, strict=True)]
    for got, expected in zip(path.final(), layers, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_runs_do_not_mix(generator):
    weights, pairs = draw(generator, runs=(3,))
    together = train(weights, pairs, lr=0.1, steps=20)
    for run in range(3):
        batch = Pairs(pairs.anchor[run], pairs.positive[run])
        alone = train(tuple(w[run] for w in weights), batch, lr=0.1, steps=20)
        torch.testing.assert_close(together.product[:, run], alone.product, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("loss", ["infonce", "dot", "spectral"])
def test_rotated_data_rotate_the_first_layer(loss, views, generator):
    weights, pairs = draw(generator, 2, views)
    q, r = rotation(generator, 4), rotation(generator, 4)
    objective, settings = Objective(loss, 1.0 if loss == "dot" else None), {"lr": 0.005, "steps": 40}
    here = train(weights, pairs, objective=objective, **settings)
    turned = Pairs(pairs.anchor @ q.T, pairs.positive @ q.T, views)
    there = train((weights[0] @ q.T, r @ weights[1]), turned, objective=objective, **settings)
    assert moved(here) > 1e-3
    # Round-off grows no faster than the modes themselves, which move by a factor of order 1 here.
    torch.testing.assert_close(there.weights[0], here.weights[0] @ q.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(there.weights[1], r @ here.weights[1], rtol=0, atol=1e-12)


def test_order_of_the_samples_changes_nothing(generator):
    weights, pairs = draw(generator)
    order = torch.randperm(8, generator=generator)
    shuffled = Pairs(pairs.anchor[order], pairs.positive[order])
    here, there = (train(weights, batch, lr=0.1, steps=20) for batch in (pairs, shuffled))
    assert moved(here) > 1e-2
    torch.testing.assert_close(there.product, here.product, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_is_the_weights(dtype, generator):
    weights, pairs = draw(generator)
    path = train(tuple(w.to(dtype) for w in weights), pairs.to(dtype), lr=0.1, steps=5)
    assert all(w.dtype == dtype for w in path.weights)
    assert path.time.dtype == torch.float64
    assert moved(path) > 1e-3


def test_record_steps_begin_at_zero_and_end_at_the_end():
    assert record_steps(1) == [0, 1]
    assert record_steps(1000, 2) == [0, 1, 1000]
    for steps, records in ((10, 64), (1000, 16), (10**6, 64)):
        kept = record_steps(steps, records)
        assert (kept[0], kept[-1]) == (0, steps)
        assert kept == sorted(set(kept))
        assert len(kept) <= records
    gaps = torch.tensor(record_steps(10**6, 32)[16:], dtype=torch.float64).log().diff()
    assert float(gaps.max() - gaps.min()) < 0.01


def test_interruption_keeps_the_record(generator):
    weights, pairs = draw(generator)

    def stop(step, steps):
        assert steps == 100
        if step >= 20:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="interrupted at t = ") as stopped:
        train(weights, pairs, lr=0.1, steps=100, records=16, progress=stop)
    partial, full = stopped.value.trajectory, train(weights, pairs, lr=0.1, steps=100, records=16)
    count = len(partial.time)
    assert torch.equal(partial.time, full.time[:count])
    assert float(partial.time[-1]) <= 2.0 < float(full.time[count])  # everything up to step 20
    assert all(torch.equal(w, v[:count]) for w, v in zip(partial.weights, full.weights, strict=True))
    assert partial.meta["dynamics"] == "sgd"


def test_progress_moves_evenly_to_the_end(generator):
    weights, pairs = draw(generator)
    seen = []
    train(weights, pairs, lr=0.01, steps=450, records=8, progress=lambda step, steps: seen.append((step, steps)))
    assert seen == [(step, 450) for step in range(0, 451, 2)]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("objective", [Objective(), Objective("spectral")], ids=str)
@pytest.mark.parametrize("optimiser", [None, torch.optim.Adam])
def test_a_batch_that_is_not_finite_is_told_and_no_rate_blamed(optimiser, objective, number, generator):
    weights, _ = draw(generator)
    batches = [draw(generator)[1] for _ in range(9)]
    batches[5].positive[1, 2] = number
    rate = {"lr": 0.01} if optimiser is None else {"optimiser": optimiser}
    told = "^step 6 could not be taken: its batch holds NaN or infinity; give finite ones$"
    with pytest.raises(TrainingFailed, match=told) as failure:
        train(weights, batches, steps=8, objective=objective, **rate)
    assert failure.value.step == 6
    assert torch.isfinite(failure.value.trajectory.product).all()


@pytest.mark.parametrize(("loss", "lr"), [("infonce", 30.0), ("dot", 5.0), ("spectral", 20.0)])
@pytest.mark.parametrize("depth", [1, 2])
def test_divergence_says_when_and_what_would_do(depth, loss, lr, generator):
    weights, pairs = draw(generator, depth)
    settings = {"objective": Objective(loss), "steps": 90}
    with pytest.raises(Diverged, match=rf"SGD diverged at step \d+ with lr {lr:g}; lr .* passes the first") as failed:
        train(weights, pairs, lr=lr, **settings)
    error = failed.value
    assert 1 <= error.step <= 90
    assert error.trajectory.time[0] == 0
    assert float(error.trajectory.time[-1]) <= lr * error.step
    assert all(torch.isfinite(w).all() for w in error.trajectory.weights)
    if error.step > 1:
        # One step fewer is still recorded in full: `step` is where the weights first leave the bound.
        before = train(weights, pairs, lr=lr, objective=Objective(loss), steps=error.step - 1)
        assert torch.isfinite(end_to_end(before.final())).all()
    with pytest.raises(Diverged, match=f"at step {error.step} "):
        train(weights, pairs, lr=lr, objective=Objective(loss), steps=error.step)
    assert 0 < error.stable_lr < lr
    survivor = train(weights, pairs, lr=error.stable_lr, **settings)
    assert torch.isfinite(survivor.product).all()
    assert float(survivor.loss[-1]) < float(survivor.loss[0]) + 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "lr is 0.0; it must be finite and above 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"momentum": 1.0}, "momentum is 1.0; it must be at least 0 and below 1"),
        ({"momentum": -0.1}, "momentum is -0.1"),
        ({"weight_decay": -1.0}, "weight decay is -1.0; it must be finite and at least 0"),
        ({"records": 1}, "records is 1; it must be at least 2"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    weights, pairs = draw(torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=message):
        train(weights, pairs, **{"lr": 0.1, "steps": 1} | settings)


@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e5, 1e12, 1e100])
@pytest.mark.parametrize("views", VIEWS)
def test_starts_of_any_size_train_as_by_differentiation(views, scale, generator):
    weights = gaussian_init([4, 4], generator, (2,), scale)
    stream = GaussianTask.block(4, 2, views=views).stream(8, generator, (2,), 32)
    got, expected = (train(weights, stream, lr=0.1, steps=20, objective=o) for o in (Objective(), Objective(infonce)))
    assert float((got.product[-1] - got.product[0]).abs().max()) > 1e-3 * scale
    torch.testing.assert_close(got.product / scale, expected.product / scale, rtol=0, atol=1e-10)


def test_bad_weights_are_refused(generator):
    _, pairs = draw(generator)
    with pytest.raises(ValueError, match="no layers"):
        train((), pairs, lr=0.1, steps=1)
    with pytest.raises(ValueError, match="do not chain"):
        train((normal(generator, 3, 4), normal(generator, 3, 4)), pairs, lr=0.1, steps=1)
    with pytest.raises(ValueError, match="NaN or infinity"):
        train((torch.full((4, 4), float("nan"), dtype=torch.float64),), pairs, lr=0.1, steps=1)


ONE = GaussianTask.block(4, 2).sample(8, torch.Generator().manual_seed(0))
NAN = torch.full((8, 4), float("nan"), dtype=torch.float64)
UNFIT = {
    "NaN in the anchors": (Pairs(NAN, ONE.positive), (), "a batch holds NaN, infinity"),
    "NaN in the positives": (Pairs(ONE.anchor, NAN), (), "a batch holds NaN, infinity"),
    "infinity": (Pairs(ONE.anchor / 0, ONE.positive), (), "a batch holds NaN, infinity"),
    "no pair": (Pairs(NAN[:0], NAN[:0]), (), "or fewer than two pairs"),
    "one pair": (Pairs(ONE.anchor[:1], ONE.positive[:1]), (), "or fewer than two pairs"),
    "a dimension less": (Pairs(ONE.anchor[:, 1:], ONE.positive[:, 1:]), (), r"batches are \(8, 3\) .* \(4, 4\) of"),
    "three runs for two": (
        Pairs(NAN.expand(3, 8, 4), NAN.expand(3, 8, 4)),
        (2,),
        r"batches are \(3, 8, 4\)",
    ),
    "two runs for three of two": (Pairs(NAN.expand(3, 8, 4), NAN.expand(3, 8, 4)), (3, 2), "batches are"),
}


@pytest.mark.parametrize(("pairs", "runs", "message"), UNFIT.values(), ids=UNFIT)
def test_batches_that_do_not_fit_are_refused(pairs, runs, message, generator):
    weights = gaussian_init([4, 4], generator, runs)
    with pytest.raises(ValueError, match=message):
        train(weights, pairs, lr=0.1, steps=5)
    with pytest.raises(ValueError, match=message):
        sample_flow(weights, pairs, 1.0)


def test_batches_in_another_precision_are_refused(generator):
    weights = gaussian_init([4, 4], generator)
    with pytest.raises(ValueError, match=r"of torch.float32 on cpu, the first layer is \(4, 4\) of torch.float64"):
        train(weights, ONE.to(torch.float32), lr=0.1, steps=5)


def test_batches_that_come_once_only_are_refused(generator):
    with pytest.raises(ValueError, match="come from an iterator, which ends after one use; give a list"):
        train(gaussian_init([4, 4], generator), iter([ONE] * 6), lr=0.1, steps=5)


@pytest.mark.parametrize("shape", [(4,), (0, 4, 4), (4, 0)])
def test_layers_of_no_size_are_refused(shape):
    with pytest.raises(ValueError, match=r"layer shapes are .* none of them 0"):
        train((torch.zeros(shape, dtype=torch.float64),), ONE, lr=0.1, steps=5)


def test_data_without_any_variance_leave_the_weights_alone(generator):
    zero = torch.zeros(4, 4, dtype=torch.float64)
    weights, _ = draw(generator)
    path = train(weights, GaussianTask(zero, zero).sample(8, generator), lr=0.1, steps=3)
    assert torch.equal(path.product[-1], path.product[0])


class Looks(TorchDispatchMode):
    """Counts the moments at which Python waits for a number: on a GPU each would stop the queue."""

    count = 0

    def __torch_dispatch__(self, operation, _types, arguments=(), keywords=None):
        self.count += operation is torch.ops.aten._local_scalar_dense.default
        return operation(*arguments, **keywords or {})


def test_the_step_loop_does_not_wait_for_numbers():
    # One seed and one loss: a dispatch mode is slow, and the loop is the same for all.
    generator = torch.Generator().manual_seed(0)
    weights = gaussian_init([4, 4], generator, (2,))
    stream = GaussianTask.block(4, 2).stream(8, generator, (2,))
    steps = 1280
    with Looks() as looks:
        train(weights, stream, lr=1e-3, steps=steps, records=2)
    # One look per 64 steps; besides, constants: the start's checks, the bound and the end.
    assert steps // LOOK <= looks.count <= steps // LOOK + 50


def test_a_joined_ensemble_trains_each_run_as_it_trains_alone(generator):
    tasks = [GaussianTask.block(4, 2, k) for k in (0.5, 3.0)]
    weights = [gaussian_init([4, 4, 4], generator, (runs,)) for runs in (2, 3)]
    streams = [
        task.stream(8, torch.Generator().manual_seed(runs), (runs,)) for task, runs in zip(tasks, (2, 3), strict=True)
    ]
    together = train(
        tuple(torch.cat(layers) for layers in zip(*weights, strict=True)), join_streams(streams), lr=0.1, steps=50
    )
    for runs, start, stream in zip((slice(2), slice(2, 5)), weights, streams, strict=True):
        alone = train(start, stream, lr=0.1, steps=50)
        for joined, own in zip(together.weights, alone.weights, strict=True):
            # A batched product may add up in another order; 50 steps of growth below 2 keep that near eps.
            torch.testing.assert_close(joined[:, runs], own, rtol=1e-12, atol=1e-13)
