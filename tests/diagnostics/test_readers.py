"""Files of embeddings come back as they were saved."""

import io
import json
import os
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.readers import ROWS, SUFFIXES, rewrite_pt, save
from hypothesis import given, settings
from hypothesis import strategies as st

from dyncollapse.diagnostics.readers import read_rows
from dyncollapse.formats.arrays import FLOATS, INTEGERS

resource = pytest.importorskip("resource")

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
    before = memory()
    rows = read_rows(path)
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
