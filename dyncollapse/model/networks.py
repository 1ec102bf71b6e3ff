"""Toy networks as plain tuples of weight matrices: z = W_L act(... act(W_1 x)), any depth, rectangular widths."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dyncollapse.model.choices import ACTIVATIONS

Weights = tuple[Tensor, ...]


def check_weights(weights: Sequence[Tensor], biases: Sequence[Tensor] = ()) -> None:
    """Raise ValueError unless the matrices (*runs, out, in) chain, biases (*runs, out) fit them and all is finite."""
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
    """Raise ValueError unless a first layer (*runs, out, d) can read each view (*batches, *runs, n, d)."""
    for x in views:
        own = x.shape[max(0, x.ndim - layer.ndim) : -2]
        alike = x.ndim > 1 and (x.dtype, x.device, x.shape[-1]) == (layer.dtype, layer.device, layer.shape[-1])
        # Axes of size 1 are shared by all runs, and missing ones are in front.
        if not alike or any(a not in (1, b) for a, b in zip(own[::-1], layer.shape[-3::-1], strict=False)):
            raise ValueError(
                f"batches are {tuple(x.shape)} of {x.dtype} on {x.device}, the first layer is {tuple(layer.shape)} "
                f"of {layer.dtype} on {layer.device}; both must have the same inputs, runs, precision and device"
            )
        if x.shape[-2] < 2 or not x.numel() or not torch.isfinite(x).all():
            raise ValueError(
                "the first batch holds NaN, infinity or fewer than two pairs; give two finite ones or more"
            )


def forward(
    weights: Weights,
    x: Float[Tensor, "... n d"],
    activation: str = "linear",
    biases: Sequence[Tensor] = (),
) -> Float[Tensor, "... n m"]:
    """Embed row batches: x (..., n, d) through layers (*runs, out, in), with `activation` between layers only.

    `biases`, when given, holds one (*runs, out) tensor per layer. Linear networks without biases are
    multiplied out first, which is cheaper than sending a batch through every layer.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; choose one of {', '.join(ACTIVATIONS)}")
    if activation == "linear" and not biases:
        return x @ end_to_end(weights).mT
    for layer, weight in enumerate(weights):
        x = x @ weight.mT
        if biases:
            x = x + biases[layer].unsqueeze(-2)
        if activation == "relu" and layer < len(weights) - 1:
            x = torch.relu(x)
    return x


def end_to_end(weights: Weights) -> Float[Tensor, "*runs m d"]:
    """Multiply the layers out: P = W_L ... W_1."""
    product = weights[0]
    for weight in weights[1:]:
        product = weight @ product
    return product


def layer_gradients(weights: Weights, product_gradient: Float[Tensor, "*runs m d"]) -> Weights:
    """Pull a gradient with respect to P back to every layer of a linear network (Lemma 3, any depth).

    dL/dW_l = (W_L ... W_{l+1})^T (dL/dP) (W_{l-1} ... W_1)^T.
    """
    pulled = product_gradient
    above = [pulled]
    for weight in reversed(weights[1:]):
        pulled = weight.mT @ pulled
        above.append(pulled)
    gradients = [above.pop()]
    below = None
    for weight in weights[:-1]:
        below = weight if below is None else weight @ below
        gradients.append(above.pop() @ below.mT)
    return tuple(gradients)


def layer_jacobian(
    weights: Weights, pulled: Float[Tensor, "m d"], derivative: Float[Tensor, "m d m d"]
) -> Float[Tensor, "n n"]:
    """Derivative of `layer_gradients(weights, Y(P))` with respect to all entries of all layers, for one run.

    `pulled` is Y at P, `derivative` [a, b, c, e] its derivative dY_ab / dP_ce. Rows and columns run through the
    layers from W_1 up, each row by row. Y has to be a gradient, so that the Jacobian is symmetric.
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
    """Return the min(m, d) singular values in descending order."""
    return torch.linalg.svdvals(matrix)


def gaussian_init(
    widths: Sequence[int], generator: Generator, runs: tuple[int, ...] = (), scale: float = 0.1
) -> Weights:
    """Draw every entry from N(0, scale^2); `widths` is (d, ..., m). Our default scale keeps d = 16 near W = 0."""
    return tuple(
        scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in _shapes(widths, runs)
    )


def uniform_init(
    widths: Sequence[int], generator: Generator, runs: tuple[int, ...] = (), scale: float = 1.0
) -> Weights:
    """Draw every entry from U(-b, b) with b = scale / sqrt(in): torch.nn.Linear's default at scale 1."""
    return tuple(
        (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * (scale / shape[-1] ** 0.5)
        for shape in _shapes(widths, runs)
    )


def uniform_biases(widths: Sequence[int], generator: Generator, runs: tuple[int, ...] = ()) -> Weights:
    """Draw one (*runs, out) bias per layer from U(-b, b) with b = 1 / sqrt(in): torch.nn.Linear's default."""
    return tuple(
        (2 * torch.rand(shape[:-1], generator=generator, dtype=torch.float64) - 1) / shape[-1] ** 0.5
        for shape in _shapes(widths, runs)
    )


def spectrum_init(
    widths: Sequence[int],
    generator: Generator,
    runs: tuple[int, ...] = (),
    scale: float = 1.0,
    rate: float = 0.35,
) -> Weights:
    """Build layers U diag(scale exp(-rate k)) V^T, k = 0, 1, ..., U and V from the SVD of a uniform random matrix.

    The default rate is that of the authors' two-layer toy. Each layer has its own U and V.
    """
    layers = []
    for shape in _shapes(widths, runs):
        u, _, vh = torch.linalg.svd(torch.rand(shape, generator=generator, dtype=torch.float64), full_matrices=False)
        decay = scale * torch.exp(-rate * torch.arange(u.shape[-1], dtype=torch.float64))
        layers.append(u * decay @ vh)
    return tuple(layers)


def balanced_init(
    widths: Sequence[int],
    generator: Generator,
    runs: tuple[int, ...] = (),
    scale: float = 0.1,
    rate: float = 0.35,
    imbalance: float = 0.0,
) -> Weights:
    """Build aligned layers W_l = Q_l diag(s_l) Q_{l-1}^T, Q_l random orthonormal columns, with C = lambda I.

    The smallest layer has s = scale exp(-rate k), the others follow from s_l^2 - s_{l+1}^2 = lambda = `imbalance`:
    the last layer is the smallest for lambda > 0, the first for lambda < 0 (ours). Neighbours share singular
    vectors, so A = I, and the flow of a linear network keeps it so for all t, whatever the data. At lambda = 0
    layers share their singular values too: the start from which Theorem 3 is exact.
    Raises ValueError for a lambda that is not finite, and for a hidden layer wider than the rank at lambda != 0.
    """
    if not math.isfinite(imbalance):
        raise ValueError(f"imbalance is {imbalance}; it is the lambda of W_l W_l^T - W_{{l+1}}^T W_{{l+1}}, finite")
    rank = min(widths)
    if imbalance and max(widths[1:-1], default=rank) > rank:
        raise ValueError(
            f"widths are {tuple(widths)} at imbalance {imbalance:g}; C = lambda I needs hidden widths equal to the "
            f"smallest width, {rank}: reduce them or use imbalance 0"
        )
    frames = [
        torch.linalg.qr(torch.randn((*runs, width, rank), generator=generator, dtype=torch.float64))[0]
        for width in widths
    ]
    decay = scale * torch.exp(-rate * torch.arange(rank, dtype=torch.float64))
    depth = len(widths) - 1
    steps_above_smallest = range(depth - 1, -1, -1) if imbalance > 0 else range(depth)
    return tuple(
        upper * (torch.sqrt(decay.square() + n * abs(imbalance)) if n and imbalance else decay) @ lower.mT
        for n, (lower, upper) in zip(steps_above_smallest, itertools.pairwise(frames), strict=True)
    )


def _shapes(widths: Sequence[int], runs: tuple[int, ...]) -> list[tuple[int, ...]]:
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths are {tuple(widths)}; give at least input and output width, each 1 or more")
    return [(*runs, upper, lower) for lower, upper in itertools.pairwise(widths)]
