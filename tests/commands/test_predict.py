"""`dyncollapse predict` as a user types it: its JSON, its files, and what it refuses in one line."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.bridge import write_images
from PIL import Image

from dyncollapse.bridge.prediction import run
from dyncollapse.commands.main import main

pytestmark = pytest.mark.usefixtures("sketched")

LOSSES = ("infonce", "spectral", "vcreg", "barlow", "byol")
FILES = {"prediction.json", "directions.csv", "augmentations.csv", "report.html", "prediction.png"}


def predict(*arguments):
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictions") / "digits"
    result = predict(
        "--data", "digits", "--images", 300, "--loss", "spectral,barlow", "--train", "--steps", 200,
        "--directions", 12, "--batch-size", 100, "--json", "--out", folder,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    return folder, json.loads(result.stdout), result.stderr


def test_the_json_holds_a_number_for_each_direction(saved):
    folder, values, _ = saved
    assert json.loads((folder / "prediction.json").read_text()) == values
    assert (values["images"], values["dim"], values["directions"]) == (300, 64, 12)
    assert values["rho"] == sorted(values["rho"])
    assert 0 < values["signal_rank"] < 12
    for name in ("spectral", "barlow"):
        loss = values["losses"][name]
        assert len(loss["rest"]) == len(loss["learning_steps"]) == len(values["rho"]) == len(values["error"]) == 12
        fates = ("alive", "suppressed", "no_room", "dead", "decayed")
        assert sum(loss[fate] for fate in fates) == 12
        assert loss["dead"] == loss["decayed"] == 0
        assert values["trained"][name]["error"] is None or values["trained"][name]["error"] >= 0
    assert [row["operation"] for row in values["augmentations"]] == ["crop", "rotation", "colour", "noise"]
    for row in values["augmentations"]:
        assert {"signal_rank", "suppressed", "shared_signal", "difference_trace"} <= row["alone"].keys()
        assert row["without"]["signal_rank"] >= values["augmentation"]["whole"]["signal_rank"] - 1


def test_a_folder_gets_every_file(saved):
    folder, values, shown = saved
    assert {path.name for path in folder.iterdir()} == FILES
    rows = list(csv.DictReader((folder / "directions.csv").read_text().splitlines()))
    assert [float(row["rho"]) for row in rows] == values["rho"]
    assert [row["direction"] for row in rows] == [str(k + 1) for k in range(12)]
    operations = list(csv.DictReader((folder / "augmentations.csv").read_text().splitlines()))
    assert len(operations) == 9
    assert "Trained by SGD, spectral" in shown


def test_folders_of_images_are_read_in_colour(tmp_path):
    write_images(tmp_path / "photos", per_class=20)
    result = predict("--data", tmp_path / "photos", "--image-size", 8, "--augment", "imagenet", "--loss", "spectral")
    assert result.exit_code == 0, result.stderr
    assert "40 images, 8 x 8 pixels in 3 channels" in result.stdout
    assert "drawn by two different pipelines" in result.stdout
    assert "10 principal directions of 192" in result.stdout  # fewer images than dimensions
    assert "40 images show a quarter as many directions" in result.stdout


def test_images_that_cannot_be_read_are_not_counted(tmp_path):
    write_images(tmp_path / "photos", per_class=20)
    damaged = sorted(path for path in (tmp_path / "photos").rglob("*") if path.is_file())[3]
    damaged.write_bytes(damaged.read_bytes()[:60])
    result = predict("--data", tmp_path / "photos", "--image-size", 8, "--loss", "spectral", "--weight-decay", 1)
    assert result.exit_code == 0, result.stderr
    assert ": 39 images, 8 x 8 pixels" in result.stdout
    assert "\non 39 images " in result.stdout
    assert "1 of 40 images could not be read" in result.stdout
    assert "dead  decayed  learnt" in result.stdout


def test_one_direction_is_called_one():
    result = predict("--data", "digits", "--images", 60, "--directions", 1, "--loss", "spectral")
    assert result.exit_code == 0, result.stderr
    assert "Predicted for 1 principal direction of 64, with " in result.stdout
    assert "1 directions" not in result.stdout


def test_views_depend_on_the_seed_alone(saved):
    _, values, _ = saved
    again = predict(
        "--data", "digits", "--images", 300, "--loss", "spectral,barlow", "--directions", 12, "--json"
    )  # fmt: skip
    assert json.loads(again.stdout)["rho"] == values["rho"]
    other = predict(
        "--data", "digits", "--images", 300, "--loss", "spectral", "--directions", 12, "--json", "--seed", 1
    )
    assert json.loads(other.stdout)["rho"] != values["rho"]


def test_one_sided_views_say_so():
    result = predict("--data", "digits", "--images", 400, "--views", "one-sided", "--directions", 8, "--steps", 10)
    assert result.exit_code == 0, result.stderr
    assert "the first view is the plain image" in result.stdout
    assert all(f"\n{name} " in result.stdout for name in LOSSES)


def test_a_head_on_frozen_features(tmp_path):
    run = tmp_path / "run"
    trained = CliRunner().invoke(
        main, ["bridge", "pretrain", "--data", "digits", "--epochs", "1", "--batch-size", "256", "--no-tensorboard",
               "--monitor-every", "0", "--out", str(run)],
    )  # fmt: skip
    assert trained.exit_code == 0, trained.stderr
    out = tmp_path / "out"
    result = predict("--data", "digits", "--features", run, "--images", 400, "--directions", 8, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert "representations of" in result.stdout
    assert "on centred features" in result.stdout
    assert {path.name for path in out.iterdir()} == FILES


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "digits", "--loss", "ntxent"], "no closed form"),
        (["--data", "digits", "--loss", "spectral,vicreg"], "no closed form"),
        (["--data", "digits", "--loss", "barlow-normalised"], "no closed form"),
        (["--data", "digits", "--loss", "simclr"], "choose any of"),
        (["--data", "digits", "--loss", "spectral,spectral"], "twice"),
        (["--data", "digits", "--loss", ""], "names no loss"),
        (["--data", "digits", "--loss", "spectral", "--invariance", "2"], "vcreg"),
        (["--data", "digits", "--augment", "strong"], "choose one of"),
        (["--data", "digits", "--augment", "missing.toml"], "cannot be read"),
        (["--data", "digits", "--images", "7"], "at least 8"),
        (["--data", "digits", "--image-size", "1000"], "between 4 and 64"),
        (["--data", "digits", "--features", "missing.pt"], "missing.pt"),
        (["--data", "digits", "--arch", "resnet50"], "--features"),
        (["--data", "digits", "--weight-decay", "-1"], "--weight-decay"),
        (["--data", "digits", "--out-dim", "0"], "--out-dim"),
        (["--data", "nowhere"], "no folder"),
        ([], "--data"),
    ],
)
def test_misuse_is_refused_in_one_line(arguments, words):
    result = predict(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert words in result.stderr
    assert "`" not in result.stderr


def test_a_folder_with_one_image_is_refused(tmp_path):
    (tmp_path / "one").mkdir()
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(tmp_path / "one" / "image.png")
    result = predict("--data", tmp_path / "one")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "has 1 image, too few" in result.stderr


def test_images_that_are_all_alike_are_refused(tmp_path):
    (tmp_path / "black").mkdir()
    for number in range(9):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "black" / f"{number}.png")
    result = predict("--data", tmp_path / "black", "--augment", "cifar10", "--image-size", 8)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "without any variance" in result.stderr


@pytest.mark.parametrize("text", ["", "flip = 0"])
def test_a_single_view_is_refused(text, tmp_path):
    file = tmp_path / "views.toml"
    file.write_text(text)
    result = predict("--data", "digits", "--augment", file)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "both views are one" in result.stderr


def test_damaged_images_are_skipped_or_refused(tmp_path):
    folder = write_images(tmp_path / "photos", per_class=20)
    (folder / "cat" / "0003.jpg").write_bytes(b"no image")
    asked = ("--data", folder, "--image-size", 8, "--loss", "spectral")
    skipped = predict(*asked)
    assert skipped.exit_code == 0, skipped.stderr
    assert "1 of 40 images could not be read" in skipped.stdout
    refused = predict(*asked, "--strict")
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1)


def test_a_rate_that_is_too_large_is_one_line():
    result = predict("--data", "digits", "--images", 200, "--loss", "spectral", "--train", "--lr", 1000, "--steps", 50)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "spectral: SGD diverged" in result.stderr
    assert "The views share signal" in result.stdout
    assert "Not trained to the end, spectral: SGD diverged" in result.stdout


SHORT = ("--data", "digits", "--images", 300, "--directions", 12, "--train", "--steps", 50)


def test_a_loss_that_diverges_loses_neither_the_prediction_nor_the_others(tmp_path):
    out = tmp_path / "Out"
    result = predict(*SHORT, "--loss", "spectral,byol", "--lr", 0.5, "--out", out)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("dyncollapse: spectral: SGD diverged at step ")
    assert line.endswith(f". All else is in {out}/.")
    values = json.loads((out / "prediction.json").read_text())
    assert list(values["trained"]) == ["byol"]
    assert list(values["untrained"]) == ["spectral"]
    assert list(values["losses"]) == ["spectral", "byol"]
    assert {path.name for path in out.iterdir()} == FILES
    page = (out / "report.html").read_text()
    assert "Not trained to the end, spectral: SGD diverged" in page
    assert "Trained by SGD, byol" in page


def test_ctrl_c_during_the_training_keeps_what_is_done(tmp_path, monkeypatch):
    train = run.train_linear_encoder

    def interrupted(found, pairs, loss, *others, **options):
        if loss == "vcreg":
            raise KeyboardInterrupt
        return train(found, pairs, loss, *others, **options)

    monkeypatch.setattr(run, "train_linear_encoder", interrupted)
    out = tmp_path / "out"
    result = predict(*SHORT, "--loss", "spectral,vcreg,byol", "--out", out)
    assert result.exit_code == 130
    assert result.stderr == f"dyncollapse: vcreg: interrupted; byol: interrupted. All else is in {out}/.\n"
    values = json.loads((out / "prediction.json").read_text())
    assert list(values["trained"]) == ["spectral"]
    assert values["untrained"] == {"vcreg": "interrupted", "byol": "interrupted"}


def test_ctrl_c_before_the_prediction_saves_nothing(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "augmentation_table", interrupted)
    result = predict(*SHORT, "--loss", "spectral", "--out", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (130, "")
    assert not (tmp_path / "out").exists()
