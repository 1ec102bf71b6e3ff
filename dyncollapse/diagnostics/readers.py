"""Read embeddings from files: one row per sample, mapped where the format allows, and never unpickled."""

import os
import stat
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from jaxtyping import Shaped
from torch import Tensor

from dyncollapse.diagnostics.batches import joined_batches
from dyncollapse.formats.archives import open_archive
from dyncollapse.formats.arrays import (
    FLOATS,
    INTEGERS,
    MOST_SAFETENSORS_HEADER,
    OBJECTS,
    PARTS,
    Array,
    Listed,
    read_npy,
    read_npz,
    read_safetensors,
    read_torch,
)
from dyncollapse.formats.delimited import read_delimited
from dyncollapse.formats.hdf5 import read_hdf5
from dyncollapse.formats.parquet import read_parquet
from dyncollapse.formats.pickles import UnknownName
from dyncollapse.runtime.extras import need
from dyncollapse.runtime.files import printable, unmarked
from dyncollapse.runtime.settings import SettingError
from dyncollapse.runtime.untrusted import Refused, open_regular

T = TypeVar("T")

NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")  # the second is that of an empty zip
PICKLE_MAGIC = b"\x80"
MAGICS = {NPY_MAGIC: ".npy", b"PAR1": ".parquet", b"\x89HDF\r\n\x1a\n": ".h5"}
LEGACY_PT_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.serialization.MAGIC_NUMBER, as pickled
LISTED, MOST_LETTERS = 8, 100
DIMENSIONAL = {2: "two", 3: "three"}
USE_OBJECTS = f"holds {OBJECTS}, which are never loaded; save a plain array with numpy.save"
USE_EMBEDDINGS = "give the embeddings it computes, not the model"


def read_rows(path: str | Path, key: str | None = None) -> Shaped[Tensor, "n d"]:
    """Read embeddings from a file, one row per sample.

    Formats are .npy, .npz, .pt (.pth), .safetensors, .csv, .tsv, .parquet (needs pyarrow) and .h5 (.hdf5; needs h5py).
    Nothing is unpickled, so files from strangers can be read. A .npy, .pt, .safetensors or uncompressed .h5 file is
    mapped into memory: its bytes are read when its rows are used, so it may be larger than memory, and writing to the
    tensor does not change the file. Other files are read whole: tables; what is compressed; a .pt that was saved before
    torch 1.6; and numbers of the other byte order. Real and integer formats are kept; text becomes float64.

    A list of batches in a .pt is joined if all elements are matrices of one width, or pairs with one as (z, labels),
    and all have equally many rows but for a last one with fewer. A table has one column per dimension, or in .parquet
    one column of lists. Other columns (text; names that end in id, index, label, target or class; no name beside names)
    are refused by name, unless `key` chooses the dimensions.

    Args:
        path: The file.
        key: Name of an array in a .npz, .safetensors or .h5 file, or in a .pt that holds a dict, list or tuple
            (elements are "0", "1", ...; "*" joins all of them as batches). It can be left out if only one array is
            two-dimensional and floating. In a table, a column, or the beginning of names with a *, as "emb_*".

    Returns:
        The rows (n, d), with n and d at least 1.

    Raises:
        ValueError: One line that starts with the path, for every file that cannot be read as rows. Its subclass
            SettingError, for a library that is not installed.

    Examples:
        >>> import numpy as np, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/z.npy", np.ones((5, 2)))
        ...     read_rows(Path(folder) / "z.npy").shape
        torch.Size([5, 2])
    """
    return described_rows(path, key).load()


def described_rows(path: str | Path, key: str | None = None, axes: int = 2) -> Array:
    """Open a file as `read_rows` does, but read its numbers when they are loaded.

    Args:
        path: As for `read_rows`.
        key: As for `read_rows`.
        axes: Number of axes that the array has: 2 for rows, 3 for tokens (images, tokens, dimensions).

    Returns:
        The array with its shape and format; loading it raises ValueError as `read_rows` does.

    Raises:
        ValueError: As for `read_rows`.
    """
    array = in_one_line(path, lambda: _described(Path(path), key, axes))
    return replace(array, load=lambda: in_one_line(path, array.load))


def in_one_line(path: str | Path, read: Callable[[], T]) -> T:
    """Return what `read` returns; whatever it raises becomes one line that starts with the path."""
    shown = unmarked(os.fspath(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy and torch warn of old files, which are read or refused here
            return read()
    except UnknownName:
        raise ValueError(f"{shown} {USE_OBJECTS} or one tensor with torch.save") from None
    except Refused as refusal:
        raise SettingError(f"{shown} {refusal}") from None
    except SettingError:
        raise
    except FileNotFoundError:
        raise ValueError(f"{shown} does not exist; give a file, {_suffixes()}") from None
    except OSError as error:
        raise ValueError(f"{shown} cannot be read: {printable(error.strerror or str(error))}") from error
    except Exception as error:  # parsers raise any error on damaged files
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise ValueError(f"{shown} does not fit into memory; save a .npy, which is never read whole") from error
        raise ValueError(f"{shown} is damaged or truncated; copy it or save it again") from error


def _described(path: Path, key: str | None, axes: int) -> Array:
    form = checked_format(path)
    need_library(path, form)
    if form in TABLES:
        return _checked(TABLES[form](path, key), axes)
    contents = _opened(path, form, key)
    if isinstance(contents, Listed) and (batches := joined_batches(path, contents, key, axes)):
        return _checked(batches, axes)
    if isinstance(contents, Array):
        if key is not None:
            raise Refused(f"holds a single array without a name; leave out `key` {_brief(key)}")
        return _checked(contents, axes)
    name = _only_name(contents, axes) if key is None else key
    if name not in contents:
        every = contents or (read_hdf5(path) if form == ".h5" else {})
        raise Refused(f"has no array named {_brief(name)}; it has {_listed(_arrays(every))}")
    return _checked(contents[name], axes, f"array {_brief(name)} ")


def _opened(path: Path, form: str, key: str | None) -> Array | dict[str, Array]:
    return read_hdf5(path, key) if form == ".h5" else READERS[form](path)


def contents_of(path: Path, form: str, key: str | None = None) -> dict[str, Array]:
    """Return the arrays of a file that is no table, by name; a single array without a name is called ""."""
    need_library(path, form)
    contents = _opened(path, form, key)
    return {"": contents} if isinstance(contents, Array) else contents


def need_library(path: Path, form: str) -> None:
    """Raise SettingError if the library that reads a format is not installed."""
    if form in LIBRARIES:
        need(*LIBRARIES[form], f"{unmarked(os.fspath(path))} cannot be read without {LIBRARIES[form][0]}")


def checked_format(path: Path) -> str:
    """Return the suffix of a file if its first bytes agree with it."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise Refused(f"is a directory; give a file, {_suffixes()}")
    if not stat.S_ISREG(status.st_mode):  # a pipe would block, and cannot be mapped
        raise Refused(f"is not a regular file; give a file, {_suffixes()}")
    named = format_named(path)
    if named is None:
        ends = f"ends in {_brief(path.suffix)}" if path.suffix else "has no suffix"
        raise Refused(f"{ends}; give a file, {_suffixes()}")
    if status.st_size == 0:
        raise Refused("is an empty file (0 bytes); save it again")
    actual = _format_by_content(path)
    if actual is None and named in TEXTS:
        return named
    if actual is None:
        raise Refused(f"does not start like a {named} file: damaged, or another format; save it as {_suffixes()}")
    if actual != named:
        raise Refused(f"is a {actual} file by its content, not a {named}; rename it")
    return named


def format_named(path: Path) -> str | None:
    """Return the format that a file has by its suffix, as ".pt" for .pth; None for a format that is not read."""
    named = ALIASES.get(path.suffix.lower(), path.suffix.lower())
    return named if named in {*READERS, *TABLES, ".h5"} else None


def _format_by_content(path: Path) -> str | None:
    with open_regular(path) as file:
        head = file.read(64)
    if known := next((form for magic, form in MAGICS.items() if head.startswith(magic)), None):
        return known
    if head.startswith(ZIP_MAGICS):
        return ".pt" if "data.pkl" in _inner_names(path) else ".npz"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MOST_SAFETENSORS_HEADER:
        return ".safetensors"
    if head.startswith(PICKLE_MAGIC):
        if LEGACY_PT_MAGIC not in head:
            raise Refused(USE_OBJECTS)
        return ".pt"
    return None


def _inner_names(path: Path) -> set[str]:
    """Return the names in a zip without their folders."""
    with open_archive(path) as archive:
        return {name.rpartition("/")[2] for name in archive.namelist()}


def _only_name(contents: Mapping[str, Array], axes: int) -> str:
    """Return the name of the only floating array with so many axes, or of the only array."""
    if any(array.kind == PARTS or name.endswith(("weight", "bias")) for name, array in contents.items()):
        keys = _shortened([_brief(name) for name in contents])
        raise Refused(f"looks like a model, with keys {keys}; {USE_EMBEDDINGS}, or choose an array with `key` NAME")
    arrays = _arrays(contents)
    fitting = [name for name, array in arrays.items() if array.kind in FLOATS and len(array.shape or ()) == axes]
    names = fitting or list(arrays)
    if len(names) == 1:
        return names[0]
    if not arrays:
        lists = [_brief(name) for name, array in contents.items() if array.kind in ("a Python list", "a Python tuple")]
        if lists:
            raise Refused(f"holds lists and no array: {_shortened(lists)}; join batches with torch.cat, and save that")
        raise Refused("holds no array; save one with one row per sample")
    has = f"has {len(fitting) or 'no'} {DIMENSIONAL[axes]}-dimensional floating arrays"
    choose = "choose one with `key` NAME"
    if list(arrays) == [str(number) for number in range(len(arrays))]:  # a list, as of batches or of rows
        stack = "" if fitting else "join them with torch.stack and save that, or "
        choose = f"{stack}choose one as FILE:{unmarked(names[0])}"
    raise Refused(f"{has}: {_listed(arrays)}; {choose}")


def _arrays(contents: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array for name, array in contents.items() if array.shape is not None}


def _checked(array: Array, axes: int, which: str = "") -> Array:
    """Return the array if it holds numbers along so many axes; messages name it `which`, after the path."""
    if array.kind == OBJECTS:
        raise Refused(f"{which}{USE_OBJECTS}")
    if array.kind not in FLOATS + INTEGERS or array.shape is None:
        raise Refused(f"{which}holds {array.kind}; allowed are {', '.join(FLOATS)} and integers, dense; convert it")
    if len(array.shape) == 3 and axes == 2 and 0 not in array.shape:
        raise Refused(
            f"{which}has shape {_brief(str(array.shape))}, as tokens of images have; say how to take them with `tokens`"
        )
    if axes == 3 and (len(array.shape) != 3 or 0 in array.shape):
        raise Refused(f"{which}has shape {_brief(str(array.shape))}; `tokens` takes (images, tokens, dimensions)")
    if len(array.shape) != axes:
        labels = ", as labels have" if len(array.shape) == 1 and array.kind in INTEGERS else ""
        raise Refused(
            f"{which}has shape {_brief(str(array.shape))}{labels}; give one row per sample, (samples, dimensions)"
        )
    if 0 in array.shape:
        raise Refused(
            f"{which}is empty, of shape {_brief(str(array.shape))}; give one row per sample, (samples, dimensions)"
        )
    return array


READERS: dict[str, Callable[[Path], Array | dict[str, Array]]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".pt": read_torch,
    ".safetensors": read_safetensors,
}
TEXTS = (".csv", ".tsv")
TABLES: dict[str, Callable[[Path, str | None], Array]] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".parquet": read_parquet,
}
ALIASES = {".pth": ".pt", ".hdf5": ".h5"}
LIBRARIES = {".parquet": ("pyarrow", "tables"), ".h5": ("h5py", "hdf5")}  # the module, and the extra that installs it


def _suffixes() -> str:
    return ".npy, .npz, .pt, .pth, .safetensors, .csv, .tsv, .parquet or .h5"


def _listed(arrays: Mapping[str, Array]) -> str:
    return _shortened([f"{_brief(name)} {_brief(str(array.shape))} {array.kind}" for name, array in arrays.items()])


def _brief(text: str) -> str:
    """Return a text from a file as one short line."""
    return unmarked(text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}...")


def _shortened(items: list[str]) -> str:
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return (", ".join(items[:LISTED]) or "none") + more
