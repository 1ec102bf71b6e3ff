"""Pairs per second of encoders at 32 x 32: a training step against the network alone, by precision and threads."""

import pytest
import torch

from dyncollapse.bridge import HeldImages, Process, build_trainer, resolve
from dyncollapse.bridge.training.optimisation import autocast
from dyncollapse.bridge.training.pretraining import training_batches
from dyncollapse.runtime.process import torch_threads

PAIRS = 256
ENCODERS = {
    "resnet18, cifar-stride-2": ("resnet18", "cifar-stride-2"),
    "resnet18, imagenet": ("resnet18", "imagenet"),
    "resnet10-half-512, cifar-stride-2": ("resnet10-half-512", "cifar-stride-2"),
    "resnet10-half-512, imagenet": ("resnet10-half-512", "imagenet"),
}


def trainer_of(encoder, precision):
    arch, stem = ENCODERS[encoder]
    recipe = resolve({"preset": "cifar10", "data": "bench", "device": "cpu", "arch": arch, "stem": stem})
    recipe = resolve({**recipe.as_dict(), "projector": "mlp", "batch_size": PAIRS, "precision": precision})
    return build_trainer(recipe, Process(0, 1, torch.device("cpu")), 10 * PAIRS, 3)


def alone(trainer):
    """A step that passes given views forwards and backwards."""
    views = torch.randn(2 * PAIRS, 3, 32, 32).contiguous(memory_format=torch.channels_last)

    def step():
        with autocast(trainer.recipe, views.device):
            _, z = trainer.network(views)
        z.float().square().sum().backward()
        trainer.optimiser.zero_grad(set_to_none=True)

    return step


def whole(trainer):
    """A training step with its augmentations, loss and optimiser."""
    pixels = torch.randint(0, 256, (10 * PAIRS, 3, 32, 32), dtype=torch.uint8)
    images = HeldImages(pixels, torch.zeros(len(pixels), dtype=torch.int64), "noise")
    batches = training_batches(trainer, images, 0)
    return lambda: trainer.step(0, next(batches))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("part", [alone, whole], ids=["network alone", "training"])
def test_rate(benchmark, encoder, precision, threads, part):
    trainer = trainer_of(encoder, precision)
    trainer.encoder.train()
    step = part(trainer)
    with torch_threads(threads):
        benchmark.pedantic(step, rounds=3, warmup_rounds=1)
    benchmark.extra_info["pairs_per_second"] = PAIRS / benchmark.stats.stats.median
