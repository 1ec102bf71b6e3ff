"""Sets of labelled images, in memory or in files, each read when asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from dyncollapse.bridge.data.pixels import read_rgb
from dyncollapse.runtime.files import printable

NO_CLASS = -1  # the label of images without classes


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
    """Images of one size in memory.

    Attributes:
        pixels: From 0 to 255.
        labels: The class of each, -1 where there are no classes.
        title: What messages call the set.
    """

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
    """Image files, each decoded by Pillow to RGB when it is read.

    Attributes:
        paths: The files.
        labels: The class of each, -1 where there are no classes.
        channels: Always 3.
    """

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


def labelled(images: Images) -> bool:
    """Whether the images have classes."""
    return bool((images.labels != NO_CLASS).all())
