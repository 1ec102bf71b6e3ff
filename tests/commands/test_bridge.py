"""`dyncollapse bridge` as a user types it: good, odd and hostile."""

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from filelock import FileLock
from helpers.bridge import write_images
from helpers.constants import probe_few_strengths, set_constant
from helpers.programs import changed, messages, refused, small_disk
from helpers.waiting import eventually

from dyncollapse.bridge.data.images import open_data
from dyncollapse.bridge.models.backbones import build_backbone
from dyncollapse.bridge.training.checkpoints import checkpoints
from dyncollapse.bridge.training.run_folder import read_run
from dyncollapse.commands import bridge_check  # noqa: F401 (imported by its command, it would keep what a test sets)
from dyncollapse.commands.main import main
from dyncollapse.runtime.extras import install
from dyncollapse.runtime.files import write_bytes
from dyncollapse.runtime.folders import claimed_folder, replaced_folder

pytestmark = pytest.mark.usefixtures("sketched")

SHORT = ["--data", "digits", "--images", "320", "--epochs", "1", "--batch-size", "64", "--no-tensorboard"]


def call(*arguments):
    return CliRunner().invoke(main, ["bridge", *map(str, arguments)])


@pytest.fixture(autouse=True)
def few_strengths(monkeypatch):
    probe_few_strengths(monkeypatch)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    result = call("pretrain", *SHORT, "--method", "directclr", "--d0", 16, "--monitor-every", 5, "--out", folder)
    assert result.exit_code == 0, result.stderr
    return folder


# --- Good


@pytest.mark.drawn
def test_run_leaves_its_files_and_says_what_next(run):
    names = {path.name for path in run.iterdir()}
    assert {"config.json", "log.jsonl", "monitor.jsonl", "curves.png", "checkpoints"} <= names
    result = call("pretrain", *SHORT, "--projector", "none", "--out", run.parent / "json", "--json")
    found = json.loads(result.stdout)
    assert (found["recipe"]["projector"], found["last"]["step"], found["facts"]["steps"]) == ("none", 5, 5)
    assert f"Next: dyncollapse bridge diagnose --checkpoint {run.parent / 'json'}" in result.stderr


def test_run_is_named_where_no_folder_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "Saved in runs/pretrain-0001/" in call("pretrain", *changed(SHORT, "--batch-size", 320)).stdout


@pytest.mark.drawn
@pytest.mark.slow
def test_embed_diagnose_probe_and_table_go_together(run):
    out = run.parent / "embedded"
    result = call("embed", "--checkpoint", run, "--space", "embedding", "--views", "one-sided", "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["shapes"] == {"embedding": [500, 16]}
    assert np.load(out / "embedding_pos.npy").shape == (500, 16)
    assert (
        CliRunner()
        .invoke(main, ["diagnose", str(out / "embedding.npy"), "--positives", str(out / "embedding_pos.npy")])
        .exit_code
        == 0
    )

    result = call("diagnose", "--checkpoint", run, "--split", "train")
    assert result.exit_code == 0, result.stderr
    assert "tensors matched (resnet10-narrow, projector low-rank-diagonal)" in result.stdout
    header = next(line for line in result.stdout.splitlines() if line.startswith("measure"))
    assert header.split() == ["measure", "representation", "embedding"]
    assert result.stdout.count(": 320 samples x ") == 2
    assert {path.name for path in (run / "diagnosis").iterdir()} == {
        "diagnosis.json",
        "spectra.png",
        "report.html",
        "representation",
        "embedding",
    }
    assert (run / "diagnosis" / "embedding" / "report.html").exists()

    for options, words in (
        ([], "linear probe (logistic): top-1 "),
        (["--subvector", 16], "the first 16 of 128 dimensions only"),
        (["--classifier", "sgd", "--epochs", 1], "linear probe (sgd): top-1 "),
    ):
        result = call("probe", "--checkpoint", run, *options)
        assert result.exit_code == 0, result.stderr
        assert words in result.stdout
    assert [probe["method"] for probe in json.loads((run / "probes.json").read_text())] == [
        "logistic",
        "logistic",
        "sgd",
    ]

    result = call("table", run, "--json")
    (row,) = json.loads(result.stdout)["rows"]
    assert (row["row"], row["paper_top1"], row["embedding_dim"]) == ("DirectCLR (low-rank diagonal)", 62.7, 16)
    assert row["subvector_top1"] is not None
    assert row["representation_rankme"] > 1
    assert call("table", run, "--markdown").stdout.startswith("| projector | paper |")


@pytest.mark.slow
def test_an_option_that_changes_nothing_or_chooses_another_is_named(run, tmp_path):
    result = call("embed", "--checkpoint", run, "--seed", 3, "--out", tmp_path / "clean")
    assert "--seed 3 has no effect: --views clean draws no random views" in result.stderr
    result = call("probe", "--checkpoint", run, "--data", "digits", "--epochs", 1)
    assert "--epochs 1 chooses --classifier sgd; logistic has no epochs" in result.stderr


def test_diagnose_tells_json_and_keeps_embeddings(run):
    out = run.parent / "kept"
    result = call("diagnose", "--checkpoint", run, "--views", "one-sided", "--out", out, "--keep-embeddings", "--json")
    found = json.loads(result.stdout)
    assert set(found["spaces"]) == {"representation", "embedding"}
    assert found["spaces"]["embedding"]["conventions"]["views"] == "one-sided"
    assert np.load(out / "representation.npy").shape == (500, 128)
    assert "Saved in" in result.stderr
    weighed = call("diagnose", "--checkpoint", run, "--loss", "ntxent", "--out", run.parent / "weighed")
    assert "the softmax of ntxent (a diagnostic: not the exact force of this loss)" in weighed.stdout


def test_encoder_of_others_is_diagnosed_on_a_folder(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(
            {
                "state_dict": {
                    f"backbone.{n}": t for n, t in build_backbone("resnet18", "cifar", 3).state_dict().items()
                }
            },
            tmp_path / "other.ckpt",
        )
    write_images(tmp_path / "photos", 10)
    (tmp_path / "photos" / "cat" / "0004.jpg").write_bytes(b"broken")
    arguments = ["--checkpoint", tmp_path / "other.ckpt", "--data", tmp_path / "photos", "--out", tmp_path / "out"]
    result = call("diagnose", *arguments)
    assert result.exit_code == 0, result.stderr
    assert "100 of 100 tensors matched (resnet18, stem cifar, prefix state_dict.backbone.)" in result.stdout
    assert "representation: 19 samples x 512 dimensions" in result.stdout
    assert "skipped: " in result.stderr
    assert "cat/0004.jpg" in result.stderr
    assert "--data is not given" in refused(call("embed", *arguments[:2]))
    line = refused(call("embed", *arguments[:4], "--out", tmp_path / "none"))
    assert "has no recognised projector; use --space representation" in line
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_small_check_runs_through(tmp_path, monkeypatch):
    set_constant(monkeypatch, "bridge.evaluation.check_rows.SHORT_HEADS", ("mlp", "none"))
    set_constant(monkeypatch, "bridge.evaluation.check_rows.SHORT_SUBVECTORS", (4,))
    arguments = ["check", "--short", "--epochs", 1, "--seeds", 1, "--workers", 1, "--out", tmp_path / "check"]
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [row["row"] for row in found["rows"]] == ["nonlinear, 2 layers", "none"]
    assert all(0 < row["top1"] < 100 for row in found["rows"])
    assert found["failures"] == {}
    names = {path.name for path in (tmp_path / "check").iterdir()}
    assert names == {"table.json", "table.md", "figures.png", "mlp-seed0", "none-seed0", "sweep-d0-4"}
    again = call(*arguments)
    assert again.exit_code == 0
    assert "nonlinear, 2 layers" in again.stdout


# --- Odd and hostile


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrain"], "--data is not given"),
        (["pretrain", "--data", "/nowhere", "--device", "cpu"], "--data /nowhere is no folder"),
        (["pretrain", "--data", "digits", "--device", "cuda"], "--device is 'cuda'; this machine offers cpu"),
        (["pretrain", "--data", "digits", "--batch-size", "1"], "--batch-size is 1"),
        (["pretrain", "--data", "digits", "--batch-size", "1298"], "give at most 1297"),
        (["pretrain", "--data", "digits", "--method", "directclr", "--d0", "129"], "--d0 is 129, but resnet10-narrow"),
        (["pretrain", "--data", "digits", "--method", "directclr", "--projector", "mlp"], "directclr fixes it"),
        (["pretrain", "--data", "digits", "--arch", "resnet0"], "--arch is 'resnet0'"),
        (["pretrain", "--data", "digits", "--config", "/nowhere.toml"], "--config /nowhere.toml cannot be read"),
        (["pretrain", "--data", "digits", "--lr", "fast"], "--lr is 'fast'; it takes a number"),
        (["pretrain", "--resume"], "--resume continues a run; name its folder with --out"),
        (["pretrain", "--resume", "--out", "/nowhere"], "/nowhere does not exist; check --out"),
        (["embed", "--checkpoint", "/nowhere"], "/nowhere does not exist"),
        (["embed", "--checkpoint", "x", "--space", "latent"], "--space is 'latent'"),
        (["table", "/nowhere"], "/nowhere is no folder"),
        (["table", "a", "--json", "--markdown"], "cannot share stdout"),
        (["check", "--seeds", "0"], "--seeds is 0; it must be between 1 and 100"),
        (["train"], "No such command 'train'"),
    ],
)
def test_bad_input_is_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert words in refused(call(*arguments))
    assert list(tmp_path.rglob("*.json")) == []
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["embed", "--views", "three"], "--views is 'three'"),
        (["embed", "--split", "middle"], "--split is 'middle'"),
        (["embed", "--prefix-map", "x"], "--prefix-map is 'x'; write OLD=NEW"),
        (["embed", "--arch", "resnet50"], "stores its own settings"),
        (["embed", "--image-size", "16"], "--image-size: "),
        (["probe", "--classifier", "logistic", "--epochs", "3"], "--epochs is 3, but --classifier logistic has none"),
        (["diagnose", "--views", "clean"], "--views is 'clean'; choose one of one-sided, two-sided"),
        (["diagnose", "--loss", "hinge"], "loss is 'hinge'"),
        (["probe", "--method", "svm"], "--classifier is 'svm'"),
        (["probe", "--subvector", "129"], "--subvector is 129"),
    ],
)
def test_bad_use_of_a_good_run_is_one_line(arguments, words, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in refused(call(arguments[0], "--checkpoint", run, *arguments[1:]))
    assert not list(tmp_path.glob("runs/*"))


def test_images_of_other_colours_are_refused(run, tmp_path):
    write_images(tmp_path / "photos")
    line = refused(call("embed", "--checkpoint", run, "--data", tmp_path / "photos", "--split", "train"))
    assert "--data has images of 3 channel(s), and the encoder takes 1; give --data digits" in line


@pytest.mark.parametrize("method", ["logistic", "sgd"])
def test_a_probe_of_one_class_is_refused_before_anything_is_embedded(method, run, monkeypatch):
    digits = open_data("digits")
    alike = replace(digits, train=replace(digits.train, labels=torch.zeros_like(digits.train.labels)))
    monkeypatch.setattr("dyncollapse.commands.bridge_encoder.open_data", lambda *_: alike)
    monkeypatch.setattr("dyncollapse.commands.bridge_probe.embed_images", lambda *_: pytest.fail("it embeds"))
    line = refused(call("probe", "--checkpoint", run, "--classifier", method))
    assert "has training images of one class only; a probe needs two" in line


def test_probe_takes_more_images_than_the_run_was_trained_on(tmp_path):
    few = tmp_path / "few"
    assert call("pretrain", *changed(SHORT, "--images", 200, "--batch-size", 100), "--out", few).exit_code == 0
    for wanted, trained in (((), 200), (("--images", 300), 300)):
        result = call("probe", "--checkpoint", few, *wanted, "--json")
        assert json.loads(result.stdout)["train"] == trained
    assert [probe["train"] for probe in read_run(few).probes] == [200, 300]
    line = refused(call("probe", "--checkpoint", few, "--images", 5000))
    assert "--images is 5000, but --data digits has 1297; give fewer" in line


def test_folder_in_use_and_other_settings_are_refused(run):
    assert "already holds files" in refused(call("pretrain", *SHORT, "--out", run))
    assert "--seed is 5, but this run began with 0" in refused(call("pretrain", "--resume", "--out", run, "--seed", 5))
    resumed = call("pretrain", "--resume", "--out", run)
    assert resumed.exit_code == 0
    assert "step 5: loss" in resumed.stdout


def test_folder_in_use_is_refused_and_stays_in_use(run):
    with FileLock(run / ".lock", timeout=0):
        for _ in range(2):
            assert "is in use by another process" in refused(call("pretrain", "--resume", "--out", run))


@pytest.mark.parametrize("command", ["embed", "diagnose", "check", "pretrain"])
def test_of_two_that_write_into_one_folder_the_second_is_refused(run, command, tmp_path):
    out = tmp_path / "new"
    given = {"check": ("--short",), "pretrain": SHORT}.get(command, ("--checkpoint", run))
    with claimed_folder(out, command):
        assert "new is in use by process" in refused(call(command, *given, "--out", out))
    assert not out.exists()


def test_of_two_diagnoses_of_a_run_the_second_is_refused(run):
    with suppress(KeyboardInterrupt), replaced_folder(run / "diagnosis"):
        assert "diagnosis is in use by process" in refused(call("diagnose", "--checkpoint", run))
        raise KeyboardInterrupt


def test_check_that_was_killed_before_its_runs_began_goes_on(tmp_path):
    (tmp_path / "mlp-seed0").mkdir()
    (tmp_path / "mlp-seed0" / ".lock").touch()
    (tmp_path / "other").touch()
    options = ("check", "--short", "--seeds", 1, "--epochs", 1, "--workers", 900, "--out")
    assert "--workers is 900; it must be between 1 and" in refused(call(*options, tmp_path))
    with claimed_folder(tmp_path, "check", lambda _folder: True):
        assert "is in use by process" in refused(call(*options[:-3], "--out", tmp_path))


@pytest.mark.parametrize("command", ["embed", "diagnose", "probe"])
@pytest.mark.parametrize("count", ["--threads", "--workers"])
def test_counts_beyond_all_reason_are_refused(run, command, count):
    line = refused(call(command, "--checkpoint", run, count, 900))
    assert f"{count} is 900; it must be between" in line


def test_results_that_a_full_disk_does_not_take_are_printed_all_the_same(run, tmp_path, monkeypatch):
    def full(path, content):
        with small_disk(100 if path.suffix == ".csv" else 2**30):
            write_bytes(path, content)

    monkeypatch.setattr("dyncollapse.commands.bridge_diagnose.write_bytes", full)
    result = call("diagnose", "--checkpoint", run, "--out", tmp_path / "new")
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"dyncollapse: {tmp_path / 'new' / 'representation'}/")
    assert last.endswith("could not be written (File too large); nothing was saved")
    assert "\nrepresentation: 500 samples" in result.stdout
    assert not list(tmp_path.iterdir())


def test_run_that_was_killed_before_it_began_blocks_nothing(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    for name in (".lock", ".lock.holder", ".config.json.0123.partial"):
        (out / name).touch()
    line = refused(call("pretrain", "--resume", "--out", out))
    assert f"{out} is empty, with no run to resume; check --out, or leave out --resume" in line
    assert call("pretrain", *changed(SHORT, "--batch-size", 320), "--out", out).exit_code == 0
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_resume_checks_what_it_may_change(run):
    assert "--log-every is 0" in refused(call("pretrain", "--resume", "--out", run, "--log-every", 0))


def test_results_of_other_steps_or_images_are_not_the_runs(tmp_path):
    run = tmp_path / "run"
    assert call("pretrain", *SHORT, "--checkpoint-every", 3, "--out", run).exit_code == 0
    early = min(checkpoints(run))
    assert "Added to" not in call("probe", "--checkpoint", early).stdout
    assert "Added to" in call("probe", "--checkpoint", run).stdout
    assert [probe["step"] for probe in json.loads((run / "probes.json").read_text())] == [5]
    (run / "diagnosis").write_text("in the way")
    assert "diagnosis is in the way; move it away" in refused(call("diagnose", "--checkpoint", run))


@pytest.mark.parametrize(("size", "file"), [(0, "config.json"), (3000, "checkpoints/step-00000003.pt")])
def test_full_disk_says_how_to_go_on(tmp_path, size, file):
    out = tmp_path / "run"
    with small_disk(size):
        result = call("pretrain", *SHORT, "--checkpoint-every", 3, "--out", out)
    assert result.exit_code == 1
    (line,) = messages(result.stderr)
    assert line.startswith(f"dyncollapse: {out / file} could not be written (File too large). ")
    assert line.endswith(f"bridge pretrain --resume --out {out}" if size else "Nothing was saved.")
    assert out.exists() is bool(size)
    again = ("--resume", "--out", out) if size else (*SHORT, "--out", out)
    assert call("pretrain", *again).exit_code == 0


def test_missing_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "timm", None)
    line = refused(call("pretrain", *SHORT))
    assert f"timm is not installed; the bridge needs it: {install('bridge')}" in line


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    out = tmp_path / "run"

    def press() -> None:
        eventually((out / "log.jsonl").exists)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    result = call("pretrain", *changed(SHORT, "--epochs", 40), "--log-every", 1, "--out", out)
    assert result.exit_code == 130
    line = result.stderr.splitlines()[-1]
    assert "stopped at step" in line
    assert f"dyncollapse bridge pretrain --resume --out {out}" in line
    assert len(checkpoints(out)) == 1
    assert (out / "curves.png").exists()
