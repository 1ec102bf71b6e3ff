"""Open a set of images by name: digits, CIFAR-10, an image folder, a dataset of Hugging Face, or webdataset shards."""

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dyncollapse.bridge.data.augmentations import square, stored_side
from dyncollapse.bridge.data.folder_kinds import HUB, SAVED, SHARDS, kind_of_folder
from dyncollapse.bridge.data.hub_images import HUB_MARK, check_hub_name, open_hub, open_saved
from dyncollapse.bridge.data.image_folders import open_folder
from dyncollapse.bridge.data.image_sets import HeldImages, Images
from dyncollapse.bridge.data.named_sets import CIFAR, DIGITS, downloaded_cifar, is_cifar, open_cifar, open_digits
from dyncollapse.bridge.data.pixels import Unreadable, quiet_decoders
from dyncollapse.bridge.data.shards import is_pattern, open_shards
from dyncollapse.bridge.data.skipped import Skipped
from dyncollapse.bridge.data.splits import Data
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.settings import NAMED, SettingError


def _to_stderr(text: str) -> None:
    sys.stderr.write(NAMED.sub(r"\1", text) + "\n")


def open_data(name: str, tell: Callable[[str], object] = _to_stderr) -> Data:
    """Open a set of images, which are read from their files when they are needed, except digits and CIFAR-10.

    Args:
        name: One of these:

            - the word digits, of scikit-learn;
            - the word cifar10, which is downloaded once into `cache_folder()` unless a folder has that name;
            - hf:ORG/NAME or hf:ORG/NAME:CONFIG, a dataset of the Hugging Face Hub, which the library `datasets` keeps
              in its own cache; hf:FOLDER, a local folder that `datasets` reads;
            - a folder that `save_to_disk` of `datasets` wrote, or one of parquet files as on the Hub;
            - a folder of webdataset shards (.tar), one of them, or a pattern such as train-{0000..0099}.tar;
            - a folder of torchvision's CIFAR-10;
            - an image folder: one folder per class, or images without classes; or train/ and val/ (or test/), each
              of which is such a folder.
        tell: Called with lines on what is skipped, downloaded or indexed (see docs/how-to/train-encoders.md). They
            name the setting `data` in backticks.

    Returns:
        Training images, and test images if there are any.

    Raises:
        SettingError: If `name` means none of these, if it cannot be downloaded, or if `datasets` is missing.
        ValueError: If a folder holds no images, or if training and test images have different classes.

    Examples:
        >>> digits = open_data("digits")
        >>> len(digits.train), len(digits.split("test")), digits.train.channels
        (1297, 500, 1)
    """
    check_name(name)
    if name == DIGITS:
        return open_digits()
    if is_cifar(name):
        return downloaded_cifar(tell)
    if name.startswith(HUB_MARK):
        return open_hub(name, tell)
    if not os.path.isdir(name):
        return open_shards(name, tell)
    if os.path.isdir(os.path.join(name, CIFAR)):
        return open_cifar(Path(name))
    openers = {SAVED: open_saved, HUB: open_hub, SHARDS: open_shards}
    return openers.get(kind_of_folder(name, tell), open_folder)(name, tell)


def check_name(name: str) -> None:
    """Refuse what `open_data` could not open, without reading files. Raises SettingError."""
    if name.startswith(HUB_MARK):
        check_hub_name(name)
    elif name != DIGITS and not is_cifar(name) and not os.path.isdir(name) and not is_pattern(name):
        given = unmarked(name) or "(empty)"
        raise SettingError(
            f"`data` {given} is no folder; give a folder of images, of parquet files or of .tar shards; or cifar10, "
            "digits, hf:NAME"
        )


def hold(images: Images, size: int, skipped: Skipped, threads: int = 1) -> HeldImages:
    """Read all images that can be read into memory.

    Images are kept as they are if all have one small size. Otherwise they are resized and cropped to squares of
    `stored_side(size)` pixels.

    Args:
        images: n images.
        size: Side of the views that will be made of them, in pixels.
        skipped: Record of images that cannot be read.
        threads: Images that are read and resized at a time; both release Python's lock.

    Returns:
        The images, all of one size.

    Raises:
        Unreadable: If no image can be read, or with `strict` if one cannot.
    """
    if isinstance(images, HeldImages):
        return images
    kept: list[int] = []
    pixels: list[Tensor] = []
    side = stored_side(size)
    first: tuple[int, ...] | None = None

    def read(index: int) -> Tensor | Unreadable:
        nonlocal first
        try:
            image = images.read(index)
        except Unreadable as error:
            return error
        first = first or tuple(image.shape)  # of any thread: if shapes differ, all images become squares
        small = max(first[1:]) <= side * 2 and tuple(image.shape) == first
        return image if small else square(image, side, side)

    pool = ThreadPoolExecutor(max(1, threads))
    with quiet_decoders():
        try:
            for index, image in enumerate(pool.map(read, range(len(images)))):
                if isinstance(image, Unreadable):
                    skipped.add([(index, str(image))])
                    skipped.check(len(kept))
                    continue
                pixels.append(image)
                kept.append(index)
        finally:
            pool.shutdown(cancel_futures=True)
    skipped.check(len(kept), ended=True)
    if len({tuple(image.shape) for image in pixels}) > 1:
        pixels = [square(image, side, side) for image in pixels]
    return HeldImages(torch.stack(pixels), images.labels[kept], "stored")


def limited(data: Data, images: int | None) -> Data:
    """The data with fewer training images; with all of them for None.

    Args:
        data: Training and test images.
        images: Number of training images to keep, drawn at random, the same ones every time.

    Returns:
        The data with `images` training images, and all test images.

    Raises:
        SettingError: If there are fewer.
    """
    if images is None or images == len(data.train):
        return data
    if images > len(data.train):
        shown = unmarked(data.title)
        raise SettingError(f"`images` is {images}, but `data` {shown} has {len(data.train)}; give fewer")
    return replace(data, train=some_images(data.train, images))


def some_images(images: Images, most: int, seed: int = 0) -> Images:
    """At most so many of the images, drawn without repetition, in random order.

    Args:
        images: The images.
        most: How many, at most.
        seed: Of the choice.

    Returns:
        The chosen images.

    Examples:
        >>> len(some_images(open_data("digits").train, 100))
        100
    """
    return images.take(torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:most])
