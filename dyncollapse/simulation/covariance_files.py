"""Covariances of a simulation from .npy files."""

from pathlib import Path

import torch
from torch import Tensor

from dyncollapse.formats.arrays import FLOATS, INTEGERS, read_npy
from dyncollapse.runtime.settings import SettingError, quoted

# Eigenvalues of larger matrices would take minutes before the simulation begins.
WIDEST = 2048


def size_of(name: str, path: str) -> int:
    """Return d of the covariance (d, d) in a file, from its header.

    Args:
        name: The setting that gives the file.
        path: A .npy file.

    Returns:
        The number of inputs.

    Raises:
        SettingError: For a file that cannot be read or holds no square matrix.
    """
    return _opened(name, path).shape[0]


def read_covariance(name: str, path: str, dim: int) -> Tensor:
    """Return the matrix (d, d) in a file, in float64.

    Args:
        name: The setting that gives the file.
        path: A .npy file.
        dim: d.

    Returns:
        The matrix; whether it is a covariance is for the task to say.

    Raises:
        SettingError: For a file that cannot be read, or holds no finite matrix of this size.
    """
    opened = _opened(name, path)
    if opened.shape[0] != dim:
        raise SettingError(
            f"`{name}` {quoted(path)} holds a matrix {tuple(opened.shape)}, and there are {dim} inputs; give a "
            f"covariance ({dim}, {dim})"
        )
    matrix = opened.to(torch.float64)
    if not torch.isfinite(matrix).all():
        raise SettingError(f"`{name}` {quoted(path)} holds NaN or infinity; give finite numbers")
    return matrix


def _opened(name: str, path: str) -> Tensor:
    try:
        found = read_npy(Path(path))
        square = found.shape is not None and len(found.shape) == 2 and found.shape[0] == found.shape[1]
        fits = square and found.shape is not None and 1 <= found.shape[0] <= WIDEST
        matrix = found.load() if fits and found.kind in FLOATS + INTEGERS else None
    except OSError as error:
        raise SettingError(f"`{name}` {quoted(path)} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # damage can raise any
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise SettingError(f"`{name}` {quoted(path)} is no sound .npy file: {reason}") from None
    if matrix is None:
        kind = f"an array {found.shape} of {found.kind}" if found.shape is not None else found.kind
        raise SettingError(
            f"`{name}` {quoted(path)} holds {kind}; give a covariance (d, d) of real numbers of at most 64 "
            f"bits, d up to {WIDEST}"
        )
    return matrix
