import dataclasses

import pytest
import torch
from helpers import reference
from helpers.constants import set_constant
from helpers.gradients import assert_as_one, by_autograd
from helpers.reference import CASES

from dyncollapse import GaussianTask, Objective, Pairs, gaussian_init, sample_flow, stack_pairs, train, uniform_biases


def draw(generator, views, depth, bias=False, runs=()):
    task, widths = GaussianTask.block(4, 2, 0.7, views=views), [4, 3, 5, 3][: depth + 1]
    biases = uniform_biases(widths, generator, runs) if bias else ()
    return gaussian_init(widths, generator, runs, 0.6), biases, task.sample(6, generator, runs)


@pytest.mark.parametrize(("loss", "views"), CASES)
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("activation", "bias"), [("linear", False), ("linear", True), ("relu", False), ("relu", True)])
def test_value_and_gradient_equal_the_loops(loss, views, depth, activation, bias):
    generator = torch.Generator().manual_seed(depth)
    weights, biases, pairs = draw(generator, views, depth, bias)
    objective = Objective(loss, activation=activation)
    slow = reference.network_loss(loss, weights, pairs, activation, biases)
    torch.testing.assert_close(objective.value(weights, pairs, biases), slow, rtol=1e-12, atol=1e-13)
    got = objective.gradient(weights, pairs, biases)
    expected = reference.gradients(loss, weights, pairs, activation, biases)
    # Sums of a few dozen terms of order 1, over a temperature of 0.1: 1e4 eps is ample.
    for fast, slope in zip(got, expected, strict=True):
        assert float(slope.abs().max()) > 1e-6 or bias  # a last bias shifts both views alike: no force
        torch.testing.assert_close(fast, slope, rtol=1e-10, atol=2e-12)


@pytest.mark.parametrize(("loss", "views"), CASES)
def test_runs_do_not_mix(loss, views, generator):
    weights, _, pairs = draw(generator, views, 2, runs=(3,))
    objective = Objective(loss)
    values, slopes = objective.value(weights, pairs), objective.gradient(weights, pairs)
    assert values.shape == (3,)
    for run in range(3):
        alone = tuple(w[run] for w in weights)
        batch = type(pairs)(pairs.anchor[run], pairs.positive[run], views)
        torch.testing.assert_close(values[run], objective.value(alone, batch), rtol=1e-12, atol=1e-13)
        for slope, expected in zip(slopes, objective.gradient(alone, batch), strict=True):
            torch.testing.assert_close(slope[run], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("loss", "views"), CASES)
@pytest.mark.parametrize("runs", [(), (2,)])
def test_batch_axes_are_averaged_over(loss, views, runs, generator):
    weights, _, _ = draw(generator, views, 2, runs=runs)
    batches = [GaussianTask.block(4, 2, 0.7, views=views).sample(5, generator, runs) for _ in range(3)]
    objective, stacked = Objective(loss), stack_pairs(batches)
    mean = sum(objective.value(weights, batch) for batch in batches) / 3
    torch.testing.assert_close(objective.value(weights, stacked), mean, rtol=1e-12, atol=1e-13)
    parts = zip(*(objective.gradient(weights, batch) for batch in batches), strict=True)
    for got, slopes in zip(objective.gradient(weights, stacked), parts, strict=True):
        torch.testing.assert_close(got, sum(slopes) / 3, rtol=1e-11, atol=1e-12)


def test_gradient_leaves_the_weights_alone(generator):
    weights, biases, pairs = draw(generator, "two-sided", 2, bias=True)
    before = [p.clone() for p in (*weights, *biases)]
    slopes = Objective("dot", activation="relu").gradient(weights, pairs, biases)
    assert all(torch.equal(p, q) for p, q in zip((*weights, *biases), before, strict=True))
    assert not any(p.requires_grad for p in (*weights, *biases, *slopes))


@pytest.mark.parametrize("loss", ["dot", "ntxent"])
def test_temperature_is_the_authors_unless_given(loss, generator):
    weights, _, pairs = draw(generator, "two-sided", 1)
    assert Objective(loss).temperature == 0.1
    for temperature in (0.1, 0.5):
        slow = reference.network_loss(loss, weights, pairs, temperature=temperature)
        torch.testing.assert_close(Objective(loss, temperature).value(weights, pairs), slow, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
@pytest.mark.parametrize("loss", ["vcreg", "vicreg"])
def test_invariance_is_one_unless_given(loss, views, generator):
    weights, _, pairs = draw(generator, views, 1)
    assert Objective(loss).invariance == 1.0
    assert Objective("barlow").invariance is Objective().invariance is None
    z, z_pos = (x @ weights[0].T for x in (pairs.anchor, pairs.positive))
    for invariance in (0.0, 1.0, 3.0):
        slow = reference.loss(loss, z, z_pos, views, invariance=invariance)
        objective = Objective(loss, invariance=invariance)
        torch.testing.assert_close(objective.value(weights, pairs), slow, rtol=1e-12, atol=1e-13)
        assert_as_one(objective.gradient(weights, pairs), by_autograd(objective, weights, pairs), 1e-12)


def test_only_relu_and_the_hinge_have_kinks():
    assert [Objective(loss).smooth(3) for loss in reference.LOSSES] == [loss != "vicreg" for loss in reference.LOSSES]
    assert [Objective(activation="relu").smooth(layers) for layers in (1, 2)] == [True, False]
    assert [Objective(loss).has_force for loss in reference.LOSSES] == [
        loss in reference.FORCED for loss in reference.LOSSES
    ]
    assert not Objective(lambda z, z_pos, _: (z - z_pos).square().sum(-1).mean(-1)).has_force


def test_relu_matters_from_the_second_layer_on(generator):
    for depth in (1, 2):
        weights, _, pairs = draw(generator, "one-sided", depth)
        linear, relu = (Objective(activation=name).value(weights, pairs) for name in ("linear", "relu"))
        assert torch.equal(linear, relu) == (depth == 1)


def test_objective_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Objective().loss = "dot"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "simclr"}, "loss is 'simclr'; choose one of infonce, dot, .*, barlow-normalised, or give a function"),
        ({"loss": 3}, "loss is 3; choose one of infonce, dot, .*, barlow-normalised, or give a function"),
        ({"loss": None}, "loss is None; choose one of"),
        ({"activation": "tanh"}, "activation is 'tanh'; choose one of linear, relu"),
        ({"temperature": 0.1}, "temperature is 0.1, but the infonce loss has none"),
        ({"loss": "spectral", "temperature": 1.0}, "the spectral loss has none"),
        ({"loss": "dot", "temperature": 0.0}, "temperature is 0.0; it must be finite and above 0"),
        ({"loss": "ntxent", "temperature": -1.0}, "temperature is -1.0"),
        ({"loss": "dot", "temperature": float("inf")}, "temperature is inf"),
        ({"loss": "dot", "temperature": float("nan")}, "temperature is nan"),
        ({"loss": "vcreg", "temperature": 0.5}, "temperature is 0.5, but the vcreg loss has none"),
        (
            {"invariance": 1.0},
            "invariance is 1.0, but the infonce loss has none; drop it, or give loss vcreg or vicreg",
        ),
        ({"loss": "barlow", "invariance": 1.0}, "the barlow loss has none"),
        ({"loss": "vcreg", "invariance": -0.1}, "invariance is -0.1; it must be finite and at least 0"),
        ({"loss": "vicreg", "invariance": float("inf")}, "invariance is inf"),
        ({"loss": "vicreg", "invariance": float("nan")}, "invariance is nan"),
        ({"loss": max, "invariance": 1.0}, "invariance is 1.0, but max is a loss of your own; set it in the function"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Objective(**settings)


def test_ntxent_needs_two_sided_views(generator):
    weights, _, pairs = draw(generator, "one-sided", 1)
    objective = Objective("ntxent")
    objective.check_views("two-sided")
    for use in (
        lambda: objective.check_views("one-sided"),
        lambda: objective.value(weights, pairs),
        lambda: objective.gradient(weights, pairs),
        lambda: train(weights, pairs, lr=0.1, steps=1, objective=objective),
        lambda: sample_flow(weights, pairs, 1.0, objective=objective),
    ):
        with pytest.raises(ValueError, match="needs views two-sided, not one-sided"):
            use()


def test_weights_scale_with_the_inputs(generator):
    # L(P, x) depends on P x alone: stretching x and shrinking P leaves it, and stretches the gradient.
    weights, _, pairs = draw(generator, "one-sided", 1)
    stretched = type(pairs)(4 * pairs.anchor, 4 * pairs.positive, pairs.views)
    shrunk = (weights[0] / 4,)
    assert torch.equal(Objective().value(shrunk, stretched), Objective().value(weights, pairs))
    torch.testing.assert_close(
        Objective().gradient(shrunk, stretched)[0], 4 * Objective().gradient(weights, pairs)[0], rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("views", ["one-sided", "two-sided"])
@pytest.mark.parametrize(("runs", "batches"), [((5,), ()), ((5, 2), ()), ((5,), (3,)), ((), (7,)), ((2,), (2, 3))])
@pytest.mark.parametrize("loss", ["infonce", "dot"])
def test_taking_some_runs_and_batches_at_a_time_changes_nothing(loss, runs, batches, views, generator, monkeypatch):
    n = 6
    weights = gaussian_init([4, 3, 4], generator, runs, 0.5)
    pairs = GaussianTask.block(4, 2, views=views).sample(n, generator, (*batches, *runs))
    whole = Objective(loss).gradient(weights, pairs)
    set_constant(monkeypatch, "model._kernels.MOST_BYTES", 2 * 8 * n * n)
    for part, expected in zip(Objective(loss).gradient(weights, pairs), whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-13)  # sums in another order


def test_batches_that_differ_are_not_stacked(generator):
    one, two = (GaussianTask.block(3, 1, views=views).sample(4, generator) for views in ("one-sided", "two-sided"))
    for batches, found in (
        ([one, two], r"\(4, 3\) one-sided, \(4, 3\) two-sided"),
        ([one, type(one)(one.anchor[:2], one.positive[:2])], r"\(2, 3\) one-sided, \(4, 3\) one-sided"),
        ([], "none"),
    ):
        with pytest.raises(ValueError, match=f"^batches are {found}; give one or more of one shape"):
            stack_pairs(batches)


@pytest.mark.parametrize("loss", ["infonce", "dot", "spectral"])
@pytest.mark.parametrize(
    ("product", "views"),
    [
        ((2, 3), (8, 4)),
        ((2, 2, 3), (3, 8, 3)),
        ((2, 2, 3), (5, 3, 8, 3)),
        ((2, 3), (0, 3)),
    ],
)
def test_a_force_refuses_a_product_that_does_not_fit(product, views, loss):
    x = torch.ones(views)
    with pytest.raises(
        ValueError, match=r"give a product \(\*runs, m, d\) and views .* with the same d and runs"
    ) as refused:
        Objective(loss).force(torch.ones(product), Pairs(x, x))
    assert str(product) in str(refused.value)
    assert str(views) in str(refused.value)


@pytest.mark.parametrize(("product", "views"), [((2, 2, 3), (8, 3)), ((2, 2, 3), (5, 1, 8, 3)), ((2, 3), (5, 4, 8, 3))])
def test_a_force_takes_views_that_runs_share(product, views, generator):
    x, p = torch.randn(views, generator=generator), torch.randn(product, generator=generator)
    assert Objective().force(p, Pairs(x, x + 0.1)).shape == (*product[:-2], 3, 3)
