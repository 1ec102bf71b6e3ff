"""Embeddings from files: one row per sample, mapped where the format allows, nothing ever unpickled."""

import math
import os
import pickle
import stat
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from dyncollapse.files import printable

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
OBJECTS = "pickled objects"
PARTS = "a dict of tensors"
SAFETENSORS_KINDS = {
    kind.replace("bfloat", "BF").replace("float", "F").replace("uint", "U").replace("int", "I"): kind
    for kind in FLOATS + INTEGERS
}
NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")  # the second opens a zip of no files
PICKLE_MAGIC = b"\x80"
LEGACY_PT_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.serialization.MAGIC_NUMBER, as pickled
LARGEST_SAFETENSORS_HEADER = 100_000_000  # by that format's definition
LISTED = 8
USE_OBJECTS = f"holds {OBJECTS}, which are never loaded; save a plain array with numpy.save"
USE_EMBEDDINGS = "give the embeddings it computes, not the model"


class _Refused(ValueError):
    """Why a file is refused, as words that follow its path."""


@dataclass(frozen=True)
class _Array:
    """What a file says of something it holds; `shape` is None for what is no array."""

    kind: str
    shape: tuple[int, ...] | None
    load: Callable[[], Tensor]


def read_rows(path: Path, key: str | None = None) -> Shaped[Tensor, "n d"]:
    """The vectors in a .npy, .npz, .pt, .pth or .safetensors file, one row per sample: (n, d), neither of them zero.

    Nothing is unpickled. A .npy, .pt or .safetensors is mapped: its bytes are read when its rows are, and writing to
    them changes no file. A .npz cannot be mapped and is decompressed; so are read whole a .pt saved before torch 1.6
    or zipped anew, and a .npy of the other byte order. Real and integer dtypes are kept as they are.

    `key` names an array of a .npz, of a .pt dict (its top level) or of a .safetensors; it can be left out where only
    one of them is two-dimensional and floating. Raises ValueError, one line that starts with the path, whatever else
    the file is, holds or lacks.
    """
    shown = printable(os.fspath(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy and torch warn of old or odd files; we take them or refuse them
            return _read(Path(path), key)
    except _Refused as refusal:
        raise ValueError(f"{shown} {refusal}") from None
    except FileNotFoundError:
        raise ValueError(f"{shown} does not exist; give a file, {_suffixes()}") from None
    except OSError as error:
        raise ValueError(f"{shown} cannot be read: {printable(error.strerror or str(error))}") from error
    except Exception as error:  # a parser can fail on damage in any way
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise ValueError(f"{shown} does not fit into memory; save a .npy, which is never read whole") from error
        raise ValueError(f"{shown} is damaged or truncated; copy it or save it again") from error


def _read(path: Path, key: str | None) -> Tensor:
    contents = READERS[_checked_format(path)](path)
    if isinstance(contents, _Array):
        if key is not None:
            raise _Refused(f"is a single array without names; leave out --key {printable(key)}")
        return _checked(contents).load()
    name = _only_name(contents) if key is None else key
    if name not in contents:
        raise _Refused(f"has no array named {printable(name)}; it has {_listed(_arrays(contents))}")
    return _checked(contents[name], f"array {printable(name)} ").load()


def _checked_format(path: Path) -> str:
    """The suffix whose reader is for this file: what its name and its first bytes agree on."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise _Refused(f"is a directory; give a file, {_suffixes()}")
    if not stat.S_ISREG(status.st_mode):  # a pipe would block, and cannot be mapped
        raise _Refused(f"is no regular file; give a file, {_suffixes()}")
    named = path.suffix.lower().replace(".pth", ".pt")
    if named not in READERS:
        ends = f"ends in {printable(path.suffix)}" if path.suffix else "has no suffix"
        raise _Refused(f"{ends}; give a file, {_suffixes()}")
    if status.st_size == 0:
        raise _Refused("is an empty file (0 bytes); save it again")
    found = _format_found(path)
    if found is None:
        raise _Refused(f"does not start as a {named} file does: damaged, or another format; save it as {_suffixes()}")
    if found != named:
        raise _Refused(f"is a {found} file by its content, not a {named}; rename it")
    return named


def _format_found(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(NPY_MAGIC):
        return ".npy"
    if head.startswith(ZIP_MAGICS):
        return ".pt" if "data.pkl" in _inner_names(path) else ".npz"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LARGEST_SAFETENSORS_HEADER:
        return ".safetensors"
    if head.startswith(PICKLE_MAGIC):
        if LEGACY_PT_MAGIC not in head:
            raise _Refused(USE_OBJECTS)
        return ".pt"
    return None


def _inner_names(path: Path) -> set[str]:
    """Names in a zip without their folders."""
    with zipfile.ZipFile(path) as archive:
        return {name.rpartition("/")[2] for name in archive.namelist()}


def _only_name(contents: Mapping[str, _Array]) -> str:
    """The one array that is two-dimensional and floating, or the only array there is."""
    if any(array.kind == PARTS or name.endswith(("weight", "bias")) for name, array in contents.items()):
        keys = _shortened([printable(name) for name in contents])
        raise _Refused(f"looks like a model, with keys {keys}; {USE_EMBEDDINGS} (--key NAME if it is none)")
    arrays = _arrays(contents)
    fitting = [name for name, array in arrays.items() if array.kind in FLOATS and len(array.shape or ()) == 2]
    names = fitting or list(arrays)
    if len(names) == 1:
        return names[0]
    if not arrays:
        raise _Refused("holds no array; save one with one row per sample")
    has = f"has {len(fitting) or 'no'} two-dimensional floating arrays"
    raise _Refused(f"{has}: {_listed(arrays)}; choose one with --key NAME")


def _arrays(contents: Mapping[str, _Array]) -> dict[str, _Array]:
    return {name: array for name, array in contents.items() if array.shape is not None}


def _checked(array: _Array, which: str = "") -> _Array:
    """The same, if it is of numbers in rows and columns; `which` is what is to be named beside the path."""
    if array.kind == OBJECTS:
        raise _Refused(f"{which}{USE_OBJECTS}")
    if array.kind not in FLOATS + INTEGERS or array.shape is None:
        raise _Refused(f"{which}holds {array.kind}; allowed are {', '.join(FLOATS)} and integers, dense; convert it")
    if len(array.shape) != 2:
        raise _Refused(f"{which}has shape {array.shape}; give one row per sample, (samples, dimensions)")
    if 0 in array.shape:
        raise _Refused(f"{which}is empty, of shape {array.shape}; give one row per sample, (samples, dimensions)")
    return array


def _read_npy(path: Path) -> _Array:
    with path.open("rb") as file:
        dtype, shape, fortran = _npy_header(file, path.stat().st_size)
        offset = file.tell()
    # Mode "c" copies a page that is written to: torch wants writable memory, the file stays as it is.
    mapped = partial(np.memmap, path, dtype, "c", offset, shape, "F" if fortran else "C")
    return _Array(_kind(dtype), shape, lambda: _as_tensor(mapped()))


def _npy_header(file: IO[bytes], size: int) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Dtype, shape, whether in Fortran order; leaves `file`, of `size` bytes, at the first number."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:  # 3.0 exists for field names that are not ASCII
        raise _Refused(f"is a .npy of version {version[0]}.{version[1]}; save a plain array with numpy.save")
    # Before any memory is asked for; what an array of objects takes is not in its header.
    promised, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or (promised > there and not dtype.hasobject):
        raise _Refused(f"is truncated: {promised} bytes of numbers by its header, {there} in it; copy it again")
    return dtype, shape, fortran


def _read_npz(path: Path) -> dict[str, _Array]:
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                with archive.open(member) as file:
                    dtype, shape, _ = _npy_header(file, member.file_size)
                load = partial(_load_member, path, member.filename)
                arrays[member.filename.removesuffix(".npy")] = _Array(_kind(dtype), shape, load)
    return arrays


def _load_member(path: Path, name: str) -> Tensor:
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        return _as_tensor(np.lib.format.read_array(file, allow_pickle=False))


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


def _read_pt(path: Path) -> _Array | dict[str, _Array]:
    mapped = False
    if zipfile.is_zipfile(path):
        if "constants.pkl" in _inner_names(path):
            raise _Refused(f"is a TorchScript model; {USE_EMBEDDINGS}")
        with zipfile.ZipFile(path) as archive:  # torch would map compressed bytes and take them for numbers
            mapped = all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
    try:
        loaded = torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower():  # the name of a class or function that torch does not know as harmless
            raise _Refused(f"{USE_OBJECTS} or one tensor with torch.save") from error
        raise
    if isinstance(loaded, dict):
        return {str(name): _described(value) for name, value in loaded.items()}
    return _described(loaded)


def _described(value: object) -> _Array:
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        if value.layout != torch.strided or value.is_meta or value.is_nested:
            layout = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
            kind = f"{'meta' if value.is_meta else layout} {kind}"
        return _Array(kind, () if value.is_nested else tuple(value.shape), value.detach)
    kind = PARTS if isinstance(value, dict) and _has_tensors(value) else f"a Python {type(value).__name__}"
    return _Array(kind, None, Tensor)


def _has_tensors(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_tensors, value.values()))
    return isinstance(value, Tensor)


def _read_safetensors(path: Path) -> dict[str, _Array]:
    from safetensors import safe_open

    arrays = {}
    with safe_open(os.fspath(path), framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (this is no dict)
            part = file.get_slice(name)
            kind = SAFETENSORS_KINDS.get(part.get_dtype(), part.get_dtype())
            arrays[name] = _Array(kind, tuple(part.get_shape()), partial(_load_safetensor, path, name))
    return arrays


def _load_safetensor(path: Path, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(os.fspath(path), framework="pt") as file:
        return file.get_tensor(name)


READERS: dict[str, Callable[[Path], _Array | dict[str, _Array]]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".pt": _read_pt,
    ".safetensors": _read_safetensors,
}


def _suffixes() -> str:
    return ".npy, .npz, .pt, .pth or .safetensors"


def _listed(arrays: Mapping[str, _Array]) -> str:
    return _shortened([f"{printable(name)} {array.shape} {array.kind}" for name, array in arrays.items()])


def _shortened(items: list[str]) -> str:
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return (", ".join(items[:LISTED]) or "none") + more
