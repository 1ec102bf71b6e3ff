"""From gradients on embeddings, or on the end-to-end matrix, to every layer and bias: the backward pass written out."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model._kernels import matrix_product, mean_over_batches
from dyncollapse.model.networks import Weights
from dyncollapse.model.pairs import Pairs


def affine_layers(weights: Weights, biases: Sequence[Tensor]) -> Weights:
    """Layers of the linear network that has one more input, always 1, in place of biases.

    Every layer but the last passes the 1 on, so that the product is [P c] with the offset c of the embeddings.

    Args:
        weights: One tensor (*runs, out, in) per layer.
        biases: One tensor (*runs, out) per layer, or none.

    Returns:
        Layers [[W b], [0 1]], the last one [W b]; `weights` themselves without biases.
    """
    if not biases:
        return weights
    layers = [torch.cat([w, b.unsqueeze(-1)], -1) for w, b in zip(weights, biases, strict=True)]
    return (*(_passing_on(layer, 1.0) for layer in layers[:-1]), layers[-1])


def affine_directions(weights: Weights, biases: Sequence[Tensor]) -> Weights:
    """Changes of `affine_layers` where weights and biases change by these."""
    if not biases:
        return weights
    layers = [torch.cat([w, b.unsqueeze(-1)], -1) for w, b in zip(weights, biases, strict=True)]
    return (*(_passing_on(layer, 0.0) for layer in layers[:-1]), layers[-1])


def affine_pairs(pairs: Pairs, biases: Sequence[Tensor]) -> Pairs:
    """Pairs with one more input that is always 1, or the pairs themselves without biases."""
    if not biases:
        return pairs
    one = pairs.anchor.new_ones(()).expand(*pairs.anchor.shape[:-1], 1)
    return Pairs(torch.cat([pairs.anchor, one], -1), torch.cat([pairs.positive, one], -1), pairs.views)


def parameter_gradients(layers: Sequence[Tensor], biased: bool) -> tuple[Tensor, ...]:
    """Gradients of the weights, then of the biases, from those of `affine_layers`."""
    if not biased:
        return tuple(layers)
    *lower, last = layers
    own = [*(layer[..., :-1, :] for layer in lower), last]
    return (*(layer[..., :-1] for layer in own), *(layer[..., -1] for layer in own))


def layer_gradients_along(
    weights: Weights,
    directions: Weights,
    product_gradient: Float[Tensor, "*runs m d"],
    change: Float[Tensor, "*runs m d"],
) -> Weights:
    """Derivative of `layer_gradients(weights, G)` when the layers change by `directions` and G by `change`.

    It is `layer_jacobian` times a vector, without the matrix.

    Args:
        weights: One tensor (*runs, out, in) per layer.
        directions: Changes of the layers, in their shapes.
        product_gradient: G = dL/dP (*runs, m, d).
        change: dG, its change along the change of P.

    Returns:
        One tensor per layer in its shape.

    References:
        Jing et al. 2022, Lemma 3, of which it is the derivative.

    Examples:
        >>> one, two = torch.eye(1), 2 * torch.eye(1)  # L = P = w2 w1, so dL/dw1 = w2 and dL/dw2 = w1
        >>> [float(d) for d in layer_gradients_along((one, one), (one, two), torch.eye(1), torch.zeros(1, 1))]
        [2.0, 1.0]
    """
    # Pairs (value, change): from the last layer down and from the first one up, as in `layer_gradients`.
    above = [(product_gradient, change)]
    for w, dw in zip(reversed(weights[1:]), reversed(directions[1:]), strict=True):
        g, dg = above[-1]
        above.append((w.mT @ g, dw.mT @ g + w.mT @ dg))
    changes = [above.pop()[1]]
    below: tuple[Tensor, Tensor] | None = None
    for w, dw in zip(weights[:-1], directions[:-1], strict=True):
        below = (w, dw) if below is None else (w @ below[0], dw @ below[0] + w @ below[1])
        g, dg = above.pop()
        changes.append(dg @ below[0].mT + g @ below[1].mT)
    return tuple(changes)


def end_to_end_along(weights: Weights, directions: Weights) -> Float[Tensor, "*runs m d"]:
    """Change of the end-to-end matrix when the layers change by `directions`."""
    product, change = weights[0], directions[0]
    for w, dw in zip(weights[1:], directions[1:], strict=True):
        product, change = w @ product, dw @ product + w @ change
    return change


def through_layers(
    weights: Weights,
    x: Float[Tensor, "*any n d"],
    outputs: Sequence[Tensor],
    slope: Tensor,
    activation: str,
    biased: bool,
) -> tuple[Tensor, ...]:
    """Gradients of all weights and then biases from those of the embeddings, averaged over the batch axes.

    Args:
        weights: One tensor (*runs, out, in) per layer.
        x: Inputs (*batches, *runs, n, d).
        outputs: What each layer made of them, as from `layer_outputs`.
        slope: Gradient with respect to the last output (*batches, *runs, n, m).
        activation: "linear" or "relu", between the layers only.
        biased: Whether the network has biases.

    Returns:
        One tensor per weight matrix, and one per bias.
    """
    inputs = [x, *outputs[:-1]]
    layers, shifts = [], []
    for depth in range(len(weights) - 1, -1, -1):
        runs = weights[depth].ndim - 2
        layers.append(mean_over_batches(matrix_product(slope.mT, inputs[depth]), runs + 2))
        if biased:
            shifts.append(mean_over_batches(slope.sum(-2), runs + 1))
        if depth:
            slope = matrix_product(slope, weights[depth])
            slope = slope * (inputs[depth] > 0) if activation == "relu" else slope
    return (*reversed(layers), *reversed(shifts))


def _passing_on(layer: Tensor, one: float) -> Tensor:
    row = torch.zeros_like(layer[..., :1, :])
    row[..., -1] = one
    return torch.cat([layer, row], -2)
