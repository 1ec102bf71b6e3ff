"""Sets of labelled images: folders, whole or damaged, CIFAR-10 as torchvision keeps it, scikit-learn's digits."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from dyncollapse.bridge.views import square, stored_side
from dyncollapse.files import printable

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
TESTS = ("val", "test")
CIFAR = "cifar-10-batches-py"
# Of 1797 digits the last 500 are for testing: later writers, whom the others do not hold (the set is in that order).
DIGITS_TEST = 500
NEIGHBOURS = 64  # unreadable images in a row after which something else must be wrong (ours)
LISTED = 5


class Unreadable(ValueError):
    """An image that cannot be read; the message names it."""


class Images(Protocol):
    """Labelled images, each read when asked for."""

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """The class of each."""
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
        """Its pixels; Unreadable for a file that is damaged, cut short or gone."""
        from PIL import Image

        try:
            with Image.open(self.paths[index]) as image:
                pixels = np.array(image.convert("RGB"))
        except Exception as error:  # a decoder can fail on damage in any way
            # Pillow's own messages repeat the path in some cases and say nothing in others.
            reason = printable(str(error)).replace(repr(self.paths[index]), "it") or type(error).__name__
            raise Unreadable(f"{self.name(index)} cannot be read as an image ({reason})") from None
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def take(self, kept: Int[Tensor, " k"]) -> "FolderImages":
        """Those of these numbers, in their order."""
        return FolderImages([self.paths[index] for index in kept.tolist()], self.labels[kept], self.channels)


@dataclass(frozen=True, eq=False)
class Data:
    """What --data names: images to train on, others to test on where there are any, and the classes' names."""

    train: Images
    test: Images | None
    classes: Sequence[str]
    title: str

    def split(self, name: str) -> Images:
        """The train or the test images. Raises ValueError where there are none."""
        if name == "train":
            return self.train
        if self.test is None:
            raise ValueError(f"--data {self.title} has no test images; give a folder with train/ and val/ or test/")
        return self.test


def open_data(name: str) -> Data:
    """The images that `--data` names: `digits`, a folder with torchvision's CIFAR-10, or an image folder.

    An image folder has one folder per class, or train/ and val/ (or test/) with the same classes in each. Raises
    ValueError, one line, for anything else.
    """
    if name == "digits":
        return _digits()
    folder = Path(name)
    if not folder.is_dir():
        raise ValueError(f"--data {printable(name)} is no folder; give a folder of images by class, or digits")
    if (folder / CIFAR).is_dir():
        return _cifar(folder)
    train = folder / "train" if (folder / "train").is_dir() else folder
    if train == folder and {path.name for path in folder.iterdir() if path.is_dir()} & {*TESTS}:
        raise ValueError(f"{printable(name)} has test images and no train/; is it only half copied?")
    images, classes = _folder(train)
    tests = [folder / test for test in TESTS if train != folder and (folder / test).is_dir()]
    if not tests:
        return Data(images, None, classes, name)
    test, others = _folder(tests[0])
    if others != classes:
        odd = sorted(set(classes) ^ set(others))
        raise ValueError(
            f"{printable(str(train))} has {len(classes)} classes and {printable(str(tests[0]))} {len(others)}; they "
            f"differ in {_some(odd)}: is one of them only half copied?"
        )
    return Data(images, test, classes, name)


def _folder(folder: Path) -> tuple[FolderImages, list[str]]:
    """The images below a folder and its classes, in order of their names."""
    from torchvision.datasets import ImageFolder

    shown = printable(str(folder))
    if not any(child.is_dir() for child in folder.iterdir()):
        raise ValueError(f"{shown} holds no folders; put the images of each class in a folder of its own there")
    try:
        found = ImageFolder(str(folder), is_valid_file=lambda path: path.lower().endswith(SUFFIXES), allow_empty=True)
    except OSError as error:
        raise ValueError(f"{shown} cannot be read ({error.strerror})") from None
    labels = torch.tensor(found.targets, dtype=torch.int64)
    empty = [c for k, c in enumerate(found.classes) if not bool((labels == k).any())]
    if empty:
        count = f"{len(empty)} of its {len(found.classes)} class folders are empty"
        raise ValueError(
            f"{shown}: {count} ({_some(empty)}); images end in {', '.join(SUFFIXES[:3])}, ...; copy it again"
        )
    return FolderImages([path for path, _ in found.samples], labels), list(found.classes)


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

    found = load_digits()
    pixels = torch.from_numpy(found.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(found.target).to(torch.int64)
    parts = [HeldImages(pixels[s], labels[s], "digits") for s in (slice(-DIGITS_TEST), slice(-DIGITS_TEST, None))]
    return Data(parts[0], parts[1], [str(digit) for digit in range(10)], "digits")


@dataclass
class Skipped:
    """Images that could not be read, by number; with `strict` the first one is an error."""

    images: Images
    strict: bool = False
    tell: Callable[[str], object] = print
    reasons: dict[int, str] = field(default_factory=dict)

    def add(self, failures: Sequence[tuple[int, str]]) -> None:
        """Note failures, telling each image's first. Raises Unreadable if `strict`."""
        for index, reason in failures:
            if self.strict:
                raise Unreadable(f"{reason}; repair or remove it, or leave out --strict to skip such images")
            if index not in self.reasons:
                self.reasons[index] = reason
                self.tell(f"skipped: {reason}")

    @property
    def sentence(self) -> str:
        """How many, and which; empty where there are none."""
        if not self.reasons:
            return ""
        names = [self.images.name(index) for index in sorted(self.reasons)]
        return f"{len(names)} of {len(self.images)} images could not be read and were skipped: {_some(names)}"


def read_near(
    images: Images, index: int, most: int = NEIGHBOURS
) -> tuple[int, UInt8[Tensor, "c h w"], list[tuple[int, str]]]:
    """The image, or the next one that can be read, its number, and the failures on the way.

    A batch keeps its size, as every process needs. Raises Unreadable, with the first reason, after `most` failures.
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
    """All images in memory, of one size, but for those that cannot be read, which `skipped` is told.

    `threads` read and resize, for both are done outside of Python's lock. Images of one size are kept as they are;
    others are resized and cut to a square, 256/224 of the view's side. Raises Unreadable where no image can be read.
    """
    if isinstance(images, HeldImages):
        return images
    kept, pixels = [], []
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
    try:
        for index, image in enumerate(pool.map(read, range(len(images)))):
            if isinstance(image, Unreadable):
                skipped.add([(index, str(image))])
                continue
            pixels.append(image)
            kept.append(index)
    finally:
        pool.shutdown(cancel_futures=True)
    if not kept:
        raise Unreadable(f"none of the {len(images)} images can be read, the first: {skipped.reasons[0]}")
    if len({tuple(image.shape) for image in pixels}) > 1:
        pixels = [square(image, side, side) for image in pixels]
    return HeldImages(torch.stack(pixels), images.labels[kept], "stored")


def some_images(images: Images, most: int, seed: int = 0) -> Images:
    """At most so many of the images, drawn without repetition, in random order."""
    return images.take(torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:most])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(printable, names[:LISTED])) + more
