"""Closed-form gradients of every loss, network and shape equal automatic differentiation."""

import pytest
import torch
from helpers.constants import set_constant
from helpers.gradients import assert_as_one, by_autograd, curvature_by_autograd
from helpers.reference import CASES, FORCED_CASES, normal
from helpers.shapes import check_next_calls

from dyncollapse import GaussianTask, Objective, Pairs, gaussian_init, uniform_biases

WIDTHS = {1: [4, 3], 2: [4, 6, 3], 3: [4, 3, 5, 6]}
AXES = [((), ()), ((3,), ()), ((2, 2), ()), ((), (3,)), ((2,), (3,)), ((2,), (2, 3))]


def draw(generator, views, depth, bias, runs=(), batches=(), scale=0.6):
    weights = gaussian_init(WIDTHS[depth], generator, runs, scale)
    biases = uniform_biases(WIDTHS[depth], generator, runs) if bias else ()
    return weights, GaussianTask.block(4, 2, 0.7, views=views).sample(7, generator, (*batches, *runs)), biases


@pytest.mark.parametrize(("loss", "views"), CASES)
@pytest.mark.parametrize("depth", WIDTHS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_gradients_are_autograds(loss, views, depth, bias, activation):
    objective = Objective(loss, activation=activation)
    assert objective.closed_form
    for axes in AXES:  # a test for each would take longer than what it computes
        check_next_calls()
        weights, pairs, biases = draw(torch.Generator().manual_seed(depth), views, depth, bias, *axes)
        expected = by_autograd(objective, weights, pairs, biases)
        size = assert_as_one(objective.gradient(weights, pairs, biases), expected, 1e-12)
        assert size > 1e-3, axes


@pytest.mark.parametrize(("loss", "views"), CASES)
@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize(("runs", "own"), [((3,), ()), ((3,), (1,)), ((2, 3), (3,)), ((2, 3), (2, 1))])
def test_runs_may_share_their_batches(loss, views, activation, runs, own, generator):
    weights, _, biases = draw(generator, views, 2, True, runs)
    pairs = GaussianTask.block(4, 2, 0.7, views=views).sample(6, generator, own)
    objective = Objective(loss, activation=activation)
    expected = by_autograd(objective, weights, pairs, biases)
    assert_as_one(objective.gradient(weights, pairs, biases), expected, 1e-12)


@pytest.mark.parametrize(("loss", "views"), CASES)
@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize(("runs", "batches"), [((5,), ()), ((), (7,)), ((2,), (3,))])
def test_parts_that_fit_a_cache_give_the_same(loss, views, activation, runs, batches, generator, monkeypatch):
    weights, pairs, biases = draw(generator, views, 2, True, runs, batches)
    objective = Objective(loss, activation=activation)
    whole = objective.gradient(weights, pairs, biases)
    set_constant(monkeypatch, "model._kernels.MOST_BYTES", 2 * 8 * 7 * 7)
    assert_as_one(objective.gradient(weights, pairs, biases), whole, 1e-14)


@pytest.mark.parametrize(("loss", "views"), CASES)
@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("scale", [1e-8, 1e3, 1e50])
def test_gradients_survive_any_embedding(loss, views, activation, scale, generator):
    # The spectral loss is of fourth order, so that 1e50 is near the largest that all have. The fast form of Lemma 2
    # needs squares of less than 1e15.
    scale = min(scale, 1e6) if (loss, activation) == ("infonce", "linear") else scale
    weights, pairs, _ = draw(generator, views, 2, False)
    weights = (weights[0], scale * weights[1])
    objective = Objective(loss, activation=activation)
    expected = by_autograd(objective, weights, pairs)
    for one, other in zip(objective.gradient(weights, pairs), expected, strict=True):  # their scales differ
        assert torch.isfinite(other).all()
        # Softmax weights round with their logits, unless they are 0 and 1.
        logits = scale**2 if loss in ("infonce", "dot") and scale == 1e3 else 1.0
        assert_as_one([one], [other], 1e-12 * max(1.0, 1e-3 * logits))


@pytest.mark.parametrize("loss", ["infonce", "dot", "ntxent"])
def test_embeddings_of_1e100_have_finite_gradients(loss, generator):
    weights, pairs, _ = draw(generator, "two-sided", 2, False)
    weights = (weights[0], 1e100 * weights[1])
    objective = Objective(loss, activation="relu" if loss == "infonce" else "linear")
    got = objective.gradient(weights, pairs)
    assert all(torch.isfinite(slope).all() for slope in got)
    for one, other in zip(got, by_autograd(objective, weights, pairs), strict=True):
        assert_as_one([one], [other], 1e-12)


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_a_zero_row_has_ntxents_gradient_of_a_unit_row(activation, generator):
    weights, pairs, _ = draw(generator, "two-sided", 2, False)
    pairs.anchor[1], pairs.positive[4] = 0, 0
    objective = Objective("ntxent", activation=activation)
    assert_as_one(objective.gradient(weights, pairs), by_autograd(objective, weights, pairs), 1e-12)


@pytest.mark.parametrize(("loss", "views"), CASES)
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_gradients_are_slopes_of_the_value(loss, views, activation, generator):
    weights, pairs, biases = draw(generator, views, 2, True)
    objective, parameters = Objective(loss, activation=activation), (*weights, *biases)
    direction, step = [normal(generator, *p.shape) for p in parameters], 1e-5

    def value(along):
        moved = [p + along * d for p, d in zip(parameters, direction, strict=True)]
        return float(objective.value(tuple(moved[:2]), pairs, tuple(moved[2:])))

    slope = sum(
        float((g * d).sum()) for g, d in zip(objective.gradient(weights, pairs, biases), direction, strict=True)
    )
    # Second-order differences: an error of step^2 times third derivatives, up to 1e3 over temperatures of 0.1.
    assert (value(step) - value(-step)) / (2 * step) == pytest.approx(slope, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("loss", "views"), CASES)
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_gradients_arrive_in_the_weights_precision(loss, views, activation, dtype, generator):
    weights, pairs, _ = draw(generator, views, 2, False)
    rounded = tuple(w.to(dtype) for w in weights)
    got = Objective(loss, activation=activation).gradient(rounded, pairs.to(dtype))
    expected = by_autograd(
        Objective(loss, activation=activation), [w.double() for w in rounded], pairs.to(dtype).to(torch.float64)
    )
    assert all(g.dtype == dtype for g in got)
    assert_as_one([g.double() for g in got], expected, 200 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(("loss", "views"), FORCED_CASES)
@pytest.mark.parametrize(("runs", "batches"), AXES)
def test_the_force_is_minus_the_gradient_over_the_product(loss, views, runs, batches, generator):
    weights, pairs, _ = draw(generator, views, 1, False, runs, batches)
    force = Objective(loss).force(weights[0], pairs)
    assert force.shape == (*runs, 4, 4)
    torch.testing.assert_close(force, force.mT, rtol=0, atol=1e-13 * float(force.abs().max()))
    assert_as_one([-weights[0] @ force], by_autograd(Objective(loss), weights, pairs), 1e-12)


def test_a_constant_input_is_a_bias(generator):
    weights, pairs, biases = draw(generator, "two-sided", 1, True)
    one = torch.ones(7, 1, dtype=torch.float64)
    longer = Pairs(*(torch.cat([x, one], -1) for x in (pairs.anchor, pairs.positive)), "two-sided")
    product = torch.cat([weights[0], biases[0][:, None]], -1)
    slope = -product @ Objective("dot").force(product, longer)
    assert_as_one([slope[:, :-1], slope[:, -1]], Objective("dot").gradient(weights, pairs, biases), 1e-13)


def test_what_has_no_force_is_refused(generator):
    weights, pairs, _ = draw(generator, "two-sided", 1, False)
    objective = Objective(lambda z, z_pos, _: (z - z_pos).square().sum(-1).mean(-1))
    for use in (lambda: objective.force(weights[0], pairs), lambda: objective.curvature(weights, pairs)):
        with pytest.raises(
            ValueError, match="no force is known for <lambda>, a loss of your own; it is for infonce, dot"
        ):
            use()
    with pytest.raises(ValueError, match="the curvature is known for linear networks, not for relu layers"):
        Objective(activation="relu").curvature((weights[0], weights[0][:, :3]), pairs)


@pytest.mark.parametrize(("loss", "views"), FORCED_CASES)
@pytest.mark.parametrize("depth", WIDTHS)
@pytest.mark.parametrize("bias", [False, True])
def test_curvatures_are_autograds(loss, views, depth, bias):
    for axes in AXES:
        check_next_calls()
        generator = torch.Generator().manual_seed(depth)
        weights, pairs, biases = draw(generator, views, depth, bias, *axes)
        direction = [normal(generator, *p.shape) for p in (*weights, *biases)]
        got = Objective(loss).curvature(weights, pairs, biases)(direction)
        expected = curvature_by_autograd(Objective(loss), weights, pairs, biases, direction)
        assert assert_as_one(got, expected, 1e-12) > 1e-3, axes


@pytest.mark.parametrize(("loss", "views"), FORCED_CASES)
def test_one_curvature_serves_many_directions(loss, views, generator):
    weights, pairs, biases = draw(generator, views, 2, True, (2,), (3,))
    along = Objective(loss).curvature(weights, pairs, biases)
    one, other = ([normal(generator, *p.shape) for p in (*weights, *biases)] for _ in range(2))
    first, second = along(one), along(other)
    together = along([2 * a - 3 * b for a, b in zip(one, other, strict=True)])
    assert_as_one(together, [2 * a - 3 * b for a, b in zip(first, second, strict=True)], 1e-13)
    # The Hessian is symmetric.
    inner = [sum(float((g * d).sum()) for g, d in zip(h, v, strict=True)) for h, v in ((first, other), (second, one))]
    assert inner[0] == pytest.approx(inner[1], rel=1e-11)


@pytest.mark.parametrize(("loss", "views"), FORCED_CASES)
@pytest.mark.parametrize("scale", [1e-8, 30.0])
def test_curvatures_keep_their_digits_at_any_scale(loss, views, scale, generator):
    weights, pairs, biases = draw(generator, views, 1, True)
    weights, biases = (scale * weights[0],), (scale * biases[0],)
    direction = [normal(generator, *p.shape) for p in (*weights, *biases)]
    got = Objective(loss).curvature(weights, pairs, biases)(direction)
    expected = curvature_by_autograd(Objective(loss), weights, pairs, biases, direction)
    assert_as_one(got, expected, 1e-10)


def test_curvatures_take_arrays(generator):
    weights, pairs, biases = draw(generator, "two-sided", 2, True)
    direction = [normal(generator, *p.shape) for p in (*weights, *biases)]
    got = Objective("dot").curvature([w.numpy() for w in weights], pairs, [b.numpy() for b in biases])(
        [d.numpy() for d in direction]
    )
    assert all(map(torch.equal, got, Objective("dot").curvature(weights, pairs, biases)(direction)))


def test_gradients_use_no_automatic_differentiation(generator, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    for (loss, views), activation in ((case, a) for case in CASES for a in ("linear", "relu")):
        weights, pairs, biases = draw(generator, views, 2, True)
        for p in (*weights, *biases):
            p.requires_grad_()
        slopes = Objective(loss, activation=activation).gradient(weights, pairs, biases)
        assert not any(slope.requires_grad for slope in slopes)
