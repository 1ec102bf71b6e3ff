"""Read datasets of .h5 files with h5py: nothing outside the file is followed, and sizes are checked before numbers."""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from dyncollapse.formats.archives import check_growth, check_room
from dyncollapse.formats.arrays import Array, as_native, kind_of
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.untrusted import Refused, regular

if TYPE_CHECKING:
    import h5py

MOST_OBJECTS, DEEPEST = 10_000, 32  # groups and datasets that are looked at, and groups within each other
MOST_CHUNK = 2**28  # bytes of a chunk, which is unpacked at once
# Filters that HDF5 has built in. Others would load a library from a place that the environment names.
FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 6: "scale-offset", 32000: "lzf"}
BLOCK = 2**20  # numbers that are read at once
SHOWN = 100  # characters of a name in a message


def read_hdf5(path: Path, key: str | None = None) -> dict[str, Array]:
    """Open a .h5 or .hdf5 file. A contiguous dataset is mapped when it is loaded, another one is read.

    Args:
        path: A regular file.
        key: Path of a dataset, as "train/z"; with it, nothing else is looked at.

    Returns:
        The datasets by path, or the one that `key` names.

    Raises:
        OSError: For a file that cannot be read.
        ValueError: `Refused`, for a link, virtual or external data at `key`; damage can raise any Exception.
    """
    regular(path)
    with _opened(path) as file:
        if key is not None:
            found = _followed(file, key)
            return {} if found is None else {key: _array(path, key, found)}
        return {name: _array(path, name, dataset) for name, dataset in _datasets(file)}


@contextmanager
def _opened(path: Path) -> Iterator["h5py.File"]:
    import h5py

    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        if error.errno is None:  # the library's own error, not the system's
            raise Refused("is damaged or truncated; copy it or save it again") from None
        raise
    with file:
        yield file


def _followed(file: "h5py.File", key: str) -> Any:
    """Return the object at a path, whose every part must be in this file; None if there is none."""
    import h5py

    place: Any = file
    for part in [part for part in key.split("/") if part]:
        link = place.get(part, getlink=True) if isinstance(place, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise Refused(f"has a link at {unmarked(part[:SHOWN])} in `key`; links are not followed, name the dataset")
        place = place[part]
    if isinstance(place, h5py.Group):
        raise Refused(f"has a group at {unmarked(key[:SHOWN])}; choose a dataset in it with `key` GROUP/NAME")
    return place


def _datasets(file: "h5py.File") -> Iterator[tuple[str, Any]]:
    """Yield every dataset in this file with its path; links to other places are passed over."""
    import h5py

    waiting, seen, looked = deque([("", file["/"], 0)]), set(), 0
    while waiting:
        prefix, group, depth = waiting.popleft()
        identity = h5py.h5o.get_info(group.id).addr
        if identity in seen:  # a group may hold itself
            continue
        seen.add(identity)
        for name in group:
            looked += 1
            if looked > MOST_OBJECTS or depth > DEEPEST:
                raise Refused(
                    f"holds over {MOST_OBJECTS} objects, or groups over {DEEPEST} deep; choose a dataset with `key`"
                )
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            inside = group[name]
            if isinstance(inside, h5py.Group):
                waiting.append((f"{prefix}{name}/", inside, depth + 1))
            elif isinstance(inside, h5py.Dataset):
                yield f"{prefix}{name}", inside


def _array(path: Path, name: str, dataset: Any) -> Array:
    """Describe a dataset by its header."""
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        return Array("a named type", None, Tensor)
    kind = "text, or values of varying length" if dataset.dtype.hasobject else kind_of(dataset.dtype)
    if dataset.shape is None:
        kind = "no numbers"
    return Array(kind, dataset.shape, partial(_load, path, name))


def _load(path: Path, name: str) -> Tensor:
    with _opened(path) as file:
        dataset = _followed(file, name)
        layout = dataset.id.get_create_plist()
        if dataset.is_virtual or dataset.external is not None:
            raise Refused(f"keeps the numbers of {unmarked(name[:SHOWN])} in other files; copy them into one")
        size = math.prod(dataset.shape) * dataset.dtype.itemsize
        offset = dataset.id.get_offset()
        if dataset.chunks is None and offset is not None:
            if offset + size > path.stat().st_size:
                raise Refused("is truncated: its numbers are not in it; copy it again")
            return as_native(np.memmap(path, dataset.dtype, "c", offset, dataset.shape))
        if not dataset.id.get_storage_size():
            raise Refused(f"has no numbers in {unmarked(name[:SHOWN])}, only a shape; save it again")
        filters = [layout.get_filter(number)[0] for number in range(layout.get_nfilters())]
        if unknown := [number for number in filters if number not in FILTERS]:
            raise Refused(f"is compressed by filter {unknown[0]}; save it again with gzip or without compression")
        check_growth(size, dataset.id.get_storage_size())
        chunk = math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize
        if chunk > MOST_CHUNK:
            raise Refused(f"has chunks of {chunk / 2**20:.3g} MiB; save it again with smaller chunks")
        check_room(size + chunk)
        rows = np.empty(dataset.shape, dataset.dtype)
        step = max(dataset.chunks[0] if dataset.chunks else 1, BLOCK // max(1, math.prod(dataset.shape[1:])))
        for start in range(0, len(rows), step):
            dataset.read_direct(rows, np.s_[start : start + step], np.s_[start : start + step])
        return as_native(rows)
