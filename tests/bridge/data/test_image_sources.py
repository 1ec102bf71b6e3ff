"""The same images from a folder, datasets of Hugging Face and webdataset shards: the same pixels, runs, bits."""

import pickle

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.bridge import ALONE, equal, small, states
from helpers.image_sources import as_folder, as_parquet, as_saved, as_shards, pictures, same_images

from dyncollapse.bridge import Progress, Skipped, open_data, pretrain
from dyncollapse.bridge.data.augmentations import CIFAR
from dyncollapse.bridge.data.batches import Order, batches_from_workers
from dyncollapse.bridge.data.images import hold
from dyncollapse.bridge.training.run_folder import read_run
from dyncollapse.commands.main import main

SPLITS = {"train": pictures(), "validation": pictures(2, seed=1)}
KINDS = ("saved", "parquet", "shards")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder of each kind, and caches of their own."""
    import datasets

    root = tmp_path_factory.mktemp("sources")
    as_folder(root / "files" / "train", SPLITS["train"])
    as_folder(root / "files" / "val", SPLITS["validation"])
    as_saved(root / "saved", SPLITS)
    as_parquet(root / "parquet", SPLITS)
    as_shards(root / "shards", SPLITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "cache" / "datasets")
        yield root


def recipe(folder, **given):
    settings = {"arch": "resnet10-narrow", "stem": "cifar", "augment": "cifar", "image_size": 16, "out_dim": 4}
    settings |= {"preset": "digits", "batch_size": 4, "checkpoint_every": 1, "log_every": 1, "pipeline": "mixed"}
    return small(**settings | {"data": str(folder)} | given)


@pytest.fixture(scope="module")
def run_on_files(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "files"
    pretrain(recipe(sources / "files"), folder, ALONE)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_labels_classes_and_splits_are_those_of_the_folder(kind, sources):
    files, data = open_data(str(sources / "files")), open_data(str(sources / kind), tell=str)
    assert (data.classes, data.train.channels, data.skipped) == (["cat", "dog"], 3, "")
    assert same_images(data.train, files.train)
    assert same_images(data.test, files.test)
    kept = torch.tensor([7, 0, 7])
    assert same_images(data.train.take(kept), files.train.take(kept))
    data.check_labels()


@pytest.mark.parametrize("kind", KINDS)
def test_training_on_the_same_images_ends_with_the_same_bits(kind, sources, run_on_files, tmp_path):
    pretrain(recipe(sources / kind), tmp_path / "run", ALONE)
    assert equal(states(tmp_path / "run"), states(run_on_files))
    facts, on_files = (dict(read_run(folder).facts) for folder in (tmp_path / "run", run_on_files))
    assert facts | {"data": ""} == on_files | {"data": ""}


def test_a_run_begun_on_a_folder_goes_on_with_its_images_in_shards_and_with_no_others(sources, run_on_files, tmp_path):
    def quit_at_two(done, _total):
        if done == 2:
            raise RuntimeError("gone")

    with pytest.raises(RuntimeError):
        pretrain(recipe(sources / "files"), tmp_path / "run", ALONE, Progress(step=quit_at_two))
    with pytest.raises(ValueError, match="data has 5 images, but this run began with 12"):
        pretrain(recipe(sources / "shards" / "set-train-0000.tar"), tmp_path / "run", ALONE)
    pretrain(recipe(sources / "shards"), tmp_path / "run", ALONE)
    assert equal(states(tmp_path / "run"), states(run_on_files))


@pytest.mark.parametrize("kind", ["saved", "shards"])
def test_worker_processes_read_the_same_batches(kind, sources):
    images, order = open_data(str(sources / kind)).train, Order(12, 4, 7)

    def made(workers):
        cpu = torch.device("cpu")
        batches = batches_from_workers(
            images, CIFAR, 16, order, steps=(0, 3), rows=slice(0, 4), device=cpu, workers=workers
        )
        return [torch.stack(batch.views) for batch in batches]

    assert all(torch.equal(one, other) for one, other in zip(made(0), made(2), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_images_survive_the_way_to_a_worker_that_is_no_fork(kind, sources):
    images = open_data(str(sources / kind)).train
    assert same_images(pickle.loads(pickle.dumps(images)), images)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_holds_what_is_read(kind, sources):
    images = open_data(str(sources / kind)).train
    held = hold(images, 32, Skipped(images, strict=True), threads=2)
    assert same_images(held, images)


def test_commands_take_each_kind(sources, tmp_path):
    run = [
        "--arch",
        "resnet10-narrow",
        "--stem",
        "cifar",
        "--augment",
        "cifar",
        "--image-size",
        "16",
        "--device",
        "cpu",
    ]
    run += ["--preset", "digits", "--epochs", "1", "--batch-size", "4", "--images", "8", "--out", str(tmp_path / "run")]
    runner = CliRunner()
    result = runner.invoke(main, ["bridge", "pretrain", "--data", str(sources / "shards"), *run])
    assert result.exit_code == 0, result.stderr
    embed = ["bridge", "embed", "--checkpoint", str(tmp_path / "run"), "--data", f"hf:{sources / 'parquet'}"]
    result = runner.invoke(main, [*embed, "--out", str(tmp_path / "rows")])
    assert result.exit_code == 0, result.stderr
    assert np.load(tmp_path / "rows" / "labels.npy").tolist() == [0, 0, 1, 1]
