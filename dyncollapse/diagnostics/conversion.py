"""Arrays of other libraries as tensors, without a copy where torch can see the same memory."""

import warnings
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

TAKEN = "float16, bfloat16, float32, float64 and integers"

# What `as_rows` takes, (n, d): a tensor, a NumPy array, or whatever NumPy makes one of.
Rows: TypeAlias = Any


def as_rows(values: Rows, name: str = "embeddings") -> Shaped[Tensor, "..."]:
    """An array as a tensor of real numbers, copied only where its byte order or its strides are not torch's.

    Args:
        values: A tensor, a NumPy array, or whatever NumPy makes one of: lists, data frames, arrays of other libraries.
        name: What to call it in messages.

    Returns:
        The tensor, on the same memory where possible. It has at least one axis; its shape is not checked further.

    Raises:
        ValueError: One line, for anything but a dense array of real numbers, and for masked values.

    Example:
        >>> import numpy as np
        >>> as_rows(np.arange(4.0).reshape(2, 2)[::-1])
        tensor([[2., 3.],
                [0., 1.]], dtype=torch.float64)
    """
    tensor = values if isinstance(values, Tensor) else _from_numpy(_as_array(values, name), name)
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_nested or tensor.is_quantized:
        kind = "meta" if tensor.is_meta else "nested" if tensor.is_nested else str(tensor.layout)
        kind = "quantised" if tensor.is_quantized else kind.removeprefix("torch.")
        raise ValueError(f"{name} are a {kind} tensor; give a dense one of plain numbers")
    if not tensor.ndim:
        raise ValueError(f"{name} have shape (); give one row per sample, (samples, dimensions)")
    if tensor.is_complex():
        raise ValueError(f"{name} are complex; give real ones")
    if tensor.dtype == torch.bool or (tensor.dtype.itemsize == 1 and tensor.is_floating_point()):
        given = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(f"{name} are {given}; taken are {TAKEN}: convert them, as with .float()")
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
    except Exception as error:  # other libraries refuse in their own ways, as for arrays on a GPU
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ValueError(f"{name} cannot be taken as one array ({reason}); give (samples, dimensions)") from None
    if array.dtype.kind == "O":
        kind = type(values).__name__
        raise ValueError(f"{name} are Python objects in a {kind}; give numbers of one type, as with .astype(float)")
    if array.dtype.kind not in "fiucb" or array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8):
        raise ValueError(f"{name} are {array.dtype.name}; taken are {TAKEN}: convert them")
    return array


def _from_numpy(array: np.ndarray[Any, np.dtype[Any]], name: str) -> Tensor:
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if min(array.strides, default=0) < 0 or any(step % array.itemsize for step in array.strides):
        array = array.copy()  # torch supports neither negative strides nor those that end between two numbers
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # we never write to it
        try:
            return torch.from_numpy(array)
        except TypeError:
            raise ValueError(f"{name} are {array.dtype.name}; taken are {TAKEN}: convert them") from None
