import itertools
import json

import pytest
import torch
from helpers.bridge import ALONE, equal, small, states, three_steps, write_images

from dyncollapse.bridge import LossDiverged, Progress, TooBig, pretrain, read_run
from dyncollapse.bridge.data.images import limited, open_data
from dyncollapse.bridge.recipe import PIPELINES, PROJECTORS
from dyncollapse.bridge.training import trainer as trainer_module
from dyncollapse.bridge.training.batch_size import largest_batch
from dyncollapse.bridge.training.checkpoints import checkpoints, load_checkpoint
from dyncollapse.bridge.training.trainer import build_trainer
from dyncollapse.bridge.training.training_log import read_log
from dyncollapse.runtime.settings import SettingError


def test_same_seed_same_bits_and_training_lowers_the_loss(tmp_path):
    recipe = small(epochs=2, images=320, batch_size=64)
    for name in ("one", "same"):
        encoder = pretrain(recipe, tmp_path / name, ALONE)
        assert not encoder.training
    assert equal(states(tmp_path / "one"), states(tmp_path / "same"))
    losses = [line["loss"] for line in read_log(tmp_path / "one" / "log.jsonl")]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert losses[0] < 1.5 * torch.tensor(64.0).log()
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    assert (config["recipe"]["seed"], config["facts"]["steps"]) == (0, 10)
    assert {"torch", "timm", "torchvision", "scikit-learn"} <= config["versions"].keys()


@pytest.mark.parametrize("head", PROJECTORS)
def test_every_projector_trains_and_moves_what_it_should(head, tmp_path):
    recipe = three_steps(projector=head, lr=0.05)
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
    recipe = small(optimiser=optimiser, batch_size=128, epochs=4, warmup_epochs=1.0, lr=0.5)
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
        assert read_log(out / "log.jsonl")[-1]["skipped_images"] == 1
        strict = tmp_path / f"strict-{pipeline}"
        with pytest.raises(ValueError, match="repair or remove it, or leave out strict"):
            pretrain(small(**settings, pipeline=pipeline, strict=True, epochs=3), strict, ALONE)


def test_batch_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size is 2000, but there are 1297 images"):
        pretrain(small(batch_size=2000), tmp_path, ALONE)


def test_loss_that_is_no_number_stops_the_run_and_no_checkpoint_holds_it(tmp_path):
    recipe = small(lr=1e15, batch_size=256, epochs=2, checkpoint_every=1)
    with pytest.raises(LossDiverged, match=r"the (loss is nan|weights overflowed) at step \d+; lower lr or raise"):
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


@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_backbones_are_tried_before_anything_is_written(arch, tmp_path):
    side = 40 if "vit" in arch else 32  # no whole number of patches of 16 pixels
    recipe = small(arch=arch, stem="imagenet", image_size=side, images=32, batch_size=32)
    if "vit" in arch:
        with pytest.raises(ValueError, match="cuts images into patches of 16 pixels; give a multiple"):
            pretrain(recipe, tmp_path, ALONE)
        assert not (tmp_path / "config.json").exists()
    else:
        pretrain(recipe, tmp_path, ALONE)
        assert read_run(tmp_path).facts["representation_dim"] == 1024


def test_digits_go_through_workers_where_that_is_asked_for(tmp_path):
    for pipeline in PIPELINES:
        pretrain(small(images=32, batch_size=32, pipeline=pipeline), tmp_path / pipeline, ALONE)
    models = [states(tmp_path / pipeline)["model"] for pipeline in PIPELINES]
    assert not any(equal(one, other) for one, other in itertools.combinations(models, 2))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_says_what_to_do(error, tmp_path, monkeypatch):
    def exhausted(*_arguments):
        raise error

    monkeypatch.setattr(trainer_module, "contrast", exhausted)
    with pytest.raises(TooBig, match="batch_size 32 does not fit into memory; halve it until it does"):
        pretrain(small(), tmp_path, ALONE)


def test_the_batch_that_would_fit_is_read_off_two_small_ones():
    # 1 GB fixed and 100 MB a pair, of 10 GB: (0.9 * 10 - 1) / 0.1 pairs.
    assert largest_batch((1_400_000_000, 1_800_000_000), 10_000_000_000) == 80
    assert largest_batch((9_400_000_000, 9_800_000_000), 9_000_000_000) == 0


def test_fewer_images_are_the_same_ones_for_every_seed(tmp_path):
    recipe = small(images=64, batch_size=32, epochs=1)
    pretrain(recipe, tmp_path / "run", ALONE)
    assert (read_run(tmp_path / "run").facts["images"], read_run(tmp_path / "run").facts["steps"]) == (64, 2)
    digits = open_data("digits")
    kept = limited(digits, 64)
    assert torch.equal(kept.train.pixels, limited(kept, 64).train.pixels)
    assert kept.test is digits.test
    with pytest.raises(SettingError, match="images is 1298, but data digits has 1297; give fewer"):
        pretrain(small(images=1298), tmp_path / "more", ALONE)
