"""Training with optimisers of PyTorch: their steps, schedules, and ensembles whose runs stay independent."""

import pickle

import numpy as np
import pytest
import torch
from helpers import flow as flow_helpers
from helpers.constants import set_constant
from helpers.flow import moved

from dyncollapse import (
    Diverged,
    GaussianTask,
    Objective,
    TrainingFailed,
    gaussian_init,
    record_steps,
    train,
    uniform_biases,
)
from dyncollapse.model.streams import JoinedStream, numbers_per_step

OPTIMISERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.02),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
}


def cosine(parameters):
    optimiser = torch.optim.Adam(parameters, lr=0.05)
    return optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 12)


def by_hand(made, weights, biases, batches, objective):
    parameters = [p.clone().requires_grad_() for p in (*weights, *biases)]
    optimiser, schedule = made if isinstance(made := made(parameters), tuple) else (made, None)
    for batch in batches:
        optimiser.zero_grad()
        objective.value(tuple(parameters[: len(weights)]), batch, parameters[len(weights) :]).sum().backward()
        optimiser.step()
        if schedule is not None:
            schedule.step()
    return [p.detach() for p in parameters]


@pytest.mark.parametrize("make", [*OPTIMISERS.values(), cosine], ids=[*OPTIMISERS, "cosine"])
@pytest.mark.parametrize(("loss", "activation"), [("infonce", "linear"), ("dot", "relu")])
def test_steps_are_those_of_the_optimiser(make, loss, activation, generator):
    weights, pairs = flow_helpers.draw(generator, 2, n=8)
    biases, objective = uniform_biases([4, 4, 4], generator), Objective(loss, activation=activation)
    path = train(weights, pairs, steps=12, optimiser=make, biases=biases, objective=objective)
    expected = by_hand(make, weights, biases, [pairs] * 12, objective)
    assert moved(path) > 1e-3
    # The last bias of Eq. 2 has no gradient but round-off, which some optimisers turn into steps.
    for got, slow in list(zip((*path.weights, *path.biases), expected, strict=True))[:2]:
        torch.testing.assert_close(got[-1], slow, rtol=0, atol=1e-8)


def test_plain_sgd_is_the_same_either_way(generator):
    weights, pairs = flow_helpers.draw(generator, 2, n=8)
    own = train(weights, pairs, lr=0.1, steps=20, momentum=0.5, weight_decay=0.01)
    theirs = train(
        weights, pairs, steps=20, optimiser=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5, weight_decay=0.01)
    )
    torch.testing.assert_close(own.product, theirs.product, rtol=1e-12, atol=1e-13)


def test_time_counts_the_steps_and_says_so(generator):
    weights, pairs = flow_helpers.draw(generator, n=8)
    path = train(weights, pairs, steps=20, optimiser=cosine)
    assert path.time.tolist() == record_steps(20)
    assert {"optimiser": "Adam with CosineAnnealingLR", "time": "steps"}.items() <= path.meta.items()
    assert "lr" not in path.meta
    plain = train(weights, pairs, lr=0.1, steps=20)
    assert plain.meta["time"] == "flow"


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
def test_runs_stay_independent_in_every_share(make, monkeypatch):
    size = numbers_per_step(8, 4)
    set_constant(monkeypatch, "model._drawing.SHARED", 3 * size)
    set_constant(monkeypatch, "dynamics._kernels.WORTH_A_SHARE", 2 * size)
    generator = torch.Generator().manual_seed(0)
    weights = gaussian_init([4, 4, 4], generator, (6,), 0.5)
    stream = GaussianTask.block(4, 2, 0.7).stream(8, generator, (6,))
    assert isinstance(stream, JoinedStream)
    together = train(weights, stream, steps=8, optimiser=make)
    for run in (0, 3, 5):
        batches = [type(b)(b.anchor[run], b.positive[run]) for b, _ in zip(stream, range(9), strict=False)]
        alone = train(tuple(w[run] for w in weights), batches, steps=8, optimiser=make)
        torch.testing.assert_close(together.product[:, run], alone.product, rtol=1e-9, atol=1e-9)


def normed(parameters):
    """SGD under a norm of all gradients, clipped."""

    class Clipped(torch.optim.SGD):
        def step(self, closure=None):
            torch.nn.utils.clip_grad_norm_(parameters, 0.1)
            return super().step(closure)

    return Clipped(parameters, lr=0.1)


@pytest.mark.parametrize("make", [normed, torch.optim.Adafactor], ids=["clipped", "Adafactor"])
def test_optimisers_that_mix_runs_are_refused_for_ensembles(make, generator):
    weights, pairs = flow_helpers.draw(generator, n=8, runs=(2,))
    with pytest.raises(ValueError, match="mixes the runs of an ensemble: the step of one depends on the gradients of"):
        train(weights, pairs, steps=5, optimiser=make)
    weights, pairs = flow_helpers.draw(generator, n=8)
    assert moved(train(weights, pairs, steps=5, optimiser=make)) > 1e-4


def test_parameters_that_are_left_out_stay(generator):
    weights, pairs = flow_helpers.draw(generator, 2, n=8)
    path = train(weights, pairs, steps=5, optimiser=lambda p: torch.optim.Adam(p[1:], lr=0.1))
    assert torch.equal(path.weights[0][-1], weights[0])
    assert not torch.equal(path.weights[1][-1], weights[1])


def plateau(parameters):
    optimiser = torch.optim.Adam(parameters)
    return optimiser, torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser)


def strange(parameters):
    other = torch.optim.Adam([torch.ones(1, requires_grad=True)])
    return torch.optim.Adam(parameters), torch.optim.lr_scheduler.ConstantLR(other)


UNUSABLE = {
    "an optimiser": (torch.optim.Adam([torch.ones(1)]), "optimiser is of type Adam; give a function such as lambda"),
    "a name": ("adam", "optimiser is of type str; give a function"),
    "nothing": (lambda _: None, "optimiser returned a NoneType; it must return a torch.optim.Optimizer"),
    "a triple": (lambda p: (torch.optim.Adam(p), 1, 2), "optimiser returned a tuple"),
    "others": (lambda _: torch.optim.Adam([torch.ones(1)]), "the Adam steps other tensors than it was given"),
    "closure": (torch.optim.LBFGS, "LBFGS needs a closure, which evaluates the loss several times a step; choose"),
    "metric": (plateau, "the schedule ReduceLROnPlateau does not follow the number of steps alone"),
    "no schedule": (lambda p: (torch.optim.Adam(p), 3), "the schedule int does not follow"),
    "another's": (strange, "the schedule ConstantLR belongs to another optimiser than the Adam"),
    "sparse": (
        torch.optim.SparseAdam,
        "SparseAdam cannot take a step with dense gradients in the shapes of the layers: Sp",
    ),
    "its own check": (lambda p: torch.optim.Adam(p, lr=-1.0), "Invalid learning rate: -1.0"),
}


@pytest.mark.parametrize(("make", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_optimisers_are_refused_in_one_line(make, message, generator):
    weights, pairs = flow_helpers.draw(generator, n=8)
    with pytest.raises(ValueError, match=message) as refused:
        train(weights, pairs, steps=5, optimiser=make)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "neither lr nor optimiser is given; give lr for SGD, or an optimiser"),
        ({"lr": 0.1, "optimiser": cosine}, "optimiser and lr are both given"),
        ({"momentum": 0.5, "optimiser": cosine}, r"momentum is 0\.5 beside an optimiser, which has its own"),
        ({"weight_decay": 0.5, "optimiser": cosine}, r"weight decay is 0\.5 beside an optimiser"),
    ],
)
def test_settings_of_sgd_are_not_those_of_an_optimiser(settings, message, generator):
    weights, pairs = flow_helpers.draw(generator, n=8)
    with pytest.raises(ValueError, match=message):
        train(weights, pairs, steps=5, **settings)


def test_a_schedule_may_end_with_the_training(generator):
    def one_cycle(parameters):
        optimiser = torch.optim.Adam(parameters)
        return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=2)

    weights, pairs = flow_helpers.draw(generator, n=8, runs=(2,))
    assert train(weights, pairs, steps=2, optimiser=one_cycle).meta["optimiser"] == "Adam with OneCycleLR"


def test_divergence_under_an_optimiser_gives_no_rate(generator):
    weights, pairs = flow_helpers.draw(generator, n=8)
    with pytest.raises(
        Diverged, match=r"^Training diverged at step \d+ under Adam; give it a smaller learning rate$"
    ) as failed:
        train(weights, pairs, steps=50, optimiser=lambda p: torch.optim.Adam(p, lr=1e5), objective=Objective("dot"))
    assert failed.value.stable_lr is None
    assert failed.value.trajectory.time[0] == 0


def test_arrays_are_starts_as_tensors_are(generator):
    weights, pairs = flow_helpers.draw(generator, 2, n=8)
    arrays = [np.asfortranarray(w.numpy()) for w in weights]
    drawn = type(pairs)(pairs.anchor.numpy(), pairs.positive.numpy())
    for settings in ({"lr": 0.1}, {"optimiser": OPTIMISERS["Adam"]}):
        got, expected = train(arrays, drawn, steps=5, **settings), train(weights, pairs, steps=5, **settings)
        assert torch.equal(got.product, expected.product)


def short_cycle(parameters):
    optimiser = torch.optim.Adam(parameters)
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=20)


@pytest.mark.parametrize("runs", [(), (2,)])
def test_a_schedule_that_ends_early_keeps_the_record(runs, generator):
    weights, pairs = flow_helpers.draw(generator, n=8, runs=runs)
    with pytest.raises(
        TrainingFailed, match=r"^step 21 could not be taken: Adam with OneCycleLR refuses it: Tried to step 21 times"
    ) as failed:
        train(weights, pairs, steps=100, optimiser=short_cycle, record=lambda w: {"norm": w[0].norm(dim=(-2, -1))})
    assert isinstance(failed.value, ValueError)
    assert "\n" not in str(failed.value)
    assert failed.value.step == 21
    path = failed.value.trajectory
    whole = train(weights, pairs, steps=20, optimiser=short_cycle)
    kept = path.time[-1]
    assert 10 <= kept <= 20
    assert torch.equal(path.product[-1], whole.product[whole.time == kept][0])
    assert len(path.statistics["norm"]) == len(path.time)
    copy = pickle.loads(pickle.dumps(failed.value))
    assert (str(copy), copy.step) == (str(failed.value), 21)


def test_a_stream_that_ends_early_keeps_the_record(generator):
    weights, pairs = flow_helpers.draw(generator, n=8)
    with pytest.raises(
        TrainingFailed, match=r"step 10 could not be taken: the stream of batches ended too early"
    ) as ended:
        train(weights, [pairs] * 10, steps=100, lr=0.1)
    whole = train(weights, pairs, lr=0.1, steps=9)
    assert torch.equal(
        ended.value.trajectory.product[-1], whole.product[whole.time == ended.value.trajectory.time[-1]][0]
    )


def test_a_loss_that_turns_unusable_keeps_the_record(generator):
    weights, pairs = flow_helpers.draw(generator, n=8)
    calls = []

    def tiring(z, z_pos, _negatives):
        calls.append(z)
        value = (z - z_pos).square().sum(-1).mean(-1)
        return value if len(calls) < 12 else value.float()

    with pytest.raises(
        TrainingFailed, match=r"step \d+ could not be taken: the loss tiring returned torch.float32"
    ) as ended:
        train(weights, pairs, steps=100, lr=0.1, objective=Objective(tiring))
    assert 1 < len(ended.value.trajectory.time) < ended.value.step + 1


def test_the_record_names_the_dynamics(generator):
    weights, pairs = flow_helpers.draw(generator, n=8)
    assert train(weights, pairs, steps=2, lr=0.1).meta["dynamics"] == "sgd"
    assert train(weights, pairs, steps=2, lr=0.1, momentum=0.5).meta["dynamics"] == "sgd"
    meta = train(weights, pairs, steps=2, optimiser=cosine).meta
    assert meta["dynamics"] == meta["optimiser"] == "Adam with CosineAnnealingLR"
