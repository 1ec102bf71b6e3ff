import json

import pytest
import torch
from helpers.bridge import ALONE, small, three_steps

from dyncollapse.bridge import load_encoder, open_data, pretrain
from dyncollapse.bridge.training.collapse_monitor import CollapseMonitor
from dyncollapse.bridge.training.training_log import read_monitor

# --- Watching


def test_watch_reports_windows_of_both_spaces(generator):
    watch = CollapseMonitor(10, 64, (8, 4), ALONE)
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
    assert CollapseMonitor(0, 64, (8, 4), ALONE).update(1, {}) is None


def test_watch_tells_a_total_collapse_and_goes_on():
    watch = CollapseMonitor(1, 64, (4, 4), ALONE)
    nan = torch.full((64, 4), float("nan"))
    found = watch.update(1, {"representation": (nan, nan), "embedding": (torch.ones(64, 4), torch.ones(64, 4))})
    assert found["representation_error"].startswith("at step 1, row 0 of view 1 holds NaN or infinity")
    json.dumps(found, allow_nan=False)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_logs_are_mirrored_in_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    pretrain(three_steps(monitor_every=1, log_every=1, tensorboard=True), tmp_path, ALONE)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_monitor_of_a_run_sees_what_the_checkpoint_does(tmp_path):
    recipe = small(images=320, batch_size=64, epochs=3, monitor_every=5, projector="none")
    pretrain(recipe, tmp_path, ALONE)
    lines = read_monitor(tmp_path / "monitor.jsonl")
    assert [line["step"] for line in lines] == [5, 10, 15]
    # Without a projector both spaces are one.
    for line in lines:
        assert line["representation_rankme"] == line["embedding_rankme"]
    assert load_encoder(tmp_path).run == tmp_path
    assert open_data("digits").classes[3] == "3"
