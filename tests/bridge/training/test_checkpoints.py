"""A run's checkpoint is checked before it is believed, by what resumes it and by what embeds with it."""

import os
import re
import time

import pytest
import torch
from helpers.bridge import ALONE, small

from dyncollapse.bridge import pretrain
from dyncollapse.bridge.evaluation.load import load_encoder
from dyncollapse.bridge.training.checkpoints import checkpoints, load_checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What a short run saved."""
    folder = tmp_path_factory.mktemp("run")
    pretrain(small(batch_size=432), folder, ALONE)
    return torch.load(checkpoints(folder)[-1], weights_only=True)


def weights(**changes):
    return lambda content: content["model"].update(changes)


def recipe(**changes):
    return lambda content: content["recipe"].update(changes)


def part(**changes):
    return lambda content: content.update(changes)


FIRST = "backbone.conv1.weight"
CHANGES = {
    "another format": part(format=2),
    "a format of its own": part(format={"a": 1}),
    "negative step": part(step=-1),
    "step of words": part(step="5"),
    "huge step": part(step=2**70),
    "channels of a tensor": part(channels=torch.ones(3)),
    "channels without end": part(channels=2**40),
    "no channels": part(channels=0),
    "recipe of words": part(recipe="digits"),
    "unknown setting": recipe(colour="red"),
    "width without end": recipe(hidden_dim=2**63 - 1),
    "wide output": recipe(out_dim=10**12),
    "large network": recipe(arch="resnet152"),
    "arch of a number": recipe(arch=3),
    "unknown arch": recipe(arch="\x1b[31mnone"),
    "unknown stem": recipe(stem="other"),
    "unknown projector": recipe(projector="other"),
    "model of words": part(model="resnet18"),
    "model of a list": part(model=[1, 2]),
    "weights of words": weights(**{FIRST: "red"}),
    "weights of another shape": weights(**{FIRST: torch.ones(3)}),
    "weights of another dtype": weights(**{FIRST: torch.ones(16, 1, 3, 3).long()}),
    "weights that are sparse": weights(**{FIRST: torch.ones(16, 1, 3, 3).to_sparse()}),
    "weights too many": weights(more=torch.ones(3)),
    "weights too few": lambda content: content["model"].pop(FIRST),
    "optimiser of words": part(optimiser="sgd"),
    "random of a dict": part(random={}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_checkpoint_is_refused_in_one_line(saved, tmp_path, name):
    content = saved | {"recipe": dict(saved["recipe"]), "model": dict(saved["model"])}
    CHANGES[name](content)
    path = tmp_path / "step-00000001.pt"
    torch.save(content, path)
    for load in (load_checkpoint, load_encoder):
        start = time.process_time()
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))} ") as caught:
            load(path)
        assert time.process_time() - start < 5
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < len(str(path)) + 600


def test_the_checkpoint_itself_is_read(saved, tmp_path):
    torch.save(saved, tmp_path / "x.pt")
    found = load_checkpoint(tmp_path / "x.pt")
    assert (found.step, found.channels) == (saved["step"], 1)
    assert found.states.keys() == saved.keys() - {"format", "step", "recipe", "channels"}
    assert all(torch.equal(found.states["model"][name], tensor) for name, tensor in saved["model"].items())
    assert load_encoder(tmp_path / "x.pt").step == saved["step"]


@pytest.mark.parametrize("change", [{"optimiser": {}}, {"random": [{"cpu": torch.ones(3)}]}, {"schedule": {"a": 1}}])
def test_states_that_do_not_fit_are_told_when_the_run_goes_on(saved, tmp_path, change):
    settings = small(batch_size=432)
    pretrain(settings, tmp_path, ALONE)
    last = checkpoints(tmp_path)[-1]
    torch.save(saved | change, last)
    with pytest.raises(ValueError, match=r"the checkpoint of step \d+ does not fit to this run"):
        pretrain(settings, tmp_path, ALONE)


def test_a_pipe_or_folder_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    for path, words in ((tmp_path / "pipe.pt", "it is a pipe"), (tmp_path, "it is a directory")):
        with pytest.raises(ValueError, match=words):
            load_checkpoint(path)
    with pytest.raises(ValueError, match="cannot be read"):
        load_checkpoint(tmp_path / "missing.pt")
