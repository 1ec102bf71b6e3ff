"""Images that several processes share: written once as arrays, and mapped into the memory of each."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from dyncollapse.bridge.data.image_sets import HeldImages
from dyncollapse.bridge.data.splits import Data
from dyncollapse.runtime.files import read_json, write_json, write_whole

NAMES = "data.json"


def save_data(data: Data, folder: Path) -> Path:
    """Write images that are in memory, for `map_data` of processes that this program starts.

    Args:
        data: Training and test images, both in memory.
        folder: Gets four arrays, and data.json with the names of the classes.

    Returns:
        The folder.

    Raises:
        CannotWrite: If the disk is full.

    Examples:
        >>> from dyncollapse.bridge import open_data
        >>> digits = map_data(save_data(open_data("digits"), Path(".")))
        >>> digits.title, len(digits.classes), digits.train.pixels.shape
        ('digits', 10, torch.Size([1297, 1, 8, 8]))
    """
    for split in ("train", "test"):
        images = data.split(split)
        assert isinstance(images, HeldImages)
        for kind, values in (("pixels", images.pixels), ("labels", images.labels)):
            write_whole(folder / f"{split}-{kind}.npy", partial(np.save, arr=values.numpy()))
    write_json(folder / NAMES, {"classes": list(data.classes), "title": data.title, "skipped": data.skipped})
    return folder


def map_data(folder: Path) -> Data:
    """Open the images that `save_data` wrote.

    Args:
        folder: The folder, written by the program that started this process.

    Returns:
        Training and test images.
    """
    names = read_json(folder / NAMES)

    def images(split: str) -> HeldImages:
        # Copied on write: torch warns of arrays that cannot be written.
        pixels, labels = (
            torch.from_numpy(np.load(folder / f"{split}-{kind}.npy", mmap_mode="c")) for kind in ("pixels", "labels")
        )
        return HeldImages(pixels, labels, names["title"])

    return Data(images("train"), images("test"), names["classes"], names["title"], names["skipped"])
