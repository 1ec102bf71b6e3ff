"""What is in a file of arrays, format by format: names, dtypes and shapes first, numbers when they are asked for."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from dyncollapse.archives import check_room, check_unpacked, open_archive
from dyncollapse.torchfiles import as_numbers, map_bytes, read_pt
from dyncollapse.torchnames import Described
from dyncollapse.untrusted import Refused, open_regular, regular

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
OBJECTS = "pickled objects"
PARTS = "a dict of tensors"
MOST_NPY_HEADER = 10_000  # bytes, as in NumPy, which reads the whole of a header before it measures it
MOST_SAFETENSORS_HEADER = 2**23  # bytes: a hundred thousand tensors
SAFETENSORS_KINDS = {
    kind.replace("bfloat", "BF").replace("float", "F").replace("uint", "U").replace("int", "I"): kind
    for kind in FLOATS + INTEGERS
} | {"BOOL": "bool", "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}


@dataclass(frozen=True)
class Array:
    """What a file says of something it holds; `shape` is None for what is no array."""

    kind: str
    shape: tuple[int, ...] | None
    load: Callable[[], Tensor]


def read_npy(path: Path) -> Array:
    """The array of a .npy, mapped. Raises ValueError and OSError; damage can raise any Exception."""
    with open_regular(path) as file:
        dtype, shape, fortran = _npy_header(file, regular(path).st_size)
        offset = file.tell()
    # Mode "c" copies a page that is written to: torch wants writable memory, the file stays as it is.
    mapped = partial(np.memmap, path, dtype, "c", offset, shape, "F" if fortran else "C")
    return Array(_kind(dtype), shape, lambda: _as_tensor(mapped()))


def _npy_header(file: IO[bytes], size: int) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Dtype, shape, whether in Fortran order; leaves `file`, of `size` bytes, at the first number."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):  # 3.0 exists for field names that are not ASCII
        raise Refused(f"is a .npy of version {version[0]}.{version[1]}; save a plain array with numpy.save")
    length = file.read(2 if version == (1, 0) else 4)
    if int.from_bytes(length, "little") > MOST_NPY_HEADER:
        raise Refused(f"has a header of over {MOST_NPY_HEADER} bytes; save a plain array with numpy.save")
    header = io.BytesIO(length + file.read(int.from_bytes(length, "little")))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(header)
    # Before any memory is asked for; what an array of objects takes is not in its header.
    promised, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or (promised > there and not dtype.hasobject):
        raise Refused(f"is truncated: {promised} bytes of numbers by its header, {there} in it; copy it again")
    return dtype, shape, fortran


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of a .npz by name, unpacked one by one. Raises as `read_npy`."""
    arrays = {}
    with open_archive(path) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                with archive.open(member) as file:
                    dtype, shape, _ = _npy_header(file, member.file_size)
                load = partial(_load_member, path, member.filename)
                arrays[member.filename.removesuffix(".npy")] = Array(_kind(dtype), shape, load)
    return arrays


def _load_member(path: Path, name: str) -> Tensor:
    return _as_tensor(load_member(path, name))


def load_member(path: Path, name: str) -> np.ndarray[Any, Any]:
    """One array of a .npz. Raises ValueError, also for one that unpacks to more than it should."""
    with open_archive(path) as archive:
        check_unpacked([archive.getinfo(name)])
        with archive.open(name) as file:
            found: np.ndarray[Any, Any] = np.lib.format.read_array(file, allow_pickle=False)
            return found


def _kind(dtype: np.dtype[Any]) -> str:
    if dtype.hasobject:
        return OBJECTS
    if dtype.kind == "V":  # NumPy knows no bfloat16 and writes JAX's as two bytes of anything
        return "structured values" if dtype.names else f"{dtype.name} (bfloat16 can be in .pt and .safetensors only)"
    return str(dtype.name)


def _as_tensor(array: np.ndarray[Any, np.dtype[Any]]) -> Tensor:
    if not (array.dtype.isnative and array.flags.aligned):
        array = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(array)


def read_torch(path: Path) -> Array | dict[str, Array]:
    """The tensors at the top level of what torch.save wrote, mapped where they can be. Raises as `read_npy`.

    The elements of a list or tuple have their numbers as names.
    """
    found = read_pt(path, mapped=True)
    if isinstance(found, dict):
        return {str(name): _described(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return {str(number): _described(value) for number, value in enumerate(found)}
    return _described(found)


def _described(value: object) -> Array:
    if isinstance(value, Tensor):
        return Array(str(value.dtype).removeprefix("torch."), tuple(value.shape), value.detach)
    if isinstance(value, Described):
        return Array(value.kind, value.shape, Tensor)
    kind = PARTS if _has_tensors(value) else f"a Python {type(value).__name__}"
    return Array(kind, None, Tensor)


def _has_tensors(value: object) -> bool:
    """Whether there is a tensor in a dict, or in any dict in it; each is looked at once, however often it is held."""
    waiting, seen = [value], set[int]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor | Described):
            return True
        if isinstance(value, dict) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values())
    return False


def read_safetensors(path: Path, *, mapped: bool = True) -> dict[str, Array]:
    """The tensors of a .safetensors by name, mapped or read. Raises as `read_npy`."""
    with open_regular(path) as file:
        size = regular(path).st_size
        length = int.from_bytes(file.read(8), "little")
        if length > min(MOST_SAFETENSORS_HEADER, size - 8):
            raise Refused(f"is truncated, or has a header of over {MOST_SAFETENSORS_HEADER} bytes; save it again")
        header = json.loads(file.read(length).decode())
    header.pop("__metadata__", None)
    arrays, ends = {}, []
    for name, entry in header.items():
        kind, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not all(type(number) is int and 0 <= number < 2**63 for number in (*shape, start, end)):
            raise Refused("is damaged: its shapes and offsets are no whole numbers; save it again")
        if not isinstance(kind, str):
            raise TypeError
        known = SAFETENSORS_KINDS.get(kind)
        dtype = getattr(torch, known) if known else torch.uint8
        if end > size - 8 - length or (known and math.prod(shape) * dtype.itemsize != end - start):
            raise Refused("is truncated, or its header does not fit to its numbers; copy it again")
        ends.append((start, end))
        load = partial(_load_safetensor, path, 8 + length + start, end - start, dtype, shape, mapped)
        arrays[name] = Array(known or kind[:20], tuple(shape), load)
    ends.sort()
    if any(start < end for (_, end), (start, _) in pairwise(ends)):
        raise Refused("is damaged: two of its tensors overlap; save it again")
    return arrays


def _load_safetensor(path: Path, offset: int, size: int, dtype: torch.dtype, shape: list[int], mapped: bool) -> Tensor:
    with open_regular(path) as file:
        if mapped:
            content = map_bytes(file.fileno())[offset : offset + size]
        else:
            check_room(size)
            file.seek(offset)
            content = np.frombuffer(bytearray(file.read(size)), np.uint8)
    return as_numbers(content, dtype).reshape(shape)
