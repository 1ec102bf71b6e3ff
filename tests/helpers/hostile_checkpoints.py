"""Hostile .pt files: what their pickles describe, and what their tensors claim."""

import struct
import warnings

import torch
from helpers.hostile_writing import Claim, Raw, file, pickled, tensor, write_pt


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


# -------------------------------------------------- what tensors claim


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


# -------------------------------------------------- damaged files


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


@file(".pt")
def text_in_a_pt(path):
    path.write_text("not a checkpoint")


@file(".pt")
def nothing(path):
    path.touch()


@file(".pt")
def names_for_a_terminal(path):
    torch.save({"\x1b[31mred\n\x07": torch.ones(3), "\x9b2J": torch.ones(4)}, path)
