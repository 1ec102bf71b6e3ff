import numpy as np
import pytest
import torch
from helpers.constants import set_constant
from helpers.readers import refusal

from dyncollapse.diagnostics.readers import read_rows
from dyncollapse.runtime import extras

pyarrow = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

Z = np.random.default_rng(0).normal(size=(50, 3))
COLUMNS = {f"emb_{k}": column for k, column in enumerate(Z.T)}


def saved(path, columns, **options):
    pq.write_table(columns if isinstance(columns, pyarrow.Table) else pyarrow.table(columns), path, **options)
    return path


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i2"])
@pytest.mark.parametrize("kind", ["columns", "lists", "fixed"])
def test_formats_are_kept(tmp_path, monkeypatch, dtype, kind):
    set_constant(monkeypatch, "formats.parquet.BLOCK", 21)  # several batches
    z = (10 * Z).astype(dtype)
    flat = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(z.ravel()), 3)
    columns = {"columns": {str(k): c for k, c in enumerate(z.T)}, "lists": {"z": list(z), "id": range(50)}}
    found = read_rows(saved(tmp_path / "z.parquet", columns.get(kind, {"z": flat}), row_group_size=20))
    assert torch.equal(found, torch.from_numpy(z))


def test_columns_are_chosen_as_in_text(tmp_path):
    path = saved(tmp_path / "z.parquet", COLUMNS | {"label": range(50), "file": ["x"] * 50})
    assert "no dimensions: label, file (text); choose the dimensions with key 'emb_*'" in refusal(path)
    assert np.array_equal(read_rows(path, "emb_*").numpy(), Z)
    assert np.array_equal(read_rows(path, "emb_1").numpy(), Z[:, 1:2])
    widest = saved(tmp_path / "mixed.parquet", {"a": Z[:, 0].astype("f4"), "b": Z[:, 1]})
    assert read_rows(widest).dtype == torch.float64
    assert read_rows(saved(tmp_path / "points.parquet", {"a.b": Z[:, 0], "a.c": Z[:, 1]})).shape == (50, 2)


def test_one_column_of_lists_is_taken_and_of_several_one_is_chosen(tmp_path):
    path = saved(tmp_path / "z.parquet", {"z": list(Z), "label": range(50), "text": ["x"] * 50})
    assert np.array_equal(read_rows(path).numpy(), Z)
    path = saved(tmp_path / "z.parquet", {"z": list(Z), "z_pos": list(-Z)})
    assert "has 2 columns of lists: z, z_pos; choose one with key NAME" in refusal(path)
    assert np.array_equal(read_rows(path, "z_pos").numpy(), -Z)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"a": [1.0, None]}, "has a null in column a, row 1"),
        ({"z": [[1.0], None]}, "has a null in column z, row 1"),
        ({"z": [None, [1.0]]}, "has no list in row 0 of column z"),
        ({"z": [[], [1.0]]}, "has an empty list in row 0 of column z"),
        ({"z": [[1.0, 2.0], [None, 3.0]]}, "has a null in column z, row 1"),
        ({"z": [[1.0, 2.0], [3.0]]}, "different lengths in column z: 1 numbers in row 1, 2 in row 0"),
        ({"z": [[[1.0]], [[2.0]]]}, "no dimensions: z (list<element: list<element: double>>)"),
        ({"a": [True, False]}, "no dimensions: a (bool)"),
        ({"a": np.zeros(0)}, "holds no rows"),
        (pyarrow.table([pyarrow.array([1.0])] * 2, names=["a", "a"]), "has two columns of one name"),
    ],
)
def test_what_is_not_rows_of_numbers_is_refused(tmp_path, columns, words):
    assert words in refusal(saved(tmp_path / "z.parquet", columns))


@pytest.mark.parametrize("kept", [0.2, 0.9, 0.999])
def test_truncated_file_is_refused(tmp_path, kept):
    path = saved(tmp_path / "z.parquet", COLUMNS)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    assert "is truncated: its footer is not in it" in refusal(path)


def test_what_unpacks_to_far_more_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = saved(tmp_path / "z.parquet", {"a": np.zeros(10**6)})
    set_constant(monkeypatch, "formats.archives.FREE", 2**20)
    assert "more than embeddings do" in refusal(path)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    path = saved(tmp_path / "z.parquet", COLUMNS)
    monkeypatch.setattr(extras, "find_spec", lambda _name: None)
    assert "cannot be read without pyarrow: " in refusal(path)
    assert "pip install 'dyncollapse[tables]'" in refusal(path)
