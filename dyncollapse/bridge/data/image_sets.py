"""Sets of labelled images, in memory or in files that are read on demand."""

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
    """A set of labelled images, each read on demand: what `HeldImages` and `FolderImages` have in common."""

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """The class of each image; -1 without classes."""
        ...

    @property
    def channels(self) -> int:
        """Number of colour channels."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def name(self, index: int) -> str:
        """Path or number of an image, for messages."""
        ...

    def read(self, index: int) -> UInt8[Tensor, "c h w"]:
        """The pixels of one image. Raises Unreadable."""
        ...

    def take(self, kept: Int[Tensor, " k"]) -> "Images":
        """The images with these numbers, in this order."""
        ...


@dataclass(frozen=True, eq=False)
class HeldImages:
    """Images of one size in memory.

    Attributes:
        pixels: Values from 0 to 255.
        labels: The class of each image; -1 without classes.
        title: What messages call the set.

    Examples:
        >>> pixels = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
        >>> images = HeldImages(pixels, torch.tensor([0, 1, 1]), "zeros")
        >>> len(images), images.name(2), images.take(torch.tensor([2, 0])).labels.tolist()
        (3, 'zeros image 2', [1, 0])
    """

    pixels: UInt8[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    title: str

    @property
    def channels(self) -> int:
        """Number of colour channels."""
        return int(self.pixels.shape[1])

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pixels)

    def name(self, index: int) -> str:
        """Name an image in messages.

        Args:
            index: Number of the image.

        Returns:
            The set's title and the number.
        """
        return f"{self.title} image {index}"

    def read(self, index: int) -> UInt8[Tensor, "c h w"]:
        """Read one image.

        Args:
            index: Number of the image.

        Returns:
            Its pixels, from 0 to 255.
        """
        return self.pixels[index]

    def take(self, kept: Int[Tensor, " k"]) -> "HeldImages":
        """Select images.

        Args:
            kept: Numbers of images.

        Returns:
            The images with these numbers, in this order.
        """
        return HeldImages(self.pixels[kept], self.labels[kept], self.title)


@dataclass(frozen=True, eq=False)
class FolderImages:
    """Image files, each decoded to RGB by Pillow when it is read.

    Attributes:
        paths: The files.
        labels: The class of each image; -1 without classes.
        channels: Number of colour channels, 3.

    Examples:
        >>> from PIL import Image
        >>> Image.new("L", (30, 20), color=255).save("white.png")
        >>> images = FolderImages(["white.png"], torch.tensor([0]))
        >>> images.read(0).shape, int(images.read(0).min())
        (torch.Size([3, 20, 30]), 255)
    """

    paths: Sequence[str]
    labels: Int[Tensor, " n"]
    channels: int = 3

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def name(self, index: int) -> str:
        """Name an image in messages.

        Args:
            index: Number of the image.

        Returns:
            The path.
        """
        return printable(self.paths[index])

    def read(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """Read and decode one image.

        Args:
            index: Number of the image.

        Returns:
            Its pixels, from 0 to 255.

        Raises:
            Unreadable: If the file is damaged, too large or missing.
            UnknownRange: If its values for black and white are unknown.
        """
        return torch.from_numpy(read_rgb(self.paths[index])).permute(2, 0, 1)

    def take(self, kept: Int[Tensor, " k"]) -> "FolderImages":
        """Select images.

        Args:
            kept: Numbers of images.

        Returns:
            The images with these numbers, in this order.
        """
        return FolderImages([self.paths[index] for index in kept.tolist()], self.labels[kept], self.channels)


def labelled(images: Images) -> bool:
    """Whether all images have a class."""
    return bool((images.labels != NO_CLASS).all())
