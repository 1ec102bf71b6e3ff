"""Files that no one saves, but that a stranger may send: `FILES` maps each one's name to what writes it."""

import io
import json
import pickle
import struct
import warnings
import zipfile
import zlib

import numpy as np
import torch

FILES = {}
HOLE = 2**33  # bytes of zeros that take no disk


def file(suffix):
    """Enter a function that writes a file of this kind."""

    def enter(write):
        FILES[f"{write.__name__}{suffix}"] = write
        return write

    return enter


# ------------------------------------------------------------------------------------------------------ pickles by hand


class Raw:
    """Pickled, this is the result of `function(*arguments)`, where the function is named `module.name`."""

    def __init__(self, name, *arguments):
        self.name, self.arguments = name, arguments


class Pickler(pickle._Pickler):
    """Writes `Raw` calls and the persistent ids of storages, of whatever claims they make."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_raw(self, call):
        self.write(b"c" + call.name.rpartition(".")[0].encode() + b"\n" + call.name.rpartition(".")[2].encode() + b"\n")
        self.save(call.arguments)
        self.write(b"R")

    dispatch[Raw] = save_raw

    def persistent_id(self, value):
        return value.identity if isinstance(value, Claim) else None

    def save_class(self, kind):
        self.write(f"ctorch\n{kind.__name__}\n".encode())

    dispatch[type] = save_class


class Claim:
    """A storage of `count` numbers."""

    def __init__(self, count=4, key="0", kind=torch.FloatStorage):
        self.identity = ("storage", kind, key, "cpu", count)


def pickled(content):
    written = io.BytesIO()
    Pickler(written, protocol=2).dump(content)
    return written.getvalue()


def tensor(offset=0, size=(2, 2), stride=(2, 1), storage=None):
    return Raw("torch._utils._rebuild_tensor_v2", storage or Claim(), offset, size, stride, False, None)


def write_pt(path, content, storages=None, **records):
    """A file as torch.save writes it, of a pickle that is `content` or holds it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", content if isinstance(content, bytes) else pickled(content))
        for name, data in {"byteorder": b"little", "version": b"3\n", **records}.items():
            archive.writestr(f"a/{name}", data)
        for key, data in ({"0": bytes(16)} if storages is None else storages).items():
            archive.writestr(f"a/data/{key}", data)


def write_members(path, members, compression=zipfile.ZIP_STORED):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore")  # two members of one name
        for name, data in members:
            archive.writestr(name, data)


def bomb(size):
    """Bytes that deflate makes `size` zeros of: one compressed piece, many times."""
    piece, packer = 2**20, zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(piece)) + packer.flush(zlib.Z_FULL_FLUSH)
    return packed * (size // piece) + b"\x03\x00"


def write_bomb(path, name, head=b"", size=HOLE, others=()):
    """A zip whose member `name` unpacks to `head` and zeros, of `size` bytes together."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(head + bytes(2**20 - len(head))) + packer.flush(zlib.Z_FULL_FLUSH) + bomb(size - 2**20)
    write_members(path, [(name, packed), *others])
    data = bytearray(path.read_bytes())
    central = data.find(b"PK\x01\x02")
    for start, method, sizes in ((0, 8, 18), (central, 10, 20)):
        data[start + method : start + method + 2] = struct.pack("<H", 8)
        data[start + sizes : start + sizes + 8] = struct.pack("<II", len(packed), min(size, 2**32 - 1))
    path.write_bytes(data)


# ------------------------------------------------------------------------------------ shapes of what a pickle describes


@file(".pt")
def cyclic(path):
    loop = {"a": torch.zeros(1)}
    loop["self"] = loop
    torch.save(loop, path)


@file(".pt")
def cyclic_list(path):
    loop = [torch.zeros(1)]
    loop.append({"x": loop})
    torch.save(loop, path)


def levels(make):
    level = torch.zeros(1)
    for _ in range(45):
        level = make(level)
    return level


@file(".pt")
def shared_levels(path):
    torch.save(levels(lambda level: {"x": level, "y": level}), path)


@file(".pt")
def shared_lists(path):
    torch.save({"a": levels(lambda level: [level, level]), "b": levels(lambda level: (level, level))}, path)


@file(".pt")
def shared_wide(path):
    torch.save(levels(lambda level: dict.fromkeys(map(str, range(3000)), level)), path)


@file(".pt")
def shared_in_a_device(path):
    write_pt(path, {"z": Raw("torch.device", levels(lambda level: (level, level) if isinstance(level, tuple) else ()))})


@file(".pt")
def deep_dicts(path):
    write_pt(path, b"\x80\x02" + b"}U\x01a" * 50000 + b"N" + b"s" * 50000 + b".")


@file(".pt")
def deep_lists(path):
    write_pt(path, b"\x80\x02" + b"]" * 100000 + b"a" * 99999 + b".")


@file(".pt")
def deep_tuples(path):
    write_pt(path, b"\x80\x02)" + b"\x85" * 100000 + b".")


@file(".pt")
def million_dicts(path):
    write_pt(path, b"\x80\x02" + b"}" * 4_000_000 + b".")


@file(".pt")
def million_tensors(path):
    """The call that makes a tensor, and its arguments, again and again."""
    call, arguments = (pickled(part)[2:-1] for part in (Raw("collections.OrderedDict"), tensor().arguments))
    call = call[: call.rindex(b"\n") + 1].replace(b"collections\nOrderedDict", b"torch._utils\n_rebuild_tensor_v2")
    write_pt(path, b"\x80\x02" + call + b"q\xfe" + arguments + b"q\xff" + b"h\xfeh\xffR" * 400_000 + b".")


@file(".pt")
def million_names(path):
    torch.save({"state_dict": dict.fromkeys(map(str, range(300_000)), 1), "w": torch.zeros(1)}, path)


@file(".pt")
def long_name(path):
    torch.save({"a" * 10**7: torch.zeros(2, 2), "b": torch.zeros(2, 2)}, path)


@file(".pt")
def keys_of_one_hash(path):
    torch.save({number * (2**61 - 1): None for number in range(2, 3)}, path)
    keys = b"".join(b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"N" for n in range(2, 60_002))
    write_pt(path, b"\x80\x02}(" + keys + b"u.")


@file(".pt")
def keys_of_other_kinds(path):
    torch.save({(1, 2): torch.zeros(2, 2), 10**30: torch.zeros(2, 2), b"z": 1, None: 2, 1.5: 3, True: 4}, path)


@file(".pt")
def attributes_for_methods(path):
    """An OrderedDict whose `items`, and a tensor whose `detach`, are what the file says."""
    named = b"ccollections\nOrderedDict\n)R}U\x05itemsK\x01s"
    write_pt(path, b"\x80\x02" + named + b"b.")


@file(".pt")
def endless_bytes(path):
    write_pt(path, {"z": Raw("__builtin__.bytearray", 10**11)})


@file(".pt")
def endless_memo(path):
    write_pt(path, b"\x80\x02}r\xff\xff\xff\x7fN.")


@file(".pt")
def promised_bytes(path):
    write_pt(path, b"\x80\x05B\xff\xff\xff\x7f.")


@file(".pt")
def not_a_pickle(path):
    write_pt(path, b"no pickle")


@file(".pt")
def empty_pickle(path):
    write_pt(path, b"")


@file(".pt")
def stack_below_its_floor(path):
    write_pt(path, b"\x80\x020000.")


@file(".pt")
def calls_what_it_must_not(path):
    write_pt(path, {"z": Raw("os.system", "true")})


@file(".pt")
def persistent_id_of_another_kind(path):
    write_pt(path, b"\x80\x02K\x01Q.")


@file(".pt")
def huge_integers(path):
    write_pt(path, b"\x80\x02(I" + b"9" * 10**6 + b"\nt.")


# -------------------------------------------------------------------------------------------------- what tensors claim


def claims(name, **given):
    def write(path):
        write_pt(path, {"conv1.weight": tensor(**given)})

    write.__name__ = name
    file(".pt")(write)


claims("stride_zero", size=(10**12, 4), stride=(0, 0))
claims("stride_zero_in_part", size=(10**9, 2), stride=(0, 1))
claims("negative_offset", offset=-1)
claims("huge_offset", offset=2**62)
claims("offset_beyond", offset=1)
claims("negative_size", size=(-2, 2))
claims("negative_stride", stride=(-2, 1))
claims("beyond_its_storage", size=(10**9, 4), stride=(4, 1))
claims("size_2_62", size=(2**62, 2), stride=(0, 0))
claims("size_2_200", size=(2**200, 2), stride=(0, 0))
claims("size_of_a_string", size="ab", stride="ab")
claims("size_of_truths", size=(True, True), stride=(True, True))
claims("size_without_stride", stride=())
claims("thousand_dimensions", size=(1,) * 1000, stride=(1,) * 1000)
claims("count_beyond_the_record", storage=Claim(10**12), size=(10**9, 4), stride=(4, 1))
claims("count_negative", storage=Claim(-4))
claims("count_of_a_string", storage=Claim("4"))
claims("storage_missing", storage=Claim(key="../../data.pkl"))
claims("storage_of_no_name", storage=Claim(key=0))
claims("zero_dimensional", size=(), stride=())
claims("empty", size=(0, 2**62), stride=(1, 1))


@file(".pt")
def one_matrix_for_a_thousand_layers(path):
    matrix = torch.zeros(512, 512)
    torch.save({f"projector.{number}.weight": matrix for number in range(1000)}, path)


@file(".pt")
def one_number_for_a_thousand_layers(path):
    matrix = torch.zeros(1).expand(512, 512)
    torch.save({f"projector.{number}.weight": matrix for number in range(1000)}, path)


@file(".pt")
def rebuilt_from_nothing(path):
    write_pt(path, {"z": Raw("torch._utils._rebuild_tensor_v2", 1, 2, 3, 4), "y": 1})


@file(".pt")
def wrapped_ten_thousand_times(path):
    named = b"ctorch._tensor\n_rebuild_from_type_v2\nq\x00"
    write_pt(path, b"\x80\x02" + named + b")" + b"h\x00h\x00N\x87N\x86" * 10**4 + b"R.")


def other(name, make):
    def write(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # prototypes of torch
            torch.save({"conv1.weight": make(torch.ones(8, 4))}, path)

    write.__name__ = name
    file(".pt")(write)


other("sparse", lambda rows: rows.to_sparse())
other("sparse_rows", lambda rows: rows.to_sparse_csr())
other("meta", lambda rows: rows.to("meta"))
other("quantised", lambda rows: torch.quantize_per_tensor(rows, 0.1, 0, torch.qint8))
other("quantised_by_channel", lambda rows: torch.quantize_per_channel(rows, rows[:, 0], rows[:, 0], 0, torch.qint8))
other("nested", lambda rows: torch.nested.nested_tensor(list(rows)))
other("jagged", lambda rows: torch.nested.nested_tensor(list(rows), layout=torch.jagged))
other("complex_numbers", lambda rows: rows.to(torch.complex64))
other("conjugated", lambda rows: rows.to(torch.complex64).conj().imag)
other("truths", lambda rows: rows.bool())
other("eight_bits", lambda rows: rows.to(torch.float8_e4m3fn))
other("overlapping", lambda rows: rows.flatten().as_strided((16, 16), (1, 1)).cfloat())


# ----------------------------------------------------------------------------------------------------------- containers


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


@file(".pt")
def cut_zip(path):
    torch.save({"z": torch.ones(500, 10)}, path)
    path.write_bytes(path.read_bytes()[:-900])


def legacy(name, change):
    def write(path):
        torch.save({"z": torch.ones(500, 10)}, path, _use_new_zipfile_serialization=False)
        path.write_bytes(change(path.read_bytes()))

    write.__name__ = f"legacy_{name}"
    file(".pt")(write)


SIZE = struct.pack("<q", 5000)
legacy("cut", lambda data: data[:-9])
legacy("cut_before_its_numbers", lambda data: data[: data.rfind(SIZE)])
legacy("huge_count", lambda data: data.replace(SIZE, struct.pack("<q", 2**62)))
legacy("negative_count", lambda data: data.replace(SIZE, struct.pack("<q", -5000)))
legacy("small_count", lambda data: data.replace(SIZE, struct.pack("<q", 3)))
legacy("other_version", lambda data: data.replace(b"M\xe9\x03.", b"M\xea\x03.", 1))


# ----------------------------------------------------------------------------------------------------------------- .npy


def npy(header=(), version=(1, 0)):
    text = str({"descr": "<f8", "fortran_order": False, "shape": (3, 3)} | dict(header)).encode() + b"\n"
    return (
        b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + bytes(72)
    )


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


# --------------------------------------------------------------------------------------------------------- .safetensors


def safetensors(name, content, size=64, length=None):
    def write(path):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
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
safetensors("hundred_thousand_tensors", {str(number): entry(0, 0, (0,)) for number in range(120_000)}, 0)


@file(".safetensors")
def header_of_8_gigabytes(path):
    with path.open("wb") as written:
        written.write(struct.pack("<Q", HOLE) + b"{")
        written.truncate(HOLE + 100)


# ------------------------------------------------------------------------------------------------------------ all kinds


@file(".pt")
def text_in_a_pt(path):
    path.write_text("not a checkpoint")


@file(".pt")
def nothing(path):
    path.touch()


@file(".pt")
def names_for_a_terminal(path):
    torch.save({"\x1b[31mred\n\x07": torch.ones(3), "\x9b2J": torch.ones(4)}, path)


@file(".npz")
def names_for_a_terminal_in_a_zip(path):
    np.savez(path, **{"\x1b[31mred\n": np.ones(3), "\x9b2J": np.ones(4)})
