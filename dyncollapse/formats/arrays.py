"""Read files of arrays, by format: names, formats and shapes first, numbers when they are loaded."""

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
MOST_PARTS = 64  # entries of an element of a list that is looked into: a batch has embeddings, labels, names, ...
MOST_NPY_HEADER = 10_000  # bytes, as in NumPy, which reads a whole header before it checks the length
MOST_SAFETENSORS_HEADER = 2**22  # bytes: thirty thousand tensors, read in a second
SAFETENSORS_KINDS = {
    kind.replace("bfloat", "BF").replace("float", "F").replace("uint", "U").replace("int", "I"): kind
    for kind in FLOATS + INTEGERS
} | {"BOOL": "bool", "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}


@dataclass(frozen=True)
class Array:
    """An array in a file, by its header.

    Attributes:
        kind: Format of its numbers, or what it is if it is no array.
        shape: Its shape; None if it is no array.
        load: Reads or maps the numbers.
    """

    kind: str
    shape: tuple[int, ...] | None
    load: Callable[[], Tensor]


def read_npy(path: Path) -> Array:
    """Open a .npy file, whose array is mapped when it is loaded.

    Args:
        path: A regular file.

    Returns:
        The array.

    Raises:
        OSError: For a file that cannot be read.
        ValueError: For a file that is not sound; damage can raise any Exception.
    """
    dtype, shape, mapped = _opened_npy(path)
    return Array(kind_of(dtype), shape, lambda: as_native(mapped()))


def map_npy(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    """Map a .npy file, of numbers or text; errors are those of `read_npy`."""
    dtype, _, mapped = _opened_npy(path)
    if dtype.hasobject:
        raise Refused(f"holds {OBJECTS}, which are never loaded; save a plain array with numpy.save")
    return mapped()


def _opened_npy(path: Path) -> tuple[np.dtype[Any], tuple[int, ...], Callable[[], np.ndarray[Any, np.dtype[Any]]]]:
    with open_regular(path) as file:
        dtype, shape, fortran = _npy_header(file, regular(path).st_size)
        offset = file.tell()
    # torch needs writable memory. Mode "c" copies a page when it is written to, so the file does not change.
    return dtype, shape, partial(np.memmap, path, dtype, "c", offset, shape, "F" if fortran else "C")


def _npy_header(file: IO[bytes], size: int) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Read dtype, shape and whether the order is Fortran's; `file`, of `size` bytes, is then at the first number."""
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
    # Checked before memory is allocated. The size of an array of objects is not in its header.
    promised, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or (promised > there and not dtype.hasobject):
        raise Refused(f"is truncated: its header states {promised} bytes of numbers, it has {there}; copy it again")
    return dtype, shape, fortran


def read_npz(path: Path) -> dict[str, Array]:
    """Open a .npz file, whose arrays are unpacked one by one when they are loaded.

    Args:
        path: A regular file.

    Returns:
        The arrays by name. Errors are those of `read_npy`.
    """
    arrays = {}
    with open_archive(path) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                with archive.open(member) as file:
                    dtype, shape, _ = _npy_header(file, member.file_size)
                load = partial(_load_member, path, member.filename)
                arrays[member.filename.removesuffix(".npy")] = Array(kind_of(dtype), shape, load)
    return arrays


def load_npz(path: Path) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """Read all arrays of a .npz file, of numbers or text.

    Args:
        path: A regular file.

    Returns:
        The arrays by name. Errors are those of `read_npy`.
    """
    with open_archive(path) as archive:
        check_unpacked(archive.filelist)
        arrays = {}
        for member in archive.filelist:
            with archive.open(member) as file:
                _npy_header(file, member.file_size)
            with archive.open(member) as file:
                arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
        return arrays


def _load_member(path: Path, name: str) -> Tensor:
    return as_native(load_member(path, name))


def load_member(path: Path, name: str) -> np.ndarray[Any, np.dtype[Any]]:
    """Read one array of a .npz file.

    Args:
        path: A regular file.
        name: Name of the array's member, with its suffix.

    Returns:
        The array. Errors are those of `read_npy`.
    """
    with open_archive(path) as archive:
        check_unpacked([archive.getinfo(name)])
        with archive.open(name) as file:
            array: np.ndarray[Any, np.dtype[Any]] = np.lib.format.read_array(file, allow_pickle=False)
            return array


def kind_of(dtype: np.dtype[Any]) -> str:
    """Return the name of a format of numbers, or what an array of it holds instead."""
    if dtype.hasobject:
        return OBJECTS
    if dtype.kind == "V":  # NumPy has no bfloat16 and writes that of JAX as two bytes without a type
        return "structured values" if dtype.names else f"{dtype.name} (bfloat16 can be in .pt and .safetensors only)"
    return str(dtype.name)


def as_native(array: np.ndarray[Any, np.dtype[Any]]) -> Tensor:
    """Return an array as a tensor on the same memory, or on a copy if its bytes are swapped or not aligned."""
    if not (array.dtype.isnative and array.flags.aligned):
        array = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(array)


class Listed(dict[str, Array]):
    """The arrays of a list or tuple by their numbers.

    Attributes:
        ordered: Whether it is a list, as batches are kept in, not a tuple, whose elements differ in meaning.
    """

    ordered: bool


def read_torch(path: Path) -> Array | dict[str, Array]:
    """Open a file of torch.save, whose tensors are mapped if they are stored as they are.

    Args:
        path: A regular file.

    Returns:
        The tensor, or the tensors at the top level by name; elements of a list or tuple are named by their numbers
        (`Listed`), and an element that holds one floating matrix, as (z, labels), stands for that. Errors are those of
        `read_npy`.
    """
    content = read_pt(path, mapped=True)
    if not isinstance(content, dict | list | tuple):
        return _described(content)
    looked: dict[int, bool] = {}
    if isinstance(content, dict):
        return {str(name): _described(value, looked) for name, value in content.items()}
    matrices: dict[int, Tensor | None] = {}
    elements = ((number, _matrix_in(value, matrices)) for number, value in enumerate(content))
    listed = Listed((str(number), _described(value, looked)) for number, value in elements)
    listed.ordered = isinstance(content, list)
    return listed


def _matrix_in(value: Any, known: dict[int, Tensor | None]) -> Any:
    """Return the only floating matrix of a pair, or of another small collection that is no model; else the value.

    `known` remembers it for each collection: a file may hold one of them in many places.
    """
    if not isinstance(value, dict | list | tuple) or len(value) > MOST_PARTS:
        return value
    if id(value) not in known:
        named = value if isinstance(value, dict) else dict(enumerate(value))
        tensors = {str(name): one for name, one in named.items() if isinstance(one, Tensor)}
        matrices = [one for one in tensors.values() if one.ndim == 2 and one.is_floating_point()]
        model = any(name.endswith(("weight", "bias")) for name in tensors)
        known[id(value)] = matrices[0] if len(matrices) == 1 and not model else None
    found = known[id(value)]
    return value if found is None else found


def _described(value: object, looked: dict[int, bool] | None = None) -> Array:
    if isinstance(value, Tensor):
        return Array(str(value.dtype).removeprefix("torch."), tuple(value.shape), value.detach)
    if isinstance(value, Described):
        return Array(value.kind, value.shape, Tensor)
    parts = isinstance(value, dict) and _has_tensors(value, {} if looked is None else looked)
    return Array(PARTS if parts else f"a Python {type(value).__name__}", None, Tensor)


def _has_tensors(nested: dict[Any, Any], looked: dict[int, bool]) -> bool:
    """Return whether there is a tensor in a dict, or in a dict inside it.

    `looked` remembers the answer for each dict: a file may hold one dict exponentially often.
    """
    path = [(nested, iter(nested.values()))]
    looked.setdefault(id(nested), False)
    while path and not looked[id(nested)]:
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
    return looked[id(nested)]


def read_safetensors(path: Path, *, mapped: bool = True) -> dict[str, Array]:
    """Open a .safetensors file.

    The safetensors library takes 13 seconds for a header of a million tensors, and refuses paths that are not UTF-8.

    Args:
        path: A regular file.
        mapped: Map the tensors into memory; otherwise they are read at once.

    Returns:
        The tensors by name. Errors are those of `read_npy`.
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
    """Return the dtype and shape of a tensor by its header entry, and its place among the `there` bytes of numbers."""
    kind, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if not isinstance(kind, str) or not all(type(n) is int and 0 <= n < 2**63 for n in (*shape, start, end)):
        raise Refused("is damaged: its shapes and offsets are not whole numbers; save it again")
    known = SAFETENSORS_KINDS.get(kind)
    takes = math.prod(shape) * getattr(torch, known).itemsize if known else end - start
    if not takes == end - start >= 0 or end > there:
        raise Refused("is truncated, or its header does not fit its numbers; copy it again")
    return known or printable(kind[:20]), shape, slice(start, end)


def _safetensor(kind: str, shape: tuple[int, ...], content: Bytes) -> Array:
    return Array(kind, shape, lambda: as_numbers(content, getattr(torch, kind)).reshape(shape))
