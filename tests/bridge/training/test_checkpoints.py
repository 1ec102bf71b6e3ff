"""A run's checkpoint is checked before it is believed, by what resumes it and by what embeds with it."""

import copy
import os
import re
import time

import pytest
import torch
from helpers.bridge import ALONE, three_steps

from dyncollapse.bridge import pretrain
from dyncollapse.bridge.data.batches import Batch
from dyncollapse.bridge.evaluation.load import load_encoder
from dyncollapse.bridge.training.checkpoints import Checkpoint, checkpoints, load_checkpoint
from dyncollapse.bridge.training.trainer import build_trainer

PARTS = ("optimiser", "schedule", "scaler", "random")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What a short run saved."""
    folder = tmp_path_factory.mktemp("run")
    pretrain(three_steps(), folder, ALONE)
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


def at(*path):
    """Put a value where a path of keys leads."""

    def put(content, value):
        *way, last = path
        for key in way:
            content = content[key]
        content[last] = value

    return put


def momentum(content, value):
    content["optimiser"]["state"][0]["momentum_buffer"] = value


STATES = {
    "no optimiser": (at("optimiser"), {}),
    "generators": (at("random"), [{"cpu": torch.ones(3)}]),
    "another schedule": (at("schedule"), {"a": 1}),
    "warm-up of text": (at("schedule", "warmup_t"), "a"),
    "longer schedule": (at("schedule", "t_initial"), 10**6),
    "momentum of one number": (momentum, 1.5),
    "momentum of another shape": (momentum, torch.zeros(1, 16, 1, 3, 3)),
    "momentum that is sparse": (momentum, torch.zeros(16, 1, 3, 3).to_sparse()),
    "momentum of a list": (momentum, [1]),
    "another momentum": (at("optimiser", "param_groups", 0, "momentum"), 0.5),
    "decay of a tensor": (at("optimiser", "param_groups", 0, "weight_decay"), torch.ones(3)),
    "state of no parameter": (at("optimiser", "state", 999), {}),
    "state with more in it": (at("optimiser", "state", 0, "more"), 1),
    "scale": (at("scaler", "scale"), "a"),
}


@pytest.mark.parametrize("name", STATES)
def test_states_that_do_not_fit_are_told_when_the_run_goes_on(saved, name):
    change, value = STATES[name]
    content = copy.deepcopy(saved)
    change(content, value)
    states = {name: content[name] for name in ("model", *PARTS)}
    checkpoint = Checkpoint(saved["step"], three_steps(), 1, states)
    trainer = build_trainer(checkpoint.recipe, ALONE, 1297, 1)
    before = copy.deepcopy(trainer.encoder.state_dict())
    with pytest.raises(ValueError, match=r"the checkpoint of step \d+ does not fit this run"):
        trainer.restore(checkpoint)
    if name != "generators":  # read last
        assert all(torch.equal(tensor, before[n]) for n, tensor in trainer.encoder.state_dict().items())


@pytest.mark.parametrize("settings", [{}, {"optimiser": "lars"}, {"optimiser": "adamw"}, {"momentum": 0.0}])
def test_own_states_fit_also_those_of_another_version_of_torch(settings):
    recipe = three_steps(**settings)
    trainers = [build_trainer(recipe, ALONE, 1297, 1) for _ in range(2)]
    views = torch.randn(2, 4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for number in range(2):
        trainers[0].step(number, Batch(tuple(views), torch.arange(4)))
    checkpoint = trainers[0].checkpoint(2)
    for group in checkpoint.states["optimiser"]["param_groups"]:
        del group["foreach"]
        group["fashion"] = 1
    trainers[1].restore(checkpoint)
    for one, other in zip(*(trainer.optimiser.state_dict()["state"].values() for trainer in trainers), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(torch.as_tensor(one[n]), torch.as_tensor(other[n])) for n in one)


def test_a_pipe_or_folder_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    for path, words in ((tmp_path / "pipe.pt", "it is a pipe"), (tmp_path, "it is a directory")):
        with pytest.raises(ValueError, match=words):
            load_checkpoint(path)
    with pytest.raises(ValueError, match="cannot be read"):
        load_checkpoint(tmp_path / "missing.pt")
