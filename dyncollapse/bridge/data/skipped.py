"""Images that cannot be read: skipped and reported, or refused with `strict`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jaxtyping import UInt8
from torch import Tensor

from dyncollapse.bridge.data.image_sets import Images
from dyncollapse.bridge.data.name_lists import some
from dyncollapse.bridge.data.pixels import Unreadable
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.settings import SettingError

NEIGHBOURS = 64  # more unreadable images in a row than single damaged files explain, and few enough to wait for


class RefusedImage(Unreadable, SettingError):
    """Raised with `strict` for the first image that cannot be read; the message names it."""


@dataclass
class Skipped:
    """A record of images that could not be read; with `strict` the first one is an error.

    Attributes:
        images: The whole set.
        strict: Whether to stop at the first image that cannot be read.
        tell: Called with a line on each such image.
        reasons: Why it could not be read, by the image's number.

    Examples:
        >>> from dyncollapse.bridge import open_data
        >>> skipped = Skipped(open_data("digits").test)
        >>> skipped.add([(3, "digits image 3 is damaged")])
        >>> skipped.check(read=1)
        skipped: digits image 3 is damaged
        >>> skipped.sentence
        '1 of 500 images could not be read and were skipped: digits image 3'
    """

    images: Images
    strict: bool = False
    tell: Callable[[str], object] = print
    reasons: dict[int, str] = field(default_factory=dict)
    _held: list[str] = field(default_factory=list)  # lines that wait until any image could be read

    def add(self, failures: Sequence[tuple[int, str]]) -> None:
        """Record failures; `check` reports them, each image once, after some image could be read.

        Args:
            failures: Numbers of images and the reasons why they could not be read.

        Raises:
            RefusedImage: If `strict`.
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
        """Report the recorded failures, or raise if nothing could be read.

        Args:
            read: Images that could be read so far.
            ended: Whether all images have been tried.

        Raises:
            Unreadable: If none of the first NEIGHBOURS images, or at the end none at all, could be read.
        """
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
        """How many images were skipped, and the first few names; empty if none were."""
        if not self.reasons:
            return ""
        names = [self.images.name(index) for index in sorted(self.reasons)]
        return f"{len(names)} of {len(self.images)} images could not be read and were skipped: {some(names)}"


def read_near(
    images: Images, index: int, most: int = NEIGHBOURS
) -> tuple[int, UInt8[Tensor, "c h w"], list[tuple[int, str]]]:
    """Read an image or, if it cannot be read, the next one that can: every process needs batches of equal size.

    Args:
        images: n images.
        index: The image to try first.
        most: Number of images to try.

    Returns:
        The number of the image that was read, its pixels, and the failures before it.

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
