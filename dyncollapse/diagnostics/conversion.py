"""Rows of embeddings or inputs, spectra and matrices as tensors."""

from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from dyncollapse.model.conversion import TAKEN, as_tensor
from dyncollapse.runtime.settings import quoted

# What `as_rows` takes, (n, d): a tensor, a NumPy array, or anything that NumPy can turn into one.
Rows: TypeAlias = Any

# What functions of spectra and matrices take.
Numbers: TypeAlias = Tensor | np.ndarray[Any, np.dtype[Any]]


def as_rows(values: Rows, name: str = "embeddings") -> Shaped[Tensor, "..."]:
    """Return an array as a tensor with at least one axis, as `as_tensor` does.

    Args:
        values: A tensor, a NumPy array, or anything that NumPy can turn into one.
        name: What messages call the rows, in the plural.

    Returns:
        The tensor, on the same memory where possible, so it must not be written to; its shape is not checked further.

    Raises:
        ValueError: One line, for anything but a dense array of real numbers, for masked values, and for the path of a
            file.

    Examples:
        >>> import numpy as np
        >>> as_rows(np.arange(4.0).reshape(2, 2)[::-1])
        tensor([[2., 3.],
                [0., 1.]], dtype=torch.float64)
    """
    if isinstance(values, str | PathLike):
        raise ValueError(f"{name} are the path {quoted(str(values))}; read it first: use read_rows(path)")
    tensor = as_tensor(values, name, plural=True, wanted="(samples, dimensions)")
    if not tensor.ndim:
        raise ValueError(f"{name} have shape (); give one row per sample, (samples, dimensions)")
    return tensor


def as_floats(values: Rows, name: str) -> Float[Tensor, "..."]:
    """Return an array as a tensor that functions of linear algebra accept.

    Args:
        values: A tensor, a NumPy array, or anything that NumPy can turn into one.
        name: What messages call it, in the plural.

    Returns:
        The tensor. Integers become float64; float16 and bfloat16 become float32.

    Raises:
        ValueError: One line, for anything but a dense array of real numbers, and for masked values.

    Examples:
        >>> as_floats(np.array([3, 1]), "eigenvalues")
        tensor([3., 1.], dtype=torch.float64)
    """
    tensor = as_tensor(values, name, plural=True)
    if not tensor.is_floating_point():
        return tensor.to(torch.float64)
    return tensor.float() if tensor.dtype.itemsize == 2 else tensor


def as_dtype(dtype: torch.dtype | np.dtype[Any] | type[np.generic]) -> torch.dtype:
    """Return the torch format that equals a NumPy one.

    Args:
        dtype: A format of torch, which is returned as it is, or of NumPy.

    Returns:
        The format of torch.

    Raises:
        ValueError: For a NumPy format that torch does not have.

    Examples:
        >>> as_dtype(np.float32)
        torch.float32
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    try:
        return torch.from_numpy(np.empty(0, dtype)).dtype
    except TypeError:
        raise ValueError(f"{dtype} is no format of numbers that torch has; give {TAKEN}") from None
