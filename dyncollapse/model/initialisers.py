"""Initial weights of toy networks: random entries, prescribed spectra, aligned and balanced layers."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Generator

from dyncollapse.model.networks import Weights


def gaussian_init(
    widths: Sequence[int], generator: Generator, runs: tuple[int, ...] = (), scale: float = 0.1
) -> Weights:
    """Draw every entry from N(0, scale^2).

    Args:
        widths: (d, ..., m): input width, hidden widths, output width.
        generator: Draws the entries.
        runs: Shape of the runs.
        scale: Standard deviation of an entry. The default starts near W = 0, where the paper's modes separate: a layer
            of 16 has singular values below about 0.8.

    Returns:
        One float64 tensor (*runs, out, in) per layer.

    Raises:
        ValueError: For fewer than two widths, and widths below 1.

    Examples:
        >>> [tuple(layer.shape) for layer in gaussian_init([3, 4, 2], torch.Generator(), (5,))]  # five runs
        [(5, 4, 3), (5, 2, 4)]
    """
    return tuple(
        scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in _shapes(widths, runs)
    )


def uniform_init(
    widths: Sequence[int], generator: Generator, runs: tuple[int, ...] = (), scale: float = 1.0
) -> Weights:
    """Draw every entry from U(-b, b) with b = scale / sqrt(in): torch.nn.Linear's default at scale 1.

    Args:
        widths: (d, ..., m): input width, hidden widths, output width.
        generator: Draws the entries.
        runs: Shape of the runs.
        scale: Multiplies b.

    Returns:
        One float64 tensor (*runs, out, in) per layer.

    Raises:
        ValueError: For fewer than two widths, and widths below 1.

    Examples:
        >>> (layer,) = uniform_init([4, 2], torch.Generator())
        >>> bool(layer.abs().max() <= 0.5)
        True
    """
    return tuple(
        (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * (scale / shape[-1] ** 0.5)
        for shape in _shapes(widths, runs)
    )


def uniform_biases(widths: Sequence[int], generator: Generator, runs: tuple[int, ...] = ()) -> Weights:
    """Draw the biases of every layer from U(-b, b) with b = 1 / sqrt(in): torch.nn.Linear's default.

    Args:
        widths: (d, ..., m): input width, hidden widths, output width.
        generator: Draws the entries.
        runs: Shape of the runs.

    Returns:
        One float64 tensor (*runs, out) per layer.

    Raises:
        ValueError: For fewer than two widths, and widths below 1.

    Examples:
        >>> [bias.shape for bias in uniform_biases([3, 4, 2], torch.Generator())]
        [torch.Size([4]), torch.Size([2])]
    """
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
    """Build layers U diag(s) V^T with the decaying spectrum s_k = scale exp(-rate k), k = 0, 1, ...

    Args:
        widths: (d, ..., m): input width, hidden widths, output width.
        generator: Draws a uniform random matrix per layer, whose singular vectors are U and V.
        runs: Shape of the runs.
        scale: Largest singular value.
        rate: Decay from one singular value to the next; the default is that of the authors' two-layer toy code.

    Returns:
        One float64 tensor (*runs, out, in) per layer, each with singular vectors of its own.

    Raises:
        ValueError: For fewer than two widths, and widths below 1.

    Examples:
        >>> (layer,) = spectrum_init([3, 3], torch.Generator(), rate=1.0)
        >>> [round(value, 4) for value in torch.linalg.svdvals(layer).tolist()]
        [1.0, 0.3679, 0.1353]
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

    Adjacent layers share singular vectors, so A = I, and the flow of a linear network keeps A = I for all t, whatever
    the data. At lambda = 0 they share singular values as well: from this start Theorem 3 is exact.

    Args:
        widths: (d, ..., m): input width, hidden widths, output width.
        generator: Draws the frames Q_l.
        runs: Shape of the runs.
        scale: Largest singular value of the smallest layer.
        rate: Decay of its singular values, s_k = scale exp(-rate k).
        imbalance: lambda, by which the other layers follow: s_l^2 - s_{l+1}^2 = lambda. The last layer is the smallest
            for lambda > 0, the first one for lambda < 0.

    Returns:
        One float64 tensor (*runs, out, in) per layer.

    Raises:
        ValueError: For fewer than two widths, widths below 1, a lambda that is not finite, and at lambda != 0 for a
            hidden layer wider than the smallest width.

    References:
        Jing et al. 2022, Theorem 3; docs/explanation/beyond-the-paper.md, section 5e.

    Examples:
        >>> w1, w2 = balanced_init([3, 3, 3], torch.Generator(), imbalance=0.5)
        >>> torch.allclose(w1 @ w1.T - w2.T @ w2, 0.5 * torch.eye(3, dtype=torch.float64))
        True
    """
    if not math.isfinite(imbalance):
        raise ValueError(f"imbalance is {imbalance}; it is the lambda of W_l W_l^T - W_{{l+1}}^T W_{{l+1}}, finite")
    depth, rank = len(_shapes(widths, runs)), min(widths)
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
    steps_above_smallest = range(depth - 1, -1, -1) if imbalance > 0 else range(depth)
    return tuple(
        upper * (torch.sqrt(decay.square() + n * abs(imbalance)) if n and imbalance else decay) @ lower.mT
        for n, (lower, upper) in zip(steps_above_smallest, itertools.pairwise(frames), strict=True)
    )


def _shapes(widths: Sequence[int], runs: tuple[int, ...]) -> list[tuple[int, ...]]:
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths are {tuple(widths)}; give at least input and output width, each 1 or more")
    return [(*runs, upper, lower) for lower, upper in itertools.pairwise(widths)]
