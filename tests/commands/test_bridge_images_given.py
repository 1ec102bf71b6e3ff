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
from helpers.programs import changed, refused
from PIL import Image

from dyncollapse.bridge.data.image_sets import FolderImages
from dyncollapse.bridge.data.pixels import Unreadable
from dyncollapse.commands.main import main

pytestmark = pytest.mark.usefixtures("sketched")


def call(*arguments):
    return CliRunner().invoke(main, ["bridge", *map(str, arguments)])


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
        assert "the range of such images is unknown" in refused(result)


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
    assert "have no classes, which a probe needs" in refused(call("probe", *encoder, "--data", folder))
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
    last = refused(call("probe", *encoder, "--data", tmp_path))
    assert "one class only; a probe needs two; skipped: 1 folder without images (train/dog)" in last


@pytest.mark.parametrize("method", ["logistic", "sgd"])
@pytest.mark.parametrize("damaged", ["train", "val"])
def test_probe_without_images_that_can_be_read(method, damaged, encoder, tmp_path):
    for split in ("train", "val"):
        write_images(tmp_path / split, 2)
    for path in (tmp_path / damaged).rglob("*.jpg"):
        path.write_bytes(b"no image")
    last = refused(call("probe", *encoder, "--data", tmp_path, "--classifier", method))
    assert "none of the 4 images can be read, the first: " in last


@pytest.mark.skipif(sys.platform != "linux", reason="worker processes see this process's images where they are forked")
def test_worker_that_is_killed_ends_in_one_line(embed, tmp_path, monkeypatch):
    monkeypatch.setattr(FolderImages, "read", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    result, _ = embed(write_images(tmp_path / "set", 2), "--workers", 1)
    assert "a process that reads images was killed" in refused(result)


TRAINING = "--device cpu --precision float32 --arch resnet10-narrow --stem cifar --augment cifar --image-size 16"
TRAINING = (*TRAINING.split(), "--batch-size", 4, "--warmup-epochs", 0, "--projector", "none", "--no-tensorboard")


@pytest.fixture
def damaged(tmp_path):
    """An image folder with a hidden file and one image that is none."""
    folder = write_images(tmp_path / "set", 6)
    (folder / ".DS_Store").write_text("")
    (folder / "dog" / "0003.jpg").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize("command", ["embed", "diagnose", "probe", "probe sgd"])
def test_strict_ends_at_an_unreadable_image_in_one_line_and_leaves_nothing(command, encoder, damaged, tmp_path):
    command, *method = command.split()
    if command == "probe":
        (tmp_path / "both").mkdir()
        for split in ("train", "val"):
            (tmp_path / "both" / split).symlink_to(damaged if split == "train" else write_images(tmp_path / "val", 2))
        damaged = tmp_path / "both"
    place = ("--classifier", *(method or ["logistic"])) if command == "probe" else ("--out", tmp_path / "new" / "out")
    given = {"embed": ("--space", "representation")}.get(command, ())
    line = refused(call(command, *encoder, "--data", damaged, "--strict", *place, *given))
    assert "repair or remove it, or leave out --strict" in line
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("pipeline", ["memory", "mixed", "workers"])
@pytest.mark.parametrize("there", [False, True])
def test_strict_training_that_is_refused_can_be_given_again(pipeline, there, damaged, tmp_path):
    out = tmp_path / "new" / "run"
    if there:
        out.mkdir(parents=True)
    given = ("pretrain", *TRAINING, "--data", damaged, "--pipeline", pipeline, "--workers", 0, "--strict", "--out", out)
    again = (*given, "--epochs", 3, "--log-every", 1)
    assert "repair or remove it, or leave out --strict" in refused(call(*again))
    assert (list(out.iterdir()) == []) if there else not out.parent.exists()
    (damaged / "dog" / "0003.jpg").unlink()
    result = call(*again)
    assert result.exit_code == 0, result.stderr
    assert (out / "checkpoints" / "step-00000006.pt").exists()


def test_strict_training_that_is_refused_after_a_checkpoint_says_how_it_goes_on(damaged, tmp_path, monkeypatch):
    read = FolderImages.read

    def reads_once(images, index):
        monkeypatch.setattr(FolderImages, "count", getattr(images, "count", 0) + 1, raising=False)
        if images.count > 12:
            raise Unreadable(f"{images.name(index)} is damaged")
        return read(images, index)

    (damaged / "dog" / "0003.jpg").unlink()
    monkeypatch.setattr(FolderImages, "read", reads_once)
    out = tmp_path / "run"
    given = ("--data", damaged, "--pipeline", "mixed", "--workers", 0, "--epochs", 3, "--checkpoint-every", 1)
    line = refused(call("pretrain", *TRAINING, *given, "--strict", "--out", out))
    assert line.endswith(f"To continue: dyncollapse bridge pretrain --resume --out {out}")
    assert (out / "checkpoints" / "step-00000003.pt").exists()
    monkeypatch.setattr(FolderImages, "read", read)
    result = call("pretrain", "--resume", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert (out / "checkpoints" / "step-00000006.pt").exists()


def test_few_images_that_can_be_read_are_said_to_be_few(damaged):
    line = refused(call("pretrain", *changed(TRAINING, "--batch-size", 12), "--data", damaged, "--pipeline", "memory"))
    assert "--batch-size is 12, but 1 of 12 images could not be read and were skipped" in line
    assert line.endswith("0003.jpg; give at most 11")
