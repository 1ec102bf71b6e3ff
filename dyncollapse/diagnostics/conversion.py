"""Arrays of other libraries as tensors, sharing memory where torch can."""

import warnings
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

TAKEN = "float16, bfloat16, float32, float64 and integers"

# What `as_rows` takes, (n, d): a tensor, a NumPy array, or anything that NumPy can turn into one.
Rows: TypeAlias = Any

# What functions of spectra and matrices take.
Numbers: TypeAlias = Tensor | np.ndarray[Any, np.dtype[Any]]


def as_rows(values: Rows, name: str = "embeddings") -> Shaped[Tensor, "..."]:
    """Return an array as a tensor with at least one axis, as `as_tensor` does.

    Args:
        values: A tensor, a NumPy array, or anything that NumPy can turn into one: lists, data frames, arrays of other
            libraries.
        name: What messages call it.

    Returns:
        The tensor, on the same memory where possible; its shape is not checked further.

    Raises:
        ValueError: As for `as_tensor`, and for a single number.

    Example:
        >>> as_rows([[1.0, 2.0]]).shape
        torch.Size([1, 2])
    """
    tensor = as_tensor(values, name)
    if not tensor.ndim:
        raise ValueError(f"{name} have shape (); give one row per sample, (samples, dimensions)")
    return tensor


def as_floats(values: Rows, name: str) -> Float[Tensor, "..."]:
    """Return an array as a tensor that functions of linear algebra accept.

    Args:
        values: As for `as_tensor`.
        name: What messages call it.

    Returns:
        The tensor. Integers become float64, float16 and bfloat16 become float32, both without rounding (up to 2^53).

    Raises:
        ValueError: As for `as_tensor`.

    Example:
        >>> import numpy as np
        >>> as_floats(np.array([3, 1]), "eigenvalues")
        tensor([3., 1.], dtype=torch.float64)
    """
    tensor = as_tensor(values, name)
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

    Example:
        >>> as_dtype(np.float32)
        torch.float32
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    try:
        return torch.from_numpy(np.empty(0, dtype)).dtype
    except TypeError:
        raise ValueError(f"{dtype} is no format of numbers that torch has; give {TAKEN}") from None


def as_tensor(values: Rows, name: str) -> Shaped[Tensor, "..."]:
    """Return an array as a tensor of real numbers, copied only where torch cannot use its byte order or strides.

    Args:
        values: A tensor, a NumPy array, or anything that NumPy can turn into one: lists, data frames, arrays of other
            libraries.
        name: What messages call it.

    Returns:
        The tensor, on the same memory where possible.

    Raises:
        ValueError: One line, for anything but a dense array of real numbers, and for masked values.

    Example:
        >>> import numpy as np
        >>> as_tensor(np.arange(4.0).reshape(2, 2)[::-1], "embeddings")
        tensor([[2., 3.],
                [0., 1.]], dtype=torch.float64)
    """
    tensor = values if isinstance(values, Tensor) else _from_numpy(_as_array(values, name), name)
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_nested or tensor.is_quantized:
        kind = "meta" if tensor.is_meta else "nested" if tensor.is_nested else str(tensor.layout)
        kind = "quantised" if tensor.is_quantized else kind.removeprefix("torch.")
        raise ValueError(f"{name} are a {kind} tensor; give a dense one of plain numbers")
    if tensor.is_complex():
        raise ValueError(f"{name} are complex; give real ones")
    if tensor.dtype == torch.bool or (tensor.dtype.itemsize == 1 and tensor.is_floating_point()):
        given = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(f"{name} are {given}; allowed are {TAKEN}: convert them, for example with .float()")
    return tensor


def _as_array(values: Any, name: str) -> np.ndarray[Any, np.dtype[Any]]:
    if isinstance(values, list | tuple) and any(isinstance(value, Tensor) for value in values):
        raise ValueError(
            f"{name} are a {type(values).__name__} of {len(values)} tensors; "
            "join batches with torch.cat, or rows with torch.stack"
        )
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.is_masked(values):
            raise ValueError(f"{name} have masked values; leave out those rows, or fill them")
        values = values.data
    try:
        array = np.asarray(values)
    except Exception as error:  # each library raises its own errors, for example for arrays on a GPU
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ValueError(f"{name} cannot be taken as one array ({reason}); give (samples, dimensions)") from None
    if array.dtype.kind == "O":
        kind = type(values).__name__
        raise ValueError(f"{name} are Python objects in a {kind}; give numbers of one type, as .astype(float) does")
    if array.dtype.kind not in "fiucb" or array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8):
        raise ValueError(f"{name} are {array.dtype.name}; allowed are {TAKEN}: convert them")
    return array


def _from_numpy(array: np.ndarray[Any, np.dtype[Any]], name: str) -> Tensor:
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if min(array.strides, default=0) < 0 or any(step % array.itemsize for step in array.strides):
        array = array.copy()  # torch needs strides that are not negative and are multiples of the item size
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # we never write to it
        try:
            return torch.from_numpy(array)
        except TypeError:
            raise ValueError(f"{name} are {array.dtype.name}; allowed are {TAKEN}: convert them") from None
