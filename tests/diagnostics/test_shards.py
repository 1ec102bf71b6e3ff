import math
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.constants import set_constant
from safetensors.torch import save_file

from dyncollapse import Workers, dask_workers, diagnose, diagnose_shards, local_workers, slurm_workers
from dyncollapse.diagnostics import shards
from dyncollapse.diagnostics.shard_files import Shard, find_shards

CUTS = (0, 1, 700, 703, 2000, 2001, 5000)
X = np.random.default_rng(0).normal(size=(5000, 6)) * [1, 1, 1, 1, 1e-3, 1e-3]
VIEWS = [X + 0.3 * X.std(0) * np.random.default_rng(k).normal(size=X.shape) for k in (1, 2, 3)]


def cut(folder, z, save=np.save, suffix=".npy", cuts=CUTS):
    """Save rows as shards whose names are in order only if their numbers are compared as numbers."""
    folder.mkdir()
    for number, (begin, end) in enumerate(pairwise(cuts)):
        save(folder / f"part-{number + 7}{suffix}", z[begin:end])
    return folder


def same(found, expected, tolerance=1e-8):
    """Whether two reports have the same values, numbers up to rounding."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=tolerance, abs_tol=1e-14)
    return found == expected


@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("sample", [100, 4096])
def test_shards_give_the_report_of_the_joined_rows(tmp_path, views, sample):
    folder, *others = [cut(tmp_path / f"view{k}", view) for k, view in enumerate(VIEWS[:views])]
    expected = diagnose(VIEWS[0], VIEWS[1:views] or None, sample=sample).as_values()
    assert same(diagnose_shards(folder, others, sample=sample).as_values(), expected)


def test_rows_that_are_fewer_than_dimensions_stay_exact(tmp_path):
    z = np.random.default_rng(0).normal(size=(20, 50))
    folder = cut(tmp_path / "z", z, cuts=(0, 3, 11, 20))
    assert same(diagnose_shards(folder).as_values(), diagnose(z).as_values())


@pytest.mark.parametrize("parts", [1, 2, 100])
def test_any_number_of_parts_and_workers_gives_the_same(tmp_path, monkeypatch, parts):
    folder, other = cut(tmp_path / "z", VIEWS[0]), cut(tmp_path / "z_pos", VIEWS[1])
    set_constant(monkeypatch, "diagnostics.shards.PARTS", parts)
    alone = diagnose_shards(folder, other).as_values()
    assert same(alone, diagnose(VIEWS[0], VIEWS[1]).as_values())
    for count in (1, 3):
        workers = Workers(lambda count=count: ThreadPoolExecutor(count), count)
        assert diagnose_shards(folder, other, workers=workers).as_values() == alone


def test_the_sample_and_the_halves_belong_to_the_seed(tmp_path):
    folder, other = cut(tmp_path / "z", VIEWS[0]), cut(tmp_path / "z_pos", VIEWS[1])
    first, second = (diagnose_shards(folder, other, sample=50, seed=seed) for seed in (0, 1))
    assert first.intervals["rankme"] != second.intervals["rankme"]
    assert math.isclose(first.measures["rankme"], second.measures["rankme"], rel_tol=1e-9)
    assert same(second.as_values(), diagnose(VIEWS[0], VIEWS[1], sample=50, seed=1).as_values())


def as_safetensors(path, z):
    save_file({"z": torch.from_numpy(z.copy())}, path)


@pytest.mark.parametrize(
    ("suffix", "save"),
    [
        (".safetensors", as_safetensors),
        (".pt", lambda path, z: torch.save(torch.from_numpy(z), path)),
        (".npz", lambda path, z: np.savez_compressed(path, z=z, labels=np.arange(len(z)))),
        (".csv", lambda path, z: np.savetxt(path, z, fmt="%.17g", delimiter=",")),
    ],
)
def test_shards_of_every_format(tmp_path, suffix, save):
    folder = cut(tmp_path / "z", X, save, suffix)
    (folder / "model.safetensors.index.json").write_text("{}")
    (folder / "_SUCCESS").touch()
    (folder / ".hidden.npy").touch()
    report = diagnose_shards(folder)
    expected = diagnose(X)
    assert same(report.as_values()["spectrum"], expected.as_values()["spectrum"])
    assert report.notes[-1] == "files of other formats were left out: model.safetensors.index.json"


def test_names_are_in_order_of_their_numbers(tmp_path):
    for name in ("b.npy", "a10.npy", "a9.npy", "a009b2.npy", "a9b10.npy", f"a{'9' * 100}.npy"):
        np.save(tmp_path / name, X[:2])
    found = [shard.paths[0].name for shard in find_shards(tmp_path)[0]]
    assert found == ["a9.npy", "a009b2.npy", "a9b10.npy", "a10.npy", f"a{'9' * 100}.npy", "b.npy"]
    assert find_shards(tmp_path)[0][1] == Shard((tmp_path / "a009b2.npy",), None, 2, 2)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: np.save(f / "part-9.npy", X[:4, :3]), "part-9.npy holds 3 columns of float64, and "),
        (lambda f: np.save(f / "part-9.npy", X[:4].astype("f4")), "part-9.npy holds 6 columns of float32, and "),
        (lambda f: np.save(f / "part-9.npy", X[0]), "part-9.npy has shape (6,); give one row per sample"),
        (lambda f: (f / "part-9.npy").write_bytes(b"\x93NUMPY"), "part-9.npy is damaged or truncated"),
        (lambda f: torch.save(X, f / "more.pt"), " holds .npy and .pt files; give a folder of one format"),
        (lambda f: (f / "inside").mkdir(), " holds the folder inside; give one with files alone"),
        (lambda f: os.mkfifo(f / "pipe.npy"), "pipe.npy is not a regular file"),
        (lambda f: [path.unlink() for path in f.iterdir()], " holds no file of embeddings; give a folder of shards"),
    ],
)
def test_what_does_not_belong_together_is_named(tmp_path, spoil, words):
    folder = cut(tmp_path / "z", X)
    spoil(folder)
    with pytest.raises(ValueError, match=f"^{folder}") as caught:
        diagnose_shards(folder)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_views_are_shards_of_the_same_names_and_rows(tmp_path):
    folder, other = cut(tmp_path / "z", VIEWS[0]), cut(tmp_path / "z_pos", VIEWS[1])
    np.save(other / "part-9.npy", X[:4])
    with pytest.raises(ValueError, match=r"z_pos/part-9.npy has shape \(4, 6\), and \S+/z/part-9.npy \(3, 6\); give"):
        diagnose_shards(folder, other)
    (other / "part-9.npy").unlink()
    with pytest.raises(ValueError, match=r"/z has part-9.npy, and \S+/z_pos has not; give folders with files"):
        diagnose_shards(folder, [other])


@pytest.mark.parametrize("workers", [None, Workers(lambda: ThreadPoolExecutor(2), 2)])
def test_a_shard_with_nan_names_itself(tmp_path, workers):
    folder, other = cut(tmp_path / "z", VIEWS[0]), cut(tmp_path / "z_pos", VIEWS[1])
    spoilt = VIEWS[1][2001:].copy()
    spoilt[7, 3], spoilt[9] = np.nan, np.inf
    np.save(other / "part-12.npy", spoilt)
    with pytest.raises(ValueError, match=r"z_pos/part-12.npy holds 7 NaN or infinite number\(s\), the first in row 7"):
        diagnose_shards(folder, other, workers=workers)


def die(_part, options, threads):  # noqa: ARG001
    os._exit(options.seed + 1)


def test_a_worker_that_dies_names_its_shard(tmp_path, monkeypatch):
    folder = cut(tmp_path / "z", X, cuts=(0, 5000))
    monkeypatch.setattr(shards, "sum_part", die)
    workers = Workers(lambda: ProcessPoolExecutor(1), 1)
    with pytest.raises(ValueError, match=r"part-7.npy could not be summed: the worker died twice"):
        diagnose_shards(folder, workers=workers)


def test_progress_counts_rows(tmp_path):
    seen = []
    diagnose_shards(cut(tmp_path / "z", X), progress=lambda *step: seen.append(step))
    assert seen[-1] == ("embeddings", 5000, 5000)
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})


@pytest.mark.parametrize("kind", ["local", "dask", "submitit"])
@pytest.mark.slow
def test_every_executor_gives_the_same_report(kind, tmp_path):
    start = {
        "local": lambda: local_workers(2),
        "dask": lambda: dask_workers(1),  # each imports PyTorch
        "submitit": lambda: slurm_workers(tmp_path / "slurm", 2, cluster="local"),
    }
    folder, other = (cut(tmp_path / name, view, cuts=(0, 2000, 5000)) for name, view in zip("zp", VIEWS, strict=False))
    found = diagnose_shards(folder, other, workers=start[kind]()).as_values()
    assert same(found, diagnose(VIEWS[0], VIEWS[1]).as_values())
