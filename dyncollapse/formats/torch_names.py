"""The names that a file of torch.save may use, and tensors built from their parts, each of which is checked."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dyncollapse.formats.pickles import Call, Opaque, as_dict
from dyncollapse.runtime.untrusted import Refused

MOST_REPEATED = 2**24  # bytes that a tensor may have beyond its storage, by a stride of 0
MOST_DIMENSIONS = 64


@dataclass(frozen=True)
class Described:
    """A tensor that is not a dense array of numbers.

    Attributes:
        kind: What it is, for messages.
        shape: Its shape.
    """

    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Storage:
    """A row of numbers in a file.

    Attributes:
        numbers: The numbers; None if they are not read, for example because they are quantised.
        dtype: Their format.
        count: How many there are.
    """

    numbers: Tensor | None
    dtype: torch.dtype | Opaque
    count: int


def _sizes(values: Any) -> tuple[int, ...]:
    sizes = tuple(values)
    if len(sizes) > MOST_DIMENSIONS:
        raise ValueError(f"a tensor has at most {MOST_DIMENSIONS} dimensions")
    for value in sizes:
        if type(value) is not int or not 0 <= value < 2**63:
            raise ValueError("a tensor's sizes, strides and offset are whole numbers from 0 to 2^63")
    return sizes


def _tensor(storage: Storage, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor | Described:
    """Return a tensor on a storage. `rest` is whether it needs gradients, hooks and lazy operations: none is kept."""
    return _view(storage, offset, size, stride, rest[2] if len(rest) > 2 else None)


def _tensor_of_bytes(
    storage: Storage, offset: Any, size: Any, stride: Any, _learns: Any, _hooks: Any, dtype: Any, lazy: Any = None
) -> Tensor | Described:
    """Return a tensor of a dtype that no storage has, otherwise as `_tensor`."""
    if not isinstance(dtype, torch.dtype):
        raise TypeError("no dtype")
    if storage.numbers is None:
        return _view(storage, offset, size, stride, lazy)
    numbers = storage.numbers.view(torch.uint8)
    numbers = numbers[: len(numbers) // dtype.itemsize * dtype.itemsize].view(dtype)
    return _view(Storage(numbers, dtype, len(numbers)), offset, size, stride, lazy)


def _view(storage: Storage, offset: Any, size: Any, stride: Any, lazy: Any) -> Tensor | Described:
    size, stride, (offset,) = _sizes(size), _sizes(stride), _sizes([offset])
    if len(size) != len(stride):
        raise ValueError("a tensor has as many sizes as strides")
    if isinstance(storage.dtype, Opaque):
        return Described(storage.dtype.name, size)
    if lazy:
        return Described(f"{_name(storage.dtype)} with a conjugation or sign to be applied", size)
    if storage.numbers is None or 0 in size:
        return torch.empty(size, dtype=storage.dtype) if 0 in size else Described(_name(storage.dtype), size)
    count = math.prod(size)
    if offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) >= storage.count:
        raise Refused(f"is damaged: a tensor of shape {size} reaches beyond its {storage.count} numbers; copy it again")
    if count > storage.count and count * storage.dtype.itemsize > MOST_REPEATED:
        raise Refused(
            f"holds a tensor of shape {size} that repeats {storage.count} stored number(s); save each row once"
        )
    return storage.numbers.as_strided(size, stride, offset)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _from_type(function: Any, _kind: Any, arguments: Any, _attributes: Any) -> Any:
    if not isinstance(function, Call):
        raise TypeError("no function that makes a tensor")
    return function.function(*arguments)


def _on_device(data: Any, dtype: Any, *_: Any) -> Any:
    return data.to(dtype) if isinstance(data, Tensor) and isinstance(dtype, torch.dtype) else data


def _layout(name: Any) -> str:
    return _text(name).removeprefix("torch.")


def _sparse(layout: Any, parts: Any) -> Described:
    values, size = (parts[1], parts[2]) if layout == "sparse_coo" else (parts[2], parts[3])
    return Described(f"{_text(layout)} {_kind(values)}", _sizes(size))


def _meta(dtype: Any, size: Any, *_: Any) -> Described:
    return Described(f"meta {_name(dtype) if isinstance(dtype, torch.dtype) else 'tensor'}", _sizes(size))


def _nested(values: Any, *_: Any) -> Described:
    return Described(f"nested {_kind(values)}", ())


def _kind(value: Any) -> str:
    return _name(value.dtype) if isinstance(value, Tensor) else "tensor"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _text(value: Any) -> str:
    """Return a short string; other objects may contain one object so often that printing them never ends."""
    if not isinstance(value, str):
        raise TypeError("no text")
    return value[:100]


def _ordered(*arguments: Any) -> dict[Any, Any]:
    given = arguments[0] if arguments and isinstance(arguments[0], dict | list | tuple) else []
    return as_dict([(key, value) for key, value in (given.items() if isinstance(given, dict) else given)])


def _encoded(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or _text(encoding) not in ("latin1", "latin-1", "ascii", "utf-8"):
        raise TypeError("no text")
    return text.encode(encoding)


def _members(values: Any = ()) -> list[Any]:
    return list(values)


def _complex(real: Any, imaginary: Any) -> complex:
    return complex(float(real), float(imaginary))


def _device(kind: Any, _index: Any = 0) -> str:
    return _text(kind)


def _names() -> dict[str, Any]:
    """Return every global name that a file may use."""
    names: dict[str, Any] = {
        "collections.OrderedDict": Call(_ordered),
        "collections.Counter": Call(_ordered),
        "collections.defaultdict": Call(lambda *_: {}),
        "_codecs.encode": Call(_encoded),
        "torch.Size": Call(_sizes),
        "torch.device": Call(_device),
        "torch.serialization._get_layout": Call(_layout),
        "torch.storage.UntypedStorage": torch.uint8,
        "torch._tensor._rebuild_from_type_v2": Call(_from_type),
    }
    for module in ("builtins", "__builtin__"):  # as Python 3 and 2 call it
        names |= {
            f"{module}.set": Call(_members),
            f"{module}.frozenset": Call(_members),
            f"{module}.complex": Call(_complex),
        }
    # Many checkpoints hold options and NumPy scalars beside the tensors.
    beside = ("argparse.Namespace", "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    names |= {name: Opaque(name) for name in (*beside, "torch.Tensor", "torch.nn.parameter.Parameter")}
    functions: dict[str, Callable[..., Any]] = {
        "tensor": _tensor,
        "tensor_v2": _tensor,
        "tensor_v3": _tensor_of_bytes,
        "parameter": _parameter,
        "parameter_with_state": _parameter,
        "device_tensor_from_cpu_tensor": _on_device,
        "sparse_tensor": _sparse,
        "qtensor": _tensor,
        "meta_tensor_no_storage": _meta,
        "nested_tensor": _nested,
    }
    names |= {f"torch._utils._rebuild_{name}": Call(function) for name, function in functions.items()}
    values = vars(torch)
    names |= {f"torch.{name}": value for name, value in values.items() if isinstance(value, torch.dtype)}
    names |= {f"torch.{name}": Opaque(name) for name, value in values.items() if isinstance(value, torch.qscheme)}
    for kind, dtype in STORAGES.items():
        for module in ("torch", "torch.cuda"):
            names |= {f"{module}.{kind}Storage": dtype, f"{module}.{kind}Tensor": Opaque(f"torch.{kind}Tensor")}
    return names


STORAGES: dict[str, torch.dtype | Opaque] = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Short": torch.int16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    **{name: Opaque(name.lower()) for name in ("QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4")},
}
NAMES = _names()
