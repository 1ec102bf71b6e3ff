"""Checks of covariances that users give: finite, square, symmetric, PSD, and of one kind."""

import torch
from torch import Tensor


def check_covariance(name: str, cov: Tensor) -> None:
    """Raise ValueError unless a matrix is a covariance: finite, square, symmetric and PSD up to round-off."""
    check_symmetric(name, cov)
    smallest = float(torch.linalg.eigvalsh(cov)[0])
    if smallest < -8 * round_off(cov):
        raise ValueError(f"{name} has the eigenvalue {smallest:.3g}; all must be at least 0")


def check_symmetric(name: str, matrix: Tensor) -> None:
    """Raise ValueError unless a matrix is finite, square and symmetric up to round-off."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise ValueError(f"{name} has shape {tuple(matrix.shape)}; it must be a square matrix")
    if matrix.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} has numbers of type {matrix.dtype}; give float32 or float64")
    if not torch.isfinite(matrix).all():
        raise ValueError(f"{name} holds NaN or infinity; give finite numbers")
    asymmetry = float((matrix - matrix.T).abs().max())
    if asymmetry > 8 * round_off(matrix):
        raise ValueError(f"{name} is not symmetric (largest difference {asymmetry:.3g}); pass (C + C.T) / 2")


def check_same_kind(name: str, matrix: Tensor, other: Tensor, other_name: str = "aug_cov") -> None:
    """Raise ValueError unless two matrices have one shape, precision and device."""
    first, second = (f"{tuple(m.shape)} of {m.dtype} on {m.device}" for m in (other, matrix))
    if first != second:
        raise ValueError(
            f"{other_name} is {first}, {name} {second}; both must have the input dimension, one precision "
            "and one device"
        )


def round_off(cov: Tensor) -> float:
    """Round-off of a covariance that was computed by matrix products: it is symmetric and PSD only up to this."""
    # Near-equal entries, as of flat images, give eigenvalues of up to d times the entries.
    return float(cov.shape[0] * torch.finfo(cov.dtype).eps * torch.linalg.matrix_norm(cov))
