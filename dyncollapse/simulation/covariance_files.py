"""Covariances of a simulation from .npy files: their size, and the task that they make."""

from pathlib import Path

import torch
from torch import Tensor

from dyncollapse.formats.arrays import read_npy
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.runtime.settings import SettingError, quoted
from dyncollapse.simulation.configuration import WIDEST, Configuration


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


def task_of(configuration: Configuration) -> GaussianTask:
    """Make the task of a configuration: of single variances, or of covariances from files.

    Args:
        configuration: The settings.

    Returns:
        The task, in float64.

    Raises:
        SettingError: For files that cannot be read, and matrices that are no covariances of this size.
    """
    c = configuration
    plain = GaussianTask.block(c.dim, c.aug_dim, c.aug_strength, c.data_var, c.view_convention)
    if c.data_cov is None and c.aug_cov is None and c.view_corr is None:
        return plain
    data = plain.data_cov if c.data_cov is None else _read("data_cov", c.data_cov, c.dim)
    aug = plain.aug_cov if c.aug_cov is None else _read("aug_cov", c.aug_cov, c.dim)
    noise = None if c.view_corr is None else _noise(c.view_corr, aug)
    try:
        return GaussianTask(data, aug, c.view_convention, noise)
    except ValueError as error:
        raise SettingError(str(error)) from None


def _noise(text: str, aug: Tensor) -> Tensor:
    try:
        correlation = float(text)
    except ValueError:
        return _read("view_corr", text, len(aug))
    if not -1 <= correlation <= 1:
        raise SettingError(f"`view_corr` is {text}; a correlation must be between -1 and 1")
    return correlation * aug


def _read(name: str, path: str, dim: int) -> Tensor:
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
        matrix = found.load() if fits else None
    except OSError as error:
        raise SettingError(f"`{name}` {quoted(path)} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # damage can raise any
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise SettingError(f"`{name}` {quoted(path)} is no sound .npy file: {reason}") from None
    if matrix is None or matrix.is_complex() or matrix.dtype == torch.bool:
        kind = f"an array {found.shape} of {found.kind}" if found.shape is not None else found.kind
        raise SettingError(f"`{name}` {quoted(path)} holds {kind}; give a covariance (d, d) of real numbers")
    return matrix
