"""Read files of torch.save without unpickling: every tensor is checked against the bytes in the file."""

import io
import mmap
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from dyncollapse.formats.archives import STORED, check_room, check_unpacked, offset_in_file, open_archive, read_member
from dyncollapse.formats.pickles import read_pickle
from dyncollapse.formats.torch_names import NAMES, Storage
from dyncollapse.runtime.untrusted import Refused, open_regular

MOST_PICKLE = 2**26  # bytes: enough for the names of a million files
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of files saved before torch 1.6
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
COUNT = 8  # bytes before a storage in such files, with its number of numbers


def read_pt(path: Path, *, mapped: bool) -> Any:
    """Read what `torch.save` wrote: dicts, lists, tuples, numbers and strings, and tensors on the CPU.

    Args:
        path: A regular file, zipped or from before torch 1.6.
        mapped: Map tensors that are stored without compression: bytes are read when they are used, and a file that
            becomes shorter meanwhile ends the process. Otherwise all tensors are read at once.

    Returns:
        The content, in which sparse, quantised, meta and nested tensors are `Described`. It may contain itself.

    Raises:
        OSError: For a file that cannot be read.
        ValueError: `Refused` for content that is not read, and another for files of other kinds. Damage can raise any
            Exception.
    """
    with open_regular(path) as file:
        start = file.read(2)
    return _read_zip(path, mapped) if start == b"PK" else _read_legacy(path, mapped)


@dataclass
class _Bytes:
    """The storages of a file, each of which is read once."""

    load: Callable[[str], Bytes]  # returns all bytes of a storage
    swapped: bool  # whether numbers have the other byte order
    known: dict[str, Bytes] = field(default_factory=dict)

    def storage(self, identity: Any) -> Storage:
        """Return the storage that a persistent id of torch names."""
        word, dtype, key, _location, count, *rest = identity
        if word != "storage" or not isinstance(key, str) or type(count) is not int or count < 0:
            raise ValueError("no storage has this name")
        if not isinstance(dtype, torch.dtype):
            return Storage(None, dtype, count)  # quantised: known by its name only
        if key not in self.known:
            self.known[key] = self.load(key)
        content = self.known[key]
        if count * dtype.itemsize > len(content):
            raise Refused(
                f"is truncated: a tensor takes {count * dtype.itemsize} bytes, but only {len(content)} are there"
            )
        numbers = as_numbers(content[: count * dtype.itemsize], dtype, swapped=self.swapped)
        if rest and rest[0] is not None:  # part of a storage, before torch 1.6
            _, start, length = rest[0]
            numbers = numbers.narrow(0, start, length)
        return Storage(numbers, dtype, len(numbers))


def as_numbers(content: Bytes, dtype: torch.dtype, *, swapped: bool = False) -> Tensor:
    """Return bytes as a row of numbers.

    Args:
        content: The bytes, at any address.
        dtype: Format of the numbers.
        swapped: Whether they have the other byte order.

    Returns:
        The numbers, on the same memory unless they are swapped.
    """
    if not len(content):  # torch.frombuffer refuses an empty buffer
        return torch.empty(0, dtype=dtype)
    size = dtype.itemsize // (2 if dtype.is_complex else 1)
    if swapped and size > 1:
        content = content.view(f"u{size}").byteswap().view("u1")
    return torch.frombuffer(content, dtype=dtype)


def _read_zip(path: Path, mapped: bool) -> Any:
    with open_archive(path) as archive:
        members = archive.NameToInfo
        pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused("is a zip archive that torch.save did not write; save it again")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in members:
            raise Refused("is a TorchScript model; give the embeddings it computes, or to the bridge its state_dict")
        if members[pickles[0]].file_size > MOST_PICKLE:
            raise Refused(
                f"has {members[pickles[0]].file_size} bytes beside its tensors; save tensors alone, not NumPy arrays"
            )
        data = {name: member for name, member in members.items() if name.startswith(f"{folder}data/")}
        check_unpacked(member for member in data.values() if not mapped or member.compress_type != STORED)
        whole = map_bytes(archive.fp.fileno()) if mapped and archive.fp else None
        load = partial(_load_member, archive, data, f"{folder}data/", whole)
        storages = _Bytes(load, swapped=_byte_order(archive, folder) != sys.byteorder)
        return read_pickle(io.BytesIO(read_member(archive, members[pickles[0]])), NAMES, storages.storage)


def _byte_order(archive: zipfile.ZipFile, folder: str) -> str:
    member = archive.NameToInfo.get(f"{folder}byteorder")
    if member is None:  # as torch wrote before 2.1
        return "little"
    order = bytes(read_member(archive, member)) if member.file_size < 10 else b""
    if order not in (b"little", b"big"):
        raise Refused("has a byte order that is neither little nor big; save it again")
    return order.decode()


def _load_member(
    archive: zipfile.ZipFile, data: dict[str, zipfile.ZipInfo], folder: str, whole: Bytes | None, key: str
) -> Bytes:
    member = data[folder + key]
    if (
        whole is None or member.compress_type != STORED
    ):  # torch's own reader maps compressed bytes as if they were numbers
        return np.frombuffer(read_member(archive, member), np.uint8)
    start = offset_in_file(whole, member)
    return whole[start : start + member.file_size]


def map_bytes(number: int) -> Bytes:
    """Map the bytes of an open file; a page is copied when it is written to, so the file does not change."""
    return np.frombuffer(mmap.mmap(number, 0, access=mmap.ACCESS_COPY), np.uint8)


def _read_legacy(path: Path, mapped: bool) -> Any:
    """Read a file from before torch 1.6: three pickles about its writer, one of the content, names, and storages."""
    with open_regular(path) as file:
        pickles = io.BytesIO(file.read(MOST_PICKLE))
        magic, protocol, system = (read_pickle(pickles, {}, id) for _ in range(3))
        if (magic, protocol) != (MAGIC, PROTOCOL):
            raise ValueError("not written by torch.save")
        order, start = "little" if system.get("little_endian", True) else "big", pickles.tell()
        sizes: dict[str, int] = {}
        read_pickle(pickles, NAMES, partial(_note, sizes))
        keys = read_pickle(pickles, {}, id)
        places = _places(file, pickles.tell(), keys, sizes, order)
        if not mapped:
            check_room(sum(length for _, length in places.values()))
        whole = map_bytes(file.fileno()) if mapped else None
        load = partial(_load_place, file, places, whole)
        pickles.seek(start)
        return read_pickle(pickles, NAMES, _Bytes(load, swapped=order != sys.byteorder).storage)


def _note(sizes: dict[str, int], identity: Any) -> Storage:
    """Remember the size of a storage's numbers, since its bytes follow later in the file."""
    _, dtype, key, _, count, *_ = identity
    if not isinstance(key, str):
        raise TypeError("a storage is named by a string")
    sizes[key] = dtype.itemsize if isinstance(dtype, torch.dtype) else 1
    return Storage(None, dtype, count)


def _places(file: BinaryIO, place: int, keys: Any, sizes: dict[str, int], order: str) -> dict[str, tuple[int, int]]:
    """Return the place of each storage's bytes in the file, and their number."""
    size, places = file.seek(0, io.SEEK_END), {}
    for key in keys:
        file.seek(place)
        count = int.from_bytes(file.read(COUNT), "little" if order == "little" else "big", signed=True)
        length = count * sizes[key]
        if count < 0 or place + COUNT + length > size:
            raise Refused("is damaged or truncated; copy it or save it again")
        places[key], place = (place + COUNT, length), place + COUNT + length
    return places


def _load_place(file: BinaryIO, places: dict[str, tuple[int, int]], whole: Bytes | None, key: str) -> Bytes:
    offset, length = places[key]
    if whole is not None:
        return whole[offset : offset + length]
    file.seek(offset)
    return np.frombuffer(bytearray(file.read(length)), np.uint8)
