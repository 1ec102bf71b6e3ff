"""Hostile zips, of .pt and .npz files: bombs, lies on sizes, members that should not be."""

import struct
import zipfile

import numpy as np
from helpers.hostile_writing import Claim, file, npy, pickled, tensor, write_bomb, write_members, write_pt


@file(".pt")
def bomb_of_numbers(path):
    packed = [("a/data.pkl", pickled({"z": tensor(storage=Claim(2**31 // 4), size=(2**20, 2**9), stride=(2**9, 1))}))]
    write_bomb(path, "a/data/0", size=2**31, others=packed)


@file(".pt")
def bomb_of_a_pickle(path):
    write_bomb(path, "a/data.pkl", pickled([])[:-1] + b"]", size=2**31)


@file(".npz")
def bomb_of_rows(path):
    write_bomb(path, "z.npy", npy({"shape": (2**19, 2**8)}), size=2**31)


@file(".npz")
def bomb_of_a_header(path):
    write_bomb(path, "z.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31 - 20), size=2**31)


@file(".npz")
def two_of_one_name(path):
    write_members(path, [("z.npy", npy()), ("z.npy", npy())])


@file(".pt")
def two_pickles(path):
    write_members(path, [("a/data.pkl", b"\x80\x02}."), ("b/data.pkl", b"\x80\x02}.")])


@file(".pt")
def torchscript(path):
    write_pt(path, {"z": 1}, **{"constants.pkl": b"\x80\x02)."})


@file(".pt")
def another_byte_order(path):
    write_pt(path, {"z": tensor()}, byteorder=b"middle")


@file(".npz")
def packed_by_lzma(path):
    write_members(path, [("z.npy", npy())], zipfile.ZIP_LZMA)


@file(".npz")
def encrypted(path):
    write_members(path, [("z.npy", npy())])
    data = bytearray(path.read_bytes())
    for start in (6, data.find(b"PK\x01\x02") + 8):
        data[start] |= 1
    path.write_bytes(data)


@file(".npz")
def sizes_that_lie(path):
    write_members(path, [("z.npy", npy({"shape": (2**30, 2**8)}))])
    data = bytearray(path.read_bytes())
    for start in (22, data.find(b"PK\x01\x02") + 24):
        data[start : start + 4] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(data)


@file(".npz")
def hundred_thousand_members(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("z.npy", npy())
    data = path.read_bytes()
    start = data.find(b"PK\x01\x02")
    entry, end = data[start : data.find(b"PK\x05\x06")], data[data.find(b"PK\x05\x06") :]
    many = entry * (2**24 // len(entry))
    path.write_bytes(data[:start] + many + end[:12] + struct.pack("<II", len(many), start) + end[20:])


@file(".npz")
def names_for_a_terminal_in_a_zip(path):
    np.savez(path, **{"\x1b[31mred\n": np.ones(3), "\x9b2J": np.ones(4)})
