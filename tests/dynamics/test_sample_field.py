"""The fast sample field against gradient, curvature and value of the objective."""

import numpy as np
import pytest
import torch
from helpers.flow import packed
from helpers.reference import VIEWS

from dyncollapse import GaussianTask, Objective, Pairs, gaussian_init, sample_flow, train
from dyncollapse.dynamics._sample_field import SampleField
from dyncollapse.model._forces_compiled import dot_forces, dot_forces_along, infonce_forces, infonce_forces_along

LOSSES = [("infonce", None), ("dot", 0.7)]
WIDTHS = [(5, 4), (4, 5), (5, 3, 4), (4, 6, 2, 3)]


def problem(generator, widths, views="one-sided", batches=(3,), biased=False, scale=0.5):
    weights = gaussian_init(list(widths), generator, (), scale)
    biases = [torch.randn(width, generator=generator, dtype=torch.float64) for width in widths[1:] if biased]
    pairs = GaussianTask.block(widths[0], 2, 1.3, views=views).sample(12, generator, batches)
    return weights, biases, pairs


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
def test_the_field_is_the_gradient(loss, temperature, widths, views, biased, weight_decay, generator):
    weights, biases, pairs = problem(generator, widths, views, biased=biased)
    objective, parameters = Objective(loss, temperature), (*weights, *biases)
    field = SampleField(weights, pairs, objective, weight_decay, biased=biased)
    slopes = objective.gradient(weights, pairs, biases)
    expected = packed([-g - weight_decay * p for g, p in zip(slopes, parameters, strict=True)])
    y = packed(parameters)
    np.testing.assert_allclose(field.velocity(0.0, y), expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    assert (y == packed(parameters)).all()
    torch.testing.assert_close(field.loss(parameters), objective.value(weights, pairs, biases), rtol=1e-13, atol=0)
    directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    moved = objective.curvature(weights, pairs, biases)(directions)
    expected = packed([-c - weight_decay * v for c, v in zip(moved, directions, strict=True)])
    found = field.linearise(0.0, y).times(packed(directions))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("batches", [(), (2,), (2, 3)])
def test_any_axes_of_batches_are_averaged_over(batches, generator):
    weights, _, pairs = problem(generator, (4, 3), batches=batches)
    field = SampleField(weights, pairs, Objective())
    (slope,) = Objective().gradient(weights, pairs)
    np.testing.assert_allclose(field.velocity(0.0, packed(weights)), -packed([slope]), rtol=0, atol=1e-14)
    torch.testing.assert_close(field.loss(weights), Objective().value(weights, pairs).mean(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e200])
@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
def test_what_is_not_finite_stays_so(loss, temperature, number, generator):
    weights, _, pairs = problem(generator, (3, 3, 3))
    weights[0][1, 1] = number
    field = SampleField(weights, pairs, Objective(loss, temperature))
    with np.errstate(all="ignore"):
        assert not np.isfinite(field.velocity(0.0, packed(weights))).all()
    assert not torch.isfinite(field.loss(weights))


@pytest.mark.parametrize(("loss", "temperature"), LOSSES)
def test_flows_with_and_without_the_field_are_one(loss, temperature, generator, monkeypatch):
    weights, biases, pairs = problem(generator, (4, 3, 3), "two-sided", biased=True)
    objective = Objective(loss, temperature)
    for method in ("DOP853", "CVODE"):
        settings = {"objective": objective, "biases": biases, "weight_decay": 0.01, "method": method}
        fast = sample_flow(weights, pairs, [0.5, 2.0], **settings)
        with monkeypatch.context() as patch:
            patch.setattr("dyncollapse.dynamics.flow.on_arrays", lambda *_, **__: False)
            slow = sample_flow(weights, pairs, [0.5, 2.0], **settings)
        torch.testing.assert_close(fast.product, slow.product, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(fast.loss, slow.loss, rtol=1e-6, atol=0)


def test_pairs_may_require_gradients(generator):
    weights, _, pairs = problem(generator, (4, 3))
    tracked = Pairs(pairs.anchor.clone().requires_grad_(), pairs.positive)
    assert torch.equal(sample_flow(weights, tracked, 1.0).product, sample_flow(weights, pairs, 1.0).product)


CHANGES = (lambda x: x[:, :1].expand(-1, 4, -1, -1), lambda x: x.mT.contiguous().mT)


def test_functions_are_compiled_for_rows_alone(generator):
    weights, biases, pairs = problem(generator, (3, 3), batches=(2, 4), biased=True)
    weights, biases = ([p.expand(4, *p.shape) for p in parameters] for parameters in (weights, biases))
    functions = (infonce_forces, dot_forces, infonce_forces_along, dot_forces_along)
    shared, turned = (Pairs(*(change(x) for x in (pairs.anchor, pairs.positive))) for change in CHANGES)
    for some in (pairs, shared, turned):
        for loss, _ in LOSSES:
            for method, some_biases in (("DOP853", biases), ("CVODE", biases), ("CVODE", [])):
                sample_flow(weights, some, 0.1, objective=Objective(loss), biases=some_biases, method=method)
            train(weights, Pairs(some.anchor[0], some.positive[0]), lr=0.1, steps=2, objective=Objective(loss))
    layouts = {
        array.layout for function in functions for given in function.signatures for array in (*given[:3], given[-1])
    }
    assert layouts == {"C"}
    assert all(array.mutable for function in functions for given in function.signatures for array in given[:3])
