"""Read the labels of samples from files: whole numbers or short texts, never unpickled."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from dyncollapse.diagnostics.by_labels import MOST_LETTERS
from dyncollapse.diagnostics.options import MOST_ROWS
from dyncollapse.diagnostics.readers import TEXTS, checked_format, contents_of, in_one_line
from dyncollapse.formats.archives import check_room
from dyncollapse.formats.arrays import INTEGERS, map_npy
from dyncollapse.formats.columns import NO_DIMENSION
from dyncollapse.formats.delimited import read_texts
from dyncollapse.runtime.untrusted import Refused

WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


def read_labels(path: str | Path, key: str | None = None) -> np.ndarray[Any, np.dtype[Any]]:
    r"""Read one label per sample from a file.

    Args:
        path: A .npy of integers or texts; a .csv or .tsv with one column, with or without a header; or an array of
            integers in a .npz, .pt, .safetensors or .h5 file.
        key: Name of the array, if several are one-dimensional and of integers.

    Returns:
        The labels (n,), integers or texts.

    Raises:
        ValueError: One line that starts with the path, for every file that holds no labels.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "labels.csv").write_text("label\ncat\ndog\n")
        ...     read_labels(Path(folder, "labels.csv")).tolist()
        ['cat', 'dog']
    """
    return in_one_line(path, lambda: _read(Path(path), key))


def _read(path: Path, key: str | None) -> np.ndarray[Any, np.dtype[Any]]:
    form = checked_format(path)
    if form in TEXTS:
        return _from_texts(read_texts(path, MOST_ROWS))
    if form == ".npy":
        array = map_npy(path)
        if array.dtype.kind not in "iuU" or array.dtype.itemsize > 4 * MOST_LETTERS:
            raise Refused(f"holds {array.dtype.name}; labels are integers, or texts of at most {MOST_LETTERS} letters")
        _check_shape(array.shape)
        check_room(array.nbytes)
        return np.array(array).reshape(-1)
    if form == ".parquet":
        raise Refused("is no file of labels that is read; save the column as .npy or .csv")
    arrays = contents_of(path, form, key)
    fitting = {name: one for name, one in arrays.items() if one.kind in INTEGERS and _is_column(one.shape)}
    if key is not None:
        if key not in fitting:
            raise Refused("has no column of integers of this name; labels are one integer per sample")
        return fitting[key].load().numpy().reshape(-1)
    if len(fitting) != 1:
        raise Refused(f"has {len(fitting) or 'no'} arrays of one integer per sample; choose the labels as FILE:KEY")
    (only,) = fitting.values()
    return only.load().numpy().reshape(-1)


def _from_texts(texts: list[str]) -> np.ndarray[Any, np.dtype[Any]]:
    """Return texts as labels, as integers if all of them are, and without a header."""
    whole = [bool(WHOLE.fullmatch(text)) for text in texts]
    if texts and (texts[0].lower() in NO_DIMENSION or (len(texts) > 1 and not whole[0] and all(whole[1:]))):
        texts, whole = texts[1:], whole[1:]
    if not texts:
        raise Refused("holds no labels; give one per sample")
    if all(whole):
        return np.array([int(text) for text in texts])
    if empty := [number for number, text in enumerate(texts) if not text]:
        raise Refused(f"has no label for sample {empty[0]} (counted from 0)")
    if max(map(len, texts)) > MOST_LETTERS:
        raise Refused(f"holds texts of over {MOST_LETTERS} letters; give shorter names")
    return np.array(texts)


def _is_column(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and len(shape) in (1, 2) and math.prod(shape[1:]) == 1


def _check_shape(shape: tuple[int, ...]) -> None:
    if not _is_column(shape):
        raise Refused(f"has shape {shape}; give one label per sample")
