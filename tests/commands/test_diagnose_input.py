"""`dyncollapse diagnose` on files good and bad, as a user calls it."""

import numpy as np
import pytest
import torch
from helpers.diagnose_command import SAVED, as_json, fine
from helpers.programs import refused

# ------------------------------------------------------------------------------------------------------------ odd files


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.random.default_rng(1).standard_normal((50, 1)), "No dimension of 1 collapsed"),
        (np.random.default_rng(1).standard_normal((50, 2)), "No dimension of 2 collapsed"),
        (np.random.default_rng(1).standard_normal((2, 5)), "warning: 2 samples of 5 dimensions"),
        (np.random.default_rng(1).standard_normal((2, 1)), "2 samples are fewer than 10 x 1"),
        (np.ones((50, 4), "f4"), "nothing varies"),
        (np.zeros((50, 4), "f4"), "nothing varies"),
        (np.random.default_rng(1).integers(-9, 9, (60, 4)).astype("i2"), "int16"),
        (np.random.default_rng(1).standard_normal((60, 4)).astype("f2"), "values are rounded to float16"),
        (np.random.default_rng(1).standard_normal((60, 4)) * 1e-30, "No dimension of 4 collapsed"),
        (np.random.default_rng(1).standard_normal((60, 4)) * 1e100, "No dimension of 4 collapsed"),
    ],
    ids=["d=1", "d=2", "n=2", "n=2,d=1", "constant", "zero", "integers", "half", "tiny", "huge"],
)
def test_odd_arrays_are_told_in_every_form(diagnose, tmp_path, array, words):
    np.save("odd.npy", array)
    assert words in fine(diagnose("odd.npy", "--out", "saved")).stdout
    assert {path.name for path in (tmp_path / "saved").iterdir()} == SAVED
    found = as_json((tmp_path / "saved/diagnosis.json").read_text())
    assert (found["samples"], found["dim"]) == array.shape
    assert not [warning for warning in found["warnings"] if "last 0 variances" in warning]
    assert len((tmp_path / "saved/spectrum.csv").read_text().splitlines()) == 1 + array.shape[1]
    same_views = ("--positives", "odd.npy") * 2
    assert as_json(fine(diagnose("odd.npy", *same_views, "--json")).stdout)["dim"] == array.shape[1]


NAMES = ["[red]x[/nope].npy", "a b.npy", "new\nline.npy", "x\x1b[31m.npy", "<script>alert(1)<&.npy", "Zürich ±.npy"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_are_shown_and_not_interpreted(diagnose, folder, name):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.load("a.npy"))
    first = fine(diagnose(name, "--positives", name, "--space", "[red]s[/nope]")).stdout.splitlines()[0]
    plain = name.replace("\n", r"\n").replace("\x1b", r"\x1b")
    assert first == f"{plain}: 400 samples x 12 dimensions, float32, not normalised, [red]s[/nope]"
    assert as_json(fine(diagnose(path, "--json")).stdout)["config"]["file"] == str(path)
    page = fine(diagnose(path, "--html")).stdout
    assert "<script" not in page
    assert page.isascii()


# ------------------------------------------------------------------------------------------------------------ bad input


def refuse(options, words):
    return pytest.param(options, words, id=" ".join(options))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        refuse([], "Missing argument 'FILE'"),
        refuse(["missing.npy"], "missing.npy does not exist"),
        refuse(["."], ". holds "),
        refuse(["bytes.npy"], "bytes.npy is an empty file"),
        refuse(["none.npy"], "of shape (0, 4)"),
        refuse(["row.npy"], "at least 2 rows"),
        refuse(["flat.npy"], "flat.npy has shape (3,)"),
        refuse(["cube.npy"], "cube.npy has shape (2, 3, 4)"),
        refuse(["objects.npy"], "pickled objects"),
        refuse(["model.pt"], "looks like a model"),
        refuse(["nan.npy"], "hold 3 NaN or infinite number(s), the first in row 3, column 2"),
        refuse(
            ["a.npy", "--positives", "nan12.npy"], "hold 1 NaN or infinite number(s), the first in row 399, column 11"
        ),
        refuse(["overflow.npy"], "squares overflow"),
        refuse(
            ["a.npy", "--positives", "small.npy"],
            "small.npy has shape (50, 2), and a.npy (400, 12); give the same samples",
        ),
        refuse(
            ["a.npy", "--positives", "b.npy", "--positives", "small.npy"],
            "small.npy has shape (50, 2), and a.npy (400, 12); give the same samples",
        ),
        refuse(["a.npy", "--positives", "missing.npy"], "missing.npy does not exist"),
        refuse(["a.npy", "--inputs", "a.npy"], "--inputs and --input-positives go together"),
        refuse(["a.npy", "--input-positives", "a.npy"], "--inputs and --input-positives go together"),
        refuse(["a.npy", "--inputs", "small.npy", "--input-positives", "small.npy"], "50 inputs and 400 embeddings"),
        refuse(["a.npy", "--loss", "infonce"], "give the other view"),
        refuse(["a.npy", "--positives", "b.npy", "--loss", "hinge"], "'hinge'; choose one of"),
        refuse(["a.npy", "--positives", "b.npy", "--views", "both"], "'both'; choose one of"),
        refuse(["a.npy", "--views", "one-sided"], "there are none; give --positives"),
        refuse(
            ["a.npy", "--positives", "b.npy", "--loss", "ntxent", "--temperature", "0"],
            "--temperature is 0.0; it must be",
        ),
        refuse(["a.npy", "--positives", "b.npy", "--loss", "infonce", "--temperature", "1"], "infonce loss has none"),
        refuse(
            ["a.npy", "--positives", "b.npy", "--loss", "ntxent", "--views", "one-sided"], "it needs --views two-sided"
        ),
        refuse(["a.npy", "--sample", "1"], "--sample is 1; it must be between 2 and 1e9 rows"),
        refuse(["a.npy", "--sample", "many"], "--sample is 'many'; it takes a whole number"),
        refuse(["a.npy", "--seed", "99999999999999999999"], "--seed"),
        refuse(["a.npy", "--key", "z"], "leave out --key"),
        refuse(["two.npz"], "choose one with --key"),
        refuse(["two.npz", "--key", "z"], "no array named z"),
        refuse(["a.npy", "--nonsense"], "No such option"),
        refuse(["a.npy", "--out", "full"], "full already holds files"),
        refuse(["a.npy", "--out", "a.npy"], "cannot be written"),
        refuse(["a.npy", "--out", "a.npy/below"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_2_and_leaves_nothing(diagnose, folder, options, words):
    (folder / "bytes.npy").touch()
    bad = np.ones((20, 4))
    bad[3, 2], bad[3, 3], bad[10, 1] = np.nan, np.inf, -np.inf
    late = np.load("b.npy")
    late[-1, -1] = np.inf
    arrays = {"none": np.ones((0, 4)), "row": np.ones((1, 4)), "flat": np.ones(3), "cube": np.ones((2, 3, 4))}
    arrays |= {"objects": np.array([[1, "a"]], dtype=object), "small": np.ones((50, 2)), "nan": bad, "nan12": late}
    arrays["overflow"] = np.array([[1e200, 1.0], [-1e200, 2.0]])
    for name, array in arrays.items():
        np.save(f"{name}.npy", array, allow_pickle=True)
    np.savez("two.npz", x=np.ones((5, 2)), y=np.ones((5, 2)))
    torch.save(torch.nn.Linear(3, 3).state_dict(), "model.pt")
    (folder / "full").mkdir()
    (folder / "full/mine").touch()
    before = sorted(folder.rglob("*"))
    out = [] if "--out" in options or not options else ["--out", "new"]
    assert words in refused(diagnose(*options, *out))
    assert sorted(folder.rglob("*")) == before
