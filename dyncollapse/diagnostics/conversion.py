"""Rows of embeddings or inputs as tensors."""

from typing import Any, TypeAlias

from jaxtyping import Shaped
from torch import Tensor

from dyncollapse.formats.conversion import as_tensor

# What `as_rows` takes, (n, d): a tensor, a NumPy array, or whatever NumPy makes one of.
Rows: TypeAlias = Any


def as_rows(values: Rows, name: str = "embeddings") -> Shaped[Tensor, "..."]:
    """`as_tensor` of an array with at least one axis; its shape is not checked further.

    Args:
        values: A tensor, a NumPy array, or whatever NumPy makes one of.
        name: What messages call the rows, in the plural.

    Returns:
        The tensor, on the same memory where possible: do not write to it.

    Raises:
        ValueError: One line, for anything but a dense array of real numbers, and for masked values.

    Example:
        >>> import numpy as np
        >>> as_rows(np.arange(4.0).reshape(2, 2)[::-1])
        tensor([[2., 3.],
                [0., 1.]], dtype=torch.float64)
    """
    tensor = as_tensor(values, name, plural=True, wanted="(samples, dimensions)")
    if not tensor.ndim:
        raise ValueError(f"{name} have shape (); give one row per sample, (samples, dimensions)")
    return tensor
