import json
import shutil
from dataclasses import replace

import pytest
import torch
from helpers.bridge import ALONE, small
from helpers.constants import set_constant
from helpers.real_scale import CPU, Clock, site

from dyncollapse.bridge.data.images import open_data, some_images
from dyncollapse.bridge.models.encoders import Encoder, build_encoder
from dyncollapse.bridge.presets import resolve
from dyncollapse.bridge.real_scale import covariances, embedding, ensembles, resumption, throughput, timing
from dyncollapse.bridge.real_scale.scale import FULL, TINY
from dyncollapse.bridge.real_scale.synthetic_images import images_in_memory, write_jpegs
from dyncollapse.bridge.training.checkpoints import checkpoints, load_checkpoint
from dyncollapse.bridge.training.optimisation import chosen_kernels
from dyncollapse.bridge.training.pretraining import pretrain
from dyncollapse.bridge.training.training_log import read_log

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
    set_constant(monkeypatch, "bridge.real_scale.throughput.VARIANTS", {"SimCLR-none": {"projector": "none"}})
    found = throughput.measure(site(tmp_path))
    assert [f.what for f in found.findings if f.holds is False] == [
        "SimCLR-none, share of weights that training changed"
    ]


def test_a_variant_without_memory_fails_alone(tmp_path, monkeypatch):
    measured = throughput.rates

    def some(recipe, *rest):
        if recipe.head == "mlp":
            raise torch.OutOfMemoryError("no memory")
        return measured(recipe, *rest)

    monkeypatch.setattr(throughput, "rates", some)
    two = {name: throughput.VARIANTS[name] for name in ("SimCLR-mlp", "SimCLR-none")}
    set_constant(monkeypatch, "bridge.real_scale.throughput.VARIANTS", two)
    lines, kept = [], []
    found = throughput.measure(replace(site(tmp_path), tell=lines.append, save=kept.append))
    assert [f.what for f in found.findings if f.holds is False] == ["variants that failed"]
    assert [*found.values["rates"]] == ["SimCLR-none"]
    assert checkpoints(tmp_path)  # of the first that trained
    assert "SimCLR-mlp failed: OutOfMemoryError: no memory" in lines
    announced = [line.partition(":")[0] for line in lines]
    assert announced.index("SimCLR-none") < len(announced) - 1  # before it is measured
    assert kept


@pytest.mark.parametrize("part", [covariances, ensembles], ids=lambda part: part.__name__.rpartition(".")[2])
def test_a_part_says_what_it_does_and_keeps_what_it_has(part, tmp_path, monkeypatch):
    done = []
    for name in ("seconds_per_call", "peak_memory"):
        if work := getattr(part, name, None):
            monkeypatch.setattr(part, name, lambda *a, _work=work, **k: (done.append("work"), _work(*a, **k))[1])
    noted = {"tell": lambda text: done.append(f"tell {text}"), "save": lambda _result: done.append("save")}
    part.measure(replace(site(tmp_path), **noted))
    assert done[0].startswith("tell")
    assert "save" in done[: len(done) - done[::-1].index("work")]  # before the last measurement


def test_embeddings_of_another_network_fail_their_part(tmp_path, monkeypatch):
    other = build_encoder(resolve({**TINY.recipe, "data": "x", "device": "cpu", "seed": 1}), 3).eval()
    monkeypatch.setattr(Encoder, "double", lambda _self: other.to(torch.float64))  # what the rows are compared with
    found = embedding.measure(site(tmp_path))
    assert [f.what.split(" against")[0] for f in found.findings if f.holds is False] == [
        "relative error of 8 rows of the representation",
        "relative error of 8 rows of the embedding",
    ]
    assert found.skipped == ["part 1 left no checkpoint: the encoder is untrained"]


def test_wrong_weights_fail_the_covariances(tmp_path, monkeypatch):
    right = covariances.blockwise_covariance
    monkeypatch.setattr(covariances, "blockwise_covariance", lambda x, *rest: right(1.001 * x, *rest))
    assert covariances.measure(site(tmp_path)).failed


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run as in part 5, of a third of the steps, with all of its checkpoints: recipe and folder."""
    place = site(tmp_path_factory.mktemp("whole"))
    write_jpegs(place.folder / "small" / "train", 4, TINY.killed_images // 4, ((64, 64),))
    recipe = resumption.killed_recipe(place)
    recipe = replace(recipe, epochs=recipe.epochs // 3, keep=100)
    pretrain(recipe, place.folder / "whole", ALONE)
    return recipe, place.folder / "whole"


@pytest.mark.parametrize("lost", ["optimiser", "schedule", "order"])
def test_a_state_that_was_lost_shows_in_the_losses(lost, whole, tmp_path, monkeypatch):
    (recipe, finished), killed = whole, tmp_path / "killed"
    shutil.copytree(finished, killed)
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
    losses = ([line["loss"] for line in read_log(folder / "log.jsonl")] for folder in (finished, killed))
    differences = resumption.compare(*losses)
    assert max(differences[: TINY.checkpoint_every]) == 0
    assert max(differences) > 100 * resumption.AGREES


def test_losses_of_runs_of_other_lengths_are_not_the_same():
    assert resumption.compare([1.0, 2.0], [1.0]) == [float("inf")]
    assert resumption.compare([1.0, 2.0], [1.0, 2.5]) == [0.0, 0.25]


def test_some_images_are_drawn_once():
    images = open_data("digits").train
    some = some_images(images, 100)
    assert len(some) == 100
    assert len(some_images(images, 10**6)) == len(images)
    assert some.labels.unique().numel() == 10
    assert torch.equal(some.labels, some_images(images, 100).labels)


@pytest.mark.parametrize("compiled", [False, True])
def test_kernels_are_chosen_and_given_back(compiled):
    from torch._inductor import config as inductor  # its import takes a second

    flags = torch.backends.cudnn.benchmark, torch.get_deterministic_debug_mode()
    for repeat in (False, True):
        with chosen_kernels(small(deterministic=repeat, compile=compiled)):
            assert torch.backends.cudnn.benchmark is not repeat
            assert torch.backends.cudnn.deterministic is repeat
            assert torch.get_deterministic_debug_mode() == (1 if repeat else 0)
            assert inductor.deterministic is (repeat and compiled)
        assert (torch.backends.cudnn.benchmark, torch.get_deterministic_debug_mode()) == flags
        assert inductor.deterministic is False


def test_a_rate_is_measured_for_the_time_that_is_asked_for(monkeypatch):
    clock, calls = Clock(), []
    monkeypatch.setattr(timing, "time", clock)
    seconds = timing.seconds_per_call(lambda: (calls.append(0), clock.pass_by(2**-7)), CPU, 0.25, warm=3)
    assert seconds == 2**-7
    assert len(calls) == 3 + 1 + 32
