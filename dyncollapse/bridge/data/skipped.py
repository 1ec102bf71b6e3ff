"""Images that cannot be read: skipped and reported, or refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jaxtyping import UInt8
from torch import Tensor

from dyncollapse.bridge.data.image_folders import some
from dyncollapse.bridge.data.image_sets import Images
from dyncollapse.bridge.data.pixels import Unreadable
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.settings import SettingError

NEIGHBOURS = 64  # unreadable images in a row: more than single damaged files explain, and few enough to wait for


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
