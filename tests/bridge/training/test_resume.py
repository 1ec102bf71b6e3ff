"""Pretraining: stopped, killed and resumed, and out of disk."""

import signal
from dataclasses import replace

import pytest
from click.testing import CliRunner
from helpers import forks
from helpers.bridge import ALONE, equal, small, states, three_steps, write_images
from helpers.programs import small_disk
from helpers.waiting import eventually

from dyncollapse.bridge import Progress, Stopped, pretrain, read_run
from dyncollapse.bridge.training.checkpoints import checkpoints, load_checkpoint, newest
from dyncollapse.bridge.training.training_log import TrainingLog, read_log, read_monitor
from dyncollapse.commands.main import main
from dyncollapse.runtime.files import CannotWrite

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
    recipe = small(
        projector=head, epochs=2, images=160, batch_size=32, checkpoint_every=3, log_every=2, monitor_every=4
    )
    folders = [tmp_path / name for name in ("whole", "died")]
    pretrain(recipe, folders[0], ALONE)
    for at in (2, 5, 8):  # before the first checkpoint, and after the first and second
        with pytest.raises(RuntimeError):
            pretrain(recipe, folders[1], ALONE, Progress(step=Quits(at, RuntimeError("gone"))))
    told = []
    pretrain(recipe, folders[1], ALONE, Progress(tell=told.append))
    assert told == [f"going on from {folders[1] / 'checkpoints' / 'step-00000006.pt'}, step 6 of 10"]
    assert equal(states(folders[0]), states(folders[1]))
    logs = [read_log(folder / "log.jsonl") for folder in folders]
    assert [line["step"] for line in logs[1]] == [line["step"] for line in logs[0]]
    monitors = [read_monitor(folder / "monitor.jsonl") for folder in folders]
    assert [line["step"] for line in monitors[1]] == [4, 8]


def test_finished_run_is_only_read_again(tmp_path):
    recipe, steps = three_steps(), []
    pretrain(recipe, tmp_path, ALONE)
    before = states(tmp_path)
    encoder = pretrain(recipe, tmp_path, ALONE, Progress(step=lambda done, _total: steps.append(done)))
    assert steps == [3]
    assert equal(before["model"], encoder.state_dict())


def test_other_settings_do_not_go_on_with_a_run(tmp_path):
    pretrain(three_steps(), tmp_path, ALONE)
    with pytest.raises(ValueError, match=r"lr is 0\.5, but this run began with 0\.3"):
        pretrain(three_steps(lr=0.5), tmp_path, ALONE)
    pretrain(three_steps(keep=1, log_every=1), tmp_path, ALONE)


def test_data_that_has_changed_does_not_go_on_with_a_run(tmp_path):
    folder = write_images(tmp_path / "photos", 8)
    settings = {"preset": "digits", "data": str(folder), "image_size": 16, "augment": "cifar", "batch_size": 4}
    pretrain(small(**settings, pipeline="workers"), tmp_path / "run", ALONE)
    (folder / "cat" / "0000.jpg").rename(folder / "cat" / "0000.txt")
    with pytest.raises(ValueError, match="data has 15 images, but this run began with 16"):
        pretrain(small(**settings, pipeline="workers"), tmp_path / "run", ALONE)


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    recipe, refusals = three_steps(), []

    def second(done, _total):
        if done == 1:
            with pytest.raises(ValueError, match="is in use by process") as error:
                pretrain(recipe, tmp_path, ALONE)
            refusals.append(str(error.value))

    pretrain(recipe, tmp_path, ALONE, Progress(step=second))
    assert len(refusals) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_signal_ends_after_the_step_with_a_checkpoint(number, tmp_path):
    recipe = small(images=160, batch_size=32, epochs=2, checkpoint_every=100)
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


@pytest.mark.slow
@pytest.mark.usefixtures("sketched")
def test_killed_command_resumes_to_the_same_weights(tmp_path):
    # The real thing: another process, SIGKILL in the middle of whatever it does, and the command that goes on.
    options = ["--images", "640", "--epochs", "4", "--batch-size", "128"]
    options += ["--checkpoint-every", "1", "--monitor-every", "5"]
    out = tmp_path / "killed"
    command = ["-m", "dyncollapse", "bridge", "pretrain", "--data", "digits", "--no-tensorboard", *options]
    victim = forks.start([*command, "--out", out])
    eventually(lambda: len(checkpoints(out)) > 1)
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
    pretrain(small(images=160, batch_size=32, checkpoint_every=1, keep=3), tmp_path, ALONE)
    assert [path.name for path in checkpoints(tmp_path)] == [f"step-{k:08d}.pt" for k in (3, 4, 5)]


def test_full_disk_leaves_the_previous_checkpoint_whole(tmp_path):
    recipe = small(images=160, batch_size=32, checkpoint_every=2)

    def fill(done, _total):
        if done == 2:
            limit.__enter__()

    limit = small_disk(100_000)
    try:
        with pytest.raises(CannotWrite, match="File too large") as caught:
            pretrain(recipe, tmp_path, ALONE, Progress(step=fill))
    finally:
        limit.__exit__(None, None, None)
    assert caught.value.filename == str(tmp_path / "checkpoints" / "step-00000004.pt")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002.pt"]
    pretrain(recipe, tmp_path, ALONE)
    assert load_checkpoint(newest(tmp_path)).step == 5


def test_damaged_checkpoint_is_told(tmp_path):
    pretrain(three_steps(), tmp_path, ALONE)
    path = newest(tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="take an earlier one"):
        pretrain(three_steps(), tmp_path, ALONE)


def test_log_drops_what_a_resumed_run_writes_again(tmp_path):
    log = TrainingLog(tmp_path / "log.jsonl")
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 0.1 * step})
    with log.path.open("a") as file:
        file.write('{"step": 4, "lo')  # cut by a kill
    assert [line["step"] for line in read_log(log.path)] == [1, 2, 3]
    log.cut(2)
    log.write({"step": 3, "loss": 7.0})
    assert [line["loss"] for line in read_log(log.path)] == [0.1, 0.2, 7.0]
