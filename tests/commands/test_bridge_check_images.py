"""`bridge check --data --budget` on small folders: one whole check, its resumption, and what is refused."""

import json
import pickle
import tarfile
import threading
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.bridge import write_images
from helpers.constants import set_constant
from helpers.programs import changed, refused
from PIL import Image

from dyncollapse.bridge import open_data
from dyncollapse.bridge.data.cache import cache_folder
from dyncollapse.bridge.data.named_sets import CIFAR
from dyncollapse.commands.main import main

pytestmark = pytest.mark.usefixtures("sketched")

NARROW = (("resnet10-half-16", "cifar-stride-2", None),)


def call(*arguments):
    return CliRunner().invoke(main, ["bridge", *map(str, arguments)])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number, split in enumerate(("train", "test")):
        write_images(folder / split, 20 - 8 * number, size=(20, 18), seed=number)
    return folder


def test_small_check_of_own_images_says_what_it_trains_and_continues(photos, tmp_path, monkeypatch):
    set_constant(monkeypatch, "bridge.evaluation.check_plan.SMALL", NARROW)
    set_constant(monkeypatch, "bridge.evaluation.check_rows.SHORT_HEADS", ("none", "linear"))
    set_constant(monkeypatch, "bridge.evaluation.check_plan.SHORT_HEADS", ("none", "linear"))
    out = tmp_path / "check"
    asked = ["check", "--data", photos, "--budget", "8m", "--short", "--seeds", 1, "--epochs", 2, "--workers", 1]
    result = call(*asked, "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [row["row"] for row in found["rows"]] == ["linear, 1 layer", "none"]
    assert all(0 <= row["top1"] <= 100 for row in found["rows"])
    assert found["failures"] == {}
    assert {path.name for path in out.iterdir()} == {
        *("check.json", "table.json", "table.md", "figures.png", "none-seed0", "linear-seed0")
    }
    said = result.stderr
    assert "40 training and 24 test images of 2 classes, 18 pixels on the shorter side" in said
    assert "measured: resnet10-half-16, stem cifar-stride-2, 18 x 18: " in said
    assert "2 rows x 1 seed, 2 epochs of 40 images, batch 8" in said
    assert "a row takes about" in said
    # A run that is left is made again by the same command, which neither measures nor chooses.
    kept = (out / "check.json").read_text()
    (out / "none-seed0" / "probes.json").unlink()
    again = call(*asked, "--out", out)
    assert again.exit_code == 0, again.stderr
    assert "measured" not in again.stderr
    assert (out / "none-seed0" / "probes.json").exists()
    assert (out / "check.json").read_text() == kept
    # Another choice does not continue it, and a choice that was edited is not believed.
    assert "--epochs is 3, but the check in" in refused(call(*changed(asked, "--epochs", 3), "--out", out))
    line = refused(call(*asked[:3], "--budget", "9m", *asked[5:], "--out", out))
    assert "--budget is 540s, but the check in" in line
    assert "began with 480s; give that, or name another folder" in line
    assert "already holds files" in refused(call("check", "--short", "--out", out))
    many = kept.replace('"seeds": 1,\n  "epochs": 2,\n  "images"', '"seeds": 9999999,\n  "epochs": 2,\n  "images"')
    assert many != kept
    for content in (
        "{",
        "[]",
        kept.replace('"epochs": 2,\n  "images"', '"epochs": 1e9,\n  "images"'),
        kept.replace('"swept": []', '"swept": [2.0]'),
        many,
        kept[:200],
    ):
        (out / "check.json").write_text(content)
        assert "check.json cannot be read (" in refused(call(*asked, "--out", out))
    (out / "check.json").write_text(kept.replace('"resnet10-half-16"', '"resnet0"'))
    assert "'resnet0'" in refused(call(*asked, "--out", out))


def folder_of(path, classes=2, split=("train", "test"), count=20, size=(20, 18)):
    for part in split:
        for number in range(count):
            inside = path / part / f"class{number % classes}" if classes else path / part
            inside.mkdir(parents=True, exist_ok=True)
            pixels = np.full((*size, 3), 10 * number % 256, dtype=np.uint8)
            Image.fromarray(pixels).save(inside / f"{part}{number}.png")
    return path


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ({"split": ("train",)}, "has no test images; give a folder with train/ and val/ or test/"),
        ({"classes": 0}, "have no classes, which a probe needs"),
        ({"classes": 1}, "has training images of one class only; a probe needs two"),
        ({"count": 30}, "has 30 training images; the check needs 32"),
        ({"count": 40, "size": (60, 15)}, "has images of 15 pixels; the check's encoders halve the side four times"),
    ],
    ids=["no test split", "no classes", "one class", "few images", "small images"],
)
def test_images_that_cannot_be_checked_are_refused(images, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(call("check", "--data", folder_of(tmp_path / "photos", **images), "--budget", "1h"))
    assert words in line
    assert not (tmp_path / "runs").exists()


def test_a_budget_below_one_epoch_says_what_would_do(photos, tmp_path, monkeypatch):
    set_constant(monkeypatch, "bridge.evaluation.check_plan.SMALL", NARROW)
    monkeypatch.chdir(tmp_path)
    last = refused(call("check", "--data", photos, "--budget", "1s"))
    assert last.startswith("dyncollapse: --budget 1 s is too short: 4 runs of 1 epoch on 40 images take about ")
    assert last.rpartition("give --budget ")[2].removesuffix("m").isdecimal()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("0", "--budget is '0'; it must be above 0 and at most 168h"),
        ("-1", "--budget is '-1'; it must be above 0"),
        ("1e9h", "--budget is '1e9h'; it takes a time, as 90s, 40m or 2h"),
        ("169h", "--budget is '169h'; it must be above 0 and at most 168h"),
        ("99999999h", "at most 168h"),
        *((text, "it takes a time, as 90s, 40m or 2h") for text in ("nan", "inf", "abc", "", "m", "1_0", "٣m", "2d")),
    ],
)
def test_a_budget_that_is_no_time_is_refused(value, words, photos):
    assert words in refused(call("check", "--data", photos, "--budget", value))


def test_digits_have_no_budget_and_unknown_names_no_images():
    assert "--budget is for images of your own" in refused(call("check", "--budget", "40m"))
    assert "--budget is for images of your own" in refused(call("check", "--data", "digits", "--budget", "40m"))
    line = refused(call("check", "--data", "/nowhere", "--budget", "40m"))
    assert "--data /nowhere is no folder; give a folder of images, of parquet files or of .tar shards" in line
    line = refused(call("check", "--full", "--data", "digits", "--budget", "2"))
    assert line.startswith("dyncollapse: --data, --budget: only for the check of projectors; drop it")


def test_cifar10_is_downloaded_once_and_refused_in_one_line_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "dyncollapse"
    asked = []

    def no_network(dataset):
        asked.append(dataset.root)
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", no_network)
    lines = []
    with pytest.raises(ValueError, match=r"cifar10 is not in .*cannot be downloaded \(.*no network.*; unpack https://"):
        open_data("cifar10", lines.append)
    assert len(asked) == len(lines) == 1
    assert "downloading 170 MB from https://" in lines[0]
    assert not list((tmp_path / "dyncollapse" / "cifar10").iterdir())
    assert "cannot be downloaded" in refused(call("check", "--data", "cifar10", "--budget", "40m"))
    # What is in the cache is not downloaded again, and read with torchvision's checks.
    (tmp_path / "dyncollapse" / "cifar10" / CIFAR).mkdir()
    with pytest.raises(ValueError, match="is damaged or incomplete"):
        open_data("cifar10", lines.append)
    assert len(asked) == 2
    # A folder of that name is an image folder.
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "cifar10", 2)
    assert torch.equal(open_data("cifar10").train.labels, torch.tensor([0, 0, 1, 1]))


def made_up_archive(path):
    """Write an archive in the form of CIFAR-10's, with 10 images a file; return the MD5 sums of its files by name."""
    generator, sums = np.random.default_rng(0), {}
    contents = {"batches.meta": {"label_names": ["cat", "dog"]}}
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        pixels = generator.integers(0, 256, (10, 3072), dtype=np.uint8)
        contents[name] = {"data": pixels, "labels": [0, 1] * 5}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            data = pickle.dumps(content)
            sums[name] = md5(data).hexdigest()
            entry = tarfile.TarInfo(f"{CIFAR}/{name}")
            entry.size = len(data)
            archive.addfile(entry, BytesIO(data))
    return sums


def test_cifar10_is_really_downloaded_unpacked_and_kept(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    served = tmp_path / "served"
    served.mkdir()
    sums = made_up_archive(served / CIFAR10.filename)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5((served / CIFAR10.filename).read_bytes()).hexdigest())
    for parts in ("train_list", "test_list"):
        monkeypatch.setattr(CIFAR10, parts, [[name, sums[name]] for name, _ in getattr(CIFAR10, parts)])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})
    handler = partial(SimpleHTTPRequestHandler, directory=served)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{CIFAR10.filename}")
        first = open_data("cifar10", print)
        server.shutdown()
    assert (len(first.train), len(first.test), first.classes) == (50, 10, ["cat", "dog"])
    again = open_data("cifar10", lambda text: pytest.fail(text))  # no server is left
    assert torch.equal(first.train.read(3), again.train.read(3))
    assert sorted(path.name for path in (tmp_path / "dyncollapse" / "cifar10").iterdir()) == [CIFAR]


def test_a_download_that_another_process_finishes_first_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = cache_folder() / "cifar10" / CIFAR

    class Dataset:
        url = "https://nowhere"

        data, targets, classes = np.zeros((2, 32, 32, 3), np.uint8), (0, 1), ("cat", "dog")

        def __init__(self, root, *, download=False, **_split):
            for folder in (kept, Path(root) / CIFAR) if download else ():
                folder.mkdir()
                (folder / "data_batch_1").touch()

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Dataset)
    assert open_data("cifar10", print).title == "cifar10"
    assert [path.name for path in kept.parent.iterdir()] == [CIFAR]


def test_images_of_which_hardly_any_can_be_read_are_refused(tmp_path):
    for split in ("train", "test"):
        write_images(tmp_path / split, 20)
    for path in sorted(tmp_path.glob("train/*/*.jpg"))[5:]:
        path.write_bytes(b"no image")
    line = refused(call("check", "--data", tmp_path, "--budget", "40m"))
    assert "of 40 training images that were tried, 5 can be read; the check needs 32" in line
