"""Arrays of other libraries as tensors, without a copy where torch can see the same memory."""

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

TAKEN = "float16, bfloat16, float32, float64 and integers"


def as_tensor(
    values: Any, name: str, *, plural: bool = False, wanted: str = "one array of numbers"
) -> Shaped[Tensor, "..."]:
    """An array as a tensor of real numbers, copied only where its byte order or its strides are not torch's.

    Args:
        values: A tensor, a NumPy array, or whatever NumPy makes one of: numbers, lists, data frames, arrays of other
            libraries.
        name: What messages call it.
        plural: Whether messages say "are" and "have" of that name.
        wanted: What messages ask for where NumPy makes no array of the values.

    Returns:
        The tensor, on the same memory where possible: do not write to it.

    Raises:
        ValueError: One line, for anything but a dense array of real numbers, and for masked values.

    Examples:
        >>> import numpy as np
        >>> as_tensor(np.arange(4.0).reshape(2, 2)[::-1], "w")  # torch.as_tensor refuses a negative stride
        tensor([[2., 3.],
                [0., 1.]], dtype=torch.float64)
    """
    be = "are" if plural else "is"
    tensor = values if isinstance(values, Tensor) else _from_numpy(_as_array(values, name, be, wanted), name, be)
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_nested or tensor.is_quantized:
        kind = "meta" if tensor.is_meta else "nested" if tensor.is_nested else str(tensor.layout)
        kind = "quantised" if tensor.is_quantized else kind.removeprefix("torch.")
        raise ValueError(f"{name} {be} a {kind} tensor; give a dense one of plain numbers")
    if tensor.is_complex():
        raise ValueError(f"{name} {be} complex; give {'real ones' if plural else 'real numbers'}")
    if tensor.dtype == torch.bool or (tensor.dtype.itemsize == 1 and tensor.is_floating_point()):
        raise _wrong_type(name, be, str(tensor.dtype).removeprefix("torch."), ", as with .float()")
    return tensor


def _as_array(values: Any, name: str, be: str, wanted: str) -> np.ndarray[Any, np.dtype[Any]]:
    if isinstance(values, list | tuple) and any(isinstance(value, Tensor) for value in values):
        raise ValueError(
            f"{name} {be} a {type(values).__name__} of {len(values)} tensors; "
            "join batches with torch.cat, or rows with torch.stack"
        )
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.is_masked(values):
            have = "have" if be == "are" else "has"
            raise ValueError(f"{name} {have} masked values; leave out those rows, or fill them")
        values = values.data
    try:
        array = np.asarray(values)
    except Exception as error:  # other libraries refuse in their own ways, as for arrays on a GPU
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ValueError(f"{name} cannot be taken as one array ({reason}); give {wanted}") from None
    if array.dtype.kind == "O":
        kind = "None" if values is None else f"Python objects in a {type(values).__name__}"
        raise ValueError(f"{name} {be} {kind}; give numbers of one type, as with .astype(float)")
    if array.dtype.kind not in "fiucb" or array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8):
        raise _wrong_type(name, be, array.dtype.name)
    return array


def _from_numpy(array: np.ndarray[Any, np.dtype[Any]], name: str, be: str) -> Tensor:
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if min(array.strides, default=0) < 0 or any(step % array.itemsize for step in array.strides):
        array = array.copy()  # torch supports neither negative strides nor those that end between two numbers
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing here writes to it
        try:
            return torch.from_numpy(array)
        except TypeError:
            raise _wrong_type(name, be, array.dtype.name) from None


def _wrong_type(name: str, be: str, given: str, how: str = "") -> ValueError:
    return ValueError(f"{name} {be} {given}; taken are {TAKEN}: convert {'them' if be == 'are' else 'it'}{how}")
