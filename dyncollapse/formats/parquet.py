"""Read .parquet files of numbers with pyarrow: sizes are checked by the footer before any column is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dyncollapse.formats.archives import check_growth
from dyncollapse.formats.arrays import Array
from dyncollapse.formats.columns import Column, check_width, chosen_columns
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.untrusted import Refused, open_regular

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

# Bytes of a text and entries of a list in the footer: enough for the names of a million columns.
MOST_TEXT, MOST_ENTRIES, MOST_FOOTER = 2**24, 10**6, 2**26
BLOCK = 2**20  # numbers that are read at once
SHOWN = 60  # characters of a type in a message


def read_parquet(path: Path, key: str | None = None) -> Array:
    """Open a .parquet file, whose columns are read when the array is loaded.

    A file with one column of lists of numbers, as datasets store embeddings, takes that: its other columns describe the
    samples. In other files `chosen_columns` says which columns are dimensions.

    Args:
        path: A regular file.
        key: A column, or the beginning of the names of several with a *.

    Returns:
        The numbers, in the widest format of the columns.

    Raises:
        OSError: For a file that cannot be read.
        ValueError: `Refused`, for columns without numbers and for nulls; damage can raise any Exception.
    """
    with _opened(path) as (file, size):
        schema, rows = file.schema_arrow, file.metadata.num_rows
        if not rows or not len(schema):
            raise Refused("holds no rows; save it again")
        check_width(len(schema))
        lists = [field.name for field in schema if _is_list(field.type)]
        if key is None and len(lists) == 1:
            key = lists[0]
        if key in lists:
            return _of_lists(path, file, str(key), size)
        if key is None and lists:
            names = ", ".join(unmarked(name[:SHOWN]) for name in lists[:8])
            raise Refused(f"has {len(lists)} columns of lists: {names}; choose one with `key` NAME")
        chosen = chosen_columns([Column(field.name, _kind(field.type)) for field in schema], key)
        dtype = np.result_type(*(_dtype(schema.field(place).type) for place in chosen))
    check_growth(rows * len(chosen) * dtype.itemsize, size)
    return Array(dtype.name, (rows, len(chosen)), partial(_load_columns, path, chosen, dtype))


@contextmanager
def _opened(path: Path) -> Iterator[tuple["pyarrow.parquet.ParquetFile", int]]:
    """Open a file whose footer lies in it."""
    import pyarrow.parquet

    with open_regular(path) as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        end = file.read()
        if end[4:] != b"PAR1" or int.from_bytes(end[:4], "little") > min(size - 12, MOST_FOOTER):
            raise Refused("is truncated: its footer is not in it; copy it again")
        limits = {"thrift_string_size_limit": MOST_TEXT, "thrift_container_size_limit": MOST_ENTRIES}
        with pyarrow.parquet.ParquetFile(file, pre_buffer=False, **limits) as opened:
            yield opened, size


def _is_list(kind: "pyarrow.DataType") -> bool:
    from pyarrow import types

    several = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return several and _kind(kind.value_type) == "numbers"


def _kind(kind: "pyarrow.DataType") -> str:
    """Return "numbers", or what a column holds instead."""
    from pyarrow import types

    if types.is_integer(kind) or types.is_floating(kind):
        return "numbers"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind):
        return "text"
    return unmarked(str(kind)[:SHOWN])


def _dtype(kind: "pyarrow.DataType") -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
    return dtype


def _load_columns(path: Path, chosen: list[int], dtype: np.dtype[Any]) -> Tensor:
    with _opened(path) as (file, _):
        rows = np.empty((file.metadata.num_rows, len(chosen)), dtype)
        names = [file.schema_arrow.field(place).name for place in chosen]
        start = 0
        for batch in _batches(file, sorted(set(names)), len(chosen)):
            columns = dict(_without_repeats(batch))
            if start + len(batch) > len(rows):
                break
            for column, name in enumerate(names):
                values = columns[name]
                _refuse_nulls(values, name, start)
                rows[start : start + len(batch), column] = values.to_numpy(zero_copy_only=False)
            start += len(batch)
    if start != len(rows):
        raise Refused("is damaged: it has other rows than its footer states; copy it again")
    return torch.from_numpy(rows)


def _without_repeats(batch: "pyarrow.RecordBatch") -> Iterator[tuple[str, "pyarrow.Array"]]:
    if len(set(batch.schema.names)) < len(batch.schema.names):
        raise Refused("has two columns of one name; rename one of them")
    yield from zip(batch.schema.names, batch.columns, strict=True)


def _batches(file: "pyarrow.parquet.ParquetFile", names: list[str], width: int) -> Iterator["pyarrow.RecordBatch"]:
    # Names of nested columns are paths, so a point in a name of this schema would be taken for one.
    yield from file.iter_batches(batch_size=max(1, BLOCK // width), columns=names, use_threads=False)


def _of_lists(path: Path, file: "pyarrow.parquet.ParquetFile", name: str, size: int) -> Array:
    """Open a column of lists, all of one length: that of the first."""
    kind = file.schema_arrow.field(name).type
    first = next(file.iter_batches(batch_size=1, columns=[name], use_threads=False), None)
    if first is None or not len(first) or first.column(0).null_count:
        raise Refused(f"has no list in row 0 of column {unmarked(name[:SHOWN])}; leave such rows out")
    rows, width, dtype = file.metadata.num_rows, len(first.column(0)[0]), _dtype(kind.value_type)
    if not width:
        raise Refused(f"has an empty list in row 0 of column {unmarked(name[:SHOWN])}; leave such rows out")
    check_growth(rows * width * dtype.itemsize, size)
    return Array(dtype.name, (rows, width), partial(_load_lists, path, name, width, dtype))


def _load_lists(path: Path, name: str, width: int, dtype: np.dtype[Any]) -> Tensor:
    from pyarrow import compute

    with _opened(path) as (file, _):
        rows, start = np.empty((file.metadata.num_rows, width), dtype), 0
        for batch in _batches(file, [name], width):
            lists = batch.column(0)
            _refuse_nulls(lists, name, start)
            lengths = compute.list_value_length(lists).to_numpy(zero_copy_only=False)
            wrong = np.flatnonzero(lengths != width)
            if len(wrong):
                row, shown = int(wrong[0]), unmarked(name[:SHOWN])
                raise Refused(
                    f"has lists of different lengths in column {shown}: {lengths[row]} numbers in row {start + row}, "
                    f"{width} in row 0"
                )
            if start + len(batch) > len(rows):
                break
            values = lists.flatten()
            if values.null_count:
                row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0]) // width
                raise Refused(f"has a null in column {unmarked(name[:SHOWN])}, row {start + row}; leave such rows out")
            rows[start : start + len(batch)] = values.to_numpy(zero_copy_only=False).reshape(-1, width)
            start += len(batch)
    if start != len(rows):
        raise Refused("is damaged: it has other rows than its footer states; copy it again")
    return torch.from_numpy(rows)


def _refuse_nulls(values: "pyarrow.Array", name: str, start: int) -> None:
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise Refused(f"has a null in column {unmarked(name[:SHOWN])}, row {start + row}; leave such rows out")
