"""Pretraining: one process and two, stopped, killed and resumed, out of memory and out of disk."""

import errno
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import bridge_worker
import pytest
import torch
from bridge_helpers import ALONE, small, write_images
from click.testing import CliRunner

from dyncollapse.bridge import (
    LossDiverged,
    Progress,
    Stopped,
    TooBig,
    build_encoder,
    load_encoder,
    open_data,
    pretrain,
    read_run,
)
from dyncollapse.bridge import trainer as trainer_module
from dyncollapse.bridge.checkpoints import checkpoints, load_checkpoint, newest
from dyncollapse.bridge.fitting import fitting_batch
from dyncollapse.bridge.journal import Journal, read_journal
from dyncollapse.bridge.recipe import PIPELINES, PROJECTORS
from dyncollapse.bridge.trainer import build_trainer
from dyncollapse.bridge.watch import Watch
from dyncollapse.cli import main


def states(folder):
    return load_checkpoint(newest(folder)).states


def equal(one, other):
    """Whether nested states are the same to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def test_same_seed_same_bits_and_training_lowers_the_loss(tmp_path):
    recipe = small(epochs=2, batch_size=256)
    for name in ("one", "same"):
        encoder = pretrain(recipe, tmp_path / name, ALONE)
        assert not encoder.training
    assert equal(states(tmp_path / "one"), states(tmp_path / "same"))
    losses = [line["loss"] for line in read_journal(tmp_path / "one" / "log.jsonl")]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert losses[0] < 1.5 * torch.tensor(256.0).log()
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    assert (config["recipe"]["seed"], config["facts"]["steps"]) == (0, 10)
    assert {"torch", "timm", "torchvision", "scikit-learn"} <= config["versions"].keys()


@pytest.mark.parametrize("head", PROJECTORS)
def test_every_projector_trains_and_moves_what_it_should(head, tmp_path):
    recipe = small(projector=head, batch_size=432, lr=0.05)
    trainer = build_trainer(recipe, ALONE, 1297, 1)
    before = {name: value.clone() for name, value in trainer.encoder.state_dict().items()}
    encoder = pretrain(recipe, tmp_path, ALONE)
    after = encoder.state_dict()
    assert not torch.equal(before["backbone.conv1.weight"], after["backbone.conv1.weight"])
    trained = {name for name, _ in encoder.projector.named_parameters()}
    assert trained == {
        "mlp": {"0.weight", "1.weight", "1.bias", "3.weight"},
        "linear": {"weight"},
        "diagonal": {"gain"},
    }.get(head, set())
    for name in trained:
        assert not torch.equal(before[f"projector.{name}"], after[f"projector.{name}"])


@pytest.mark.parametrize("optimiser", ["lars", "sgd", "adamw"])
def test_schedule_warms_up_and_ends_and_vectors_are_not_decayed(optimiser):
    recipe = small(optimiser=optimiser, epochs=4, warmup_epochs=1.0, lr=0.5)
    trainer = build_trainer(recipe, ALONE, 1280, 1)
    rates = []
    for step in range(trainer.total):
        trainer.schedule.step_update(step)
        rates.append(trainer.optimiser.param_groups[0]["lr"])
    assert rates[0] == 0
    assert rates[5] == pytest.approx(0.25)
    assert max(rates) == rates[10] == 0.5
    assert rates[25] == pytest.approx(0.25)
    assert rates[-1] < 0.01
    decays = {group["weight_decay"] for group in trainer.optimiser.param_groups}
    assert decays == {0.0, recipe.weight_decay}
    for group in trainer.optimiser.param_groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_timms_lars_takes_the_step_that_we_say(generator):
    trainer = build_trainer(small(optimiser="lars", lr=0.5, momentum=0.0, weight_decay=0.1), ALONE, 1280, 1)
    weight = trainer.encoder.backbone.conv1.weight
    gain = trainer.encoder.backbone.bn1.weight
    before, before_gain = weight.detach().clone(), gain.detach().clone()
    for parameter in trainer.encoder.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    trainer.optimiser.step()
    ratio = 0.001 * before.norm() / (weight.grad.norm() + 0.1 * before.norm())
    torch.testing.assert_close(weight, before - 0.5 * ratio * (weight.grad + 0.1 * before))
    torch.testing.assert_close(gain, before_gain - 0.5 * gain.grad)


# --- Stopped and resumed


class Quits:
    """Progress that raises at a step."""

    def __init__(self, at, error):
        self.at, self.error = at, error

    def __call__(self, done, _total):
        if done == self.at:
            raise self.error


@pytest.mark.parametrize("head", ["mlp", "random-subvector"])
def test_run_that_died_between_checkpoints_ends_as_if_it_had_not(head, tmp_path):
    recipe = small(projector=head, epochs=2, batch_size=256, checkpoint_every=3, log_every=2, monitor_every=4)
    folders = [tmp_path / name for name in ("whole", "died")]
    pretrain(recipe, folders[0], ALONE)
    for at in (2, 5, 8):  # before the first checkpoint, and after the first and second
        with pytest.raises(RuntimeError):
            pretrain(recipe, folders[1], ALONE, Progress(step=Quits(at, RuntimeError("gone"))))
    told = []
    pretrain(recipe, folders[1], ALONE, Progress(tell=told.append))
    assert told == [f"going on from {folders[1] / 'checkpoints' / 'step-00000006.pt'}, step 6 of 10"]
    assert equal(states(folders[0]), states(folders[1]))
    logs = [read_journal(folder / "log.jsonl") for folder in folders]
    assert [line["step"] for line in logs[1]] == [line["step"] for line in logs[0]]
    monitors = [read_journal(folder / "monitor.jsonl") for folder in folders]
    assert [line["step"] for line in monitors[1]] == [4, 8]


def test_finished_run_is_only_read_again(tmp_path):
    recipe, steps = small(batch_size=432), []
    pretrain(recipe, tmp_path, ALONE)
    before = states(tmp_path)
    encoder = pretrain(recipe, tmp_path, ALONE, Progress(step=lambda done, _total: steps.append(done)))
    assert steps == [3]
    assert equal(before["model"], encoder.state_dict())


def test_other_settings_do_not_go_on_with_a_run(tmp_path):
    pretrain(small(batch_size=432), tmp_path, ALONE)
    with pytest.raises(ValueError, match=r"--lr is 0\.5, but this run began with 0\.3"):
        pretrain(small(batch_size=432, lr=0.5), tmp_path, ALONE)
    pretrain(small(batch_size=432, keep=1, log_every=1), tmp_path, ALONE)


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    recipe, refusals = small(batch_size=432), []

    def second(done, _total):
        if done == 1:
            with pytest.raises(ValueError, match="is being trained by another process") as error:
                pretrain(recipe, tmp_path, ALONE)
            refusals.append(str(error.value))

    pretrain(recipe, tmp_path, ALONE, Progress(step=second))
    assert len(refusals) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_signal_ends_after_the_step_with_a_checkpoint(number, tmp_path):
    recipe = small(batch_size=256, epochs=2, checkpoint_every=100)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"

    def ask(done, _total):
        if done == 3:
            signal.raise_signal(number)

    with pytest.raises(Stopped, match="stopped at step 4 of 10"):
        pretrain(recipe, stopped, ALONE, Progress(step=ask))
    assert [path.name for path in checkpoints(stopped)] == ["step-00000004.pt"]
    pretrain(recipe, stopped, ALONE)
    pretrain(recipe, whole, ALONE)
    assert equal(states(whole)["model"], states(stopped)["model"])


def test_killed_command_resumes_to_the_same_weights(tmp_path):
    # The real thing: another process, SIGKILL in the middle of whatever it does, and the command that goes on.
    options = ["--epochs", "4", "--batch-size", "256", "--checkpoint-every", "1", "--monitor-every", "5"]
    command = [sys.executable, "-m", "dyncollapse", "bridge", "pretrain"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = tmp_path / "killed"
    victim = subprocess.Popen(
        [*command, "--data", "digits", "--no-tensorboard", *options, "--out", str(out)],
        env=environment,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while len(checkpoints(out)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    at = load_checkpoint(newest(out)).step
    assert 0 < at < 20
    again = CliRunner().invoke(main, ["bridge", "pretrain", "--resume", "--out", str(out)])
    assert again.exit_code == 0, again.stderr
    assert f"step {at} of 20" in again.stderr
    pretrain(replace(read_run(out).recipe), tmp_path / "whole", ALONE)
    assert equal(states(tmp_path / "whole")["model"], states(out)["model"])
    assert equal(states(tmp_path / "whole")["optimiser"], states(out)["optimiser"])


# --- Checkpoints


def test_the_newest_checkpoints_are_kept(tmp_path):
    pretrain(small(batch_size=256, checkpoint_every=1, keep=3), tmp_path, ALONE)
    assert [path.name for path in checkpoints(tmp_path)] == [f"step-{k:08d}.pt" for k in (3, 4, 5)]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), RuntimeError("PytorchStreamWriter failed writing file data/3")]
)
def test_full_disk_leaves_the_previous_checkpoint_whole(error, tmp_path, monkeypatch):
    recipe, saved = small(batch_size=256, checkpoint_every=2), []
    save = torch.save

    def fill(content, path):
        save(content, path)
        saved.append(path)
        if len(saved) == 2:
            path.write_bytes(path.read_bytes()[:1000])  # half of it was written
            raise error

    monkeypatch.setattr(torch, "save", fill)
    with pytest.raises(OSError, match="pace"):
        pretrain(recipe, tmp_path, ALONE)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002.pt"]
    monkeypatch.undo()
    pretrain(recipe, tmp_path, ALONE)
    assert load_checkpoint(newest(tmp_path)).step == 5


def test_damaged_checkpoint_is_told(tmp_path):
    pretrain(small(batch_size=432), tmp_path, ALONE)
    path = newest(tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="take an earlier one"):
        pretrain(small(batch_size=432), tmp_path, ALONE)


def test_journal_drops_what_a_resumed_run_writes_again(tmp_path):
    journal = Journal(tmp_path / "log.jsonl")
    for step in (1, 2, 3):
        journal.write({"step": step, "loss": 0.1 * step})
    with journal.path.open("a") as file:
        file.write('{"step": 4, "lo')  # cut by a kill
    assert [line["step"] for line in read_journal(journal.path)] == [1, 2, 3]
    journal.cut(2)
    journal.write({"step": 3, "loss": 7.0})
    assert [line["loss"] for line in read_journal(journal.path)] == [0.1, 0.2, 7.0]


# --- Bad input


def test_image_folder_trains_in_every_pipeline_and_skips_what_is_broken(tmp_path):
    folder = write_images(tmp_path / "photos", 8)
    (folder / "cat" / "0003.jpg").write_bytes(b"\xff\xd8 broken")
    settings = {"preset": "digits", "data": str(folder), "image_size": 16, "augment": "cifar", "batch_size": 4}
    for pipeline in PIPELINES:
        out, told = tmp_path / pipeline, []
        recipe = small(**settings, pipeline=pipeline, checkpoint_every=100)
        pretrain(recipe, out, ALONE, Progress(tell=told.append))
        assert told[-1].startswith("1 of 16 images could not be read and were skipped: ")
        assert read_journal(out / "log.jsonl")[-1]["skipped_images"] == 1
        strict = tmp_path / f"strict-{pipeline}"
        with pytest.raises(ValueError, match="repair or remove it, or leave out --strict"):
            pretrain(small(**settings, pipeline=pipeline, strict=True, epochs=3), strict, ALONE)


def test_batch_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--batch-size is 2000, but there are 1297 images"):
        pretrain(small(batch_size=2000), tmp_path, ALONE)


def test_loss_that_is_no_number_stops_the_run_and_no_checkpoint_holds_it(tmp_path):
    recipe = small(lr=1e30, batch_size=256, epochs=2, checkpoint_every=1)
    with pytest.raises(LossDiverged, match=r"the (loss is nan|weights overflowed) at step \d+; .*lower --lr"):
        pretrain(recipe, tmp_path, ALONE)
    assert checkpoints(tmp_path)
    for path in checkpoints(tmp_path):
        model = load_checkpoint(path).states["model"]
        assert all(bool(torch.isfinite(value).all()) for name, value in model.items() if "running" not in name)


def test_weights_that_overflow_are_told():
    trainer = build_trainer(small(), ALONE, 1297, 1)
    assert trainer.finite
    with torch.no_grad():
        trainer.encoder.backbone.conv1.weight[0] = float("inf")
    assert not trainer.finite


def test_data_that_has_changed_does_not_go_on_with_a_run(tmp_path):
    folder = write_images(tmp_path / "photos", 8)
    settings = {"preset": "digits", "data": str(folder), "image_size": 16, "augment": "cifar", "batch_size": 4}
    pretrain(small(**settings, pipeline="workers"), tmp_path / "run", ALONE)
    (folder / "cat" / "0000.jpg").rename(folder / "cat" / "0000.txt")
    with pytest.raises(ValueError, match="--data has 15 images, but this run began with 16"):
        pretrain(small(**settings, pipeline="workers"), tmp_path / "run", ALONE)


@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_backbones_are_tried_before_anything_is_written(arch, tmp_path):
    recipe = small(arch=arch, stem="imagenet", image_size=32, batch_size=1000)
    if "vit" in arch:
        with pytest.raises(ValueError, match="does not take views of --image-size 32"):
            pretrain(recipe, tmp_path, ALONE)
        assert not (tmp_path / "config.json").exists()
    else:
        pretrain(recipe, tmp_path, ALONE)
        assert read_run(tmp_path).facts["representation_dim"] == 1024


def test_digits_go_through_workers_where_that_is_asked_for(tmp_path):
    for pipeline in PIPELINES:
        pretrain(small(batch_size=1000, pipeline=pipeline), tmp_path / pipeline, ALONE)
    models = [states(tmp_path / pipeline)["model"] for pipeline in PIPELINES]
    assert not any(equal(one, other) for one, other in itertools.combinations(models, 2))


def test_out_of_memory_says_what_to_do(tmp_path, monkeypatch):
    def exhausted(*_arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")

    monkeypatch.setattr(trainer_module, "contrast", exhausted)
    with pytest.raises(TooBig, match="--batch-size 128 does not fit into memory; halve it until it does"):
        pretrain(small(), tmp_path, ALONE)


def test_the_batch_that_would_fit_is_read_off_two_small_ones():
    # 1 GB fixed and 100 MB a pair, of 10 GB: (0.9 * 10 - 1) / 0.1 pairs.
    assert fitting_batch((1_400_000_000, 1_800_000_000), 10_000_000_000) == 80
    assert fitting_batch((9_400_000_000, 9_800_000_000), 9_000_000_000) == 0


# --- Several processes


def launch(out, count, cases):
    """The work in `count` processes, joined as torchrun does it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", bridge_worker.__file__, str(out), json.dumps(cases)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        for worker in workers:
            _, errors = worker.communicate(timeout=200)
            assert worker.returncode == 0, errors
    finally:
        for worker in workers:
            worker.kill()


def test_two_processes_have_the_loss_gradients_and_statistics_of_one(tmp_path):
    cases = {head: {"projector": head, "batch_size": 64} for head in ("mlp", "linear", "random-subvector")}
    bridge_worker.work(tmp_path, cases)  # alone
    launch(tmp_path, 2, cases)
    for head in cases:
        one, *two = (torch.load(tmp_path / f"{head}-{name}.pt") for name in ("1-0", "2-0", "2-1"))
        for other in two:
            torch.testing.assert_close(other["loss"], one["loss"], rtol=1e-6, atol=0)
            assert other["gradients"].keys() == one["gradients"].keys()
            for name, gradient in one["gradients"].items():
                # float32 in the loss and its softmax, float64 in the network.
                error = (other["gradients"][name] - gradient).norm() / gradient.norm().clamp_min(1e-3)
                assert float(error) < 1e-6, name
            for name, value in one["state"].items():
                torch.testing.assert_close(other["state"][name], value, rtol=1e-9, atol=1e-12)
    logs = [read_journal(tmp_path / f"run-{count}" / "log.jsonl")[-1] for count in (1, 2)]
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], rel=1e-4)
    monitors = [read_journal(tmp_path / f"run-{count}" / "monitor.jsonl") for count in (1, 2)]
    for one, other in zip(*monitors, strict=True):
        assert one["representation_samples"] == other["representation_samples"]
        assert one["representation_effective_rank"] == pytest.approx(other["representation_effective_rank"], rel=1e-2)
    weights = [states(tmp_path / f"run-{count}")["model"]["backbone.conv1.weight"] for count in (1, 2)]
    # Two violent first steps in float32 multiply rounding: conv1 moves by 0.6 of itself, the runs part by 0.6 % of it.
    moved = weights[0] - build_encoder(small(batch_size=432), 1).state_dict()["backbone.conv1.weight"]
    assert float((weights[0] - weights[1]).norm() / moved.norm()) < 0.03
    assert len(load_checkpoint(newest(tmp_path / "run-2")).states["random"]) == 2


def test_processes_share_a_batch_evenly_or_not_at_all():
    two = [replace(ALONE, rank=rank, count=2) for rank in range(2)]
    assert [process.share(8) for process in two] == [slice(0, 4), slice(4, 8)]
    with pytest.raises(ValueError, match="--batch-size is 9, which 2 processes cannot share evenly; try 8"):
        two[0].share(9)


# --- Watching


def test_watch_reports_windows_of_both_spaces(generator):
    watch = Watch(10, 64, (8, 4), ALONE)
    assert watch.window == 2  # 80 samples of 8 dimensions
    for step in range(1, 21):
        r = torch.randn(64, 8, generator=generator)
        found = watch.update(step, {"representation": (r, r + 0.1), "embedding": (r[:, :4], r[:, :4] + 0.1)})
        assert (found is not None) == (step % 10 == 0)
    assert found["representation_samples"] == 128
    assert (found["representation_collapsed"], found["embedding_collapsed"]) == (0, 0)
    assert found["embedding_effective_rank"] > 3.5
    assert len(found["representation_spectrum"]) == 8
    json.dumps(found, allow_nan=False)
    assert Watch(0, 64, (8, 4), ALONE).update(1, {}) is None


def test_watch_tells_a_total_collapse_and_goes_on():
    watch = Watch(1, 64, (4, 4), ALONE)
    nan = torch.full((64, 4), float("nan"))
    found = watch.update(1, {"representation": (nan, nan), "embedding": (torch.ones(64, 4), torch.ones(64, 4))})
    assert "NaN" in found["representation_error"]
    assert threading.active_count() >= 1
    json.dumps(found, allow_nan=False)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_journals_are_mirrored_in_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    pretrain(small(batch_size=432, monitor_every=1, log_every=1, tensorboard=True), tmp_path, ALONE)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_monitor_of_a_run_sees_what_the_checkpoint_does(tmp_path):
    recipe = small(batch_size=256, epochs=3, monitor_every=5, projector="none")
    pretrain(recipe, tmp_path, ALONE)
    lines = read_journal(tmp_path / "monitor.jsonl")
    assert [line["step"] for line in lines] == [5, 10, 15]
    # Without a projector both spaces are one.
    for line in lines:
        assert line["representation_rankme"] == line["embedding_rankme"]
    assert load_encoder(tmp_path).run == tmp_path
    assert open_data("digits").classes[3] == "3"
