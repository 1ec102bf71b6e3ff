"""Toy networks as plain tuples of weight matrices: z = W_L act(... act(W_1 x)), any depth, rectangular widths."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.model.choices import ACTIVATIONS

Weights = tuple[Tensor, ...]


def check_weights(weights: Sequence[Tensor], biases: Sequence[Tensor] = ()) -> None:
    """Raise ValueError unless the layers (*runs, out, in) fit together and with their biases, and all are finite."""
    if not weights:
        raise ValueError("the network has no layers; give at least one weight matrix")
    if any(w.ndim < 2 or not w.numel() for w in weights):
        raise ValueError(
            f"layer shapes are {[tuple(w.shape) for w in weights]}; each must be (*runs, out, in), none of them 0"
        )
    for lower, upper in itertools.pairwise(weights):
        if upper.shape[-1] != lower.shape[-2] or upper.shape[:-2] != lower.shape[:-2]:
            raise ValueError(
                f"layer shapes {tuple(lower.shape)} and {tuple(upper.shape)} do not chain; "
                "each must be (*runs, out, in) with `in` equal to the layer below's `out`"
            )
    shapes = [tuple(w.shape[:-1]) for w in weights]
    if biases and [tuple(b.shape) for b in biases] != shapes:
        raise ValueError(
            f"biases have shapes {[tuple(b.shape) for b in biases]}; one of (*runs, out) per layer: {shapes}"
        )
    if not all(bool(torch.isfinite(p).all()) for p in (*weights, *biases)):
        raise ValueError("the initial weights hold NaN or infinity; give finite weights")


def check_inputs(layer: Tensor, *views: Tensor) -> None:
    """Raise ValueError unless each view (*batches, *runs, n, d) fits the first layer (*runs, out, d)."""
    for x in views:
        own = x.shape[max(0, x.ndim - layer.ndim) : -2]
        alike = (x.dtype, x.device, x.shape[-1]) == (layer.dtype, layer.device, layer.shape[-1])
        # Views may have axes of size 1, which all runs share, and fewer axes than the layer.
        if not alike or any(a not in (1, b) for a, b in zip(own[::-1], layer.shape[-3::-1], strict=False)):
            raise ValueError(
                f"batches are {tuple(x.shape)} of {x.dtype} on {x.device}, the first layer is {tuple(layer.shape)} "
                f"of {layer.dtype} on {layer.device}; both must have the same inputs, runs, precision and device"
            )
        if x.shape[-2] < 2 or not x.numel() or not torch.isfinite(x).all():
            raise ValueError("a batch holds NaN, infinity or fewer than two pairs; give two finite ones or more")


def forward(
    weights: Weights,
    x: Float[Tensor, "... n d"],
    activation: str = "linear",
    biases: Sequence[Tensor] = (),
) -> Float[Tensor, "... n m"]:
    """Embed a batch of rows: z = W_L act(... act(W_1 x)).

    Args:
        weights: One tensor (*runs, out, in) per layer.
        x: Inputs (*batches, *runs, n, d), one sample per row.
        activation: "linear" or "relu", between the layers only.
        biases: One tensor (*runs, out) per layer, or none.

    Returns:
        Embeddings (*batches, *runs, n, m).

    Raises:
        ValueError: For an unknown activation.

    Examples:
        >>> forward((2 * torch.eye(2), torch.ones(1, 2)), torch.tensor([[1.0, -3.0]]), "relu").tolist()
        [[2.0]]
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; choose one of {', '.join(ACTIVATIONS)}")
    if activation == "linear" and not biases:  # cheaper than to send a batch through every layer
        return x @ end_to_end(weights).mT
    return deque(layer_outputs(weights, x, activation, biases), maxlen=1).pop()


def is_linear(activation: str, layers: int) -> bool:
    """Whether a network is its end-to-end matrix: no activation stands behind the last of its layers."""
    return activation == "linear" or layers == 1


def layer_outputs(
    weights: Weights, x: Float[Tensor, "... n d"], activation: str, biases: Sequence[Tensor] = ()
) -> Iterator[Tensor]:
    """Send a batch through the layers.

    Args:
        weights: One tensor (*runs, out, in) per layer.
        x: Inputs (*batches, *runs, n, d).
        activation: "linear" or "relu", between the layers only.
        biases: One tensor (*runs, out) per layer, or none.

    Yields:
        What each layer makes of it, after its activation; the last are the embeddings.
    """
    for layer, weight in enumerate(weights):
        x = x @ weight.mT
        if biases:
            x = x + biases[layer].unsqueeze(-2)
        if activation == "relu" and layer < len(weights) - 1:
            x = torch.relu(x)
        yield x


def end_to_end(weights: Weights) -> Float[Tensor, "*runs m d"]:
    """Multiply the layers out: P = W_L ... W_1.

    Args:
        weights: One tensor (*runs, out, in) per layer, the first one first.

    Returns:
        The end-to-end matrix (*runs, m, d), in which all analysis of linear networks is done.

    Examples:
        >>> end_to_end((2 * torch.eye(2), 3 * torch.eye(2))).diagonal().tolist()
        [6.0, 6.0]
    """
    product = weights[0]
    for weight in weights[1:]:
        product = weight @ product
    return product


def layer_gradients(weights: Weights, product_gradient: Float[Tensor, "*runs m d"]) -> Weights:
    """Turn a gradient with respect to P into those of the layers of a linear network (Lemma 3, any depth).

    dL/dW_l = (W_L ... W_{l+1})^T (dL/dP) (W_{l-1} ... W_1)^T.

    Args:
        weights: One tensor (*runs, out, in) per layer.
        product_gradient: dL/dP (*runs, m, d).

    Returns:
        dL/dW_l, one tensor per layer in its shape.

    References:
        Jing et al. 2022, Lemma 3, for two layers.

    Examples:
        >>> w1, w2 = 2 * torch.eye(2), 3 * torch.eye(2)
        >>> [gradient.diagonal().tolist() for gradient in layer_gradients((w1, w2), torch.eye(2))]
        [[3.0, 3.0], [2.0, 2.0]]
    """
    # (W_L ... W_{l+1})^T dL/dP from the last layer down, then times (W_{l-1} ... W_1)^T from the first layer up.
    from_above = [product_gradient]
    for weight in reversed(weights[1:]):
        from_above.append(weight.mT @ from_above[-1])
    gradients, below = [from_above.pop()], None
    for weight in weights[:-1]:
        below = weight if below is None else weight @ below
        gradients.append(from_above.pop() @ below.mT)
    return tuple(gradients)


def layer_jacobian(
    weights: Weights, pulled: Float[Tensor, "m d"], derivative: Float[Tensor, "m d m d"]
) -> Float[Tensor, "n n"]:
    """Derivative of `layer_gradients(weights, Y(P))` with respect to all entries of all layers, for one run.

    Block (l, k) is the derivative of dL/dW_l with respect to W_k. It has two terms: the chain rule through Y, and for
    l != k the dependence of Lemma 3's outer factors on W_k.

    Args:
        weights: One matrix (out, in) per layer.
        pulled: Y (m, d) at P = W_L ... W_1. It must be a gradient, so that the Jacobian is symmetric.
        derivative: dY_ab / dP_ce at [a, b, c, e].

    Returns:
        The Jacobian (n, n) for n weights; rows and columns run through the layers from W_1 up, each row by row.

    References:
        Jing et al. 2022, Lemma 3, of which it is the derivative.

    Examples:
        >>> pulled, derivative = torch.eye(1), torch.zeros(1, 1, 1, 1)  # Y = 1: L = P = w2 w1
        >>> layer_jacobian((torch.eye(1), torch.eye(1)), pulled, derivative).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    depth, (m, d) = len(weights), pulled.shape
    above = [end_to_end(weights[layer + 1 :]) if layer + 1 < depth else None for layer in range(depth)]
    below = [end_to_end(weights[:layer]) if layer else None for layer in range(depth)]

    edges = [0, *itertools.accumulate(w.numel() for w in weights)]
    jacobian = pulled.new_empty(edges[-1], edges[-1])
    for k, weight in enumerate(weights):
        # dY / dW_k, one column per entry of W_k, from dP = above dW_k below.
        upper, half = above[k], derivative
        if (lower := below[k]) is not None:
            half = half.reshape(-1, d) @ lower.mT
        if upper is not None:
            half = upper.mT @ half.reshape(m * d, m, -1)
        for layer in range(k + 1):
            block = half.reshape(m, -1)
            if (over := above[layer]) is not None:
                block = over.mT @ block
            if (under := below[layer]) is not None:
                block = under @ block.reshape(weights[layer].shape[0], d, -1)
            block = block.reshape(weights[layer].numel(), weight.numel())
            if layer < k:
                # W_k is also part of what pulls Y back to the layers below it.
                eye = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
                between = eye if layer + 1 == k else end_to_end(weights[layer + 1 : k])
                remainder = pulled if under is None else pulled @ under.mT
                remainder = remainder if upper is None else upper.mT @ remainder
                axes = (*weights[layer].shape, *weight.shape)
                block.view(axes).addcmul_(between.mT[:, None, None, :], remainder.mT[None, :, :, None])
            rows, columns = slice(edges[layer], edges[layer + 1]), slice(edges[k], edges[k + 1])
            jacobian[rows, columns], jacobian[columns, rows] = block, block.mT.contiguous()
    return jacobian


def singular_values(matrix: Float[Tensor, "*runs m d"]) -> Float[Tensor, "*runs k"]:
    """Singular values in descending order: the size of each dimension of a linear embedding.

    Args:
        matrix: One or more matrices (*runs, m, d), such as `end_to_end(weights)`.

    Returns:
        The k = min(m, d) singular values (*runs, k).

    Examples:
        >>> [round(value, 3) for value in singular_values(torch.diag(torch.tensor([1.0, 2.0]))).tolist()]
        [2.0, 1.0]
    """
    return torch.linalg.svdvals(matrix)
