"""Files of embeddings come back as they were saved; whatever else a file is, one line says so."""

import io
import json
import os
import pickle
import re
import resource
import struct
import sys
import time
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from dyncollapse.readers import FLOATS, INTEGERS, read_rows

SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".safetensors")
ROWS = torch.arange(15.0).reshape(5, 3)


def save(path, rows, name="z"):
    """`rows` in the format that the suffix of `path` names; containers hold it as `name`."""
    if path.suffix == ".npy":
        np.save(path, rows.numpy())
    elif path.suffix == ".npz":
        np.savez(path, **{name: rows.numpy()})
    elif path.suffix == ".safetensors":
        save_file({name: rows}, path)
    else:
        torch.save(rows, path)
    return path


def refusal(path, key=None):
    """The message of a refused file, which is one line that starts with its path."""
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} ") as caught:
        read_rows(path, key)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    return message


class Evil:
    """Unpickling this makes the file it names."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


# -------------------------------------------------------------------------------------------------------- what is taken


@pytest.mark.parametrize("kind", FLOATS + INTEGERS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_returns_the_rows_in_their_dtype(tmp_path, suffix, kind):
    if kind == "bfloat16" and suffix.startswith(".np"):
        pytest.skip("NumPy has no bfloat16")
    rows = ROWS.to(getattr(torch, kind))
    found = read_rows(save(tmp_path / f"rows{suffix}", rows))
    assert found.dtype == rows.dtype
    assert type(found) is torch.Tensor
    assert torch.equal(found, rows)


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    suffix=st.sampled_from(SUFFIXES),
    kind=st.sampled_from(("float16", "float32", "float64", "int8", "uint16", "int64")),
    seed=st.integers(0, 99),
)
@settings(max_examples=100)
def test_round_trip_is_exact_to_the_bit(tmp_path_factory, shape, suffix, kind, seed):
    raw = np.random.default_rng(seed).bytes(shape[0] * shape[1] * np.dtype(kind).itemsize)
    rows = torch.from_numpy(np.frombuffer(raw, kind).reshape(shape).copy())  # any bits at all: NaN, infinities
    found = read_rows(save(tmp_path_factory.mktemp("round") / f"rows{suffix}", rows))
    assert found.shape == rows.shape
    assert found.contiguous().numpy().tobytes() == raw


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", ">i4", ">u8"])
def test_the_other_byte_order_is_converted(tmp_path, suffix, dtype):
    path = tmp_path / f"rows{suffix}"
    array = ROWS.numpy().astype(dtype)
    np.save(path, array) if suffix == ".npy" else np.savez_compressed(path, array)
    assert torch.equal(read_rows(path).double(), ROWS.double())


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_fortran_order_is_read(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    array = np.asfortranarray(ROWS.numpy())
    np.save(path, array) if suffix == ".npy" else np.savez(path, array)
    assert torch.equal(read_rows(path), ROWS)


def test_misaligned_numbers_are_read(tmp_path):
    path = tmp_path / "rows.npy"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (5, 3)} \n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + ROWS.numpy().tobytes())
    assert (10 + len(header)) % 4
    assert torch.equal(read_rows(path), ROWS)


def test_npy_headers_of_version_2_and_of_python_2_are_read(tmp_path):
    with (tmp_path / "two.npy").open("wb") as file:
        np.lib.format.write_array(file, ROWS.numpy(), version=(2, 0))
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (5L, 3L)}\n"
    old = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + ROWS.numpy().tobytes()
    (tmp_path / "old.npy").write_bytes(old)
    assert torch.equal(read_rows(tmp_path / "two.npy"), ROWS)
    assert torch.equal(read_rows(tmp_path / "old.npy"), ROWS)


def test_suffix_may_be_in_capitals_and_the_path_a_string(tmp_path):
    save(tmp_path / "rows.npy", ROWS).rename(tmp_path / "ROWS.NPY")
    assert torch.equal(read_rows(str(tmp_path / "ROWS.NPY")), ROWS)


def test_legacy_pt_is_read(tmp_path):
    torch.save(ROWS, tmp_path / "rows.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_rows(tmp_path / "rows.pt"), ROWS)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_pt_zipped_anew_is_read(tmp_path, compression):
    rewrite_pt(save(tmp_path / "rows.pt", ROWS), lambda data: data, compression)
    assert torch.equal(read_rows(tmp_path / "rows.pt"), ROWS)


def rewrite_pt(path, change, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)


def test_tensor_saved_on_a_gpu_is_read_on_the_cpu(tmp_path):
    path = save(tmp_path / "rows.pt", ROWS)
    rewrite_pt(path, lambda data: data.replace(b"\x03\0\0\0cpu", b"\x06\0\0\0cuda:0"))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)
    found = read_rows(path)
    assert found.device.type == "cpu"
    assert torch.equal(found, ROWS)


@pytest.mark.parametrize("legacy", [False, True])
def test_gradients_and_parameters_are_left_behind(tmp_path, legacy):
    for number, rows in enumerate((ROWS.clone().requires_grad_(), torch.nn.Parameter(ROWS))):
        path = tmp_path / f"{number}.pt"
        torch.save(rows, path, _use_new_zipfile_serialization=not legacy)
        found = read_rows(path)
        assert type(found) is torch.Tensor
        assert not found.requires_grad
        assert torch.equal(found, ROWS)


def test_strided_tensor_in_a_pt_is_read(tmp_path):
    torch.save(ROWS.T[:, ::2], tmp_path / "rows.pt")
    assert torch.equal(read_rows(tmp_path / "rows.pt"), ROWS.T[:, ::2])


@pytest.mark.parametrize("suffix", [".npy", ".pt", ".safetensors"])
def test_writing_to_rows_leaves_the_file_alone(tmp_path, suffix):
    path = save(tmp_path / f"rows{suffix}", ROWS)
    before = path.read_bytes()
    read_rows(path).zero_()
    assert path.read_bytes() == before


# ------------------------------------------------------------------------------------------------- which array is meant


def save_many(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **{name: array.numpy() for name, array in arrays.items()})
    elif path.suffix == ".safetensors":
        save_file(arrays, path)
    else:
        torch.save(arrays, path)
    return path


CONTAINERS = pytest.mark.parametrize("suffix", [".npz", ".pt", ".safetensors"])


@CONTAINERS
def test_the_one_floating_matrix_is_found(tmp_path, suffix):
    arrays = {"labels": torch.arange(5), "pairs": torch.zeros(5, 2, dtype=torch.int64), "z": ROWS}
    assert torch.equal(read_rows(save_many(tmp_path / f"rows{suffix}", arrays)), ROWS)


@CONTAINERS
def test_key_chooses_any_array(tmp_path, suffix):
    arrays = {"a": ROWS, "b": ROWS + 1, "c": torch.ones(2, 2, dtype=torch.int32)}
    path = save_many(tmp_path / f"rows{suffix}", arrays)
    for key, array in arrays.items():
        assert torch.equal(read_rows(path, key), array)


@CONTAINERS
def test_several_arrays_are_listed(tmp_path, suffix):
    path = save_many(tmp_path / f"rows{suffix}", {f"k{i:02}": ROWS + i for i in range(11)})
    message = refusal(path)
    assert "has 11 two-dimensional floating arrays: k00 (5, 3) float32, k01 (5, 3) float32" in message
    assert "k07 (5, 3) float32 and 3 more; choose one with --key NAME" in message
    assert "k08" not in message


@CONTAINERS
def test_unknown_key_is_told_what_there_is(tmp_path, suffix):
    path = save_many(tmp_path / f"rows{suffix}", {"a": ROWS, "b": ROWS + 1})
    assert "has no array named c; it has a (5, 3) float32, b (5, 3) float32" in refusal(path, "c")


@CONTAINERS
def test_no_matrix_among_several_and_a_wrong_only_array(tmp_path, suffix):
    few = {"labels": torch.arange(5), "images": torch.zeros(2, 3, 4)}
    message = refusal(save_many(tmp_path / f"few{suffix}", few))
    assert "has no two-dimensional floating arrays: " in message
    assert "images (2, 3, 4) float32" in message
    assert "labels (5,) int64" in message
    path = save_many(tmp_path / f"one{suffix}", {"images": torch.zeros(2, 3, 4)})
    assert "array images has shape (2, 3, 4); give one row per sample" in refusal(path)


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_key_of_a_single_array_is_refused(tmp_path, suffix):
    assert "leave out --key z" in refusal(save(tmp_path / f"rows{suffix}", ROWS), "z")


def test_names_with_line_breaks_and_terminal_codes_are_shown_in_one_line(tmp_path):
    path = save_many(tmp_path / "rows.pt", {"a\nb": ROWS, "\x1b[31m": ROWS})
    assert r"a\nb (5, 3) float32, \x1b[31m (5, 3) float32" in refusal(path)
    assert torch.equal(read_rows(path, "a\nb"), ROWS)
    with pytest.raises(ValueError, match=r"^\S*/no\\nfile\.npy does not exist"):
        read_rows(tmp_path / "no\nfile.npy")


def test_numbered_keys_are_chosen_by_their_digits(tmp_path):
    assert torch.equal(read_rows(save_many(tmp_path / "rows.pt", {0: ROWS, 1: ROWS + 1}), "1"), ROWS + 1)


def test_settings_beside_a_tensor_do_no_harm(tmp_path):
    rest = {"epoch": 3, "args": {"lr": 0.1}, "names": ["cat"], "labels": torch.arange(5)}
    assert torch.equal(read_rows(save_many(tmp_path / "rows.pt", {"z": ROWS, **rest})), ROWS)


# --------------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("checkpoint", "keys"),
    [
        (torch.nn.Linear(4, 3).state_dict(), "weight, bias"),
        (torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).state_dict(), "0.weight, 0.bias"),
        ({"epoch": 2, "state_dict": torch.nn.Linear(4, 3).state_dict()}, "epoch, state_dict;"),
        ({"model": OrderedDict({"embed": ROWS}), "centroids": ROWS}, "model, centroids;"),
        ({"a": {"b": {"c": ROWS}}}, "a;"),
        ({f"layer{i}.weight": ROWS for i in range(20)}, "layer7.weight and 12 more;"),
    ],
)
def test_model_is_recognised(tmp_path, checkpoint, keys):
    path = tmp_path / "model.pt"
    torch.save(checkpoint, path)
    message = refusal(path)
    assert "looks like a model" in message
    assert keys in message
    assert "give the embeddings it computes, not the model" in message


def test_model_in_safetensors_is_recognised_and_a_matrix_of_it_can_still_be_named(tmp_path):
    path = save_many(tmp_path / "model.safetensors", {"fc.weight": ROWS, "fc.bias": ROWS[:, 0].clone()})
    assert "looks like a model, with keys fc." in refusal(path)
    assert torch.equal(read_rows(path, "fc.weight"), ROWS)


def test_key_of_a_dict_is_refused(tmp_path):
    torch.save({"state_dict": {"w": ROWS}, "epoch": 2}, tmp_path / "model.pt")
    assert "array state_dict holds a dict of tensors" in refusal(tmp_path / "model.pt", "state_dict")
    assert "array epoch holds a Python int" in refusal(tmp_path / "model.pt", "epoch")


def test_whole_module_and_torchscript_are_refused(tmp_path):
    torch.save(torch.nn.Linear(4, 3), tmp_path / "module.pt")
    assert "holds pickled objects, which are never loaded" in refusal(tmp_path / "module.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; its files are not gone
        torch.jit.save(torch.jit.script(torch.nn.Linear(4, 3)), tmp_path / "script.pt")
    assert "is a TorchScript model; give the embeddings" in refusal(tmp_path / "script.pt")


# -------------------------------------------------------------------------------------------- dtypes and shapes refused


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((5, 3), bool), "holds bool;"),
        (np.zeros((5, 3), complex), "holds complex128;"),
        (np.zeros((5, 3), "U4"), "holds str128;"),
        (np.zeros((5, 3), "S4"), "holds bytes32;"),
        (np.zeros((5, 3), "M8[s]"), "holds datetime64[s];"),
        (np.zeros((5, 3), "m8[s]"), "holds timedelta64[s];"),
        (np.zeros((5, 3), [("a", "f4"), ("b", "i4")]), "holds structured values;"),
        (np.zeros((5, 3), "V2"), "bfloat16 can be in .pt and .safetensors only"),
        (np.zeros((5, 3), object), "holds pickled objects, which are never loaded; save a plain array with numpy.save"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_of_other_things_are_refused(tmp_path, suffix, array, words):
    path = tmp_path / f"rows{suffix}"
    np.save(path, array) if suffix == ".npy" else np.savez(path, array)
    message = refusal(path)
    assert words in message
    assert "allowed are float16, bfloat16, float32, float64 and integers" in message or "numpy.save" in message


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long double is double here")
def test_long_double_is_refused(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS.numpy().astype(np.longdouble))
    assert f"holds {np.dtype(np.longdouble).name};" in refusal(tmp_path / "rows.npy")


def test_field_names_that_need_npy_version_3_are_refused(tmp_path):
    with (tmp_path / "rows.npy").open("wb") as file:
        np.lib.format.write_array(file, np.zeros((5, 3), [("ä", "f4")]), version=(3, 0))
    assert "is a .npy of version 3.0; save a plain array with numpy.save" in refusal(tmp_path / "rows.npy")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.bool(), "holds bool;"),
        (lambda rows: rows.cfloat(), "holds complex64;"),
        (lambda rows: rows.to(torch.float8_e4m3fn), "holds float8_e4m3fn;"),
        (lambda rows: rows.to_sparse(), "holds sparse_coo float32;"),
        (lambda rows: rows.to_sparse_csr(), "holds sparse_csr float32;"),
        (lambda rows: torch.quantize_per_tensor(rows, 0.1, 0, torch.qint8), "holds qint8;"),
        (lambda rows: rows.to("meta"), "holds meta float32;"),
        (lambda rows: torch.nested.nested_tensor(list(rows), layout=torch.jagged), "pickled objects|nested float32"),
        (lambda rows: torch.nested.nested_tensor(list(rows)), "pickled objects|nested float32"),
        (lambda rows: [rows], "holds a Python list;"),
        (lambda _rows: 3.0, "holds a Python float;"),
        (lambda rows: {"z": rows.numpy()}, "pickled objects"),
        (lambda _rows: {}, "holds no array;"),
        (lambda _rows: {"epoch": 3}, "holds no array;"),
    ],
)
def test_tensors_of_other_things_are_refused(tmp_path, change, words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # prototypes and deprecations of torch
        torch.save(change(ROWS), tmp_path / "rows.pt")
    # Some versions of torch take nested tensors for harmless, and others do not.
    told = refusal(tmp_path / "rows.pt")
    assert any(word in told for word in words.split("|"))


@pytest.mark.parametrize("kind", ["bool", "float8_e5m2", "complex64"])
def test_safetensors_of_other_things_are_refused(tmp_path, kind):
    path = save(tmp_path / "rows.safetensors", ROWS.to(getattr(torch, kind)))
    assert "array z holds " in refusal(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", [(), (7,), (10, 3, 2, 2), (0, 3), (3, 0), (0, 0)])
def test_wrong_shapes_are_refused(tmp_path, suffix, shape):
    message = refusal(save(tmp_path / f"rows{suffix}", torch.zeros(shape)))
    assert f"is empty, of shape {shape}" in message if 0 in shape else f"has shape {shape}" in message
    assert "give one row per sample, (samples, dimensions)" in message


# ------------------------------------------------------------------------------------- files that are not what they say


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_empty_and_other_than_files(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    assert "does not exist; give a file, .npy, .npz, .pt, .pth or .safetensors" in refusal(path)
    assert "does not exist" in refusal(tmp_path / "no" / path.name)
    path.touch()
    assert "is an empty file (0 bytes)" in refusal(path)
    path.unlink()
    path.mkdir()
    assert "is a directory; give a file, .npy" in refusal(path)
    path.rmdir()
    os.mkfifo(path)  # would block whoever opens it
    assert "is no regular file; give a file, .npy" in refusal(path)
    path.unlink()
    path.symlink_to(path)
    assert "cannot be read: " in refusal(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_forbidden_file_is_refused(tmp_path, suffix):
    path = save(tmp_path / f"rows{suffix}", ROWS)
    path.chmod(0)
    root = os.geteuid() == 0
    try:
        if root:  # who may read everything
            os.seteuid(65534)
        assert "cannot be read: Permission denied" in refusal(path)
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize(("name", "words"), [("rows.csv", "ends in .csv;"), ("rows", "has no suffix;")])
def test_unknown_suffix_lists_what_is_allowed(tmp_path, name, words):
    (tmp_path / name).write_text("1,2\n3,4\n")
    message = refusal(tmp_path / name)
    assert words in message
    assert all(suffix in message for suffix in SUFFIXES)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("garbage", [b"no", b"1,2\n3,4\n" * 9, bytes(64), b"\x89HDF\r\n\x1a\n" + bytes(99)])
def test_garbage_is_refused(tmp_path, suffix, garbage):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(garbage)
    assert f"does not start as a {suffix.replace('pth', 'pt')} file does" in refusal(path)


@pytest.mark.parametrize("claimed", SUFFIXES)
@pytest.mark.parametrize("real", SUFFIXES)
def test_suffix_that_lies_is_named(tmp_path, claimed, real):
    path = tmp_path / f"rows{claimed}"
    save(tmp_path / f"real{real}", ROWS).rename(path)
    real, claimed = real.replace("pth", "pt"), claimed.replace("pth", "pt")
    if real == claimed:
        assert torch.equal(read_rows(path), ROWS)
    else:
        assert f"is a {real} file by its content, not a {claimed}; rename it" in refusal(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(tmp_path, suffix, kept):
    path = save(tmp_path / f"rows{suffix}", torch.zeros(500, 10))
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    assert "truncated" in refusal(path)


def test_truncated_legacy_pt_is_refused(tmp_path):
    path = tmp_path / "rows.pt"
    torch.save(ROWS, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-9])
    assert "is damaged or truncated" in refusal(path)


def test_zip_without_arrays_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "rows.npz", "w") as archive:
        archive.writestr("letter.txt", "Dear all")
    assert "holds no array" in refusal(tmp_path / "rows.npz")
    with zipfile.ZipFile(tmp_path / "none.npz", "w"):
        pass
    assert "holds no array" in refusal(tmp_path / "none.npz")


@pytest.mark.parametrize(
    "shape", ["(-5, -3)", "(-1, 3)", "(10**9, 3)", f"({10**12}, {10**12})", "('a', 3)", "5", "()("]
)
def test_headers_that_lie_ask_for_no_memory(tmp_path, shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(120)
    (tmp_path / "rows.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "rows.npz", "w") as archive:
        archive.writestr("z.npy", data)
    for name in ("rows.npy", "rows.npz"):
        assert "truncated" in refusal(tmp_path / name)


@pytest.mark.parametrize("error", [MemoryError("90 GiB"), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_what_does_not_fit_into_memory_is_advised_to_be_mapped(tmp_path, monkeypatch, error):
    def fail(*_given, **_named):
        raise error

    monkeypatch.setattr(np.lib.format, "read_array", fail)
    path = save(tmp_path / "rows.npz", ROWS)
    assert "does not fit into memory; save a .npy, which is never read whole" in refusal(path)


# ------------------------------------------------------------------------------------------------------ never unpickled


def evil_files(folder, mark):
    """A file of each format whose loading by pickle makes `mark`."""
    objects = np.array([[Evil(mark)]], dtype=object)
    np.save(folder / "evil.npy", objects)
    np.savez(folder / "evil.npz", z=objects)
    torch.save(Evil(mark), folder / "evil.pt")
    torch.save({"z": ROWS, "extra": Evil(mark)}, folder / "beside.pt")
    torch.save(Evil(mark), folder / "legacy.pt", _use_new_zipfile_serialization=False)
    for suffix in SUFFIXES:
        (folder / f"bare{suffix}").write_bytes(pickle.dumps(Evil(mark)))
    return sorted(folder.glob("*.*"))


def test_pickles_are_refused_and_not_run(tmp_path):
    files = evil_files(tmp_path, tmp_path / "mark")
    assert len(files) == 10
    for path in files:
        assert "holds pickled objects, which are never loaded; save a plain array with numpy.save" in refusal(path)
        assert not (tmp_path / "mark").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "mark").exists()  # the trap works


def test_array_beside_objects_is_still_read(tmp_path):
    np.savez(tmp_path / "rows.npz", z=ROWS.numpy(), extra=np.array([[Evil(tmp_path / "mark")]], dtype=object))
    assert torch.equal(read_rows(tmp_path / "rows.npz"), ROWS)
    assert not (tmp_path / "mark").exists()


# ------------------------------------------------------------------------------------------------------------- not read


def memory():
    """Resident bytes now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def sparse_file(path, head, size):
    """`head`, then `size` bytes of zeros that take no disk."""
    path.write_bytes(head)
    os.truncate(path, len(head) + size)
    return path


def npy_head(shape, fortran=False):
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def safetensors_head(shape):
    header = {"z": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * shape[0] * shape[1]]}}
    data = json.dumps(header).encode()
    return struct.pack("<Q", len(data)) + data


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory by /proc")
@pytest.mark.parametrize("name", ["rows.npy", "fortran.npy", "rows.safetensors"])
def test_ten_gigabytes_are_mapped_and_not_read(tmp_path, name):
    shape = (10_000_000, 256)
    read_rows(save(tmp_path / f"warm{Path(name).suffix}", ROWS))  # whatever is imported is imported
    head = safetensors_head(shape) if name.endswith("safetensors") else npy_head(shape, fortran="fortran" in name)
    path = sparse_file(tmp_path / name, head, 4 * shape[0] * shape[1])
    assert path.stat().st_blocks * 512 < 1e6
    before, start = memory(), time.perf_counter()
    rows = read_rows(path)
    assert time.perf_counter() - start < 0.5
    assert rows.shape == shape
    assert float(rows[5_000_000:5_000_100, :8].sum()) == 0  # in Fortran order each column is its own page
    assert memory() - before < 100e6


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("suffix", [".npy", ".pt", ".safetensors"])
def test_rows_are_the_mapped_file(tmp_path, suffix):
    path = save(tmp_path / f"rows{suffix}", ROWS)
    rows = read_rows(path)
    addresses = [
        line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line
    ]
    assert any(int(low, 16) <= rows.data_ptr() < int(high, 16) for low, high in addresses)


# ------------------------------------------------------------------------------------------------------------ any bytes


def read_or_one_line(path):
    """Either rows that can be looked at, or one line about the file; warnings are errors in this suite."""
    try:
        rows = read_rows(path)
    except ValueError as error:
        message = str(error)
        assert message.startswith(f"{path} ")
        assert message.isprintable()
    else:
        assert rows.ndim == 2
        assert 0 not in rows.shape
        rows[:2].double().sum(), rows[-2:].double().sum()


MAGICS = (b"", b"\x93NUMPY\x01\x00v\x00", b"PK\x03\x04", b"\x80\x02", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
MAGICS += (struct.pack("<Q", 40) + b'{"',)


@given(suffix=st.sampled_from(SUFFIXES), magic=st.sampled_from(MAGICS), data=st.binary(max_size=300))
@settings(max_examples=600)
def test_random_bytes(tmp_path_factory, suffix, magic, data):
    path = tmp_path_factory.getbasetemp() / f"random{suffix}"
    path.write_bytes(magic + data)
    read_or_one_line(path)


HEADER = st.binary(max_size=80) | st.text(
    st.sampled_from("{}()[],:'\"<>|fiUOVb0123456789 \\LdescrFalse"), max_size=80
).map(str.encode)
DESCR = st.sampled_from(
    ("'<f4'", "'O'", "'V0'", "'U'", "'>f16'", "[('a','f4')]", "['a']", "'m8'", "'<f4,<f4'", "3", "'q'*9")
)


@given(
    header=HEADER
    | st.builds(
        "{{'descr': {}, 'fortran_order': {}, 'shape': {}}}".format,
        DESCR,
        st.sampled_from(("True", "False", "1")),
        st.tuples(st.integers(-2, 9) | st.integers(), st.integers(-2, 9)) | st.just("(True, 2)") | st.just("'ab'"),
    ).map(str.encode),
    version=st.sampled_from((b"\1\0", b"\2\0", b"\3\0", b"\4\1")),
)
@settings(max_examples=400)
def test_random_npy_headers(tmp_path_factory, header, version):
    length = struct.pack("<H" if version == b"\1\0" else "<I", len(header))
    data = b"\x93NUMPY" + version + length + header + bytes(range(100))
    folder = tmp_path_factory.getbasetemp()
    (folder / "header.npy").write_bytes(data)
    with zipfile.ZipFile(folder / "header.npz", "w") as archive:
        archive.writestr("z.npy", data)
    read_or_one_line(folder / "header.npy")
    read_or_one_line(folder / "header.npz")


@given(
    dtype=st.sampled_from(("F32", "BF16", "F8_E4M3", "I64", "nonsense", "")),
    shape=st.lists(st.integers(-2, 9) | st.integers(0, 2**65), max_size=3),
    ends=st.tuples(st.integers(-2, 120) | st.integers(0, 2**65), st.integers(-2, 120) | st.integers(0, 2**65)),
    name=st.text(max_size=5),
)
@settings(max_examples=200)
def test_random_safetensors_headers(tmp_path_factory, dtype, shape, ends, name):
    path = tmp_path_factory.getbasetemp() / "header.safetensors"
    head = json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": ends}}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(range(100)))
    read_or_one_line(path)


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory):
    """The bytes of a sound file of every kind, by its name."""
    folder = tmp_path_factory.mktemp("sound")
    for suffix in SUFFIXES:
        save(folder / f"rows{suffix}", ROWS)
    np.savez_compressed(folder / "small.npz", a=ROWS.numpy(), b=np.arange(3))
    np.save(folder / "objects.npy", np.array([[Evil(folder / "mark")]], dtype=object))
    torch.save(ROWS, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"z": ROWS[1:, ::2], "y": torch.arange(4)}, folder / "dict.pt")
    torch.save({"z": ROWS.T, "y": torch.arange(4)}, folder / "dict.pth", _use_new_zipfile_serialization=False)
    torch.save(Evil(folder / "mark"), folder / "evil.pt")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}, folder / "mark"


@given(data=st.data())
@settings(max_examples=1500)
def test_damaged_files(sound_files, tmp_path_factory, data):
    contents, mark = sound_files
    name = data.draw(st.sampled_from(sorted(contents)))
    damaged = bytearray(contents[name])
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    keep = data.draw(st.just(len(damaged)) | st.integers(0, len(damaged)))
    path = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    path.write_bytes(damaged[:keep])
    read_or_one_line(path)
    assert not mark.exists()


@given(data=st.data())
@settings(max_examples=400)
def test_damaged_pickles_inside_sound_zips(sound_files, tmp_path_factory, data):
    contents, mark = sound_files
    name = data.draw(st.sampled_from(("rows.pt", "dict.pt", "evil.pt")))
    path = tmp_path_factory.getbasetemp() / f"inside-{name}"
    path.write_bytes(contents[name])
    flips = data.draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4))

    def flip(pickled):
        flipped = bytearray(pickled)
        for place, value in flips:
            flipped[place % len(flipped)] = value
        return bytes(flipped)

    rewrite_pt(path, flip)
    read_or_one_line(path)
    assert not mark.exists()
