"""Whatever else a file is, one line says so."""

import os
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch
from helpers.readers import ROWS, SUFFIXES, refusal, save

from dyncollapse.diagnostics.readers import read_rows

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
    assert "does not exist; give a file, .npy, .npz, .pt, .pth, .safetensors, .csv, .tsv, .parquet or .h5" in refusal(
        path
    )
    assert "does not exist" in refusal(tmp_path / "no" / path.name)
    path.touch()
    assert "is an empty file (0 bytes)" in refusal(path)
    path.unlink()
    path.mkdir()
    assert "is a directory; give a file, .npy" in refusal(path)
    path.rmdir()
    os.mkfifo(path)  # would block whoever opens it
    assert "is not a regular file; give a file, .npy" in refusal(path)
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


@pytest.mark.parametrize(("name", "words"), [("rows.txt", "ends in .txt;"), ("rows", "has no suffix;")])
def test_unknown_suffix_lists_what_is_allowed(tmp_path, name, words):
    (tmp_path / name).write_text("1,2\n3,4\n")
    message = refusal(tmp_path / name)
    assert words in message
    assert all(suffix in message for suffix in SUFFIXES)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("garbage", [b"no", b"1,2\n3,4\n" * 9, bytes(64), b"\x89PNG\r\n\x1a\n" + bytes(99)])
def test_garbage_is_refused(tmp_path, suffix, garbage):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(garbage)
    assert f"does not start like a {suffix.replace('pth', 'pt')} file" in refusal(path)


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
