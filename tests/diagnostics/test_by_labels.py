import numpy as np
import pytest
import torch

from dyncollapse import SettingError, diagnose, diagnose_by
from dyncollapse.diagnostics.by_labels import MOST_CLASSES, class_places
from dyncollapse.diagnostics.label_files import read_labels

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 900)
X = RNG.normal(size=(900, 6))
X[Y == 1, 4:] *= 1e-4  # class 1 lies in four dimensions
VIEWS = [
    X + 0.3 * np.abs(X).mean(0) * RNG.normal(size=X.shape) * np.where(Y == 1, 1e-4, 1.0)[:, None] for _ in range(2)
]


def test_a_collapse_in_one_class_is_seen_in_that_class_alone():
    reports = diagnose_by(X, Y)
    assert reports.whole.collapsed == 0
    assert [row["collapsed"] for row in reports.rows()] == [0, 2, 0]
    assert sum(reports.samples.values()) == 900
    assert reports.sentence == "1 of 3 classes has more collapsed dimensions than the whole (0): 1 (2)."
    assert diagnose_by(X, Y * 0).sentence == "No class of 1 has more collapsed dimensions than the whole."


@pytest.mark.parametrize("positives", [None, VIEWS[1]])
def test_each_report_is_that_of_the_rows_of_its_class(positives):
    reports = diagnose_by(VIEWS[0], Y, positives, sample=100, space="z")
    assert reports.whole.as_values() == diagnose(VIEWS[0], positives, sample=100, space="z").as_values()
    for label, report in reports.classes.items():
        inside = label == Y
        other = None if positives is None else positives[inside]
        expected = diagnose(VIEWS[0][inside], other, sample=100, space="z")
        assert report.as_values() == expected.as_values()


def test_differences_between_classes_hide_what_collapsed_within_them():
    means = 3 * RNG.normal(size=(5, 4))
    y = RNG.integers(0, 5, 500)
    z = means[y] + RNG.normal(size=(500, 4)) * [1, 1, 1, 1e-4]
    reports = diagnose_by(z, y)
    assert reports.whole.collapsed == 0
    assert {row["collapsed"] for row in reports.rows()} == {1}


def test_inputs_are_those_of_the_class():
    z, z_pos = (torch.from_numpy(view) for view in VIEWS)
    y = torch.arange(len(z)) % 2
    reports = diagnose_by(z, y, z_pos, inputs=z, input_positives=z_pos)
    half = y == 0
    expected = diagnose(z[half], z_pos[half], inputs=z[half], input_positives=z_pos[half])
    assert reports.classes[0].as_values() == expected.as_values()


def test_small_classes_are_counted_and_say_so():
    reports = diagnose_by(X[:20], [*["b"] * 9, *["a"] * 11])
    assert reports.rows()[0]["class"] == "a"
    assert reports.rows()[1] == {
        "class": "b",
        "samples": 9,
        "collapsed": None,
        "effective_rank": None,
        "mechanism": "fewer than 10 samples",
    }
    values = reports.as_values()["by"]
    assert values[1]["report"] is None
    assert values[0]["report"]["verdict"]["collapsed"] == reports.classes["a"].collapsed
    assert "2 classes" in repr(reports)


@pytest.mark.parametrize(
    "labels",
    [Y, torch.from_numpy(Y), Y.tolist(), Y.astype("u1"), Y[:, None], Y.astype(str), [str(k) for k in Y], Y > 0],
)
def test_labels_of_every_kind(labels):
    places = class_places(labels, 900)
    assert torch.equal(torch.cat(list(places.values())).sort().values, torch.arange(900))
    assert all({str(np.asarray(labels).reshape(-1)[k]) for k in rows.tolist()} for rows in places.values())
    assert [len(rows) for rows in places.values()] in (
        [int((k == Y).sum()) for k in range(3)],
        [int((Y == 0).sum()), int((Y > 0).sum())],
    )


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (Y[:5], "there are 5 labels and 900 samples; label i must be that of row i"),
        (Y.astype(float), "labels are float64; give whole numbers or texts"),
        (X, r"labels have shape \(900, 6\); give one label per sample"),
        (np.arange(900) + 10**6, None),
        (np.array([object()] * 900), "labels hold objects"),
        (["x" * 101] * 900, "labels are texts of over 100 letters"),
    ],
)
def test_other_labels_are_refused(labels, words):
    if words is None:
        assert len(class_places(labels, 900)) == 900
        with pytest.raises(ValueError, match=f"have {MOST_CLASSES + 1} values, and at most {MOST_CLASSES} classes"):
            class_places(np.arange(MOST_CLASSES + 1), MOST_CLASSES + 1)
        return
    with pytest.raises(ValueError, match=words):
        diagnose_by(X, labels)


def test_errors_in_a_class_name_it_and_a_loss_is_refused():
    z = X.copy()
    z[Y == 2] = 1e300 * RNG.normal(size=z[Y == 2].shape)
    with pytest.raises(ValueError, match="overflow"):
        diagnose_by(z, Y)
    with pytest.raises(SettingError, match="leave it out with labels"):
        diagnose_by(X, Y, X, loss="dot", temperature=1.0)


# ------------------------------------------------------------------------------------------------------ files of labels


def written(path, labels):
    if path.suffix == ".npy":
        np.save(path, labels)
    elif path.suffix == ".npz":
        np.savez(path, z=X, y=labels)
    elif path.suffix == ".pt":
        torch.save({"z": torch.from_numpy(X), "y": torch.from_numpy(labels)}, path)
    else:
        path.write_text("".join(f"{one}\n" for one in labels))
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".csv", ".tsv"])
def test_whole_numbers_come_back(tmp_path, suffix):
    assert read_labels(written(tmp_path / f"y{suffix}", Y)).tolist() == Y.tolist()


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_texts_come_back(tmp_path, suffix):
    names = np.array(["cat", "dog", "größe"])[Y]
    assert read_labels(written(tmp_path / f"y{suffix}", names)).tolist() == names.tolist()


@pytest.mark.parametrize(
    ("text", "found"), [("label\n1\n2\n", [1, 2]), ("y\n1\n2\n", [1, 2]), ("a\nb\n", ["a", "b"]), ("3\n", [3])]
)
def test_headers_are_no_labels(tmp_path, text, found):
    (tmp_path / "y.csv").write_text(text)
    assert read_labels(tmp_path / "y.csv").tolist() == found


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("y.npy", X, "holds float64; labels are integers, or texts of at most 100 letters"),
        ("y.npy", np.array([["a", "b"]]), "has shape (1, 2); give one label per sample"),
        ("y.npy", np.array([{}]), "pickled objects"),
        ("y.npy", np.array(["x" * 101]), "labels are integers, or texts of at most 100 letters"),
        ("y.csv", "1,2\n3,4\n", "has 2 columns in line 1; give one column of labels"),
        ("y.csv", "label\n", "holds no labels"),
        ("y.csv", "a\n" + "x" * 101 + "\n", "holds texts of over 100 letters"),
        ("y.txt", "1\n", "ends in .txt"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_text(content) if isinstance(content, str) else np.save(path, content)
    with pytest.raises(ValueError, match=f"^{path} ") as caught:
        read_labels(path)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_labels_among_several_arrays_are_chosen_by_name(tmp_path):
    np.savez(tmp_path / "y.npz", a=Y, b=Y + 1)
    with pytest.raises(ValueError, match="has 2 arrays of one integer per sample; choose the labels as FILE:KEY"):
        read_labels(tmp_path / "y.npz")
    assert read_labels(tmp_path / "y.npz", "b").tolist() == (Y + 1).tolist()
    with pytest.raises(ValueError, match="has no column of integers of this name"):
        read_labels(tmp_path / "y.npz", "c")
