"""`dyncollapse diagnose` on tables, shards, labels and tokens, as a user calls it."""

import numpy as np
import pytest
import torch
from helpers.diagnose_command import as_json, fine
from helpers.programs import refused

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 600)
Z = RNG.normal(size=(600, 6))
Z[Y == 1, 4:] *= 1e-4
WORKERS = ("--workers", "2")
Z_POS = Z * (1 + 0.1 * RNG.normal(size=Z.shape))


@pytest.fixture
def files(diagnose, tmp_path):  # noqa: ARG001, it changes the folder
    """Embeddings, labels and tokens in the current folder."""
    np.save("z.npy", Z)
    np.save("z_pos.npy", Z_POS)
    np.save("y.npy", Y)
    np.save("tokens.npy", Z[:300].reshape(60, 5, 6))
    for name, z in (("z", Z), ("z_pos", Z_POS)):
        (tmp_path / name).mkdir()
        for number, part in enumerate(np.split(z, [1, 350])):
            np.save(tmp_path / name / f"part-{number + 9}.npy", part)


@pytest.mark.usefixtures("files")
def test_a_folder_of_shards_is_reported_as_the_file(diagnose):
    for views in ((), ("--positives",)):
        whole = as_json(fine(diagnose("z.npy", *(views and (*views, "z_pos.npy")), "--json")).stdout)
        shards = as_json(fine(diagnose("z", *(views and (*views, "z_pos")), "--json")).stdout)
        assert shards["verdict"]["sentence"] == whole["verdict"]["sentence"]
        assert np.allclose(shards["spectrum"], whole["spectrum"], rtol=1e-10)
        assert shards["config"]["file"] == "z"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("z", "--svd"), "--svd takes all rows at once, but z is a folder of shards; leave it out, or join them"),
        (("z", "--positives", "z_pos", "--loss", "infonce"), "--loss takes all rows at once"),
        (("z", "--compare"), "--compare takes all rows at once"),
        (("z", "--by", "y.npy"), "--by takes all rows at once"),
        (("z", "--tokens", "all"), "--tokens takes all rows at once"),
        (
            ("z", "--positives", "z_pos.npy"),
            "--positives z_pos.npy is no folder; give one with",
        ),
        (("z.npy", "--positives", "z_pos"), "z_pos is a directory; give a file"),
        (("z.npy", "--workers", "2"), "--workers is for a folder of shards; give one, or leave it out"),
        (("z", "--workers", "0"), "--workers is 0"),
        (("z", "--scheduler", "tcp://x:1"), "--scheduler belongs to --executor dask"),
        (
            ("tokens.npy",),
            "tokens.npy has shape (60, 5, 6), as tokens of images have; say how to",
        ),
        (("z.npy", "--tokens", "all"), "z.npy has shape (600, 6); --tokens takes (images, tokens, dimensions)"),
        (
            ("tokens.npy", "--tokens", "all", "--by", "y.npy"),
            "--by takes one row per label; give --tokens acr",
        ),
        (("tokens.npy", "--tokens", "per-image", "--svd"), "--tokens per-image takes neither --svd nor --loss"),
        (("z.npy", "--by", "z.npy"), "z.npy holds float64; labels are integers"),
        (("z.npy", "--by", "none.npy"), "none.npy does not exist"),
        (("z.npy", "--positives", "z_pos.npy", "--by", "y.npy", "--loss", "infonce"), "--loss weights negatives"),
    ],
)
def test_what_excludes_each_other_is_refused(diagnose, arguments, words):
    assert words in refused(diagnose(*arguments))


@pytest.mark.usefixtures("files")
def test_classes_are_a_table_json_and_part_of_the_page(diagnose, tmp_path):
    found = fine(diagnose("z.npy", "--by", "y.npy", "--out", "saved"))
    table = [line.split() for line in found.stdout.splitlines()]
    assert ["class", "samples", "collapsed", "effective", "rank", "mechanism"] in table
    assert next(row for row in table if row[:1] == ["1"] and len(row) > 5)[2:5] == ["2", "of", "6"]
    sentence = "1 of 3 classes has more collapsed dimensions than the whole (0): 1 (2)."
    assert table[-2] == sentence.split()
    assert sentence in (tmp_path / "saved/report.html").read_text()
    by = as_json((tmp_path / "saved/diagnosis.json").read_text())["by"]
    assert [(one["class"], one["collapsed"], one["samples"]) for one in by] == [
        (k, 2 * (k == 1), int((k == Y).sum())) for k in range(3)
    ]
    assert by[1]["report"]["verdict"]["collapsed"] == 2
    assert "Within each class" in (tmp_path / "saved/report.html").read_text()


@pytest.mark.usefixtures("files")
def test_labels_in_an_array_of_a_file_and_of_many_classes(diagnose):
    np.savez("y.npz", y=np.arange(600) // 10, w=Y)
    shown = fine(diagnose("z.npy", "--by", "y.npz:y")).stdout
    assert "and 20 classes with no more collapsed dimensions than these" in shown


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("way", ["per-image", "all", "across-images"])
def test_tokens_are_taken_in_three_ways(diagnose, way):
    found = as_json(fine(diagnose("tokens.npy", "--tokens", way, "--json")).stdout)
    assert found["samples"] == (60 if way == "across-images" else 300)
    assert found["conventions"]["tokens"].startswith(way)
    assert found["config"]["tokens"] == way


@pytest.mark.usefixtures("files")
def test_classes_of_the_means_of_tokens(diagnose):
    np.save("y60.npy", np.arange(60) % 2)
    found = as_json(fine(diagnose("tokens.npy", "--tokens", "across-images", "--by", "y60.npy", "--json")).stdout)
    assert [one["samples"] for one in found["by"]] == [30, 30]


@pytest.mark.usefixtures("files")
def test_tables_and_batches_are_read(diagnose):
    np.savetxt("z.csv", Z, delimiter=",", fmt="%.17g")
    torch.save(list(torch.from_numpy(Z).split(250)), "z.pt")
    torch.save([torch.from_numpy(Z), torch.from_numpy(Z_POS)], "views.pt")
    expected = fine(diagnose("z.npy")).stdout.splitlines()[1:]
    for name in ("z.csv", "z.pt"):
        assert fine(diagnose(name)).stdout.splitlines()[1:] == expected
    assert "join batches as FILE:*, or take views as FILE:0 with --positives FILE:1" in refused(diagnose("views.pt"))
    assert "1200 samples" in fine(diagnose("views.pt:*")).stdout
    both = fine(diagnose("views.pt:0", "--positives", "views.pt:1")).stdout
    assert both.splitlines()[1:] == fine(diagnose("z.npy", "--positives", "z_pos.npy")).stdout.splitlines()[1:]


@pytest.mark.slow
@pytest.mark.usefixtures("files")
def test_workers_change_nothing(diagnose):
    alone, shared = (fine(diagnose("z", "--positives", "z_pos", "--json", *more)).stdout for more in ((), WORKERS))
    assert as_json(alone) == as_json(shared)
