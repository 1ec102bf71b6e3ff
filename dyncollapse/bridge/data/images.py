"""Sets of labelled images: folders, whole or damaged, CIFAR-10 as torchvision keeps it, scikit-learn's digits."""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from dyncollapse.bridge.data.augmentations import square, stored_side
from dyncollapse.bridge.data.image_folders import ImageFolder, find_splits, in_words, some
from dyncollapse.bridge.data.pixels import Unreadable, quiet_decoders, read_rgb
from dyncollapse.runtime.files import printable, unmarked
from dyncollapse.runtime.settings import NAMED, SettingError

NO_CLASS = -1  # the label of images without classes
CIFAR = "cifar-10-batches-py"
# Of 1797 digits the last 500 are for testing: later writers, whom the others do not hold (the set is in that order).
DIGITS_TEST = 500
NEIGHBOURS = 64  # unreadable images in a row: more than single damaged files explain, and few enough to wait for


class Images(Protocol):
    """Labelled images, each read when asked for."""

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """The class of each, -1 where there are no classes."""
        ...

    @property
    def channels(self) -> int:
        """Colours of each."""
        ...

    def __len__(self) -> int:
        """How many."""
        ...

    def name(self, index: int) -> str:
        """Path or number of an image."""
        ...

    def read(self, index: int) -> UInt8[Tensor, "c h w"]:
        """The pixels of one image. Raises Unreadable."""
        ...

    def take(self, kept: Int[Tensor, " k"]) -> "Images":
        """Those of these numbers, in their order."""
        ...


@dataclass(frozen=True, eq=False)
class HeldImages:
    """Images in memory, (n, c, h, w) of one size."""

    pixels: UInt8[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    title: str

    @property
    def channels(self) -> int:
        """Colours of each."""
        return int(self.pixels.shape[1])

    def __len__(self) -> int:
        """How many."""
        return len(self.pixels)

    def name(self, index: int) -> str:
        """Its number."""
        return f"{self.title} image {index}"

    def read(self, index: int) -> UInt8[Tensor, "c h w"]:
        """Its pixels."""
        return self.pixels[index]

    def take(self, kept: Int[Tensor, " k"]) -> "HeldImages":
        """Those of these numbers, in their order."""
        return HeldImages(self.pixels[kept], self.labels[kept], self.title)


@dataclass(frozen=True, eq=False)
class FolderImages:
    """Image files, each decoded by Pillow to RGB when it is read."""

    paths: Sequence[str]
    labels: Int[Tensor, " n"]
    channels: int = 3

    def __len__(self) -> int:
        """How many."""
        return len(self.paths)

    def name(self, index: int) -> str:
        """Its path."""
        return printable(self.paths[index])

    def read(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """Its pixels by `read_rgb`, with what that raises."""
        return torch.from_numpy(read_rgb(self.paths[index])).permute(2, 0, 1)

    def take(self, kept: Int[Tensor, " k"]) -> "FolderImages":
        """Those of these numbers, in their order."""
        return FolderImages([self.paths[index] for index in kept.tolist()], self.labels[kept], self.channels)


@dataclass(frozen=True, eq=False)
class Data:
    """Images to train on and to test on.

    Attributes:
        train: Images to train on.
        test: Others to test on, where there are any.
        classes: The classes' names, by label.
        title: What messages call them: the folder, or digits.
        skipped: What of a folder is none of these, in words; empty where there is nothing.
    """

    train: Images
    test: Images | None
    classes: Sequence[str]
    title: str
    skipped: str = ""

    def split(self, name: str) -> Images:
        """The train or the test images. Raises ValueError where there are none."""
        if name == "train":
            return self.train
        if self.test is None:
            shown = unmarked(self.title)
            raise SettingError(f"`data` {shown} has no test images; give a folder with train/ and val/ or test/")
        return self.test

    def check_labels(self) -> None:
        """Raise SettingError, one line, where a classifier cannot be trained on these images and tested."""
        shown = unmarked(self.title)
        for part, split in (("training", "train"), ("test", "test")):
            if not labelled(self.split(split)):
                raise SettingError(
                    f"the {part} images of `data` {shown} have no classes, which a probe needs; put the images of each "
                    "class in a folder of its own"
                )
        trained, tested = (set(images.labels.unique().tolist()) for images in (self.train, self.split("test")))
        if len(trained) < 2:
            besides = f"; skipped: {unmarked(self.skipped)}" if self.skipped else ""
            raise SettingError(f"`data` {shown} has training images of one class only; a probe needs two{besides}")
        if unseen := sorted(tested - trained):
            names = unmarked(some([self.classes[k] for k in unseen]))
            raise SettingError(
                f"`data` {shown} has test images of {names}, and no training images of it; is it only half copied?"
            )


def labelled(images: Images) -> bool:
    """Whether the images have classes."""
    return bool((images.labels != NO_CLASS).all())


def _to_stderr(text: str) -> None:
    sys.stderr.write(NAMED.sub(r"\1", text) + "\n")


def open_data(name: str, tell: Callable[[str], object] = _to_stderr) -> Data:
    """Open a set of images: scikit-learn's digits, a folder with torchvision's CIFAR-10, or an image folder.

    Args:
        name: The word digits, or a folder. An image folder has one folder per class, or images without classes; or it
            has train/ and val/ (or test/), each of which is such a folder.
        tell: Called with one line, which names the setting `data` in backticks, where something in an image folder is
            skipped (see `find_images`).

    Returns:
        Images to train on, and to test on where there are any.

    Raises:
        SettingError: For a name that is no folder.
        ValueError: For a folder without images, and for classes of train/ that val/ has no folder for, or the other way
            round.

    Example:
        >>> digits = open_data("digits")
        >>> len(digits.train), len(digits.split("test")), digits.train.channels
        (1297, 500, 1)
    """
    if name == "digits":
        return _digits()
    if not name or not os.path.isdir(name):
        raise SettingError(f"`data` {unmarked(name) or '(empty)'} is no folder; give a folder of images, or digits")
    if os.path.isdir(os.path.join(name, CIFAR)):
        return _cifar(Path(name))
    splits = find_splits(name)
    skipped: dict[tuple[str, str], list[str]] = {}
    for split, part in splits.items():
        for kind, names in part.skipped.items():
            skipped.setdefault(kind, []).extend(os.path.join(split, relative) for relative in names)
    if skipped:
        tell(f"`data` {unmarked(name)}: skipped {unmarked(in_words(skipped))}")
    classes = sorted({label for part in splits.values() for label in part.names or ()})
    numbers = {label: number for number, label in enumerate(classes)}
    train, *tests = (_labelled(part, numbers) for part in splits.values())
    return Data(train, tests[0] if tests else None, classes, name, in_words(skipped))


def _labelled(part: ImageFolder, numbers: dict[str, int]) -> FolderImages:
    labels = [NO_CLASS] * len(part.paths) if part.names is None else [numbers[label] for label in part.names]
    return FolderImages(part.paths, torch.tensor(labels, dtype=torch.int64))


def _cifar(folder: Path) -> Data:
    """CIFAR-10 by torchvision, which checks the files against their published checksums before it unpickles them."""
    from torchvision.datasets import CIFAR10

    try:
        parts = [CIFAR10(str(folder), train=train) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{printable(str(folder / CIFAR))} is damaged or incomplete ({error}); get it again") from None
    train, test = (
        HeldImages(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets), "CIFAR-10")
        for part in parts
    )
    return Data(train, test, parts[0].classes, str(folder))


def _digits() -> Data:
    """The 1797 digits of 8 x 8 pixels that scikit-learn brings, values 0 to 16 made 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(digits.target).to(torch.int64)
    splits = slice(-DIGITS_TEST), slice(-DIGITS_TEST, None)
    parts = [HeldImages(pixels[split], labels[split], "digits") for split in splits]
    return Data(parts[0], parts[1], [str(digit) for digit in range(10)], "digits")


class RefusedImage(Unreadable, SettingError):
    """The first image that cannot be read, where `strict` asks to stop at it; the message names it."""


@dataclass
class Skipped:
    """Images that could not be read, by number; with `strict` the first one is an error.

    Attributes:
        images: The whole set.
        strict: Whether to stop at the first.
        tell: Called with a line on each.
        reasons: Why, by the image's number.
    """

    images: Images
    strict: bool = False
    tell: Callable[[str], object] = print
    reasons: dict[int, str] = field(default_factory=dict)
    _held: list[str] = field(default_factory=list)  # until an image could be read: all may be refused

    def add(self, failures: Sequence[tuple[int, str]]) -> None:
        """Note failures; the first of each image is reported once `check` has seen an image that can be read.

        Raises RefusedImage if `strict`.
        """
        for index, reason in failures:
            if self.strict:
                raise RefusedImage(
                    f"{unmarked(reason)}; repair or remove it, or leave out `strict` to skip such images"
                )
            if index not in self.reasons:
                self.reasons[index] = reason
                self._held.append(f"skipped: {reason}")

    def check(self, read: int, ended: bool = False) -> None:
        """Raise Unreadable where none of the first NEIGHBOURS images, or of all, could be read; else report them."""
        if not read and (ended or len(self.reasons) >= NEIGHBOURS):
            of = "" if ended else f"first {len(self.reasons)} of the "
            raise Unreadable(
                f"none of the {of}{len(self.images)} images can be read, the first: {self.reasons[min(self.reasons)]}"
            )
        if read:
            for text in self._held:
                self.tell(text)
            self._held.clear()

    @property
    def sentence(self) -> str:
        """How many, and which; empty where there are none."""
        if not self.reasons:
            return ""
        names = [self.images.name(index) for index in sorted(self.reasons)]
        return f"{len(names)} of {len(self.images)} images could not be read and were skipped: {some(names)}"


def read_near(
    images: Images, index: int, most: int = NEIGHBOURS
) -> tuple[int, UInt8[Tensor, "c h w"], list[tuple[int, str]]]:
    """Read an image, or the next one that can be read, so that a batch keeps its size, as every process needs.

    Args:
        images: n images.
        index: Which to try first.
        most: Images to try.

    Returns:
        The number of the image that was read, its pixels, and the failures on the way.

    Raises:
        Unreadable: After `most` failures, with the first reason.
    """
    failures: list[tuple[int, str]] = []
    for offset in range(min(most, len(images))):
        number = (index + offset) % len(images)
        try:
            return number, images.read(number), failures
        except Unreadable as error:
            failures.append((number, str(error)))
    raise Unreadable(failures[0][1] + (f", nor can {most - 1} after it" if most > 1 else ""))


def hold(images: Images, size: int, skipped: Skipped, threads: int = 1) -> HeldImages:
    """Read all images into memory, but for those that cannot be read.

    Images of one size are kept as they are; others are resized and cut to a square, 256/224 of the view's side.

    Args:
        images: n images.
        size: Side of the views that will be made of them, in pixels.
        skipped: Record of those that cannot be read.
        threads: How many read and resize at once; both are done outside of Python's lock.

    Returns:
        The images, of one size.

    Raises:
        Unreadable: Where none can be read, or with `strict` one cannot.
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
        first = first or tuple(image.shape)  # whichever thread is first: where shapes differ, all become squares
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


def some_images(images: Images, most: int, seed: int = 0) -> Images:
    """At most so many of the images, drawn without repetition, in random order."""
    return images.take(torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:most])
