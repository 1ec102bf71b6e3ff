import numpy as np
import pytest
import torch
from helpers.constants import set_constant
from helpers.readers import refusal

from dyncollapse.diagnostics.readers import read_rows
from dyncollapse.runtime import extras

h5py = pytest.importorskip("h5py")
Z = np.random.default_rng(0).normal(size=(50, 3))


def saved(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name.replace("__", "/")] = array
    return path


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", "<i4", "u1"])
@pytest.mark.parametrize(
    "options", [{}, {"chunks": (7, 2)}, {"chunks": (7, 3), "compression": "gzip", "shuffle": True}]
)
def test_formats_are_kept(tmp_path, monkeypatch, suffix, dtype, options):
    set_constant(monkeypatch, "formats.hdf5.BLOCK", 30)  # several reads
    z = (10 * np.abs(Z)).astype(dtype)
    with h5py.File(tmp_path / f"z{suffix}", "w") as file:
        file.create_dataset("z", data=z, **options)
    assert torch.equal(read_rows(tmp_path / f"z{suffix}"), torch.from_numpy(z.astype(z.dtype.newbyteorder("="))))


def test_contiguous_numbers_are_mapped_and_the_file_stays(tmp_path):
    path = saved(tmp_path / "z.h5", z=Z)
    before = path.read_bytes()
    read_rows(path).zero_()
    assert path.read_bytes() == before
    path.write_bytes(before[:-900])
    assert "is damaged or truncated" in refusal(path)


def test_datasets_are_chosen_by_their_path(tmp_path):
    path = saved(tmp_path / "z.h5", train__z=Z, train__y=np.arange(50), test__z=-Z)
    assert "has 2 two-dimensional floating arrays: test/z (50, 3) float64, train/y (50,) int64" in refusal(path)
    for key in ("test/z", "/test/z"):
        assert np.array_equal(read_rows(path, key).numpy(), -Z)
    assert "array train/y has shape (50,), as labels have" in refusal(path, "train/y")
    assert "has a group at test; choose a dataset in it with key GROUP/NAME" in refusal(path, "test")
    assert "has no array named test/q; it has test/z (50, 3) float64" in refusal(path, "test/q")
    assert "has no array named test/z/q" in refusal(path, "test/z/q")
    assert np.array_equal(read_rows(saved(tmp_path / "one.h5", z=Z, labels=np.arange(50))).numpy(), Z)


def test_nothing_outside_the_file_is_followed(tmp_path):
    other = saved(tmp_path / "other.h5", z=Z)
    layout = h5py.VirtualLayout((50, 3), "f8")
    layout[:] = h5py.VirtualSource(str(other), "z", (50, 3))
    path = tmp_path / "z.h5"
    with h5py.File(path, "w") as file:
        file["own"] = Z
        file["link"] = h5py.ExternalLink(str(other), "z")
        file["soft"] = h5py.SoftLink("/own")
        file["root"] = file["/"]
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("raw", (2, 2), "f8", external=[(str(other), 0, 32)])
    assert np.array_equal(read_rows(path, "root/own").numpy(), Z)
    for key in ("link", "soft", "root/link"):
        assert "links are not followed" in refusal(path, key)
    for key in ("virtual", "raw"):
        assert f"keeps the numbers of {key} in other files" in refusal(path, key)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chunks": (100, 100)}, "has no numbers in z, only a shape"),
        ({}, "has no numbers in z, only a shape"),
    ],
)
def test_shapes_without_numbers_ask_for_no_memory(tmp_path, options, words):
    with h5py.File(tmp_path / "z.h5", "w") as file:
        file.create_dataset("z", (10**9, 10**4), "f8", **options)
    assert words in refusal(tmp_path / "z.h5")


def test_what_unpacks_to_far_more_is_refused_before_it_is_read(tmp_path, monkeypatch):
    set_constant(monkeypatch, "formats.archives.FREE", 2**20)
    with h5py.File(tmp_path / "z.h5", "w") as file:
        file.create_dataset("z", data=np.zeros((10**4, 100)), chunks=(10**3, 100), compression="gzip")
    assert "more than embeddings do" in refusal(tmp_path / "z.h5")


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    path = saved(tmp_path / "z.h5", z=Z)
    monkeypatch.setattr(extras, "find_spec", lambda _name: None)
    assert "cannot be read without h5py: " in refusal(path)
    assert "pip install 'dyncollapse[hdf5]'" in refusal(path)
