"""Hostile .npy and .safetensors files: headers that lie, and headers without end."""

import json
import struct

from helpers.hostile_writing import HOLE, file, npy


def header(name, **given):
    def write(path):
        path.write_bytes(npy(given))

    write.__name__ = name
    file(".npy")(write)


header("shape_2_62", shape=(2**62, 2))
header("shape_negative", shape=(-1, -9))
header("shape_that_cancels", shape=(2**62, 0))
header("shape_of_hundred", shape=(1,) * 100)
header("dtype_in_dtype", descr=[("a", [("b", [("c", "<f8")])])])
header("dtype_of_2_31_bytes", descr="V2147483647")
header("dtype_of_objects", descr="O")
header("dtype_unknown", descr="nonsense")
header("dtype_with_a_shape", descr=("<f8", (10**9,)))


def text(name, content):
    def write(path):
        path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(content)) + content + bytes(72))

    write.__name__ = name
    file(".npy")(write)


text("parentheses", b"(" * 9000)
text("minus_signs", b"-" * 9000 + b"1")
text("a_call", b"__import__('os').getcwd()")


@file(".npy")
def header_of_4_gigabytes(path):
    with path.open("wb") as written:
        written.write(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1))
        written.truncate(2**32 + 100)


# -------------------------------------------------- .safetensors


def safetensors(name, content, size=64, length=None):
    def write(path):
        header = content() if callable(content) else content
        data = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(data) if length is None else length) + data + bytes(size))

    write.__name__ = name
    file(".safetensors")(write)


def entry(start=0, end=64, shape=(4, 4), dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


safetensors("length_2_63", {"z": entry()}, length=2**63)
safetensors("length_beyond", {"z": entry()}, length=10**6)
safetensors("length_zero", {"z": entry()}, length=0)
safetensors("tensors_that_overlap", {"z": entry(), "y": entry(32, 48, (2, 2))})
safetensors("offsets_beyond", {"z": entry(0, 2**40, (2**19, 2**19))})
safetensors("offsets_negative", {"z": entry(-64, 0)})
safetensors("offsets_backwards", {"z": entry(64, 0)})
safetensors("offsets_of_floats", {"z": entry(0.0, 64.0)})
safetensors("offsets_missing", {"z": {"dtype": "F32", "shape": [4, 4]}})
safetensors("shape_that_lies", {"z": entry(shape=(400, 400))})
safetensors("shape_of_2_63", {"z": entry(0, 0, (2**62, 2**62, 0))})
safetensors("dtype_that_lies", {"z": entry(dtype="F64")})
safetensors("dtype_of_a_list", {"z": entry(dtype=["F32"])})
safetensors("dtype_of_the_future", {"z": entry(dtype="\x1b[31mF3")})
safetensors("list_for_a_header", [1, 2])
safetensors("number_for_an_entry", {"z": 3})
safetensors("nested_header", b"[" * 10**6)
safetensors("nested_metadata", b'{"__metadata__":' * 10**5)
safetensors("hundred_thousand_tensors", lambda: {str(number): entry(0, 0, (0,)) for number in range(120_000)}, 0)


@file(".safetensors")
def header_of_8_gigabytes(path):
    with path.open("wb") as written:
        written.write(struct.pack("<Q", HOLE) + b"{")
        written.truncate(HOLE + 100)
