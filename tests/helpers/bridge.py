"""What the bridge's tests share: small image folders and short runs."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dyncollapse.bridge import Process, resolve
from dyncollapse.bridge.real_scale.findings import Finding, PartResult
from dyncollapse.bridge.training.checkpoints import load_checkpoint, newest

ALONE = Process(0, 1, torch.device("cpu"))
CLASSES = ("cat", "dog")


def write_images(folder: Path, per_class: int = 6, size: tuple[int, int] = (40, 30), seed: int = 0) -> Path:
    """An image folder of two classes that differ in colour."""
    generator = np.random.default_rng(seed)
    for k, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = generator.integers(0, 128, (*size, 3), dtype=np.uint8)
            pixels[..., k] += 100
            Image.fromarray(pixels).save(folder / name / f"{number:04d}.jpg", quality=95)
    return folder


def small(**given):
    """A recipe that takes a second or less: ten steps on some of the digits, if no data or batch are given."""
    few = {} if {"data", "batch_size"} & given.keys() else {"images": 320, "batch_size": 32}
    settings = {"data": "digits", "batch_size": 128, "epochs": 1, "warmup_epochs": 0.0, "monitor_every": 0}
    return resolve({**settings, **few, "tensorboard": False, "log_every": 5, "checkpoint_every": 5, **given})


def three_steps(**given):
    """A recipe of three steps, which takes less than a second."""
    return small(images=96, batch_size=32, **given)


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


# --- Parts of a real-scale check, for tests of what runs them: other processes import them from here


def good_part(site):
    site.tell("at it")
    (site.folder / "left").write_text("scratch")
    return PartResult([Finding("speed", 1.0, "m/s"), Finding("aim", 1.0, limit=2.0, least=True, target=True)], {"a": 1})


def wrong_part(_site):
    return PartResult([Finding("error", 0.5, limit=0.1), Finding("fine", 0.0, limit=0.1)])


def raising_part(_site):
    raise OSError(28, "No space left on device")


def dying_part(site):
    site.save(PartResult([Finding("speed", 1.0, "m/s")], {"a": float("nan")}))
    os.kill(os.getpid(), signal.SIGKILL)


def hanging_part(site):
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    (site.report / "sleeper").write_text(str(sleeper.pid))
    site.tell("asleep")
    sleeper.wait()


def measuring_part(site):
    site.save(PartResult([Finding("speed", 3.0, "m/s")], {"a": float("inf")}))
    site.tell("measuring for an hour")
    time.sleep(3600)


def part_without_memory(site):
    site.tell("filling the memory")
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB\nmore")


def part_without_numbers(_site):
    missing = [None, float("nan")]
    return PartResult([Finding("x", value) for value in missing], {"x": missing})


def skipped_part(_site):
    return PartResult([], {}, ["nothing to do it with"])


def start_method(_tell, _save):
    return multiprocessing.get_start_method()
