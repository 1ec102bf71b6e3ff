"""Ensembles whose runs are parted among generators and threads."""

import itertools
import threading

import pytest
import torch
from helpers.constants import set_constant
from helpers.reference import covariance

from dyncollapse import (
    Diverged,
    GaussianTask,
    Interrupted,
    JoinedStream,
    Objective,
    Pairs,
    PairStream,
    gaussian_init,
    join_streams,
    train,
    uniform_biases,
)
from dyncollapse.dynamics import _kernels
from dyncollapse.dynamics import ensemble as ensembles
from dyncollapse.dynamics._linear_steps import LinearSteps
from dyncollapse.dynamics.sgd import Rule
from dyncollapse.model.streams import numbers_per_step

RUNS, N, DIM = 10, 8, 4
SIZE = numbers_per_step(N, DIM)  # of one run


@pytest.fixture
def small_parts(monkeypatch):
    """Ten runs are four streams, of two or three runs, and four parts."""
    set_constant(monkeypatch, "model._drawing.SHARED", 3 * SIZE)
    set_constant(monkeypatch, "dynamics._kernels.WORTH_A_SHARE", 2 * SIZE)


@pytest.fixture
def threads():
    """Set PyTorch's threads for a test; it has to leave as many."""
    before = torch.get_num_threads()
    given = [before]

    def use(count):
        given[0] = count
        torch.set_num_threads(count)

    yield use
    left = torch.get_num_threads()
    torch.set_num_threads(before)
    assert left == given[0]
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def start(generator, runs=(RUNS,), depth=2, pool=None, views="one-sided"):
    weights = gaussian_init([DIM] * (depth + 1), generator, runs, 0.5)
    return weights, GaussianTask.block(DIM, 2, 0.7, views=views).stream(N, generator, runs, pool)


def listed(stream, steps):
    """The stream's batches as a list: one part, in which all runs are stepped together."""
    return list(itertools.islice(stream, steps + 1))


def states(path):
    return (*path.weights, *path.biases, path.loss)


@pytest.mark.parametrize("pool", [None, 20])
@pytest.mark.usefixtures("small_parts")
def test_many_runs_draw_from_generators_of_their_own(pool, generator):
    before = generator.get_state()
    _, stream = start(generator, pool=pool)
    assert [part.runs for part in stream.streams] == [(2,), (3,), (2,), (3,)]
    first, again = listed(stream, 4), listed(stream, 4)
    assert all(torch.equal(a.positive, b.positive) for a, b in zip(first, again, strict=True))
    anchors = torch.stack([batch.anchor for batch in first])
    assert anchors.shape == (5, RUNS, N, DIM)
    samples = {tuple(row) for row in anchors.flatten(0, 2).tolist()}
    assert len(samples) == 5 * RUNS * N if pool is None else len(samples) <= RUNS * 20
    assert not torch.equal(before, generator.get_state())  # the weights' draws
    other = start(torch.Generator().manual_seed(77))[1]
    assert not torch.equal(next(iter(other)).anchor, first[0].anchor)


@pytest.mark.usefixtures("small_parts")
def test_a_stream_of_many_runs_leaves_its_generator_where_it_was(generator):
    before = generator.get_state()
    assert isinstance(GaussianTask.block(DIM, 2).stream(N, generator, (RUNS,)), JoinedStream)
    assert torch.equal(before, generator.get_state())


@pytest.mark.usefixtures("small_parts")
@pytest.mark.seeds(3)
def test_draws_of_all_generators_have_the_covariance(generator):
    batches = listed(GaussianTask.block(DIM, 2, 0.7, 0.5).stream(N, generator, (RUNS,)), 199)
    pooled = torch.cat([batch.anchor.flatten(0, 1) for batch in batches])
    shift = torch.cat([(batch.positive - batch.anchor).flatten(0, 1) for batch in batches])
    # Five standard deviations of an entry: sqrt(2 / samples) times the variance.
    bound = 5 * (2 / len(pooled)) ** 0.5
    torch.testing.assert_close(covariance(pooled), 0.5 * torch.eye(DIM, dtype=torch.float64), rtol=0, atol=0.5 * bound)
    expected = torch.diag(torch.tensor([0, 0, 0.7, 0.7], dtype=torch.float64))
    torch.testing.assert_close(covariance(shift), expected, rtol=0, atol=0.7 * bound)


@pytest.mark.parametrize("runs", [(), (2,), (1, 40), (6, 2)])
@pytest.mark.usefixtures("small_parts")
def test_streams_are_parted_along_the_first_axis_only(runs, generator):
    stream = GaussianTask.block(DIM, 2).stream(N, generator, runs)
    assert isinstance(stream, PairStream if runs in ((), (2,), (1, 40)) else JoinedStream)
    assert next(iter(stream)).anchor.shape == (*runs, N, DIM)


@pytest.mark.usefixtures("small_parts")
def test_joined_streams_of_many_runs_are_joined_flat(generator):
    many, few = start(generator)[1], start(generator, (2,))[1]
    joined = join_streams([many, few])
    assert joined.streams == (*many.streams, few)
    assert torch.equal(next(iter(joined)).anchor[:RUNS], next(iter(many)).anchor)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.8, 0.05)])
@pytest.mark.parametrize(
    ("loss", "activation", "views"),
    [("infonce", "linear", "one-sided"), ("infonce", "relu", "one-sided"), ("ntxent", "linear", "two-sided")],
)
@pytest.mark.usefixtures("small_parts")
def test_parts_train_as_all_runs_together(loss, activation, views, momentum, weight_decay, bias, threads):
    generator = torch.Generator().manual_seed(0)
    weights, stream = start(generator, views=views)
    settings = {
        "lr": 0.1,
        "steps": 12,
        "objective": Objective(loss, activation=activation),
        "momentum": momentum,
        "weight_decay": weight_decay,
        "biases": uniform_biases([DIM] * 3, generator, (RUNS,)) if bias else (),
    }
    threads(2)
    together, parted = (train(weights, pairs, **settings) for pairs in (listed(stream, 12), stream))
    assert float((parted.product[-1] - parted.product[0]).abs().min()) > 0
    for got, expected in zip(states(parted), states(together), strict=True):
        # Batched products of other sizes may add up in another order.
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("small_parts")
def test_threads_change_no_bits(threads):
    weights, stream = start(torch.Generator().manual_seed(0))
    paths = []
    for count in (1, 2, 3, 4):
        threads(count)
        paths.append(train(weights, stream, lr=0.1, steps=30))
    assert all(torch.equal(a, b) for path in paths[1:] for a, b in zip(states(path), states(paths[0]), strict=True))


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.usefixtures("small_parts")
def test_threads_that_are_asked_for_step_parts_and_change_no_bits(count, threads, monkeypatch):
    threads(1)
    weights, stream = start(torch.Generator().manual_seed(0))
    alone = train(weights, stream, lr=0.1, steps=200)
    seen, take = set(), LinearSteps.take

    def watched(*given):
        seen.add((threading.current_thread().name, torch.get_num_threads()))
        return take(*given)

    monkeypatch.setattr(LinearSteps, "take", watched)
    path = train(weights, stream, lr=0.1, steps=200, threads=count)
    assert len(seen) == count
    assert {number for _, number in seen} == {1}
    assert all(torch.equal(a, b) for a, b in zip(states(path), states(alone), strict=True))


@pytest.mark.usefixtures("small_parts")
def test_each_part_is_worth_a_thread():
    task = GaussianTask.block(DIM, 2)
    streams = [task.stream(N, torch.Generator().manual_seed(i), (1,)) for i in range(7)]
    parted = _kernels.shares(join_streams(streams), torch.Size([7]))
    rows, shares = zip(*parted, strict=True)
    assert list(rows) == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 7)]
    assert [len(share.streams) for share in shares] == [2, 2, 2, 1]


@pytest.mark.parametrize("runs", [(), (3, RUNS)])
@pytest.mark.usefixtures("small_parts")
def test_weights_whose_runs_are_not_the_batches_are_not_parted(runs, generator, threads):
    threads(2)
    weights = gaussian_init([DIM, DIM], generator, runs, 0.5)
    stream = GaussianTask.block(DIM, 2).stream(N, generator, (RUNS,))
    got, expected = (train(weights, pairs, lr=0.1, steps=5) for pairs in (stream, listed(stream, 5)))
    assert got.product.shape[1:-2] == runs
    assert all(torch.equal(a, b) for a, b in zip(states(got), states(expected), strict=True))


def test_a_small_ensemble_has_one_of_pytorchs_threads(generator, threads):
    threads(2)
    weights, stream = start(generator, (2,))
    seen, spectral = set(), Objective("spectral")
    settings = {"lr": 0.001, "objective": spectral, "progress": lambda *_: seen.add(torch.get_num_threads())}
    train(weights, stream, steps=5, **settings)
    assert seen == {1}
    weights = gaussian_init([DIM, DIM], generator)
    large = GaussianTask.block(DIM, 2).stream(1024, generator)
    train(weights, large, steps=2, **settings)
    assert seen == {1, 2}


@pytest.mark.parametrize(("width", "runs"), [(DIM, (128,)), (128, ())])
def test_runs_on_one_batch_and_wide_layers_are_worth_threads(width, runs, threads):
    threads(2)
    generator, seen = torch.Generator().manual_seed(0), set()
    pairs = GaussianTask.block(width, 2).sample(64, generator)
    weights = gaussian_init([width, width], generator, runs, 0.01)
    settings = {"objective": Objective("spectral"), "progress": lambda *_: seen.add(torch.get_num_threads())}
    train(weights, pairs, lr=1e-3, steps=2, **settings)
    assert seen == {2}


@pytest.mark.usefixtures("small_parts")
def test_an_interruption_stops_all_threads(threads):
    threads(2)
    weights, stream = start(torch.Generator().manual_seed(0))

    def stop(step, _):
        if step >= 20:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        train(weights, stream, lr=0.1, steps=100, records=16, progress=stop)
    full = train(weights, stream, lr=0.1, steps=100, records=16)
    partial = stopped.value.trajectory
    assert 0 < float(partial.time[-1]) <= 2.0
    assert torch.equal(partial.weights[0], full.weights[0][: len(partial.time)])


@pytest.mark.parametrize("failing", range(4))
@pytest.mark.usefixtures("small_parts")
def test_parts_that_are_stepping_are_stopped(failing, threads, monkeypatch):
    threads(4)
    weights, stream = start(torch.Generator().manual_seed(0))
    calls, made, begin, take = itertools.count(), [], LinearSteps.__init__, LinearSteps.take

    def noted(steps, *given):
        made.append(steps)
        begin(steps, *given)

    def fail(steps, *given):
        next(calls)
        if steps is made[failing]:
            raise ZeroDivisionError
        take(steps, *given)

    monkeypatch.setattr(LinearSteps, "__init__", noted)
    monkeypatch.setattr(LinearSteps, "take", fail)
    ensemble = ensembles.Ensemble(weights, (), stream, Rule(0.1, Objective()))
    with pytest.raises(ZeroDivisionError), ensemble:
        ensemble.advance(1_000_000)
    assert next(calls) < 10_000  # of the 47,000 blocks that the other parts would take


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.usefixtures("small_parts")
def test_parts_step_in_as_many_threads(count, threads, monkeypatch):
    threads(count)
    weights, stream = start(torch.Generator().manual_seed(0))
    seen, take = set(), LinearSteps.take

    def watched(*given):
        seen.add((threading.current_thread().name, torch.get_num_threads()))
        return take(*given)

    monkeypatch.setattr(LinearSteps, "take", watched)
    set_constant(monkeypatch, "dynamics._kernels.WORTH_A_THREAD", 1)  # so that only the sharing keeps it at one
    train(weights, stream, lr=0.1, steps=200)
    assert {number for _, number in seen} == {1}
    assert len(seen) == count


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.usefixtures("small_parts")
def test_runs_in_several_axes_train_as_each_alone(bias, threads):
    threads(2)
    generator, runs = torch.Generator().manual_seed(0), (6, 2)
    weights, stream = start(generator, runs)
    biases = uniform_biases([DIM] * 3, generator, runs) if bias else ()
    assert isinstance(stream, JoinedStream)
    together = train(weights, stream, lr=0.1, steps=10, biases=biases)
    for run in itertools.product(*map(range, runs)):
        batches = [Pairs(batch.anchor[run], batch.positive[run]) for batch in listed(stream, 10)]
        alone = train(tuple(w[run] for w in weights), batches, lr=0.1, steps=10, biases=tuple(b[run] for b in biases))
        for joined, own in zip(states(together), states(alone), strict=True):
            # Batched products may add up in another order.
            torch.testing.assert_close(joined[(slice(None), *run)], own, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("small_parts")
def test_stopped_parts_take_no_further_step(threads):
    threads(1)
    weights, stream = start(torch.Generator().manual_seed(0))
    with ensembles.Ensemble(weights, (), stream, Rule(0.1, Objective())) as ensemble:
        ensemble.advance(0)
    ensemble.advance(10**9)  # after the block, which stops the parts
    assert all(torch.equal(a, b) for a, b in zip(ensemble.parameters(), weights, strict=True))


@pytest.mark.usefixtures("small_parts")
def test_one_run_that_blows_up_ends_the_training(threads):
    threads(2)
    weights, stream = start(torch.Generator().manual_seed(0))
    settings = {"lr": 0.01, "steps": 80, "objective": Objective("spectral")}
    assert train(weights, stream, **settings).time[-1] == pytest.approx(0.8)
    weights[0][7] *= 2000  # far beyond all others, in the last part
    with pytest.raises(Diverged, match="SGD diverged at step") as failed:
        train(weights, stream, **settings)
    assert failed.value.trajectory.time[0] == 0


@pytest.mark.parametrize("given", [0, 1, 5])
def test_a_stream_that_ends_too_early_is_refused(given):
    weights, stream = start(torch.Generator().manual_seed(0), (2,))
    with pytest.raises(ValueError, match="ended too early; a training needs one more batch than it has steps"):
        train(weights, listed(stream, 5)[:given], lr=0.1, steps=5)
    assert train(weights, listed(stream, 5), lr=0.1, steps=5).time[-1] == 0.5


@pytest.mark.usefixtures("small_parts")
def test_what_goes_wrong_in_a_thread_is_raised(threads, monkeypatch):
    threads(2)
    weights, stream = start(torch.Generator().manual_seed(0))

    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(LinearSteps, "take", fail)
    with pytest.raises(MemoryError, match="no room"):
        train(weights, stream, lr=0.1, steps=5)


@pytest.mark.usefixtures("small_parts")
def test_every_run_has_its_bias(threads):
    threads(2)
    weights, stream = start(torch.Generator().manual_seed(0), depth=1)
    shared = torch.zeros(DIM, dtype=torch.float64)
    with pytest.raises(
        ValueError, match=r"biases have shapes \[\(4,\)\]; one of \(\*runs, out\) per layer: \[\(10, 4\)\]"
    ):
        train(weights, stream, lr=0.1, steps=5, biases=(shared,))
    assert train(weights, stream, lr=0.1, steps=5, biases=(shared.expand(RUNS, DIM),)).biases[0].shape[1:] == (
        RUNS,
        DIM,
    )


def test_layers_whose_product_overflows_are_refused(generator):
    weights, stream = start(generator, (2,))
    with pytest.raises(ValueError, match="initial layers multiply to infinity; give smaller weights"):
        train(tuple(1e200 * w for w in weights), stream, lr=0.1, steps=5)


def test_no_runs_at_all_have_empty_batches(generator):
    assert next(iter(GaussianTask.block(DIM, 2).stream(N, generator, (0,)))).anchor.shape == (0, N, DIM)
