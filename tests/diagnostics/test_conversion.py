"""Arrays as people have them: taken without a copy where that can be, or refused in one line."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from dyncollapse import Monitor, diagnose
from dyncollapse.diagnostics.conversion import as_rows

ROWS = np.random.default_rng(0).standard_normal((40, 3))


class Frame:
    """What any library may give to NumPy."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


def read_only():
    rows = ROWS.copy()
    rows.flags.writeable = False
    return rows


def misaligned():
    return np.frombuffer(b"x" + ROWS.tobytes(), np.uint8)[1:].view("f8").reshape(ROWS.shape)


TAKEN = {
    "reversed": (ROWS[::-1], ROWS[::-1].copy()),
    "reversed columns": (ROWS[:, ::-1], ROWS[:, ::-1].copy()),
    "every second": (ROWS[::2], ROWS[::2].copy()),
    "Fortran": (np.asfortranarray(ROWS), ROWS),
    "transposed": (ROWS.T.copy().T, ROWS),
    "big-endian": (ROWS.astype(">f8"), ROWS),
    "big-endian single": (ROWS.astype(">f4"), ROWS.astype("f4")),
    "big-endian, reversed": (ROWS.astype(">f8")[::-1], ROWS[::-1].copy()),
    "half": (ROWS.astype("f2"), ROWS.astype("f2")),
    "read-only": (read_only(), ROWS),
    "misaligned": (misaligned(), ROWS),
    "field of records": (np.array([(tuple(row), 1) for row in ROWS], [("z", "f8", 3), ("y", "u1")])["z"], ROWS),
    "masked nowhere": (np.ma.masked_array(ROWS, False), ROWS),
    "list": (ROWS.tolist(), ROWS),
    "list of rows": (list(ROWS), ROWS),
    "tuple": (tuple(map(tuple, ROWS)), ROWS),
    "frame": (Frame(ROWS), ROWS),
    "memoryview": (memoryview(ROWS), ROWS),
    "int8": (np.arange(120, dtype="i1").reshape(40, 3), np.arange(120.0).reshape(40, 3)),
    "uint16, big-endian": (np.arange(120, dtype=">u2").reshape(40, 3), np.arange(120.0).reshape(40, 3)),
    "int64": (np.arange(120).reshape(40, 3), np.arange(120.0).reshape(40, 3)),
}


@pytest.mark.parametrize("name", TAKEN)
def test_arrays_that_are_taken(name):
    given, rows = TAKEN[name]
    found = as_rows(given)
    assert found.shape == rows.shape
    assert np.array_equal(found.double().numpy(), rows.astype("f8"))
    report = diagnose(given)
    assert report.samples == len(rows)
    assert torch.allclose(report.spectrum, diagnose(torch.from_numpy(rows.astype("f8"))).spectrum, rtol=1e-9)
    monitor = Monitor()
    monitor.update(given, given)
    assert monitor.compute().samples == len(rows)


@pytest.mark.parametrize("rows", [ROWS, ROWS.astype("f4"), np.asfortranarray(ROWS), ROWS[::2], read_only()])
def test_memory_is_shared_where_it_can_be(rows):
    assert as_rows(rows).data_ptr() == rows.__array_interface__["data"][0]


def test_tensors_are_left_as_they_are():
    rows = torch.ones(3, 2, requires_grad=True)
    assert as_rows(rows) is rows


REFUSED = {
    "truths": (ROWS > 0, "embeddings are bool; taken are float16"),
    "complex": (ROWS + 0j, "are complex; give real ones"),
    "objects": (ROWS.astype(object), "Python objects in a ndarray; give numbers of one type"),
    "mixed frame": (Frame(np.array([["a", 1.0]], dtype=object)), "Python objects in a Frame"),
    "text": (ROWS.astype("U"), "are str"),
    "dates": (ROWS.astype("M8[s]"), "are datetime64"),
    "records": (np.zeros((5, 3), [("a", "f4")]), "are void"),
    "masked": (np.ma.masked_less(ROWS, 0), "have masked values; leave out those rows"),
    "ragged": ([[1.0, 2.0], [3.0]], "cannot be taken as one array"),
    "list of tensors": ([torch.ones(2, 3)] * 4, "a list of 4 tensors; join batches with torch.cat, or rows with"),
    "dict": ({"z": ROWS}, "Python objects in a dict"),
    "nothing": (None, "are None; give numbers"),
    "path": ("rows.npy", "are the path 'rows.npy'; read it first: use read_rows(path)"),
    "Path": (Path("rows.npy"), "use read_rows(path)"),
    "sparse": (torch.eye(3).to_sparse(), "are a sparse_coo tensor; give a dense one"),
    "meta": (torch.ones(3, 3, device="meta"), "are a meta tensor"),
    "eight bits": (torch.ones(3, 3).to(torch.float8_e4m3fn), "are float8_e4m3fn; taken are"),
    "one number": (3.0, "have shape"),
    "one row": (ROWS[0], "have shape (3,); give one row per sample"),
    "three axes": (ROWS[None], "have shape (1, 40, 3)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arrays_that_are_refused(name):
    given, words = REFUSED[name]
    for take in (diagnose, lambda rows: Monitor().update(rows)):
        with pytest.raises(ValueError, match=r"^embeddings ") as caught:
            take(given)
        assert words in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_quantised_tensors_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in torch
        rows = torch.quantize_per_tensor(torch.ones(3, 3), 0.1, 0, torch.qint8)
    with pytest.raises(ValueError, match="embeddings are a quantised tensor"):
        diagnose(rows)


def test_inputs_are_named():
    with pytest.raises(ValueError, match=r"^inputs are complex"):
        diagnose(ROWS, ROWS, inputs=ROWS + 0j, input_positives=ROWS)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long double is double here")
def test_long_doubles_are_refused():
    with pytest.raises(ValueError, match=r"embeddings are (float|longdouble)\d*; taken are"):
        diagnose(ROWS.astype(np.longdouble))
