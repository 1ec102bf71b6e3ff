"""Losses of one's own: followed by SGD and flows, averaged, and refused in one line where they are unusable."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers.gradients import assert_as_one, by_autograd

from dyncollapse import (
    GaussianTask,
    LossWithGradient,
    LossWithPopulation,
    Objective,
    dot_gradients,
    dot_infonce,
    gaussian_init,
    infonce,
    ntxent,
    population_flow,
    sample_flow,
    spectral,
    stack_pairs,
    train,
    uniform_biases,
)
from dyncollapse.model.objective import named_loss


def variances(z, z_pos, _negatives):
    """A loss without negatives: views together, variances at 1."""
    return (z - z_pos).square().sum(-1).mean(-1) + (z.var(-2) - 1).square().sum(-1)


class Dot:
    """The dot-product loss, with its gradient."""

    def __init__(self, parts=3):
        self.parts, self.calls = parts, 0

    def __call__(self, z, z_pos, negatives):
        return dot_infonce(z, z_pos, negatives)

    def gradient(self, z, z_pos, negatives):
        self.calls += 1
        g, g_pos, g_negative = dot_gradients(z, z_pos, negatives)
        if self.parts == 3:
            return g, g_pos, g_negative
        return (g + g_negative, g_pos) if negatives is z else (g, g_pos + g_negative)


def start(generator, views="two-sided", runs=(), batches=(), bias=False):
    weights = gaussian_init([4, 3, 2], generator, runs, 0.3)
    biases = uniform_biases([4, 3, 2], generator, runs) if bias else ()
    return weights, GaussianTask.block(4, 2, views=views).sample(8, generator, (*batches, *runs)), biases


@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("runs", [(), (3,)])
def test_a_loss_of_ones_own_is_averaged_over_batches_and_followed(runs, activation, generator):
    task, objective = GaussianTask.block(4, 2, views="two-sided"), Objective(variances, activation=activation)
    weights = gaussian_init([4, 3, 2], generator, runs, 0.3)
    batches = [task.sample(8, generator, runs) for _ in range(3)]
    together = objective.gradient(weights, stack_pairs(batches))
    alone = zip(*(objective.gradient(weights, batch) for batch in batches), strict=True)
    for got, parts in zip(together, alone, strict=True):
        torch.testing.assert_close(got, torch.stack(parts).mean(0), rtol=1e-12, atol=1e-13)
    assert not torch.allclose(together[0], Objective(activation=activation).gradient(weights, stack_pairs(batches))[0])
    # Euler's method: half the rate, half the distance.
    pairs = stack_pairs(batches)
    end = sample_flow(weights, pairs, 0.1, objective=objective, method="DOP853", rtol=1e-8).product[-1]
    ends = [train(weights, pairs, lr=lr, steps=round(0.1 / lr), objective=objective).product[-1] for lr in (1e-3, 5e-4)]
    far, near = ((one - end).norm().item() for one in ends)
    assert far / near == pytest.approx(2, abs=0.1)


NAMED = {
    "infonce": infonce,
    "dot": dot_infonce,
    "ntxent": lambda z, z_pos, _negatives: ntxent(z, z_pos),
    "spectral": spectral,
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_a_named_loss_written_out_is_that_loss(name, views, activation, generator):
    views = "two-sided" if name == "ntxent" else views
    weights, pairs, biases = start(generator, views, (2,), (3,), bias=True)
    own, named = Objective(NAMED[name], activation=activation), Objective(name, activation=activation)
    assert (own.closed_form, named.closed_form) == (False, True)
    torch.testing.assert_close(own.value(weights, pairs, biases), named.value(weights, pairs, biases))
    assert_as_one(own.gradient(weights, pairs, biases), named.gradient(weights, pairs, biases), 1e-12)


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_a_gradient_of_ones_own_is_used(parts, views, activation, generator):
    weights, pairs, biases = start(generator, views, (2,), (3,), bias=True)
    objective = Objective(Dot(parts), activation=activation)
    assert isinstance(objective.loss, LossWithGradient)
    assert objective.closed_form
    with torch.inference_mode():
        got = objective.gradient(weights, pairs, biases)
    assert objective.loss.calls > 0
    assert_as_one(got, by_autograd(objective, weights, pairs, biases), 1e-12)


def test_negatives_are_the_views_own(generator):
    seen = []

    def loss(z, z_pos, negatives):
        seen.append((negatives is z, negatives is z_pos))
        return (z - z_pos).square().sum(-1).mean(-1)

    for views in ("one-sided", "two-sided"):
        weights, pairs, _ = start(generator, views)
        Objective(loss).value(weights, pairs)
    assert seen == [(True, False), (False, True)]


def test_objectives_are_not_subclassed():
    with pytest.raises(TypeError, match=r"not made to be subclassed; give a function as its loss: Objective\(loss="):
        type("Mine", (Objective,), {})


def pull(z, z_pos, _negatives):
    return (z - z_pos).square().sum(-1).mean(-1)


class Wrong(Dot):
    def __init__(self, made):
        self.made = made

    def gradient(self, z, z_pos, negatives):
        return self.made(z, z_pos, negatives)


class WithoutGrad(torch.nn.Module):
    def forward(self, z, z_pos, negatives):
        with torch.no_grad():
            return pull(z, z_pos, negatives)


class Scaled(torch.nn.Module):
    """Depends on a parameter of its own alone."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, z, z_pos, negatives):
        return self.scale * pull(z, z_pos, negatives).detach()


def backward_inside(z, z_pos, negatives):
    value = pull(z, z_pos, negatives)
    value.sum().backward()
    return value


UNUSABLE = {
    "no grad": (WithoutGrad(), "the loss WithoutGrad cannot be differentiated: .* leave out"),
    "inference": (torch.inference_mode()(pull), "the loss pull cannot be differentiated"),
    "a parameter": (Scaled(), "the loss Scaled cannot be differentiated: .* leave out"),
    "NumPy": (lambda z, *_: torch.as_tensor(z.numpy().sum((-2, -1))), "raised RuntimeError: Can't call numpy.*without"),
    "backward": (
        backward_inside,
        "the loss backward_inside raised RuntimeError: element 0 .*without .numpy.. or .back",
    ),
    "shapes": (lambda z, z_pos, _: (z @ z_pos).sum((-2, -1)), "raised RuntimeError: .*multiplied.*one loss per batch"),
    "labels": (torch.nn.CosineEmbeddingLoss(), "the loss CosineEmbeddingLoss raised RuntimeError: "),
    "float32": (
        lambda z, z_pos, _: pull(z.float(), z_pos.float(), 0),
        "returned torch.float32 for .* torch.float64; co",
    ),
    "MSELoss": (torch.nn.MSELoss(), r"the loss MSELoss takes \(input.*it must take three arguments.*wrap it in a func"),
    "Linear": (torch.nn.Linear(2, 2), r"the loss Linear takes \(input.*it must take three arguments"),
    "a class": (WithoutGrad, r"the loss WithoutGrad is a class; give an object of it, such as WithoutGrad\(\)"),
    "two arguments": (lambda z, z_pos: pull(z, z_pos, 0), r"takes \(z, z_pos\); it must take three arguments"),
    "four arguments": (lambda a, b, c, d: a + b + c + d, r"takes \(a, b, c, d\); it must take three arguments"),
    "a number": (lambda *_: 1.0, "returned a float; it must return a tensor"),
    "an array": (lambda z, *_: np.zeros(z.shape[:-2]), "returned a ndarray; it must return a tensor"),
    "one per row": (lambda z, *_: z.square().sum(-1), r"returned \(8,\) of torch.float64 for embeddings \(8, 2\); it"),
    "one of all": (lambda z, *_: z.square().mean((-2, -1))[None], r"returned \(1,\) .* one number per batch, \(\)"),
    "counts": (lambda z, *_: (z > 0).sum((-2, -1)), "returned .* of torch.int64"),
    "detached": (lambda z, z_pos, n: pull(z, z_pos, n).detach(), "cannot be differentiated: its value does not depend"),
    "constant": (lambda z, *_: torch.zeros(z.shape[:-2], dtype=z.dtype), "cannot be differentiated"),
    "NaN": (lambda z, *_: (0 * z.sum((-2, -1))).log() * 0, "is NaN or infinite at the start; keep it finite there"),
    "a root at 0": (lambda z, *_: (z - z).square().sum((-2, -1)).sqrt(), "has a gradient that is NaN or infinite"),
    "no gradients": (Wrong(lambda *_: None), r"Wrong.gradient returned a NoneType; it must return one of \(1, 8, 2\)"),
    "one gradient": (Wrong(lambda z, *_: (z,)), r"gradients of shapes \[\(1, 8, 2\)\]; it must return one of"),
    "sums": (Wrong(lambda z, z_pos, _: (z.sum(0), z_pos.sum(0))), r"gradients of shapes \[\(8, 2\), \(8, 2\)\]"),
}


@pytest.mark.parametrize(("loss", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_loss_is_refused_in_one_line(loss, message, generator):
    weights, pairs, _ = start(generator)
    with pytest.raises(ValueError, match=message) as refused:
        train(weights, pairs, lr=0.1, steps=1, objective=Objective(loss))
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match=message):
        sample_flow(weights, pairs, 1.0, objective=Objective(loss))


def test_what_a_loss_raises_is_not_hidden(generator):
    weights, pairs, _ = start(generator)

    def broken(z, _z_pos, _negatives):
        raise KeyError(z.shape)

    with pytest.raises(KeyError):
        train(weights, pairs, lr=0.1, steps=1, objective=Objective(broken))


def test_the_temperature_is_the_functions():
    with pytest.raises(
        ValueError, match=r"temperature is 0\.5, but pull is a loss of your own; set it in the function"
    ):
        Objective(pull, temperature=0.5)


class Pull:
    def __call__(self, z, z_pos, _negatives):
        return pull(z, z_pos, None)

    def population_loss(self, product, task):
        return (product @ task.aug_cov * product).sum((-2, -1))

    def population_force(self, product, task):
        return (-2 * task.aug_cov).expand(*product.shape[:-2], *task.aug_cov.shape)


def test_a_function_with_constants_bound_keeps_its_name(generator):
    def hot(z, z_pos, negatives, temperature):
        return dot_infonce(z, z_pos, negatives, temperature)

    weights, pairs, _ = start(generator)
    objective = Objective(partial(hot, temperature=0.5))
    assert objective.name == "hot"
    assert_as_one(objective.gradient(weights, pairs), Objective("dot", 0.5).gradient(weights, pairs), 1e-12)


def test_a_population_limit_of_ones_own_is_handed_on(generator):
    own = Objective(Pull())
    assert isinstance(own.population, LossWithPopulation)
    assert [objective.population for objective in (Objective(), Objective(pull), Objective(Dot()))] == [None] * 3
    # It is the limit of many samples.
    weights, task = gaussian_init([4, 3], generator), GaussianTask.block(4, 2)
    slope = own.gradient(weights, task.sample(200_000, generator))[0]
    expected = -weights[0] @ own.population.population_force(weights[0], task)
    torch.testing.assert_close(slope, expected, rtol=0, atol=0.02)


def test_closed_forms_of_named_losses_refuse_others():
    with pytest.raises(ValueError, match="no closed form is known for variances, a loss of your own; use the sample"):
        named_loss(Objective(variances))
    with pytest.raises(ValueError, match=r"pull has no `gradient` of its own; use Objective\.gradient on a network"):
        Objective(pull).embedding_gradients(torch.ones(2, 2), torch.ones(2, 2))


@pytest.mark.parametrize(
    ("slopes", "told"),
    [
        (lambda z, z_pos: (z.float(), z_pos.float()), "torch.float32, torch.float32"),
        (lambda z, z_pos: (z.numpy(), z_pos.numpy()), "ndarray, ndarray"),
    ],
)
def test_gradients_of_another_kind_are_refused(slopes, told, generator):
    objective = Objective(Wrong(lambda z, z_pos, _: slopes(z, z_pos)))
    weights = gaussian_init([3, 2], generator)
    with pytest.raises(ValueError, match=f"gradient returned {told}; it must return tensors of torch.float64, as z is"):
        objective.gradient(weights, GaussianTask.block(3, 1).sample(8, generator))


def test_a_module_is_a_loss(generator):
    class Module(torch.nn.Module):
        def forward(self, z, z_pos, negatives):
            return pull(z, z_pos, negatives)

    weights, pairs, _ = start(generator)
    assert_as_one(Objective(Module()).gradient(weights, pairs), Objective(pull).gradient(weights, pairs), 1e-15)


class Limited(Pull):
    def __init__(self, name, made):
        self.name, self.made = name, made

    def population_loss(self, product, task):
        value = super().population_loss(product, task)
        return self.made(value) if self.name == "population_loss" else value

    def population_force(self, product, task):
        value = super().population_force(product, task)
        return self.made(value) if self.name == "population_force" else value


@pytest.mark.parametrize("method", ["CVODE", "LSODA", "DOP853"])
@pytest.mark.parametrize("name", ["population_loss", "population_force"])
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda v: v.float(),
            r"Limited\.{name} returned torch.float32 for a product of torch.float64; compute it in th",
        ),
        (lambda v: v.long(), r"Limited\.{name} returned torch.int64 for a product"),
        (lambda v: v + 0j, r"Limited\.{name} returned torch.complex128 for a product"),
        (lambda v: v.numpy(), r"Limited\.{name} returned (ndarray|float64); it must be a tensor"),
        (lambda v: v[None], r"Limited\.{name} returned \(1,.*; it must be a tensor"),
        (lambda v: v * float("nan"), "Limited.*finite there"),
        (
            lambda v: v * float("inf"),
            "at the start, .* is NaN, infinite or out of range; keep the loss Limited and its",
        ),
    ],
)
def test_an_unusable_population_limit_is_refused_in_one_line(name, made, message, method):
    layer, task = 0.2 * torch.ones(2, 2, dtype=torch.float64), GaussianTask.block(2, 2)
    with pytest.raises(ValueError, match=message.replace("{name}", name)) as refused:
        population_flow((layer,), task, [0.1, 1.0], objective=Objective(Limited(name, made)), method=method)
    assert "\n" not in str(refused.value)


def test_a_population_limit_may_have_parameters_that_are_differentiated():
    own = Limited("population_force", lambda v: v * torch.ones((), dtype=v.dtype, requires_grad=True))
    path = population_flow(
        (torch.eye(2, dtype=torch.float64),), GaussianTask.block(2, 2), 1.0, objective=Objective(own)
    )
    assert not path.product.requires_grad
