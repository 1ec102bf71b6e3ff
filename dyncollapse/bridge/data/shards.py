"""Shards of webdataset: images in .tar files, indexed once and read where they lie."""

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from dyncollapse.bridge.data.class_numbers import numbered
from dyncollapse.bridge.data.folder_kinds import TAR
from dyncollapse.bridge.data.image_folders import is_hidden
from dyncollapse.bridge.data.image_sets import NO_CLASS
from dyncollapse.bridge.data.name_lists import LISTED, some
from dyncollapse.bridge.data.pixels import rgb_of_bytes
from dyncollapse.bridge.data.shard_index import ShardIndex, index_of
from dyncollapse.bridge.data.shard_samples import NO_LABEL, NO_SPLIT, Tally, stamp_of
from dyncollapse.bridge.data.splits import Data
from dyncollapse.bridge.data.tar_members import member_name
from dyncollapse.runtime.files import printable, unmarked
from dyncollapse.runtime.settings import SettingError
from dyncollapse.runtime.untrusted import open_regular, read_text

TRAIN, TEST = "train", "test"
# Words in the names of shards, or names of their folders. Of several for testing, the first that there is counts.
TRAIN_WORDS, TEST_WORDS = ("train", "training"), ("val", "validation", "valid", "test")
WORD = re.compile(r"[a-z]+")
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")
MOST_SHARDS = 10**5
CLASSES = "classes.txt"  # names of the classes, a line each, beside the shards


@dataclass(frozen=True, eq=False)
class ShardImages:
    """Images in .tar files, each read where it lies and decoded to RGB by Pillow.

    Attributes:
        paths: The shards.
        index: Where the images lie in them.
        labels: The class of each image; -1 without classes.
        channels: Number of colour channels, 3.
    """

    paths: Sequence[str]
    index: ShardIndex
    labels: Int[Tensor, " n"]
    channels: int = 3

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def name(self, index: int) -> str:
        """Name an image in messages.

        Args:
            index: Number of the image.

        Returns:
            The shard's path, and the name that the image has in it.
        """
        path, start, _ = self._place(index)
        try:
            with open_regular(path) as file:
                member = member_name(file, start)
        except (OSError, ValueError):
            member = ""
        return printable(f"{path}/{member or f'image at byte {start}'}")

    def read(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """Read and decode one image.

        Args:
            index: Number of the image.

        Returns:
            Its pixels, from 0 to 255.

        Raises:
            Unreadable: If the image is damaged or too large, or if the shard is missing or has changed.
            UnknownRange: If its values for black and white are unknown.
        """
        path, start, size = self._place(index)
        stamp = tuple(self.index.stamps[self.index.shards[index]].tolist())

        def content() -> bytes:
            with open_regular(path) as file:
                if stamp_of(os.fstat(file.fileno())) != stamp:
                    raise OSError("the shard has changed since it was opened; begin anew")
                file.seek(start)
                return file.read(size)

        try:
            pixels = rgb_of_bytes(content, size, "")
        except ValueError as error:
            raise type(error)(f"{self.name(index)}{error}") from None
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def _place(self, index: int) -> tuple[str, int, int]:
        where = self.index
        return self.paths[int(where.shards[index])], int(where.starts[index]), int(where.sizes[index])

    def take(self, kept: Int[Tensor, " k"]) -> "ShardImages":
        """Select images.

        Args:
            kept: Numbers of images.

        Returns:
            The images with these numbers, in this order.
        """
        return ShardImages(self.paths, self.index.take(kept), self.labels[kept], self.channels)


def is_pattern(name: str) -> bool:
    """Whether a name is that of a shard, or a pattern of names of shards."""
    return name.lower().endswith(TAR) and "\0" not in name


def open_shards(name: str, tell: Callable[[str], object]) -> Data:
    """Open webdataset shards.

    Args:
        name: A folder of shards, or one with train/ and val/ of shards; a shard; or a pattern with ranges and lists of
            names in braces, as train-{0000..1281}.tar. Shards with train in their names hold training images, those
            with val, valid, validation or test hold test images; without any such name, all are for training.
        tell: Called with lines on what is skipped, and on progress.

    Returns:
        Training images, and test images if there are any.

    Raises:
        SettingError: If shards are missing.
        ValueError: If there are no images, or no training images; if labels have no name in classes.txt.
    """
    beside = name if os.path.isdir(name) else os.path.dirname(name) or "."
    skipped = Tally()
    splits = find_shards(name, skipped)
    indices = {split: index_of(paths, tell) for split, paths in splits.items()}
    for split, index in indices.items():
        indices[split] = _labelled(index, splits[split], skipped)
    words = skipped.sentence
    for split, index in indices.items():
        if not len(index.labels):
            besides = f"; skipped: {words}" if words else ""
            who = f"the {split} shards of {printable(name)} hold" if len(splits) > 1 else f"{printable(name)} holds"
            raise ValueError(f"{who} no images that can be used{besides}")
    try:
        labels, classes = numbered([index.labels for index in indices.values()], _class_names(beside))
    except ValueError as error:
        raise ValueError(f"{printable(os.path.join(beside, CLASSES))} does not fit the shards: {error}") from None
    if words:
        tell(f"`data` {unmarked(name)}: skipped {unmarked(words)}")
    train, *tests = (
        ShardImages(paths, index, part)
        for paths, index, part in zip(splits.values(), indices.values(), labels, strict=True)
    )
    return Data(train, tests[0] if tests else None, classes, name, words)


def _labelled(index: ShardIndex, paths: Sequence[str], skipped: Tally) -> ShardIndex:
    """The images with a label, if any has one; count the others."""
    skipped.merge(index.skipped)
    without = index.labels == NO_CLASS
    if without.all() or not without.any():
        return index
    images, numbers = ShardImages(paths, index, index.labels), without.nonzero().flatten()
    skipped.add(NO_LABEL, [images.name(number) for number in numbers[:LISTED].tolist()], len(numbers))
    return index.take((~without).nonzero().flatten())


def find_shards(name: str, skipped: Tally) -> dict[str, list[str]]:
    """List the shards of a folder or a pattern by split.

    Args:
        name: As for `open_shards`.
        skipped: Gets the shards that belong to no split or to another one for testing.

    Returns:
        Paths by "train" and "test"; by "" if names tell no splits apart.

    Raises:
        SettingError: If shards that a pattern names do not exist, or if there is no such pattern.
        ValueError: If there are test shards and none for training.
    """
    folders = {word: _tars(os.path.join(name, word)) for word in (*TRAIN_WORDS, *TEST_WORDS)}
    if any(folders.values()):
        by_word = {word: paths for word, paths in folders.items() if paths}
        if not set(by_word).intersection(TRAIN_WORDS):
            test = next(iter(by_word))
            raise ValueError(
                f"{printable(name)} has test shards and no train/; is it only half copied? To use {test}/ alone, name "
                "that folder"
            )
    else:
        by_word = {}
        for path in _tars(name) or _expanded(name):
            words = set(WORD.findall(os.path.basename(path).lower()))
            word = next((word for word in (*TRAIN_WORDS, *TEST_WORDS) if word in words), "")
            by_word.setdefault(word, []).append(path)
        if not set(by_word).intersection(TRAIN_WORDS):  # a name for all that was given
            return {"": [path for paths in by_word.values() for path in paths]}
    splits = {TRAIN: [path for word in TRAIN_WORDS for path in by_word.pop(word, [])]}
    for word in [word for word in TEST_WORDS if word in by_word][:1]:
        splits[TEST] = by_word.pop(word)
    for paths in by_word.values():
        skipped.add(NO_SPLIT, [os.path.basename(path) for path in paths])
    return splits


def _tars(folder: str) -> list[str]:
    """The .tar files in a folder, in the order of their names; none if it is no folder."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    paths = (os.path.join(folder, name) for name in names if is_pattern(name) and not is_hidden(name))
    return [path for path in paths if not os.path.isdir(path)]


def _expanded(name: str) -> list[str]:
    """The shards that a pattern names, all of which must exist. Raises SettingError."""
    if os.path.isfile(name):
        return [name]
    shown, pieces = unmarked(name), BRACES.split(name)
    choices = [_choices(piece, shown) if at % 2 else [piece] for at, piece in enumerate(pieces)]
    if (number := math.prod(map(len, choices))) > MOST_SHARDS:
        raise SettingError(f"`data` {shown} names {number} shards; give at most {MOST_SHARDS}")
    paths = ["".join(parts) for parts in product(*choices)]
    if missing := [path for path in paths if not os.path.exists(path)]:
        raise SettingError(
            f"`data` {shown}: {len(missing)} of {len(paths)} shards do not exist: {unmarked(some(missing))}; copy "
            "them, or name others, as train-{0000..0099}.tar"
        )
    return paths


def _choices(braced: str, shown: str) -> list[str]:
    """What stands for a pair of braces: numbers of one width, or names. Raises SettingError."""
    if found := RANGE.fullmatch(braced):
        first, last = found.groups()
        width = max(len(first), len(last)) if any(len(one) > 1 and one[0] == "0" for one in (first, last)) else 0
        numbers = range(int(first), int(last) + 1)
        if len(numbers) > MOST_SHARDS or not numbers:
            raise SettingError(f"`data` {shown}: {{{braced}}} is a range of {len(numbers)}; give 1 to {MOST_SHARDS}")
        return [f"{number:0{width}}" for number in numbers]
    if "," not in braced:
        raise SettingError(f"`data` {shown}: {{{unmarked(braced)}}} is no range, as 0000..0099, and no list, as a,b")
    return braced.split(",")


def _class_names(folder: str) -> list[str] | None:
    """The names of classes in a folder's classes.txt, by label; None if it has none. Raises ValueError."""
    path = os.path.join(folder, CLASSES)
    if not os.path.lexists(path):
        return None
    try:
        return [line.strip() for line in read_text(path).splitlines()]
    except (OSError, ValueError) as error:
        raise ValueError(f"{printable(path)} cannot be read ({getattr(error, 'strerror', None) or error})") from None
