"""Toy networks as plain tuples of weight matrices: z = W_L act(... act(W_1 x)), any depth, rectangular widths."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

Weights = tuple[Tensor, ...]
ACTIVATIONS = ("linear", "relu")
INITIALISERS = ("gaussian", "uniform", "spectrum")


def check_weights(weights: Sequence[Tensor], biases: Sequence[Tensor] = ()) -> None:
    """Raise ValueError unless the matrices (*runs, out, in) chain, share their run dimensions and all is finite."""
    if not weights:
        raise ValueError("the network has no layers; give at least one weight matrix")
    for lower, upper in itertools.pairwise(weights):
        if upper.shape[-1] != lower.shape[-2] or upper.shape[:-2] != lower.shape[:-2]:
            raise ValueError(
                f"layer shapes {tuple(lower.shape)} and {tuple(upper.shape)} do not chain; "
                "each must be (*runs, out, in) with `in` equal to the layer below's `out`"
            )
    if not all(bool(torch.isfinite(p).all()) for p in (*weights, *biases)):
        raise ValueError("the initial weights hold NaN or infinity; give finite weights")


def forward(
    weights: Weights,
    x: Float[Tensor, "*runs n d"],
    activation: str = "linear",
    biases: Sequence[Tensor] = (),
) -> Float[Tensor, "*runs n m"]:
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
) -> Weights:
    """Build aligned, balanced layers: W_l = Q_l diag(scale exp(-rate k)) Q_{l-1}^T, Q_l random orthonormal columns.

    Neighbouring layers share singular vectors and values, so A = I and the conserved C vanishes on the
    shared subspace: the start from which Theorem 3 is exact.
    """
    rank = min(widths)
    frames = [
        torch.linalg.qr(torch.randn((*runs, width, rank), generator=generator, dtype=torch.float64))[0]
        for width in widths
    ]
    decay = scale * torch.exp(-rate * torch.arange(rank, dtype=torch.float64))
    return tuple(upper * decay @ lower.mT for lower, upper in itertools.pairwise(frames))


def _shapes(widths: Sequence[int], runs: tuple[int, ...]) -> list[tuple[int, ...]]:
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths are {tuple(widths)}; give at least input and output width, each 1 or more")
    return [(*runs, upper, lower) for lower, upper in itertools.pairwise(widths)]
