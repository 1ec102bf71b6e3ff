"""The real-scale check: every part at toy size, as a command and on a pretended GPU, and how failures are told."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import bridge_helpers as parts
import pytest
import torch
from bridge_helpers import ALONE, small, write_images
from click.testing import CliRunner
from commands import refused
from matplotlib.image import imread
from pretend_cuda import pretend_cuda

from dyncollapse.bridge.check import table_recipes
from dyncollapse.bridge.checkpoints import checkpoints, load_checkpoint
from dyncollapse.bridge.encoders import build_encoder
from dyncollapse.bridge.full import cifar, covariances, embedded, ensembles, report, resumed, throughput
from dyncollapse.bridge.full.findings import Finding, Found, Site
from dyncollapse.bridge.full.generated import images_in_memory, write_jpegs
from dyncollapse.bridge.full.parts import PARTS, Part
from dyncollapse.bridge.full.scale import FULL, TINY
from dyncollapse.bridge.full.timing import seconds_per_call
from dyncollapse.bridge.images import open_data, some_images
from dyncollapse.bridge.journal import read_journal
from dyncollapse.bridge.optimisation import chosen_kernels
from dyncollapse.bridge.pretraining import LossDiverged, pretrain
from dyncollapse.bridge.processes import Process
from dyncollapse.bridge.recipe import resolve
from dyncollapse.cli import main

CPU = torch.device("cpu")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def site(folder, device=CPU, **given):
    folder.mkdir(exist_ok=True)
    return Site(TINY, device, folder, folder, time.time() + 300, tell=lambda _text: None, **given)


def call(*arguments):
    return CliRunner().invoke(main, ["bridge", "check", *map(str, arguments)])


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A set of images as CIFAR-10 is given: an archive with train/ and test/ in it."""
    folder = tmp_path_factory.mktemp("cifar")
    for number, split in enumerate(("train", "test")):
        write_images(folder / split, 8 - 2 * number, seed=number)
    with tarfile.open(folder / "cifar.tar.xz", "w:xz") as packed:
        for split in ("train", "test"):
            packed.add(folder / split, split)
    return folder / "cifar.tar.xz"


# --- The whole


def test_command_does_every_part_and_leaves_a_report(tmp_path, archive):
    command = [sys.executable, "-m", "dyncollapse", "bridge", "check", "--full", "--tiny", "--device", "cpu", "--json"]
    done = subprocess.run(
        [*command, "--cifar", archive, "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        env=ONE_THREAD,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert {part["number"]: part["status"] for part in printed["parts"]} == dict.fromkeys(range(1, 7), "ok")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"report.json", "summary.md", "report.png", "cifar.png", "cifar"}
    assert json.loads((tmp_path / "out" / "report.json").read_text()) | {"folder": str(tmp_path / "out")} == printed
    values = {part["number"]: part["values"] for part in printed["parts"]}
    assert list(values[1]["rates"]) == ["SimCLR-mlp", "SimCLR-linear", "SimCLR-none", "DirectCLR"]
    assert values[2]["step"] > 0  # the encoder that part 1 had trained
    assert len(values[2]["spectra"]["embedding"]["eigenvalues"]) == 128
    assert values[5]["loss"] == values[5]["resumed_loss"]  # to the bit, on a CPU
    assert len(values[6]["rows"]) == 9
    assert not list((tmp_path / "out").glob("cifar/*/checkpoints"))
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert summary.startswith("# Real-scale check: passed\n")
    assert "| DirectCLR (low-rank diagonal) | 62.7 |" in summary
    for picture in ("report.png", "cifar.png"):
        assert imread(tmp_path / "out" / picture).std() > 0.05
    assert "6. Tables 1 and 2 on CIFAR-10" in done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
@pytest.mark.parametrize("part", [throughput, embedded, covariances, ensembles, cifar], ids=lambda m: m.__name__)
def test_part_keeps_to_one_device(part, tmp_path, archive):
    with pretend_cuda() as device:
        found = part.measure(site(tmp_path, device, cifar=archive))
    assert found.findings
    assert not found.failed


def test_pretraining_and_its_resumption_keep_to_one_device(tmp_path):
    recipe = small(device="cuda", deterministic=True)
    with pretend_cuda() as device:
        for epochs in (1, 1):
            pretrain(replace(recipe, epochs=epochs), tmp_path, Process(0, 1, device))
    pretrain(replace(recipe, device="cpu"), tmp_path / "cpu", ALONE)
    here, there = (read_journal(folder / "log.jsonl")[-1]["loss"] for folder in (tmp_path, tmp_path / "cpu"))
    assert here == there


def test_the_pretended_gpu_refuses_what_a_real_one_would():
    with pretend_cuda():
        here, there = torch.zeros(3), torch.zeros(3, device="cuda")
        assert there.device.type == "cuda"
        assert there.is_cuda
        assert (there + 1).is_cuda
        assert (there * torch.tensor(2.0)).is_cuda  # one number may come from anywhere
        assert not there.cpu().is_cuda
        assert here.to(there.device).is_cuda
        assert there[here.long()].is_cuda
        layer = torch.nn.Linear(3, 3).to("cuda")
        layer(there).sum().backward()
        assert layer.weight.is_cuda
        for mixed in (lambda: here + there, lambda: torch.cat([here, there]), lambda: here[there.long()]):
            with pytest.raises(RuntimeError, match="cuda"):
                mixed()
        with pytest.raises(RuntimeError, match="cuda"):
            layer(here)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


# --- What runs the parts


def ended(process):
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().split()[2] == "Z"


def eventually(holds, seconds=40.0):
    """Whether it holds before so many seconds are over."""
    end = time.time() + seconds
    while not holds() and time.time() < end:
        time.sleep(0.05)
    return holds()


def run(folder, monkeypatch, *measures, minutes=1.0, most=60.0):
    chosen = tuple(Part(k, measure.__name__, measure, most) for k, measure in enumerate(measures, 7))
    monkeypatch.setattr(report, "PARTS", chosen)
    said = []
    folder.mkdir()
    found = report.run_parts(folder, CPU, tiny=True, minutes=minutes, tell=said.append)
    return found, said


def test_parts_that_fail_are_told_and_the_others_go_on(tmp_path, monkeypatch):
    found, said = run(
        tmp_path / "out",
        monkeypatch,
        parts.wrong_part,
        parts.raising_part,
        parts.dying_part,
        parts.good_part,
        parts.skipped_part,
    )
    assert [part["status"] for part in found["parts"]] == ["FAILED", "FAILED", "FAILED", "ok", "skipped"]
    assert [part["reason"] for part in found["parts"]] == [
        "error: 0.5 (at most 0.1: FAILED)",
        "OSError: [Errno 28] No space left on device",
        "its process died with exit code -9",
        "",
        "",
    ]
    assert not found["passed"]
    assert found["parts"][2]["findings"][0]["sentence"] == "speed: 1 m/s"  # what it had saved
    assert found["parts"][2]["values"] == {"a": None}
    assert "   at it" in said
    text = (tmp_path / "out" / "summary.md").read_text()
    assert text.startswith("# Real-scale check: FAILED\n")
    assert "- aim: 1 (target: at least 2: missed)" in text  # and the part is ok
    assert "- skipped: nothing to do it with" in text
    assert "raising_part" in found["parts"][1]["details"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "summary.md", "report.png"}


def test_part_that_hangs_is_ended_with_what_it_started(tmp_path, monkeypatch):
    found, _ = run(tmp_path / "out", monkeypatch, parts.hanging_part, parts.good_part, most=12.0)
    assert [part["status"] for part in found["parts"]] == ["FAILED", "ok"]
    assert found["parts"][0]["reason"] == "it was not done in the time for it, and was ended"
    assert ended(int((tmp_path / "out" / "sleeper").read_text()))


def test_parts_for_which_no_time_is_left_fail(tmp_path, monkeypatch):
    found, _ = run(tmp_path / "out", monkeypatch, parts.good_part, minutes=0.1)
    assert found["parts"][0]["reason"] == "no time was left for it; give more --minutes"


def test_failed_part_ends_the_command_with_1(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PARTS", (Part(7, "wrong", parts.wrong_part, 60.0),))
    result = call("--full", "--tiny", "--device", "cpu", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "dyncollapse: part 7: error: 0.5 (at most 0.1: FAILED)"
    assert "# Real-scale check: FAILED" in result.stdout


def test_findings_say_whether_they_hold():
    for value, least, holds in ((0.9, True, True), (0.89, True, False), (0.9, False, True), (0.91, False, False)):
        assert Finding("x", value, limit=0.9, least=least).holds is holds
    for missing in (None, float("nan")):
        assert Finding("x", missing, limit=0.9).holds is False
        assert Finding("x", missing).as_dict()["value"] is None
    assert Finding("x", 1.0).holds is None
    assert Finding("rate", 12345.6, "images/s").sentence == "rate: 12,346 images/s"
    assert not Found([Finding("x", 2.0, limit=1.0, target=True)]).failed
    assert Found([Finding("x", 2.0, limit=1.0)]).failed


def test_speeds_are_judged_at_full_size_only(tmp_path):
    tiny = site(tmp_path)
    assert tiny.target("x", 0.1, 0.9, least=True).holds is None
    assert replace(tiny, scale=FULL).target("x", 0.1, 0.9, least=True).holds is False


def test_parts_are_those_of_the_issue_and_fit_the_time():
    assert sorted(part.number for part in PARTS) == [1, 2, 3, 4, 5, 6]
    assert PARTS[-1].number == 6  # takes what the others leave
    assert sum(part.most for part in PARTS[:-1]) <= 9 * 60


def test_a_rate_is_measured_for_the_time_that_is_asked_for():
    calls = []
    seconds = seconds_per_call(lambda: (calls.append(0), time.sleep(0.01)), CPU, 0.2, warm=3)
    assert 0.01 <= seconds < 0.1
    assert 3 + 1 + 2 <= len(calls) <= 3 + 1 + 20


# --- The parts


def test_jpegs_are_of_imagenets_size_and_classes_differ(tmp_path):
    count, size = write_jpegs(tmp_path, 3, 4, FULL.jpeg_sides)
    assert count == 12
    assert 80e3 < size < 140e3  # ImageNet's training images have 110 kB on average
    images = open_data(str(tmp_path)).train
    assert [tuple(images.read(k).shape[1:]) for k in range(4)] == list(FULL.jpeg_sides)
    colours = torch.stack([images.read(k).float().mean((1, 2)) for k in range(12)])
    within = colours.view(3, 4, 3).std(1).max()
    assert colours.view(3, 4, 3).mean(1).std(0).max() > 3 * within
    write_jpegs(tmp_path / "again", 1, 1, FULL.jpeg_sides)
    first, again = (folder / "n00000000" / "0000.jpg" for folder in (tmp_path, tmp_path / "again"))
    assert first.read_bytes() == again.read_bytes()


def test_images_in_memory_all_differ():
    images = images_in_memory(50, 16, 5, CPU)
    assert images.pixels.shape == (50, 3, 16, 16)
    assert len({bytes(image.numpy().tobytes()) for image in images.pixels}) == 50
    assert images.labels.bincount().tolist() == [10] * 5


def test_batch_is_the_largest_that_is_about_as_fast_as_any_and_fits():
    def tried(*rates):
        return [{"pairs": 2**k, "images_per_second": r, "peak_bytes": 2**k} for k, r in enumerate(rates)]

    assert throughput.chosen_batch(tried(50, 99, 100, 98.5), None) == 8
    assert throughput.chosen_batch(tried(50, 100, 97), None) == 2
    assert throughput.chosen_batch(tried(50, 60, 80, 100), 8) == 4
    assert throughput.chosen_batch(tried(50), 1) == 1


def test_training_that_stands_still_fails_its_part(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.optim.Optimizer.step", lambda *_args, **_kwargs: None)
    monkeypatch.setattr("timm.optim.lars.Lars.step", lambda *_args, **_kwargs: None)
    monkeypatch.setattr(throughput, "VARIANTS", {"SimCLR-none": {"projector": "none"}})
    found = throughput.measure(site(tmp_path))
    assert [f.what for f in found.findings if f.holds is False] == ["SimCLR-none, weights that training moved, share"]


def test_embeddings_of_another_network_fail_their_part(tmp_path, monkeypatch):
    other = build_encoder(resolve({**TINY.recipe, "data": "x", "device": "cpu", "seed": 1}), 3).eval()
    encoder = embedded._encoder

    def another(place):
        loaded, skipped = encoder(place)
        monkeypatch.setattr(type(loaded.encoder), "double", lambda _self: other.to(torch.float64))
        return loaded, skipped

    monkeypatch.setattr(embedded, "_encoder", another)
    found = embedded.measure(site(tmp_path))
    assert [f.what.split(" against")[0] for f in found.findings if f.holds is False] == [
        "rows of the representation",
        "rows of the embedding",
    ]
    assert found.skipped == ["part 1 left no checkpoint: the encoder is one at its start"]


def test_a_picture_that_cannot_be_drawn_ends_nothing(tmp_path, monkeypatch):
    def broken(_report):
        raise TypeError("no picture")

    monkeypatch.setattr(report, "draw_report", broken)
    found, said = run(tmp_path / "out", monkeypatch, parts.good_part)
    assert found["passed"]
    assert "   report.png could not be drawn (TypeError: no picture)" in said


def test_a_command_that_is_killed_leaves_no_part_behind(tmp_path):
    code = """
import bridge_helpers, sys, time
from functools import partial
from dyncollapse.bridge.full.alone import run_alone
if __name__ == "__main__":
    run_alone(partial(bridge_helpers.sleep_and_tell, sys.argv[1]), time.time() + 60, print)
"""
    environment = {**ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "pid")], env=environment)
    try:
        assert eventually((tmp_path / "pid").exists)
    finally:
        command.kill()
        command.wait()
    part = int((tmp_path / "pid").read_text())
    assert eventually(lambda: ended(part))


def test_rows_that_fail_are_told_and_fail_their_part(tmp_path, archive, monkeypatch):
    finish = cifar.finish_run

    def some(recipe, *rest):
        if recipe.head == "linear":
            raise LossDiverged("the loss is nan at step 1")
        finish(recipe, *rest)

    monkeypatch.setattr(cifar, "finish_run", some)
    monkeypatch.setattr(cifar, "ORDER", ("linear", "mlp"))
    monkeypatch.setattr(cifar, "table_recipes", lambda common: table_recipes(common, ("linear", "mlp")))
    found = cifar.measure(site(tmp_path, cifar=archive))
    assert found.failed
    assert found.values["failed"] == {"linear": "the loss is nan at step 1"}
    assert [row["row"] for row in found.values["rows"]] == ["nonlinear, 2 layers"]


def test_wrong_weights_fail_the_covariances(tmp_path, monkeypatch):
    right = covariances.blockwise_covariance
    monkeypatch.setattr(covariances, "blockwise_covariance", lambda x, *rest: right(1.001 * x, *rest))
    assert covariances.measure(site(tmp_path)).failed


@pytest.mark.parametrize("lost", ["optimiser", "schedule", "order"])
def test_a_state_that_was_lost_shows_in_the_losses(lost, tmp_path, monkeypatch):
    place = site(tmp_path)
    write_jpegs(tmp_path / "small" / "train", 4, TINY.killed_images // 4, ((64, 64),))
    recipe = replace(resumed._recipe(place), keep=100)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    pretrain(recipe, whole, ALONE)
    shutil.copytree(whole, killed)
    first, *later = checkpoints(killed)
    for path in later:
        path.unlink()
    checkpoint = load_checkpoint(first)
    if lost == "optimiser":
        for state in checkpoint.states["optimiser"]["state"].values():
            state["momentum_buffer"].zero_()
        checkpoint.save(killed, keep=1)
    elif lost == "order":
        recipe = replace(recipe, seed=1)
        config = json.loads((killed / "config.json").read_text())
        (killed / "config.json").write_text(json.dumps(config | {"recipe": recipe.as_dict()}))
    else:
        monkeypatch.setattr("timm.scheduler.CosineLRScheduler.step_update", lambda *_args: None)
    pretrain(recipe, killed, ALONE)
    losses = ([line["loss"] for line in read_journal(folder / "log.jsonl")] for folder in (whole, killed))
    differences = resumed.compare(*losses)
    assert max(differences[: TINY.checkpoint_every]) == 0
    assert max(differences) > 100 * resumed.AGREES


def test_losses_of_runs_of_other_lengths_are_not_the_same():
    assert resumed.compare([1.0, 2.0], [1.0]) == [float("inf")]
    assert resumed.compare([1.0, 2.0], [1.0, 2.5]) == [0.0, 0.25]


def test_rows_for_which_no_time_is_left_are_named(tmp_path, archive, monkeypatch):
    monkeypatch.setattr(cifar, "ROOM", 1e9)  # as if the first had taken an age
    found = cifar.measure(site(tmp_path, cifar=archive))
    assert len(found.values["rows"]) == 1
    assert len(found.skipped) == 8
    told = found.skipped[0]
    assert told == "no time for the row linear; give more --minutes"
    assert cifar.measure(site(tmp_path)).skipped == ["CIFAR-10 was not given (--cifar PATH): no rows of Tables 1 and 2"]


def test_epochs_are_as_many_as_there_is_time_for(tmp_path):
    full = replace(site(tmp_path), scale=FULL, until=time.time() + 900 + cifar.AFTER)
    assert cifar._epochs(full, 9, 8.0) == 11 - 1  # 100 s a row, 12 of them besides its steps, not a second too long
    assert cifar._epochs(full, 9, 1e6) == 1


def test_archives_are_unpacked_and_others_refused(tmp_path, archive):
    assert sorted(path.name for path in cifar.unpacked(archive, tmp_path / "here").iterdir()) == ["test", "train"]
    with tarfile.open(tmp_path / "deep.tar", "w") as packed:
        packed.add(archive.parent / "train", "cifar/train")
    assert cifar.unpacked(tmp_path / "deep.tar", tmp_path / "there").name == "cifar"
    assert cifar.unpacked(archive.parent, tmp_path / "no") == archive.parent
    (tmp_path / "odd").write_text("odd")
    with pytest.raises(ValueError, match="is no folder, nor a tar archive that can be unpacked"):
        cifar.unpacked(tmp_path / "odd", tmp_path / "odd-folder")


def test_some_images_are_drawn_once():
    images = open_data("digits").train
    some = some_images(images, 100)
    assert len(some) == 100
    assert len(some_images(images, 10**6)) == len(images)
    assert some.labels.unique().numel() == 10
    assert torch.equal(some.labels, some_images(images, 100).labels)


def test_kernels_are_chosen_and_given_back():
    flags = torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    for repeat in (False, True):
        with chosen_kernels(small(deterministic=repeat)):
            assert torch.backends.cudnn.benchmark is not repeat
            assert torch.backends.cudnn.deterministic is repeat
            assert torch.are_deterministic_algorithms_enabled() is repeat
        assert (torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()) == flags


# --- Bad input


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_absent_is_told_in_a_line(tmp_path):
    line = refused(call("--full", "--out", tmp_path / "out"))
    assert line == "dyncollapse: --device is 'cuda'; this machine offers cpu"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--full", "--seeds", "2", "--short"], "--seeds, --short: not with --full; drop it, or change that"),
        (["--minutes", "3"], "--minutes: not without --full; drop it, or change that"),
        (["--tiny", "--device", "cpu", "--cifar", "gone"], "--cifar gone is not there; give a folder of CIFAR-10"),
        (["--tiny", "--device", "cpu", "--cifar", __file__], "is no folder and no tar archive; give CIFAR-10 as one"),
        (["--tiny", "--device", "cpu", "--cifar", str(Path(__file__).parent)], "class folders are empty (benchmarks)"),
        (["--full", "--device", "tpu"], "--device is 'tpu'; this machine offers cpu"),
        (["--full", "--minutes", "0"], "0.0 is not in the range x>0."),
    ],
)
def test_options_that_make_no_sense_are_refused(given, told):
    assert told in refused(call(*given))
