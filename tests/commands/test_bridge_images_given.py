"""`embed`, `diagnose`, `probe` and `pretrain` on folders and pixels as people have them."""

import json
import os
import signal
import sys

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner
from helpers.bridge import write_images
from helpers.programs import refused
from PIL import Image

from dyncollapse.bridge.data.images import FolderImages
from dyncollapse.commands.main import main


def call(*arguments):
    return CliRunner().invoke(main, ["bridge", *map(str, arguments)])


def ended(result):
    """The lines of a refusal after others, of what was skipped and begun."""
    assert result.exit_code == 2, (result.stderr, result.exception)
    assert "Traceback" not in result.stderr
    *before, last = result.stderr.splitlines()
    assert last.startswith("dyncollapse: ")
    return before, last


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Options that name a tiny encoder."""
    path = tmp_path_factory.mktemp("encoder") / "tiny.pt"
    torch.manual_seed(0)
    backbone = timm.create_model("resnet18", num_classes=0, layers=(1, 1, 1, 1), channels=(16, 32, 64, 128))
    torch.save(backbone.state_dict(), path)
    return ["--checkpoint", path, "--arch", "resnet10-narrow", "--image-size", 32]


@pytest.fixture
def embed(encoder, tmp_path):
    def embedded(folder, *options):
        out = tmp_path / f"out-{len(os.listdir(tmp_path))}"
        result = call("embed", *encoder, "--space", "representation", "--data", folder, "--out", out, *options)
        return result, out

    return embedded


def pictures(folder, kind):
    """Twelve grey pictures, six brighter than the others, as files of a kind."""
    made = {
        "8 bits": lambda grey: (grey.round().astype(np.uint8), "png"),
        "16 bits": lambda grey: ((grey * 257).round().astype(np.uint16), "png"),
        "32 bits": lambda grey: ((grey * 257).round().astype(np.int32), "tif"),
        "floats": lambda grey: ((grey / 255).astype(np.float32), "tif"),
    }[kind]
    generator = np.random.default_rng(0)
    for label in range(2):
        (folder / str(label)).mkdir(parents=True)
        for number in range(6):
            pixels, suffix = made(np.clip(generator.normal(100 + 60 * label, 40, (32, 32)), 0, 255))
            Image.fromarray(pixels).save(folder / str(label) / f"{number}.{suffix}")
    return folder


def test_embeddings_do_not_depend_on_the_kind_of_pixels_nor_on_workers(embed, tmp_path):
    rows = []
    for kind, workers in (("8 bits", 0), ("16 bits", 0), ("16 bits", 1), ("32 bits", 0), ("floats", 1)):
        result, out = embed(pictures(tmp_path / f"{kind} {workers}", kind), "--workers", workers)
        assert result.exit_code == 0, result.stderr
        rows.append(np.load(out / "representation.npy"))
    assert np.array_equal(rows[1], rows[2])
    spread = rows[0].std(0).max()
    for other in rows[1:]:  # half a level of 255 each
        assert np.abs(other - rows[0]).max() < 0.05 * spread


def test_pixels_of_unknown_range_end_every_command_in_one_line(embed, encoder, tmp_path):
    folder = pictures(tmp_path / "set", "floats")
    for path in folder.rglob("*.tif"):
        Image.fromarray(np.asarray(Image.open(path)) * 255).save(path)
    (tmp_path / "both").mkdir()
    for split in ("train", "val"):
        os.symlink(folder if split == "train" else pictures(tmp_path / "val", "8 bits"), tmp_path / "both" / split)
    settings = "--device cpu --precision float32 --arch resnet10-narrow --stem cifar --augment cifar --image-size 16"
    pretrain = ["pretrain", *settings.split(), "--batch-size", 4, "--epochs", 1, "--warmup-epochs", 0]
    results = [embed(folder)[0], call("probe", *encoder, "--data", tmp_path / "both")]
    results += [
        call(*pretrain, "--data", folder, "--pipeline", pipeline, "--workers", 0, "--out", tmp_path / f"run-{pipeline}")
        for pipeline in ("memory", "mixed", "workers")
    ]
    for result in results:
        before, last = ended(result)
        assert before in ([], ["reading 12 images into memory"])
        assert "the range of such images is unknown" in last


def test_flat_folder_is_embedded_without_labels_and_trained_on(embed, encoder, tmp_path):
    folder = write_images(tmp_path / "set", 6) / "cat"
    (folder / ".DS_Store").write_text("")
    result, out = embed(folder)
    assert result.exit_code == 0, result.stderr
    assert f"--data {folder}: skipped 1 hidden or system file or folder (.DS_Store)\n" in result.stderr
    assert "Saved in" in result.stdout
    assert "labels.npy" not in result.stdout
    assert sorted(os.listdir(out)) == ["embed.json", "representation.npy"]
    assert json.loads((out / "embed.json").read_text())["files"] == ["representation.npy"]
    assert "have no classes, which a probe needs" in ended(call("probe", *encoder, "--data", folder))[1]
    result = call(
        *("pretrain", "--preset", "digits", "--data", folder, "--batch-size", 4, "--epochs", 1, "--warmup-epochs", 0),
        *("--workers", 1, "--pipeline", "mixed", "--no-tensorboard", "--out", tmp_path / "run"),
    )
    assert result.exit_code == 0, result.stderr
    assert "(.DS_Store)" in result.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["facts"]["classes"] == 0


def test_probe_says_what_its_labels_lack(encoder, tmp_path):
    for split in ("train", "val"):
        write_images(tmp_path / split, 2)
    (tmp_path / "train" / "dog").rename(tmp_path / "dog")
    (tmp_path / "train" / "dog").mkdir()
    before, last = ended(call("probe", *encoder, "--data", tmp_path))
    assert before == [f"--data {tmp_path}: skipped 1 folder without images (train/dog)"]
    assert "has training images of one class only; a probe needs two" in last


@pytest.mark.parametrize("method", ["logistic", "sgd"])
@pytest.mark.parametrize("damaged", ["train", "val"])
def test_probe_without_images_that_can_be_read(method, damaged, encoder, tmp_path):
    for split in ("train", "val"):
        write_images(tmp_path / split, 2)
    for path in (tmp_path / damaged).rglob("*.jpg"):
        path.write_bytes(b"no image")
    before, last = ended(call("probe", *encoder, "--data", tmp_path, "--method", method))
    assert not [line for line in before if line.startswith("skipped: ")]  # the refusal says it
    assert "none of the 4 images can be read, the first: " in last


@pytest.mark.skipif(sys.platform != "linux", reason="worker processes see this process's images where they are forked")
def test_worker_that_is_killed_ends_in_one_line(embed, tmp_path, monkeypatch):
    monkeypatch.setattr(FolderImages, "read", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    result, _ = embed(write_images(tmp_path / "set", 2), "--workers", 1)
    assert "a process that reads images was killed" in refused(result)
