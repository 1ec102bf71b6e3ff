"""What the bridge's tests share: small image folders and short runs."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dyncollapse.bridge import Process, resolve

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
    """A recipe that takes a second or two."""
    settings = {"data": "digits", "epochs": 1, "warmup_epochs": 0.0, "batch_size": 128, "monitor_every": 0}
    return resolve({**settings, "tensorboard": False, "log_every": 5, "checkpoint_every": 5, **given})
