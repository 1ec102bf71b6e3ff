"""How a plain image becomes the input of a network that says so itself: resizing, crop and normalisation."""

import math
from dataclasses import dataclass
from typing import Literal

# The interpolations that torchvision has for tensors.
Interpolation = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True)
class Preparation:
    """How a published model's images are resized, cropped and normalised.

    Attributes:
        mean: What is subtracted from pixels in [0, 1], by channel.
        std: What they are then divided by, by channel.
        crop: Side of the central crop over that of the resized image, timm's `crop_pct`.
        interpolation: How the image is resized.
        squash: Whether both of its sides are resized to one length, instead of the shorter side.

    Examples:
        >>> half = Preparation((0.5,) * 3, (0.5,) * 3, crop=0.9, interpolation="bicubic")
        >>> half.resized_side(224)
        248
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float
    interpolation: Interpolation
    squash: bool = False

    def resized_side(self, size: int) -> int:
        """Side in pixels to which images are resized before the central `size` x `size` square is cut out."""
        return math.floor(size / self.crop)
