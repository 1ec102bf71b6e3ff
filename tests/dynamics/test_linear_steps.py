"""SGD on arrays against gradient and step of PyTorch, and what it makes of streams and threads."""

import threading
from typing import ClassVar

import numpy as np
import pytest
import torch
from helpers.reference import VIEWS
from helpers.waiting import PATIENCE

from dyncollapse import GaussianTask, Objective, Pairs, gaussian_init, sample_flow, train
from dyncollapse.dynamics._linear_steps import LinearSteps
from dyncollapse.dynamics._steps_compiled import descend
from dyncollapse.dynamics.trajectory import TrainingFailed
from dyncollapse.model._forces_compiled import dot_forces, dot_losses

LOSSES = [("infonce", None), ("dot", 0.7)]
WIDTHS = [(5, 4), (4, 5), (5, 3, 4), (4, 6, 2, 3)]
SETTINGS = {"lr": 0.01, "steps": 70, "records": 4}  # more steps than are taken together


def start(generator, widths, runs=(), biased=False, dtype=torch.float64):
    weights = gaussian_init(list(widths), generator, runs, 0.5)
    biases = [torch.randn(*runs, width, generator=generator) for width in widths[1:] if biased]
    return tuple(w.to(dtype) for w in weights), [b.to(dtype) for b in biases]


def by_torch(monkeypatch, *arguments, **settings):
    with monkeypatch.context() as patch:
        patch.setattr("dyncollapse.dynamics._part.on_arrays", lambda *_, **__: False)
        return train(*arguments, **settings)


def assert_alike(one, other, tolerance=1e-10):
    for name in ("weights", "biases"):
        for mine, theirs in zip(getattr(one, name), getattr(other, name), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(one.loss, other.loss, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.5, 0.1)])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
def test_paths_are_those_of_pytorch(
    loss, temperature, widths, views, biased, momentum, weight_decay, generator, monkeypatch
):
    weights, biases = start(generator, widths, (2,), biased)
    stream = GaussianTask.block(widths[0], 2, 1.3, views=views).stream(6, generator, (2,))
    settings = SETTINGS | {"momentum": momentum, "weight_decay": weight_decay, "biases": biases}
    settings |= {"objective": Objective(loss, temperature)}
    assert_alike(train(weights, stream, **settings), by_torch(monkeypatch, weights, stream, **settings))


def test_single_precision_stays_single(generator, monkeypatch):
    weights, _ = start(generator, (5, 4, 3), (2,), dtype=torch.float32)
    stream = GaussianTask.block(5, 2, 1.3).to(torch.float32).stream(6, generator, (2,))
    path = train(weights, stream, **SETTINGS)
    assert path.weights[0].dtype == torch.float32
    assert_alike(path, by_torch(monkeypatch, weights, stream, **SETTINGS), tolerance=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_goes_by_pytorch(dtype, generator):
    weights, _ = start(generator, (4, 3), dtype=dtype)
    pairs = GaussianTask.block(4, 2).sample(6, generator)
    path = train(weights, pairs.to(dtype), **SETTINGS)
    exact = train((weights[0].double(),), pairs, **SETTINGS)
    assert path.weights[0].dtype == dtype
    torch.testing.assert_close(path.weights[0][-1].double(), exact.weights[0][-1], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("objective", [Objective(), Objective("spectral")])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda _: 3, "yields int; it must yield Pairs"),
        (lambda pairs: pairs.to(torch.float32), r"batches are \(6, 4\) of torch.float32"),
        (lambda pairs: Pairs(pairs.anchor[:, 1:], pairs.positive[:, 1:]), r"batches are \(6, 3\)"),
        (lambda pairs: Pairs(pairs.anchor, pairs.positive.float()), r"batches are \(6, 4\) of torch.float32"),
        (lambda pairs: Pairs(pairs.anchor[:1], pairs.positive[:1]), "fewer than two pairs"),
    ],
)
def test_a_batch_that_does_not_fit_ends_the_training_with_what_was_recorded(change, told, objective, generator):
    weights, _ = start(generator, (4, 3))
    task = GaussianTask.block(4, 2, 1.3)
    batches = [task.sample(6, generator) for _ in range(10)]
    batches[5] = change(batches[5])
    with pytest.raises(TrainingFailed, match=told) as failure:
        train(weights, batches, lr=0.01, steps=9, objective=objective)
    assert failure.value.step == 5
    assert len(failure.value.trajectory.time) == 5


@pytest.mark.parametrize("shared", [(), (1, 1), (1, 3), (2, 1), (3,)])
def test_runs_may_share_batches(shared, generator, monkeypatch):
    weights, biases = start(generator, (4, 3), (2, 3), biased=True)
    pairs = GaussianTask.block(4, 2, 1.3).sample(6, generator, shared)
    settings = SETTINGS | {"biases": biases, "objective": Objective("dot")}
    assert_alike(train(weights, pairs, **settings), by_torch(monkeypatch, weights, pairs, **settings))


def test_batches_in_front_of_the_runs_are_averaged_over(generator, monkeypatch):
    weights, _ = start(generator, (4, 3), (2,))
    pairs = GaussianTask.block(4, 2, 1.3).sample(6, generator, (3, 2))
    assert_alike(train(weights, pairs, **SETTINGS), by_torch(monkeypatch, weights, pairs, **SETTINGS))


def test_batches_may_differ_in_size_and_views(generator):
    weights, _ = start(generator, (4, 3))
    task = GaussianTask.block(4, 2, 1.3)
    kinds = [(6, VIEWS[0]), (6, VIEWS[0]), (6, VIEWS[1]), (6, VIEWS[1]), (2, VIEWS[1]), (9, VIEWS[0]), (6, VIEWS[0])]
    drawn = [(task.sample(n, generator), views) for n, views in kinds]
    batches = [Pairs(batch.anchor, batch.positive, views) for batch, views in drawn]
    path = train(weights, batches, lr=0.1, steps=6, records=2)
    w = weights[0]
    for batch in batches[:6]:
        w = w - 0.1 * Objective().gradient((w,), batch)[0]
    torch.testing.assert_close(path.weights[0][-1], w, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(path.loss[-1], Objective().value((w,), batches[6]), rtol=1e-13, atol=0)


@pytest.mark.parametrize("objective", [Objective(), Objective("spectral")])
def test_axes_of_batches_do_not_come_and_go(objective, generator):
    weights, _ = start(generator, (4, 3))
    task = GaussianTask.block(4, 2, 1.3)
    one, three = task.sample(6, generator), task.sample(6, generator, (3,))
    for batches in ([one, one, three], [three, three, one]):
        with pytest.raises(TrainingFailed, match="all must have as many axes of batches in front") as failure:
            train(weights, batches, lr=0.01, steps=2, objective=objective)
        assert failure.value.step == 2
        assert len(failure.value.trajectory.time) == 2


def test_numbers_of_any_type_are_settings_and_nothing_is_compiled_for_them(generator):
    weights, biases = start(generator, (4, 3), biased=True)
    pairs = GaussianTask.block(4, 2).sample(6, generator)
    settings = {"steps": 2, "biases": biases, "objective": Objective("dot", 1.0)}
    expected = train(weights, pairs, lr=1.0, momentum=0.0, weight_decay=0.0, **settings)
    before = len(descend.signatures), len(dot_forces.signatures), len(dot_losses.signatures)
    for lr in (1, np.float64(1)):
        path = train(weights, pairs, lr=lr, momentum=0, weight_decay=0, **settings | {"objective": Objective("dot", 1)})
        assert torch.equal(path.weights[0], expected.weights[0])
    sample_flow(weights, pairs, 1, objective=Objective("dot", 1), biases=biases)
    assert (len(descend.signatures), len(dot_forces.signatures), len(dot_losses.signatures)) == before


class Reused:
    """A stream that writes every batch over the one before."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        anchor, positive = (torch.empty_like(self.batches[0].anchor) for _ in range(2))
        for batch in self.batches:
            anchor.copy_(batch.anchor)
            positive.copy_(batch.positive)
            yield Pairs(anchor, positive)


def test_a_stream_may_write_a_batch_over_the_last(generator):
    weights, _ = start(generator, (4, 3))
    task = GaussianTask.block(4, 2, 1.3)
    batches = [task.sample(6, generator) for _ in range(SETTINGS["steps"] + 1)]
    expected, found = (train(weights, stream, **SETTINGS) for stream in (batches, Reused(batches)))
    assert torch.equal(expected.weights[0], found.weights[0])
    assert torch.equal(expected.loss, found.loss)


class ReusingTask(GaussianTask):
    """A task that writes every batch over the one before."""

    held: ClassVar = {}

    def augment(self, clean, generator):
        batch = super().augment(clean, generator)
        for name in ("anchor", "positive"):
            self.held.setdefault(name, torch.empty_like(batch.anchor)).copy_(getattr(batch, name))
        return Pairs(**self.held)


def test_a_task_may_write_a_batch_over_the_last(generator):
    weights, _ = start(generator, (4, 3))
    task = GaussianTask.block(4, 2, 1.3)
    expected, found = (
        train(weights, kind(task.data_cov, task.aug_cov).stream(6, generator.clone_state(), pool=40), **SETTINGS)
        for kind in (GaussianTask, ReusingTask)
    )
    assert torch.equal(expected.weights[0], found.weights[0])


@pytest.mark.parametrize("count", [1, 2, 30])
def test_a_stream_that_ends_early_leaves_the_steps_before(count, generator):
    weights, _ = start(generator, (4, 3))
    task = GaussianTask.block(4, 2, 1.3)
    batches = [task.sample(6, generator) for _ in range(count)]
    with pytest.raises(TrainingFailed, match="ended too early") as failure:
        train(weights, batches, **SETTINGS)
    assert failure.value.step == count
    path = failure.value.trajectory
    assert path.time[-1] < count * SETTINGS["lr"]
    if len(path.time) > 1:
        steps = round(float(path.time[-1]) / SETTINGS["lr"])
        again = train(weights, batches, lr=SETTINGS["lr"], steps=steps, records=2)
        assert torch.equal(path.weights[0][-1], again.weights[0][-1])


@pytest.mark.parametrize(("threads", "runs", "used"), [(1, 5, 1), (2, 5, 2), (4, 3, 3), (2, 1, 1)])
def test_threads_share_the_runs_and_change_no_bit(threads, runs, used, generator, monkeypatch):
    weights, biases = start(generator, (8, 8, 8), (runs,), biased=True)
    stream = GaussianTask.block(8, 2, 1.3, views="two-sided").stream(256, generator, (runs,))
    settings = {"objective": Objective("dot"), "biases": biases, "lr": 0.001, "steps": 40, "momentum": 0.5}
    alone, seen, take = train(weights, stream, threads=1, **settings), [], LinearSteps.take
    both = threading.Barrier(used, timeout=PATIENCE)

    def watched(steps, block, rows=slice(None)):
        if len(seen) < used:
            both.wait()  # every share has a thread of its own
        seen.append((threading.current_thread().name, rows))
        take(steps, block, rows)

    monkeypatch.setattr(LinearSteps, "take", watched)
    shared = train(weights, stream, threads=threads, **settings)
    first = seen[:used]
    assert len({name for name, _ in first}) == used
    assert sorted(row for _, rows in first for row in range(runs)[rows]) == [*range(runs)]
    assert all(range(runs)[rows] for _, rows in first)
    assert all(torch.equal(a, b) for a, b in zip(alone.weights, shared.weights, strict=True))
