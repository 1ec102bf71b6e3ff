"""Open a set of images by name: an image folder, torchvision's CIFAR-10, or scikit-learn's digits."""

import os
import socket
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from tarfile import TarError
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from dyncollapse.bridge.data.augmentations import square, stored_side
from dyncollapse.bridge.data.image_folders import ImageFolder, find_splits, in_words, some
from dyncollapse.bridge.data.image_sets import NO_CLASS, FolderImages, HeldImages, Images, labelled
from dyncollapse.bridge.data.pixels import Unreadable, quiet_decoders
from dyncollapse.bridge.data.skipped import Skipped
from dyncollapse.runtime.files import first_line, printable, unmarked
from dyncollapse.runtime.settings import NAMED, SettingError

CIFAR = "cifar-10-batches-py"
CIFAR_NAME, CIFAR_SIZE = "cifar10", "170 MB"
PATIENCE = 5.0  # seconds without an answer after which a download fails
# The last 500 of the 1797 digits are for testing. The set is ordered by writer, so these are by other people.
DIGITS_TEST = 500


@dataclass(frozen=True, eq=False)
class Data:
    """Training and test images.

    Attributes:
        train: Images to train on.
        test: Images to test on; None if there are none.
        classes: Names of the classes, by label.
        title: What messages call the data: the folder, or digits.
        skipped: A sentence on what was skipped in a folder; empty if nothing was.

    Examples:
        >>> digits = open_data("digits")
        >>> digits.title, digits.classes[:3], digits.train.read(0).shape
        ('digits', ['0', '1', '2'], torch.Size([1, 8, 8]))
    """

    train: Images
    test: Images | None
    classes: Sequence[str]
    title: str
    skipped: str = ""

    def split(self, name: str) -> Images:
        """The images of a split.

        Args:
            name: "train" or "test".

        Returns:
            The images.

        Raises:
            SettingError: If there are no test images.
        """
        if name == "train":
            return self.train
        if self.test is None:
            shown = unmarked(self.title)
            raise SettingError(f"`data` {shown} has no test images; give a folder with train/ and val/ or test/")
        return self.test

    def check_labels(self) -> None:
        """Check that a classifier can be trained and tested on these images.

        Raises:
            SettingError: If images have no classes, if there are fewer than two classes to train on, or if a class of
                the test images has no training images. One line.
        """
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


def _to_stderr(text: str) -> None:
    sys.stderr.write(NAMED.sub(r"\1", text) + "\n")


def open_data(name: str, tell: Callable[[str], object] = _to_stderr) -> Data:
    """Open a set of images: scikit-learn's digits, torchvision's CIFAR-10, or an image folder.

    Args:
        name: The word digits; the word cifar10, which is downloaded once into `cache_folder()` unless a folder has that
            name; or a folder, which may be torchvision's of CIFAR-10. An image folder holds one folder per class, or
            images without classes; or it holds train/ and val/ (or test/), each of which is such a folder.
        tell: Called with one line if something in an image folder is skipped (see docs/how-to/train-encoders.md). The
            line names the setting `data` in backticks.

    Returns:
        Training images, and test images if there are any.

    Raises:
        SettingError: If `name` is no folder, or if CIFAR-10 cannot be downloaded.
        ValueError: If a folder holds no images, or if train/ and val/ have different classes.

    Examples:
        >>> digits = open_data("digits")
        >>> len(digits.train), len(digits.split("test")), digits.train.channels
        (1297, 500, 1)
    """
    check_name(name)
    if name == "digits":
        return _digits()
    if _is_cifar(name):
        return _downloaded(tell)
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


def check_name(name: str) -> None:
    """Refuse what `open_data` could not open, without reading the folder. Raises SettingError."""
    if name != "digits" and not _is_cifar(name) and not os.path.isdir(name):
        given = unmarked(name) or "(empty)"
        raise SettingError(f"`data` {given} is no folder; give a folder of images, {CIFAR_NAME}, or digits")


def cache_folder() -> Path:
    """Where downloaded images are kept: dyncollapse in $XDG_CACHE_HOME, or in ~/.cache without that variable."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "dyncollapse"


def _is_cifar(name: str) -> bool:
    return name == CIFAR_NAME and not os.path.isdir(name)


def _downloaded(tell: Callable[[str], object]) -> Data:
    """CIFAR-10 from the cache; torchvision downloads it and checks its published checksum the first time."""
    from torchvision.datasets import CIFAR10

    folder = cache_folder() / CIFAR_NAME
    if not (folder / CIFAR).is_dir():
        tell(f"`data` {CIFAR_NAME}: downloading {CIFAR_SIZE} from {CIFAR10.url} into {unmarked(str(folder))}")
        patience = socket.getdefaulttimeout()
        socket.setdefaulttimeout(PATIENCE)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Renamed when it is complete: no other process sees half of it.
            with TemporaryDirectory(dir=folder, prefix=".download-") as scratch, redirect_stdout(sys.stderr):
                CIFAR10(scratch, download=True)
                try:
                    os.rename(Path(scratch) / CIFAR, folder / CIFAR)
                except OSError:
                    if not (folder / CIFAR).is_dir():  # else another process was faster
                        raise
        except (OSError, RuntimeError, HTTPException, TarError, EOFError) as error:
            raise SettingError(
                f"`data` {CIFAR_NAME} is not in {unmarked(str(folder))} and cannot be downloaded "
                f"({unmarked(first_line(error))}); unpack {CIFAR10.url} there, or give a folder of images"
            ) from None
        finally:
            socket.setdefaulttimeout(patience)
    return replace(_cifar(folder), title=CIFAR_NAME)


def _labelled(part: ImageFolder, numbers: dict[str, int]) -> FolderImages:
    labels = [NO_CLASS] * len(part.paths) if part.names is None else [numbers[label] for label in part.names]
    return FolderImages(part.paths, torch.tensor(labels, dtype=torch.int64))


def _cifar(folder: Path) -> Data:
    """CIFAR-10, read by torchvision, which checks the files' published checksums before it unpickles them."""
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
    """scikit-learn's 1797 digits of 8 x 8 pixels, with values 0 to 16 scaled to 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(digits.target).to(torch.int64)
    splits = slice(-DIGITS_TEST), slice(-DIGITS_TEST, None)
    parts = [HeldImages(pixels[split], labels[split], "digits") for split in splits]
    return Data(parts[0], parts[1], [str(digit) for digit in range(10)], "digits")


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
