import numpy as np
import pytest
import torch
from helpers.constants import set_constant
from helpers.readers import ROWS, refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from dyncollapse.diagnostics.readers import described_rows, read_rows

pandas = pytest.importorskip("pandas")
Z = np.random.default_rng(0).normal(size=(7, 3))
FRAME = pandas.DataFrame(Z, columns=["emb_0", "emb_1", "emb_2"])


def text(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("suffix", "mark", "header"),
    [(".csv", ",", ""), (".csv", ";", "a;b;c"), (".csv", "\t", "a\tb\tc"), (".tsv", "\t", "")],
)
def test_numbers_come_back_exactly(tmp_path, suffix, mark, header):
    np.savetxt(tmp_path / f"z{suffix}", Z, fmt="%.17g", delimiter=mark, header=header, comments="")
    assert torch.equal(read_rows(tmp_path / f"z{suffix}"), torch.from_numpy(Z))
    np.savetxt(tmp_path / f"z{suffix}", Z, fmt="%.17g", delimiter=mark, header="a b c".replace(" ", mark))  # "# a..."
    assert torch.equal(read_rows(tmp_path / f"z{suffix}"), torch.from_numpy(Z))


@settings(max_examples=60)
@given(
    rows=st.integers(1, 6),
    width=st.integers(1, 5),
    data=st.data(),
    header=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from(",;\t"),
)
def test_any_numbers_come_back(tmp_path_factory, rows, width, data, header, end, mark):
    numbers = data.draw(st.lists(st.floats(allow_nan=False), min_size=rows * width, max_size=rows * width))
    z = np.array(numbers).reshape(rows, width)
    lines = [mark.join(map(repr, row)) for row in z.tolist()]
    names = [mark.join(f'"d {k}"' for k in range(width))] if header else []
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(end.join([*names, *lines, ""]), newline="")
    found = described_rows(path, "*").load()
    assert np.array_equal(found.numpy(), z)


def test_blocks_join_to_the_whole(tmp_path, monkeypatch):
    set_constant(monkeypatch, "formats.delimited.BLOCK", 6)
    path = tmp_path / "z.csv"
    FRAME.assign(label=1, name="x").to_csv(path, index=False)
    assert np.array_equal(read_rows(path, "emb_*").numpy(), Z)
    text(path, "1,2,3\n" * 4 + "1,2\n" * 2)
    assert "has 2 columns in line 5, and 3 before" in refusal(path)
    text(path, "a,b,c\n" + "1,2,3\n" * 4 + "1,x,3\n")
    assert "holds 'x' in line 6, column b; give a number everywhere" in refusal(path)


def test_frames_as_pandas_saves_them(tmp_path):
    path = tmp_path / "z.csv"
    numbered = pandas.DataFrame(Z)
    numbered.to_csv(path, index=False)
    assert read_rows(path).shape == (7, 3)
    numbered.to_csv(path)
    assert "column 1 (no name); choose the dimensions with key '[0-9]*'" in refusal(path)
    assert np.array_equal(read_rows(path, "[0-9]*").numpy(), Z)
    numbered.to_csv(path, header=False)
    assert "counts its rows from 0 in its first column, as an index does" in refusal(path)
    assert read_rows(path, "*").shape == (7, 4)
    assert np.array_equal(read_rows(path, "[1-3]").numpy(), Z)
    FRAME.assign(label=1, file="a.png").to_csv(path, index=False)
    assert "no dimensions: label, file (text); choose the dimensions with key 'emb_*'" in refusal(path)
    FRAME.to_csv(path, sep=";", decimal=",", index=False)
    assert "writes numbers with a comma (0," in refusal(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1,2,3\n4,5\n", "has 2 columns in line 2, and 3 before; give every row as many"),
        ("1,2\n3,4,5\n", "has 3 columns in line 2, and 2 before"),
        ("1,2\n,4\n", "has no number in line 2, column 1"),
        ("1,\n3,4\n", "has no number in line 1, column 2"),
        ("a,b\n1,2\n3,NA\n", "holds 'NA' in line 3, column b; give a number everywhere"),
        ("1,2\n1_0,4\n", "holds '1_0' in line 2, column 1"),
        ("1,2\n\n3,4\n", "has an empty line before line 3"),
        ("a,b\n", "holds a header and no rows"),
        ("\n\n", "holds no rows"),
        ("a,b,c\n1,2\n", "names 3 columns, but its first row has 2"),
        ("cat,0.1\ndog,0.2\n", "no dimensions: column 1 (no name) (text); leave them out, or name the columns"),
        ("1.0 2.0\n3.0 4.0\n", "separates numbers by spaces; save it with commas"),
        ('"1,2\n3,4\n', "has a quotation mark without its second in line 1"),
        ("1,2\n".encode("utf-16"), "is in UTF-16 or UTF-32"),
        ("é,b\n1,2\n".encode("latin-1"), "is no text in UTF-8"),
        ("1,2\n3,\x1b[31m\n", r"holds '\x1b[31m' in line 2, column 2"),
    ],
)
def test_what_is_not_rows_of_numbers_is_refused(tmp_path, content, words):
    assert words in refusal(text(tmp_path / "z.csv", content))


@pytest.mark.parametrize(
    "content",
    [
        "1,2\n3,4",
        "1,2\r\n3,4\r\n",
        "1,2\r3,4\r",
        "1,2\n3,4\n\n\n",
        b"\xef\xbb\xbf1,2\n3,4\n",
        ' 1,"2"\n3, 4\n',
        "a,b\n1,2\n3,4",
    ],
)
def test_the_same_numbers_however_they_are_written(tmp_path, content):
    assert read_rows(text(tmp_path / "z.csv", content)).tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_nan_is_a_number_that_the_diagnosis_refuses_with_its_place(tmp_path):
    assert read_rows(text(tmp_path / "z.csv", "1,2\nnan,4\n"))[1, 0].isnan()


def test_text_is_not_taken_for_other_formats_nor_they_for_text(tmp_path):
    np.save(tmp_path / "z.npy", ROWS.numpy())
    (tmp_path / "z.npy").rename(tmp_path / "z.csv")
    assert "is a .npy file by its content, not a .csv; rename it" in refusal(tmp_path / "z.csv")


def test_memory_is_checked_before_it_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("dyncollapse.formats.archives.available_memory", lambda: 2**20)
    assert "does not fit into memory" in refusal(text(tmp_path / "z.csv", "1,2\n"))
