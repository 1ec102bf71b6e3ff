"""Image files of every kind of pixel against the same picture in 8 bits, and files that are no pictures."""

import ast
import multiprocessing
import os
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.bridge import write_images
from helpers.waiting import eventually
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageCms

import dyncollapse
from dyncollapse.bridge import Skipped, open_data
from dyncollapse.bridge.data.augmentations import CIFAR
from dyncollapse.bridge.data.batches import Order, batches_from_workers, batches_in_order
from dyncollapse.bridge.data.images import hold
from dyncollapse.bridge.data.pixels import UnknownRange, Unreadable, as_rgb, grey_levels, quiet_decoders, read_rgb

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (9, 7)).astype(np.uint8)
GREY[0, :2] = 0, 255  # black and white
COLOUR = RNG.integers(0, 256, (9, 7, 3)).astype(np.uint8)
SMOOTH = (np.mgrid[60:190:9j, 60:190:7j].sum(0)[..., None] / 2 + np.array([0, 10, -10])).round().astype(np.uint8)


def tiff(values, bits=16, photometric=1, sample_format=1, order="<"):
    """A TIFF of one strip, written by hand: Pillow does not write all that it reads."""
    data = values if isinstance(values, bytes) else values.tobytes()
    height, width = GREY.shape
    shorts = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: 1, 278: height, 339: sample_format}
    entries = [(tag, 3, struct.pack(order + "HH", value, 0)) for tag, value in shorts.items()]
    entries += [(tag, 4, struct.pack(order + "I", value)) for tag, value in ((273, 8), (279, len(data)))]
    directory = b"".join(struct.pack(order + "HHI", tag, kind, 1) + value for tag, kind, value in sorted(entries))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    return head + data + struct.pack(order + "H", len(entries)) + directory + bytes(4)


def packed12(values):
    """Rows of 12-bit values, each row filled up to whole bytes."""
    rows = ("".join(f"{value:012b}" for value in row) for row in values)
    return b"".join(int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8), "big") for row in rows)


def pgm(values, top, magic=b"P5"):
    height, width = values.shape[:2]
    return b"%s %d %d %d\n" % (magic, width, height, top) + values.astype(">u2").tobytes()


def png16(values):
    """A PNG of three channels of 16 bits, which Pillow does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def pillow(array, mode=None):
    image = Image.fromarray(array)
    return image if mode is None else image.convert(mode)


WIDE = GREY.astype(np.uint16) * 257
UNIT = (GREY / 255).astype(np.float32)
GREYS = {
    "png 16": ("png", pillow(WIDE)),
    "tiff 16": ("tif", pillow(WIDE)),
    "tiff 16 big-endian": ("tif", tiff(WIDE.astype(">u2"), order=">")),
    "tiff 16, white is zero": ("tif", tiff(65535 - WIDE, photometric=0)),
    "tiff 12": ("tif", tiff(packed12((GREY / 255 * 4095).round().astype(int)), bits=12)),
    "tiff 32-bit integers": ("tif", pillow(WIDE.astype(np.int32))),
    "tiff 32-bit unsigned": ("tif", tiff(WIDE.astype(np.uint32), bits=32)),
    "tiff float": ("tif", pillow(UNIT)),
    "tiff float, big-endian": ("tif", tiff(UNIT.astype(">f4"), bits=32, sample_format=3, order=">")),
    "tiff float, white is zero": ("tif", tiff(1 - UNIT, bits=32, sample_format=3, photometric=0)),
    "pgm 16": ("ppm", pgm(WIDE, 65535)),
    "pgm 10": ("ppm", pgm((GREY / 255 * 1023).round(), 1023)),
    "grey and alpha": ("png", pillow(GREY, "LA")),
    "palette": ("png", pillow(GREY, "P")),
    "gif under another name": ("png", ("GIF", pillow(GREY))),
}
COLOURS = {
    "ppm 16": ("ppm", pgm(COLOUR.astype(np.uint16) * 257, 65535, b"P6")),
    "png 3 x 16": ("png", png16(COLOUR.astype(np.uint16) * 257)),
    "alpha": ("png", pillow(np.dstack([COLOUR, GREY]))),
    "cmyk": ("tif", pillow(COLOUR, "CMYK")),
    "webp": ("webp", ("WEBP", pillow(COLOUR))),
    "png named jpeg": ("JPEG", ("PNG", pillow(COLOUR))),
    "bmp": ("bmp", pillow(COLOUR)),
}


def saved(folder, suffix, content):
    path = folder / f"picture.{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, tuple):
        content[1].save(path, format=content[0], lossless=True)
    else:
        content.save(path)
    return str(path)


def levels_apart(found, expected):
    assert found.dtype == np.uint8
    return np.abs(found.astype(int) - expected).max()


@pytest.mark.parametrize("kind", GREYS)
def test_grey_of_every_kind_is_the_8_bit_picture(kind, tmp_path):
    found = read_rgb(saved(tmp_path, *GREYS[kind]))
    assert levels_apart(found, np.repeat(GREY[..., None], 3, 2)) <= 1
    assert found[0, 0].tolist() == [0] * 3
    assert found[0, 1].tolist() == [255] * 3


@pytest.mark.parametrize("kind", COLOURS)
def test_colours_of_every_kind_are_the_8_bit_picture(kind, tmp_path):
    assert levels_apart(read_rgb(saved(tmp_path, *COLOURS[kind])), COLOUR) <= 1


def test_black_and_white(tmp_path):
    found = read_rgb(saved(tmp_path, "png", pillow(GREY > 127)))
    assert np.array_equal(found[..., 1], np.where(GREY > 127, 255, 0))


def test_palette_keeps_its_colours_beside_transparency(tmp_path):
    image = pillow(COLOUR).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    image.info["transparency"] = bytes(range(16))
    image.save(tmp_path / "picture.png")
    assert np.array_equal(read_rgb(str(tmp_path / "picture.png")), expected)
    with_alpha = pillow(COLOUR).quantize(16).convert("PA")
    assert np.array_equal(as_rgb(with_alpha, "it"), expected)


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX", "RGBA", "RGBa"])
def test_other_spaces_of_colour_come_back(mode):
    image = pillow(SMOOTH, "RGBA").convert(mode) if mode == "RGBa" else pillow(SMOOTH, mode)
    assert levels_apart(as_rgb(image, "it"), SMOOTH) <= 4  # each of these is rounded to 8 bits on the way


def test_premultiplied_grey():
    assert levels_apart(as_rgb(pillow(GREY, "LA").convert("La"), "it"), np.repeat(GREY[..., None], 3, 2)) == 0


def test_lab(tmp_path):
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    image = ImageCms.applyTransform(pillow(SMOOTH), to_lab)
    assert levels_apart(read_rgb(saved(tmp_path, "tif", image)), SMOOTH) <= 8


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=20), st.sampled_from(["<u2", ">u2"]))
def test_levels_are_the_nearest_of_256(values, dtype):
    found = grey_levels(np.array([values], dtype), "it", 65535)
    assert np.abs(found.astype(float) - np.array([values]) / 257).max() <= 0.5


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.int32([[0, 65536]]), "from 0 to 65536"),
        (np.int32([[-1, 300]]), "from -1 to 300"),
        (np.int32([[0, 255]]), "from 0 to 255"),
        (np.float32([[0, 255]]), "floats from 0 to 255"),
        (np.float32([[-0.5, 1]]), "floats from -0.5 to 1"),
    ],
)
def test_values_of_unknown_range_are_refused(values, words):
    with pytest.raises(UnknownRange, match=words) as error:
        grey_levels(values, "it")
    assert "\n" not in str(error.value)
    assert "whole set" in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_unreadable(value):
    with pytest.raises(Unreadable, match="NaN or infinite"):
        grey_levels(np.float32([[0, value, 1]]), "it")


def test_reasons_are_given_once(tmp_path):
    values = UNIT.copy()
    values[0, 0] = np.nan
    path = saved(tmp_path, "tif", pillow(values))
    with pytest.raises(Unreadable) as error:
        read_rgb(path)
    assert str(error.value) == f"{path} cannot be read as an image (it holds NaN or infinite values)"
    Path(path).write_text("<html>")
    with pytest.raises(Unreadable) as error:
        read_rgb(path)
    assert str(error.value) == f"{path} cannot be read as an image (cannot identify image file)"


def test_floats_may_leave_the_unit_interval_by_rounding():
    assert grey_levels(np.float32([[-1e-6, 1 + 1e-6]]), "it").tolist() == [[0, 255]]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_of_unknown_range_is_refused_by_every_reader(workers, tmp_path):
    (tmp_path / "set").mkdir()
    for number in range(3):
        Image.fromarray((UNIT * 200).astype(np.float32)).save(tmp_path / "set" / f"{number}.tif")
    images, cpu = open_data(str(tmp_path / "set")).train, torch.device("cpu")
    readers = (
        lambda: hold(images, 8, Skipped(images), threads=workers),
        lambda: list(batches_in_order(images, (None,), 8, batch_size=2, device=cpu, workers=workers, seed=0)),
        lambda: list(
            batches_from_workers(
                images, CIFAR, 8, Order(3, 3, 0), steps=(0, 1), rows=slice(0, 3), device=cpu, workers=workers
            )
        ),
    )
    for read in readers:
        with pytest.raises(UnknownRange, match="the range of such images is unknown") as error:
            read()
        # What is left would keep the command from ending, as long as the error lives.
        eventually(lambda: not multiprocessing.active_children())
        assert error.value


# --- Files that are no pictures


def test_no_file_starts_a_program(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, *_args, **_given: started.append(command) or 1 / 0)
    with pytest.raises(ZeroDivisionError), Image.open(path) as image:  # which shows that Pillow would
        image.load()
    assert started
    started.clear()
    with pytest.raises(Unreadable, match="cannot identify"):
        read_rgb(str(path))
    assert not started


def test_every_picture_is_opened_as_one_of_few_formats():
    calls = [
        call
        for text in map(Path.read_text, Path(dyncollapse.__file__).parent.rglob("*.py"))
        if "Image" in text
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("Image.open")
    ]
    assert calls
    assert all("formats" in [keyword.arg for keyword in call.keywords] for call in calls)


def test_special_files_do_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (str(tmp_path / "pipe.png"), "/dev/zero", str(tmp_path)):
        with pytest.raises(Unreadable, match="it is no regular file"):
            read_rgb(path)
    with pytest.raises(Unreadable, match=r"gone.png cannot be read as an image \(No such file or directory\)"):
        read_rgb(str(tmp_path / "gone.png"))


def test_pictures_too_large_to_hold_are_named(tmp_path, monkeypatch):
    path = saved(tmp_path, "png", pillow(GREY))
    for most in (62, 30):  # pixels, where Pillow warns, and where it refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with quiet_decoders(), pytest.raises(Unreadable, match=r"picture.png .*(pixels are more than|exceeds limit)"):
            read_rgb(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 63)
    assert read_rgb(path).shape == (9, 7, 3)
    os.truncate(path, 63 * 8 + 1)
    with pytest.raises(Unreadable, match="its 505 bytes are more than 63 pixels take"):
        read_rgb(path)


@given(st.sampled_from(sorted({**GREYS, **COLOURS})), st.data())
@example("png 16", None)
def test_damage_is_reported_as_such(tmp_path_factory, kind, data):
    folder = tmp_path_factory.mktemp("damaged")
    path = Path(saved(folder, *{**GREYS, **COLOURS}[kind]))
    if data is not None:
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    reason = ""
    with quiet_decoders():
        try:
            found = read_rgb(str(path))
        except (Unreadable, UnknownRange) as error:
            reason = str(error)
    assert "\n" not in reason
    assert path.name in reason if reason else found.shape[2:] == (3,)


def test_unreadable_file_is_named_with_its_reason(tmp_path, monkeypatch):
    write_images(tmp_path, 1)
    images = open_data(str(tmp_path)).train
    monkeypatch.setattr(os, "stat", lambda _path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(Unreadable, match=r"0000.jpg cannot be read as an image \(Permission denied\)"):
        images.read(0)
