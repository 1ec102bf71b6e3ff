"""Hostile tables and .h5 files: text without end, tables that unpack to far more, and datasets that are elsewhere."""

import numpy as np
from helpers.hostile_writing import HOLE, file


def table(name, content, suffix=".csv"):
    def write(path):
        path.write_bytes(content)

    write.__name__ = name
    file(suffix)(write)


table("zero_bytes", bytes(4096))
table("zero_byte_in_a_number", b"1,2\n3,\x004\n")
table("ragged", b"1,2,3\n4,5\n")
table("ragged_at_the_end", b"1,2\n" * 5000 + b"1,2,3\n")
table("no_number", b"1,2\n3,NA\n")
table("text_for_a_terminal", b"1,2\n3,\x1b[31m`key`\n")
table("no_rows", b"a,b\n")
table("blank", b"\n" * 10**6)
table("quotation_mark", b'1,"2\n3,4\n')
table("utf16", "1,2\n".encode("utf-16"))
table("latin1", "é,b\n1,2\n".encode("latin-1"))
table("decimal_commas", b"1,5;2,5\n3,5;4,5\n")
table("a_million_names", b",".join([b"c" * 10] * 10**6) + b"\n1\n")
table("a_million_columns", b"1," * 10**6 + b"a\n")
table("digits", b"9" * 10**7 + b",a\n1,2\n")
table("tabs", b"\t" * 10**5 + b"\n", ".tsv")
table("index", b"0\t1.5\n1\t1.5\n2\t1.5\n", ".tsv")


@file(".csv")
def line_of_8_gigabytes(path):
    with path.open("wb") as written:
        written.write(b"1,2\n")
        written.truncate(HOLE)


# -------------------------------------------------- .parquet


def parquet(name, make):
    def write(path):
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(make()), path)

    write.__name__ = name
    file(".parquet")(write)


parquet("nulls", lambda: {"a": [1.0, None]})
parquet("only_nulls", lambda: {"a": [None, None]})
parquet("lists_of_other_lengths", lambda: {"z": [[1.0, 2.0], [3.0]]})
parquet("empty_lists", lambda: {"z": [[], [1.0]]})
parquet("null_in_a_list", lambda: {"z": [[1.0, 2.0], [None, 3.0]]})
parquet("lists_of_lists", lambda: {"z": [[[1.0]], [[2.0]]]})
parquet("only_text", lambda: {"a\x1b[31m": ["x", "y"]})
parquet("rows_none", lambda: {"a": np.zeros(0)})
parquet("columns_none", dict)
parquet("bomb_of_equal_rows", lambda: {f"a{k}": np.zeros(10**6, "f8") for k in range(150)})
parquet("two_lists", lambda: {"z": [[1.0]], "y": [[1.0]]})


@file(".parquet")
def footer_beyond(path):
    path.write_bytes(b"PAR1" + bytes(99) + (2**31 - 1).to_bytes(4, "little") + b"PAR1")


@file(".parquet")
def footer_of_zeros(path):
    path.write_bytes(b"PAR1" + bytes(99) + (64).to_bytes(4, "little") + b"PAR1")


# -------------------------------------------------- .h5


def hdf5(name, fill):
    def write(path):
        import h5py

        with h5py.File(path, "w") as written:
            fill(written, h5py)

    write.__name__ = name
    file(".h5")(write)


def virtual(written, h5py):
    layout = h5py.VirtualLayout((2, 2), "f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "z", (2, 2))
    written.create_virtual_dataset("z", layout)


def deep(written, _h5py):
    group = written
    for _ in range(100):
        group = group.create_group("g")
    group["z"] = np.zeros((2, 2))


def many(written, _h5py):
    for number in range(10_001):
        written.create_group(str(number))


def itself(written, _h5py):
    written["me"] = written["/"]


hdf5("nothing", lambda _written, _h5py: None)
hdf5("group_in_itself", itself)
hdf5("external_link", lambda written, h5py: written.__setitem__("z", h5py.ExternalLink("/etc/passwd", "z")))
hdf5("soft_link_to_itself", lambda written, h5py: written.__setitem__("z", h5py.SoftLink("/z")))
hdf5("virtual_elsewhere", virtual)
hdf5("external_storage", lambda f, _: f.create_dataset("z", (2, 2), "f8", external=[("/etc/passwd", 0, 32)]))
hdf5("shape_of_terabytes", lambda f, _: f.create_dataset("z", (10**9, 10**4), "f8", chunks=(100, 100)))
hdf5("one_chunk_of_terabytes", lambda f, _: f.create_dataset("z", (2**20, 2**9), "f8", chunks=(2**19, 2**9)))
hdf5("texts", lambda f, _: f.create_dataset("z", data=[["a", "b"]]))
hdf5("no_numbers", lambda f, h5py: f.create_dataset("z", data=h5py.Empty("f8")))
hdf5("deep_groups", deep)
hdf5("many_groups", many)


def unpacks_to_gigabytes(written, _h5py):
    written.create_dataset("z", (2**21, 100), "f8", chunks=(2**13, 100), compression="gzip")
    written["z"][:1] = 1.0  # other chunks are not in the file at all


hdf5("bomb_of_chunks", unpacks_to_gigabytes)
