"""Gradients of a network's parameters under a loss on its embeddings: in closed form, layer by layer, or automatic."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dyncollapse.model._kernels import batch_groups, matrix_product, mean_over_groups
from dyncollapse.model.forces import mean_force, mean_force_along, sum_of
from dyncollapse.model.networks import Weights, end_to_end, layer_gradients, layer_outputs
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.precision import common_precision, outside_autocast
from dyncollapse.model.pullback import (
    affine_directions,
    affine_layers,
    affine_pairs,
    end_to_end_along,
    layer_gradients_along,
    parameter_gradients,
    through_layers,
)

Slopes = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # from both views' embeddings to their gradients
Along = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


def forced_gradient(
    loss: str, constant: float | None, weights: Weights, pairs: Pairs, biases: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Gradient of a linear network under a named loss: dL/dP = -P X, pulled back to the layers (Lemmas 2 and 3).

    With biases P is [P c], as in `affine_layers`. Eq. 2 sees differences of embeddings alone, so no offset moves it.
    """
    layers = affine_layers(weights, biases)
    product = end_to_end(layers)
    if loss == "infonce" and biases:
        own = product[..., :-1]
        slope = torch.nn.functional.pad(matrix_product(own, mean_force(own, pairs)).neg_(), (0, 1))
    else:
        slope = matrix_product(product, mean_force(product, affine_pairs(pairs, biases), loss, constant)).neg_()
    return parameter_gradients(layer_gradients(layers, slope), bool(biases))


def linear_gradient(slopes: Slopes, weights: Weights, pairs: Pairs, biases: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradient of a linear network from those of its embeddings: dL/dP = sum_i (g_i x_i^T + g'_i x'_i^T)."""

    def product_gradient(p: Tensor, x: Tensor, x_pos: Tensor) -> Tensor:
        g, g_pos = slopes(x @ p.mT, x_pos @ p.mT)
        return matrix_product(g.mT, x) + matrix_product(g_pos.mT, x_pos)

    layers = affine_layers(weights, biases)
    inputs = affine_pairs(pairs, biases)
    slope = mean_over_groups(product_gradient, end_to_end(layers), inputs.anchor, inputs.positive)
    return parameter_gradients(layer_gradients(layers, slope.to(layers[0].dtype)), bool(biases))


@torch.no_grad()
def layered_gradient(
    slopes: Slopes, weights: Weights, pairs: Pairs, biases: Sequence[Tensor], activation: str
) -> tuple[Tensor, ...]:
    """Gradient of any network from those of its embeddings, which are passed down layer by layer."""
    n, parts = pairs.anchor.shape[-2], []
    for share, x, x_pos in batch_groups(pairs.anchor, pairs.positive, weights[0].ndim):
        both = torch.cat([x, x_pos], -2)
        outputs = list(layer_outputs(weights, both, activation, biases))
        z, z_pos = outputs[-1].split(n, -2)
        slope = torch.cat(slopes(z, z_pos), -2).to(both.dtype)
        found = through_layers(weights, both, outputs, slope, activation, bool(biases))
        parts.append([share * gradient for gradient in found])
    return tuple(sum_of(list(gradients)) for gradients in zip(*parts, strict=True))


def automatic_gradient(
    value: Callable[[Weights, Pairs, Sequence[Tensor]], Tensor],
    differentiated: Callable[[Tensor, Sequence[Tensor]], Sequence[Tensor]],
    weights: Weights,
    pairs: Pairs,
    biases: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """Gradient of a value, one per run, by automatic differentiation, a few batches at a time."""
    parameters = [p.detach().requires_grad_() for p in (*weights, *biases)]
    totals = [torch.zeros_like(p) for p in parameters]
    for share, x, x_pos in batch_groups(pairs.anchor, pairs.positive, weights[0].ndim):
        with torch.enable_grad():
            group = Pairs(x, x_pos, pairs.views)
            loss = value(tuple(parameters[: len(weights)]), group, parameters[len(weights) :])
        for total, gradient in zip(totals, differentiated(loss, parameters), strict=True):
            total.add_(gradient, alpha=share)
    return tuple(totals)


@outside_autocast
@torch.no_grad()
def linear_curvature(
    loss: str, constant: float | None, weights: Weights, pairs: Pairs, biases: Sequence[Tensor]
) -> Along:
    """Derivative of `forced_gradient` along any direction of the parameters."""
    dtype = common_precision((weights[0].dtype, pairs.anchor.dtype))
    layers = tuple(w.to(dtype) for w in affine_layers(weights, biases))
    product = end_to_end(layers)
    force, force_along = mean_force_along(product, affine_pairs(pairs.to(dtype), biases), loss, constant)
    slope = matrix_product(product, force).neg_()

    @outside_autocast
    @torch.no_grad()
    def along(direction: Sequence[Tensor]) -> tuple[Tensor, ...]:
        given, shapes = ([tuple(t.shape) for t in tensors] for tensors in (direction, (*weights, *biases)))
        if given != shapes:
            raise ValueError(f"the direction has shapes {given}; give one tensor per weight matrix and bias: {shapes}")
        changes = [d.to(dtype) for d in direction]
        directions = affine_directions(tuple(changes[: len(weights)]), changes[len(weights) :])
        moved = end_to_end_along(layers, directions)
        change = matrix_product(moved, force) + matrix_product(product, force_along(moved))
        return parameter_gradients(layer_gradients_along(layers, directions, slope, change.neg_()), bool(biases))

    return along
