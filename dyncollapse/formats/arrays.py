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

from dyncollapse.formats.archives import check_room, check_unpacked, open_archive
from dyncollapse.formats.torch_files import Bytes, as_numbers, map_bytes, read_pt
from dyncollapse.formats.torch_names import Described
from dyncollapse.runtime.files import printable
from dyncollapse.runtime.untrusted import Refused, open_regular, regular

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
OBJECTS = "pickled objects"
PARTS = "a dict of tensors"
MOST_NPY_HEADER = 10_000  # bytes, as in NumPy, which reads the whole of a header before it measures it
MOST_SAFETENSORS_HEADER = 2**22  # bytes: thirty thousand tensors, read in a second
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
    try:
        shape, fortran, dtype = read(header)
    except (MemoryError, RecursionError):  # Python's parser runs out of stack
        raise Refused("is damaged: its header is nested too deeply; save it again") from None
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


def load_npz(path: Path) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """All arrays of a .npz by name, whatever numbers or text they are of. Raises as `read_npy`."""
    with open_archive(path) as archive:
        check_unpacked(archive.filelist)
        found = {}
        for member in archive.filelist:
            with archive.open(member) as file:
                _npy_header(file, member.file_size)
            with archive.open(member) as file:
                found[member.filename.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
        return found


def _load_member(path: Path, name: str) -> Tensor:
    return _as_tensor(load_member(path, name))


def load_member(path: Path, name: str) -> np.ndarray[Any, np.dtype[Any]]:
    """One array of a .npz. Raises ValueError, also for one that unpacks to more than it should."""
    with open_archive(path) as archive:
        check_unpacked([archive.getinfo(name)])
        with archive.open(name) as file:
            found: np.ndarray[Any, np.dtype[Any]] = np.lib.format.read_array(file, allow_pickle=False)
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
    if not isinstance(found, dict | list | tuple):
        return _described(found)
    named = found if isinstance(found, dict) else dict(enumerate(found))
    looked: dict[int, bool] = {}
    return {str(name): _described(value, looked) for name, value in named.items()}


def _described(value: object, looked: dict[int, bool] | None = None) -> Array:
    if isinstance(value, Tensor):
        return Array(str(value.dtype).removeprefix("torch."), tuple(value.shape), value.detach)
    if isinstance(value, Described):
        return Array(value.kind, value.shape, Tensor)
    parts = isinstance(value, dict) and _has_tensors(value, {} if looked is None else looked)
    return Array(PARTS if parts else f"a Python {type(value).__name__}", None, Tensor)


def _has_tensors(found: dict[Any, Any], looked: dict[int, bool]) -> bool:
    """Whether there is a tensor in a dict, or in a dict in it.

    `looked` keeps what was found in each, for a file may hold one so often that a second look at it never ends.
    """
    path = [(found, iter(found.values()))]
    looked.setdefault(id(found), False)
    while path and not looked[id(found)]:
        _, values = path[-1]
        for value in values:
            inside = isinstance(value, dict)
            if isinstance(value, Tensor | Described) or (inside and looked.get(id(value))):
                looked |= {id(outer): True for outer, _ in path}
                break
            if inside and id(value) not in looked:
                looked[id(value)] = False
                path.append((value, iter(value.values())))
                break
        else:
            path.pop()
    return looked[id(found)]


def read_safetensors(path: Path, *, mapped: bool = True) -> dict[str, Array]:
    """The tensors of a .safetensors by name, mapped, or read at once. Raises as `read_npy`.

    Its own library takes 13 seconds for a header of a million tensors, and no path that is not UTF-8.
    """
    with open_regular(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        start = 8 + int.from_bytes(file.read(8), "little")
        if start > min(MOST_SAFETENSORS_HEADER, size):
            raise Refused(f"is truncated, or has a header of over {MOST_SAFETENSORS_HEADER} bytes; save it again")
        header = json.loads(file.read(start - 8).decode())
        header.pop("__metadata__", None)
        places = {name: _place(entry, size - start) for name, entry in header.items()}
        ends = sorted((place.start, place.stop) for _, _, place in places.values())
        if any(begin < end for (_, end), (begin, _) in pairwise(ends)):
            raise Refused("is damaged: two of its tensors overlap; save it again")
        if mapped:
            numbers = map_bytes(file.fileno())[start:]
        else:
            check_room(size)
            numbers = np.frombuffer(bytearray(file.read(size - start)), np.uint8)
    return {name: _safetensor(kind, shape, numbers[place]) for name, (kind, shape, place) in places.items()}


def _place(entry: dict[str, Any], there: int) -> tuple[str, tuple[int, ...], slice]:
    """The dtype and shape that a header gives a tensor, and its bytes among the `there` behind the header."""
    kind, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if not isinstance(kind, str) or not all(type(n) is int and 0 <= n < 2**63 for n in (*shape, start, end)):
        raise Refused("is damaged: its shapes and offsets are no whole numbers; save it again")
    known = SAFETENSORS_KINDS.get(kind)
    takes = math.prod(shape) * getattr(torch, known).itemsize if known else end - start
    if not takes == end - start >= 0 or end > there:
        raise Refused("is truncated, or its header does not fit to its numbers; copy it again")
    return known or printable(kind[:20]), shape, slice(start, end)


def _safetensor(kind: str, shape: tuple[int, ...], content: Bytes) -> Array:
    return Array(kind, shape, lambda: as_numbers(content, getattr(torch, kind)).reshape(shape))
