"""From the end-to-end matrix to the layers: biases as one more input, and derivatives along a direction."""

import pytest
import torch
from helpers.reference import normal

from dyncollapse import (
    Pairs,
    end_to_end,
    forward,
    gaussian_init,
    layer_gradients,
    layer_gradients_along,
    layer_jacobian,
    uniform_biases,
)
from dyncollapse.model.pullback import (
    affine_directions,
    affine_layers,
    affine_pairs,
    end_to_end_along,
    parameter_gradients,
)

WIDTHS = {1: [4, 3], 2: [4, 6, 3], 3: [4, 3, 5, 6]}


@pytest.mark.parametrize("depth", WIDTHS)
@pytest.mark.parametrize("runs", [(), (2,), (2, 3)])
def test_a_bias_is_the_weight_of_an_input_that_is_1(depth, runs, generator):
    weights, biases = gaussian_init(WIDTHS[depth], generator, runs, 0.6), uniform_biases(WIDTHS[depth], generator, runs)
    pairs = Pairs(normal(generator, *runs, 5, 4), normal(generator, *runs, 5, 4), "two-sided")
    product, longer = end_to_end(affine_layers(weights, biases)), affine_pairs(pairs, biases)
    assert longer.views == "two-sided"
    for x, extended in ((pairs.anchor, longer.anchor), (pairs.positive, longer.positive)):
        torch.testing.assert_close(extended @ product.mT, forward(weights, x, "linear", biases), rtol=1e-13, atol=1e-13)
    assert affine_layers(weights, ()) is weights
    assert affine_pairs(pairs, ()) is pairs


@pytest.mark.parametrize("depth", WIDTHS)
def test_gradients_of_the_longer_layers_are_those_of_weights_and_biases(depth, generator):
    weights, biases = gaussian_init(WIDTHS[depth], generator, (2,), 0.6), uniform_biases(WIDTHS[depth], generator, (2,))
    leaves = [p.clone().requires_grad_() for p in (*weights, *biases)]
    product = end_to_end(affine_layers(tuple(leaves[:depth]), leaves[depth:]))
    slope = normal(generator, *product.shape)
    expected = torch.autograd.grad((product * slope).sum(), leaves)
    got = parameter_gradients(layer_gradients(affine_layers(weights, biases), slope), biased=True)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("depth", WIDTHS)
@pytest.mark.parametrize("bias", [False, True])
def test_the_product_moves_with_its_layers(depth, bias, generator):
    weights = gaussian_init(WIDTHS[depth], generator, (2,), 0.6)
    biases = uniform_biases(WIDTHS[depth], generator, (2,)) if bias else ()
    direction = [normal(generator, *p.shape) for p in (*weights, *biases)]

    def product(*parameters):
        return end_to_end(affine_layers(parameters[:depth], parameters[depth:]))

    _, expected = torch.autograd.functional.jvp(product, (*weights, *biases), tuple(direction))
    moved = affine_directions(tuple(direction[:depth]), direction[depth:])
    got = end_to_end_along(affine_layers(weights, biases), moved)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("depth", WIDTHS)
def test_gradients_along_a_direction_are_the_jacobian_times_it(depth, generator):
    weights = gaussian_init(WIDTHS[depth], generator, (), 0.6)
    m, d = WIDTHS[depth][-1], WIDTHS[depth][0]
    # Y = A P B with symmetric A and B is the gradient of tr(P^T A P B) / 2.
    a, b = (root + root.T for root in (normal(generator, m, m), normal(generator, d, d)))
    directions = tuple(normal(generator, *w.shape) for w in weights)
    pulled, change = a @ end_to_end(weights) @ b, a @ end_to_end_along(weights, directions) @ b
    got = layer_gradients_along(weights, directions, pulled, change)
    jacobian = layer_jacobian(weights, pulled, torch.einsum("ac,eb->abce", a, b))
    expected = jacobian @ torch.cat([v.flatten() for v in directions])
    torch.testing.assert_close(torch.cat([g.flatten() for g in got]), expected, rtol=1e-11, atol=1e-12)
