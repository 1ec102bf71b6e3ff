"""Decode image files to 8-bit RGB, from 1 to 32 bits, grey or colour, integers or floats."""

import io
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Num, UInt8

from dyncollapse.runtime.files import printable

if TYPE_CHECKING:
    from PIL import Image

# The formats that Pillow may detect. Its other formats are not for photographs, and for one of them, EPS, it starts
# Ghostscript on the file.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF")
TOP16, TOP12 = 65535, 4095
HALF = 0.5 / 255  # half a level of 8 bits: rounding puts floats this far outside of [0, 1]
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # of TIFF
MEMORY_ADDRESS = re.compile(r" <_io\.BytesIO object at 0x[0-9a-f]+>")  # what Pillow calls bytes that are no image
BYTES_PER_PIXEL = 8  # four channels of 16 bits; no valid file is much longer than its pixels


class Unreadable(ValueError):
    """Raised for an image that cannot be read; the message names it.

    Examples:
        >>> from pathlib import Path
        >>> Path("broken.jpg").write_bytes(b"no image")
        8
        >>> read_rgb("broken.jpg")
        Traceback (most recent call last):
            ...
        dyncollapse.bridge.data.pixels.Unreadable: broken.jpg cannot be read as an image (cannot identify image file)
    """


class UnknownRange(ValueError):
    """Raised for an image whose values for black and white are unknown, so that its set has no common scale."""


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Silence Pillow's warnings about files that are read all the same or refused with a message of our own.

    Warning filters belong to the process, so enter this context before starting threads, not inside them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def read_rgb(path: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decode the first frame of an image file to 8-bit RGB, ignoring transparency and EXIF orientation.

    Args:
        path: The file.

    Returns:
        Red, green and blue.

    Raises:
        Unreadable: If the file is damaged, cut short, too large, missing, or not a regular file.
        UnknownRange: If its values for black and white are unknown.
    """
    with _one_line(printable(path), path):
        if not stat.S_ISREG((status := os.stat(path)).st_mode):
            raise OSError("it is no regular file")
        return _decoded(lambda: path, status.st_size, printable(path))


def rgb_of_bytes(content: Callable[[], bytes], size: int, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decode the bytes of an image file as `read_rgb` decodes the file.

    Args:
        content: Returns the bytes; not called for more of them than an image can have.
        size: Number of bytes.
        name: What messages call the image.

    Returns:
        Red, green and blue.

    Raises:
        Unreadable: If the bytes are damaged, too many, or cannot be read.
        UnknownRange: If their values for black and white are unknown.

    Examples:
        >>> rgb_of_bytes(lambda: b"P5 1 1 255 " + bytes([7]), 12, "it").tolist()
        [[[7, 7, 7]]]
    """
    with _one_line(name):
        return _decoded(lambda: io.BytesIO(content()), size, name)


def _decoded(source: Callable[[], str | io.BytesIO], size: int, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decode an image of so many bytes. Raises OSError for one that is too large."""
    from PIL import Image

    most = Image.MAX_IMAGE_PIXELS  # Pillow's own limit; None where the user has lifted it
    if most is not None and size > most * BYTES_PER_PIXEL:
        raise OSError(f"its {size:.3g} bytes are more than {most:.3g} pixels take")
    with Image.open(source(), formats=FORMATS) as image:
        if most is not None and image.width * image.height > most:
            raise OSError(f"its {image.width} x {image.height} pixels are more than the {most:.3g} that are read")
        return as_rgb(image, name)


@contextmanager
def _one_line(name: str, path: str | None = None) -> Iterator[None]:
    """Turn any error of a decoder into Unreadable with one line."""
    try:
        yield
    except (Unreadable, UnknownRange):
        raise
    except Exception as error:  # a decoder can fail on damage in any way
        # Pillow's own messages repeat the path in some cases and say nothing in others.
        reason = (error.strerror if isinstance(error, OSError) else None) or printable(str(error))
        reason = MEMORY_ADDRESS.sub("", reason.replace(f" {path!r}", "")) or type(error).__name__
        raise Unreadable(f"{name} cannot be read as an image ({reason})") from None


def as_rgb(image: "Image.Image", name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Convert an open image of any of Pillow's modes to 8-bit RGB, with black at 0 and white at 255.

    Args:
        image: An open image.
        name: What messages call it.

    Returns:
        Red, green and blue. Grey of more than 8 bits is scaled by its format's range (see `grey_levels`); Pillow
        converts everything else.

    Raises:
        UnknownRange: For 32-bit integers or floats outside of the range that `grey_levels` assumes.
        Unreadable: For floats with NaN or infinite values.

    Examples:
        >>> from PIL import Image
        >>> as_rgb(Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16)), "it")[0, :, 0].tolist()
        [0, 1, 255]
    """
    if image.mode == "F" or image.mode.startswith("I"):
        grey = grey_levels(np.asarray(image), name, _top(image))
        if image.format == "TIFF" and _tag(image, PHOTOMETRIC) == WHITE_IS_ZERO:
            grey = 255 - grey
        return np.repeat(grey[..., None], 3, axis=2)
    # Pillow knows no way to RGB from premultiplied grey, and warns on the way from a palette with transparency.
    if image.mode in ("La", "RGBa") or (image.mode == "P" and "transparency" in image.info):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    return np.array(image.convert("RGB"))


def grey_levels(values: Num[np.ndarray, "h w"], name: str, top: int | None = None) -> UInt8[np.ndarray, "h w"]:
    """Scale grey values to 8 bits by the range of their format, not by that of one image.

    Args:
        values: Unsigned 16-bit integers, 32-bit integers, or floats.
        name: What messages call the image.
        top: The value of white, if the file's format fixes it. Without it, white is 1 for floats and 65535 for
            integers, because Pillow keeps 16-bit grey as 32-bit integers.

    Returns:
        255 * values / white, rounded.

    Raises:
        UnknownRange: For values outside of that range, and for 32-bit integers of which none exceeds 255: these may be
            8-bit grey.
        Unreadable: For NaN or infinite values.
    """
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        if not (np.isfinite(low) and np.isfinite(high)):
            raise Unreadable(f"{name} cannot be read as an image (it holds NaN or infinite values)")
        if low < -HALF or high > 1 + HALF:
            raise UnknownRange(
                f"{name} holds floats from {low:.4g} to {high:.4g}, and the range of such images is unknown: scale the "
                "whole set to 0 (black) to 1 (white)"
            )
        return np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    if top is None and not (low == high == 0 or (low >= 0 and 255 < high <= TOP16)):
        raise UnknownRange(
            f"{name} holds 32-bit integers from {low} to {high}, and the range of such images is unknown: save the "
            "whole set with 8 or 16 bits"
        )
    white = top or TOP16
    return ((values.astype(np.int64) * 255 + white // 2) // white).clip(0, 255).astype(np.uint8)


def _top(image: "Image.Image") -> int | None:
    """The value of white in a grey image of more than 8 bits, if its format fixes it."""
    if image.format == "TIFF" and _tag(image, BITS_PER_SAMPLE) == 12:
        return TOP12
    # PNG and PGM have at most 16 bits. Pillow scales fewer bits up to 16, and some of its versions keep them as 32.
    return TOP16 if image.mode.startswith("I;16") or image.format in ("PNG", "PPM") else None


def _tag(image: "Image.Image", number: int) -> int | None:
    """The first value of a TIFF tag."""
    value = image.tag_v2.get(number)  # type: ignore[attr-defined]
    return value[0] if isinstance(value, tuple) and value else value
