"""The images of a check on a user's own data: what they must be, their sizes, and the speed of encoders on them."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from statistics import median

import torch

from dyncollapse.bridge.data.augmentations import pair_of
from dyncollapse.bridge.data.batches import batches_from_memory
from dyncollapse.bridge.data.image_sets import HeldImages, Images
from dyncollapse.bridge.data.images import Data, hold, open_data, some_images
from dyncollapse.bridge.data.pixels import Unreadable
from dyncollapse.bridge.data.skipped import Skipped
from dyncollapse.bridge.evaluation.check_plan import (
    LEAST_BATCH,
    LEAST_IMAGES,
    LEAST_SIDE,
    Encoder,
    Supply,
    batch_for,
    tested_images,
)
from dyncollapse.bridge.presets import resolve
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.training.distributed import Process
from dyncollapse.bridge.training.trainer import Trainer, build_trainer
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.process import available_memory, cores, default_threads, torch_threads
from dyncollapse.runtime.settings import SettingError

MEMORY = 0.3  # most of the free memory that images may take: runs need the rest
SAMPLE = 256  # images whose size and reading time stand for all, and on which encoders are measured
PAIRS_AT_ONCE = 64  # pairs in a batch that measures speed: per pair as fast as larger ones, on a CPU


def open_images(name: str, tell: Callable[[str], object]) -> tuple[Data, Supply, HeldImages]:
    """Open images, and look at a sample of them.

    Args:
        name: As for `open_data`.
        tell: Called with a line on what is skipped.

    Returns:
        The data; how many images there are, and their size; and the sample, in memory.

    Raises:
        SettingError: If the check cannot use them: no test images, no classes, one class, too few, or too small.
        ValueError: If the images cannot be read.
    """
    data = open_data(name, tell)
    data.check_labels()
    shown = unmarked(name)
    if len(data.train) < LEAST_IMAGES:
        raise SettingError(f"`data` {shown} has {len(data.train)} training images; the check needs {LEAST_IMAGES}")
    if data.train.channels != 3:
        raise SettingError(f"`data` {shown} has grey images; leave out `data` for the check on digits")
    sample = some_images(data.train, SAMPLE)
    side = int(median(_sides(sample)))
    if side < LEAST_SIDE:
        raise SettingError(
            f"`data` {shown} has images of {side} pixels; the check's encoders halve the side four times, so images "
            f"need {LEAST_SIDE}"
        )
    start = time.perf_counter()
    held = hold(sample, min(side, 128), Skipped(sample, tell=lambda _text: None), cores())
    reading = (time.perf_counter() - start) / len(sample)
    if len(held) < LEAST_BATCH:  # too few to measure an encoder
        raise SettingError(
            f"`data` {shown}: of {len(sample)} training images that were tried, {len(held)} can be read; the check "
            f"needs {LEAST_IMAGES}"
        )
    tests = 0 if data.test is None else len(data.test)
    free = available_memory()
    room = None if free is None else int(MEMORY * free) // held.pixels[0].numel()
    return data, Supply(name, len(data.train), tests, side, reading, room), held


def _sides(images: Images) -> list[int]:
    """Shorter sides of the images that can be read; that of none is left to `hold`, which reports why."""
    sides = []
    for index in range(min(len(images), SAMPLE // 4)):
        try:
            sides.append(min(images.read(index).shape[1:]))
        except Unreadable:
            continue
    return sides or [LEAST_SIDE]


def held_images(data: Data, images: int, side: int, tell: Callable[[str], object]) -> Data:
    """Read so many training images into memory, and the test images that go with them.

    Args:
        data: The images.
        images: Number of training images, drawn at random if there are more.
        side: Side of the views.
        tell: Called with a line on each image that cannot be read.

    Returns:
        The images, which `save_data` can write.

    Raises:
        Unreadable: If no image can be read.
    """
    train = data.train if images >= len(data.train) else some_images(data.train, images)
    test = data.split("test")
    tested = tested_images(images, len(test))
    test = test if len(test) == tested else some_images(test, tested)
    train, test = (hold(part, side, Skipped(part, tell=tell), cores()) for part in (train, test))
    return replace(data, train=train, test=test)


def pairs_per_second(encoder: Encoder, held: HeldImages, workers: int, seconds: float) -> float:
    """Measure how many pairs of views per second runs of an encoder train on, together.

    Args:
        encoder: What is trained, without projector.
        held: Images.
        workers: Runs beside each other, which share the cores.
        seconds: Time of the measurement, after one step.

    Returns:
        Pairs per second of all runs together.
    """
    batch = min(PAIRS_AT_ONCE, batch_for(len(held)))
    settings = {"arch": encoder.arch, "stem": encoder.stem, "image_size": encoder.image_size, "batch_size": batch}
    recipe = resolve({"preset": "cifar10", "data": "sample", "device": "cpu", "projector": "none", **settings})
    threads = default_threads(workers)
    with torch_threads(threads), ThreadPoolExecutor(workers, "", torch.set_num_threads, (threads,)) as pool:
        trainers = [build_trainer(recipe, Process(0, 1, torch.device("cpu")), len(held), 3) for _ in range(workers)]
        return sum(pool.map(partial(_rate, recipe, held, seconds), trainers))


def _rate(recipe: Recipe, held: HeldImages, seconds: float, trainer: Trainer) -> float:
    """Pairs per second of one run, of whole steps."""
    trainer.encoder.train()
    batches = batches_from_memory(
        held,
        pair_of(recipe),
        recipe.image_size,
        trainer.order,
        steps=(0, trainer.total),
        rows=slice(0, recipe.batch_size),
        device=trainer.process.device,
    )
    trainer.step(0, next(batches))
    start, steps = time.perf_counter(), 0
    while steps == 0 or (time.perf_counter() - start < seconds and steps < trainer.total - 1):
        steps += 1
        trainer.step(steps, next(batches))
    return steps * recipe.batch_size / (time.perf_counter() - start)
