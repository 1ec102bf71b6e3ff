"""Files with the names of pictures, and what else stands in folders of pictures."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"


def _saved(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: object) -> bytes:
    held = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(held, kind, **options)  # type: ignore[arg-type]
    return held.getvalue()


def _colours(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, shape, dtype=np.uint8)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _huge(side: int) -> bytes:
    """A PNG that says it is huge, with next to nothing in it."""
    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", size)
        + _chunk(b"IDAT", zlib.compress(bytes(1000)))
        + _chunk(b"IEND", b"")
    )


def _bomb() -> bytes:
    """A PNG of a few hundred kilobytes that is 12 000 pixels wide and high."""
    side = 12_000
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(1 + 3 * side)) for _ in range(side)) + packer.flush()
    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", size) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


PICTURES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "text": lambda: b"no picture\n",
    "eps": lambda: EPS,
    "half": lambda: _saved(_colours(20, 20, 3))[:200],
    "jpeg": lambda: _saved(_colours(20, 20, 3), "JPEG"),
    "halfjpeg": lambda: _saved(_colours(60, 60, 3), "JPEG")[:600],
    "cmyk": lambda: _saved(_colours(20, 20, 3), "JPEG", "CMYK"),
    "gif": lambda: _saved(_colours(20, 20, 3), "GIF", "P"),
    "frames": lambda: _saved(
        _colours(20, 20), "GIF", save_all=True, append_images=[Image.fromarray(_colours(20, 20))] * 3
    ),
    "palette": lambda: _saved(_colours(20, 20, 4), "PNG", "P"),
    "alpha": lambda: _saved(_colours(20, 20, 4)),
    "greyalpha": lambda: _saved(_colours(20, 20), "PNG", "LA"),
    "bilevel": lambda: _saved(_colours(20, 20), "PNG", "1"),
    "grey": lambda: _saved(_colours(20, 20)),
    "grey16": lambda: _saved(_colours(20, 20).astype(np.uint16) * 257),
    "int32": lambda: _saved(_colours(20, 20).astype(np.int32) * 1000, "TIFF"),
    "float": lambda: _saved(_colours(20, 20).astype(np.float32) / 255, "TIFF"),
    "floatnan": lambda: _saved(np.full((20, 20), np.nan, np.float32), "TIFF"),
    "floathuge": lambda: _saved(np.full((20, 20), 3e38, np.float32), "TIFF"),
    "dot": lambda: _saved(_colours(1, 1, 3)),
    "strip": lambda: _saved(_colours(1, 9000, 3)),
    "tall": lambda: _saved(_colours(9000, 2, 3)),
    "huge": lambda: _huge(60_000),
    "large": lambda: _huge(13_000),
    "bomb": _bomb,
    "webp": lambda: _saved(_colours(20, 20, 3), "WEBP"),
    "bmp": lambda: _saved(_colours(20, 20, 3), "BMP"),
    "ppm": lambda: b"P6\n99999 99999\n255\n" + bytes(100),
    "ico": lambda: _saved(_colours(20, 20, 3), "ICO"),
    "pickle": lambda: b"\x80\x04N.",
    "appledouble": lambda: b"\0\5\26\7\0\2\0\0Mac OS X        ",
    "svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


def draw_picture(path: Path, name: str) -> None:
    """Write one of them."""
    path.write_bytes(PICTURES[name]())
