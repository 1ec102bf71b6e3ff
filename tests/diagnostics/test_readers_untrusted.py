import io
import json
import math
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from helpers.readers import ROWS, SUFFIXES, refusal, rewrite_pt, save
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dyncollapse.diagnostics.readers import read_rows


class Evil:
    """Unpickling this makes the file it names."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


# ------------------------------------------------------------------------------------------------------ never unpickled


def evil_files(folder, mark):
    """A file of each format whose loading by pickle makes `mark`."""
    objects = np.array([[Evil(mark)]], dtype=object)
    np.save(folder / "evil.npy", objects)
    np.savez(folder / "evil.npz", z=objects)
    torch.save(Evil(mark), folder / "evil.pt")
    torch.save({"z": ROWS, "extra": Evil(mark)}, folder / "beside.pt")
    torch.save(Evil(mark), folder / "legacy.pt", _use_new_zipfile_serialization=False)
    for suffix in SUFFIXES:
        (folder / f"bare{suffix}").write_bytes(pickle.dumps(Evil(mark)))
    return sorted(folder.glob("*.*"))


def test_pickles_are_refused_and_not_run(tmp_path):
    files = evil_files(tmp_path, tmp_path / "mark")
    assert len(files) == 10
    for path in files:
        assert "holds pickled objects, which are never loaded; save a plain array with numpy.save" in refusal(path)
        assert not (tmp_path / "mark").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "mark").exists()  # the trap works


def test_array_beside_objects_is_still_read(tmp_path):
    np.savez(tmp_path / "rows.npz", z=ROWS.numpy(), extra=np.array([[Evil(tmp_path / "mark")]], dtype=object))
    assert torch.equal(read_rows(tmp_path / "rows.npz"), ROWS)
    assert not (tmp_path / "mark").exists()


# ------------------------------------------------------------------------------------------------------------ any bytes


def write_anew(path, data):
    """Write a file in place of another: to overwrite one may wait for the disk."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def read_or_one_line(path):
    """Either rows that can be looked at, or one line about the file and None; warnings are errors in this suite."""
    try:
        rows = read_rows(path)
    except ValueError as error:
        message = str(error)
        assert message.startswith(f"{path} ")
        assert message.isprintable()
        return None
    assert rows.ndim == 2
    assert 0 not in rows.shape
    assert rows[:2].double().sum().ndim == rows[-2:].double().sum().ndim == 0
    return rows


MAGICS = (b"", b"\x93NUMPY\x01\x00v\x00", b"PK\x03\x04", b"\x80\x02", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
MAGICS += (struct.pack("<Q", 40) + b'{"',)


@given(suffix=st.sampled_from(SUFFIXES), magic=st.sampled_from(MAGICS), data=st.binary(max_size=300))
@settings(max_examples=600)
def test_random_bytes(tmp_path_factory, suffix, magic, data):
    path = tmp_path_factory.getbasetemp() / f"random{suffix}"
    write_anew(path, magic + data)
    assert read_or_one_line(path) is None


HEADER = st.binary(max_size=80) | st.text(
    st.sampled_from("{}()[],:'\"<>|fiUOVb0123456789 \\LdescrFalse"), max_size=80
).map(str.encode)
SOUND = tuple(f"{{'descr': '<f4', 'fortran_order': {order}, 'shape': (5, 5)}}".encode() for order in ("True", "False"))
DESCR = st.sampled_from(
    ("'<f4'", "'O'", "'V0'", "'U'", "'>f16'", "[('a','f4')]", "['a']", "'m8'", "'<f4,<f4'", "3", "'q'*9")
)


@given(
    header=HEADER
    | st.builds(
        "{{'descr': {}, 'fortran_order': {}, 'shape': {}}}".format,
        DESCR,
        st.sampled_from(("True", "False", "1")),
        st.tuples(st.integers(-2, 9) | st.integers(), st.integers(-2, 9)) | st.just("(True, 2)") | st.just("'ab'"),
    ).map(str.encode),
    version=st.sampled_from((b"\1\0", b"\2\0", b"\3\0", b"\4\1")),
)
@example(header=SOUND[0], version=b"\1\0")
@example(header=SOUND[1], version=b"\2\0")
@settings(max_examples=400)
def test_random_npy_headers(tmp_path_factory, header, version):
    length = struct.pack("<H" if version == b"\1\0" else "<I", len(header))
    data = b"\x93NUMPY" + version + length + header + bytes(range(100))
    folder = tmp_path_factory.getbasetemp()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("z.npy", data)
    write_anew(folder / "header.npy", data)
    write_anew(folder / "header.npz", zipped.getvalue())
    plain, zipped = read_or_one_line(folder / "header.npy"), read_or_one_line(folder / "header.npz")
    assert (plain is None) == (zipped is None)
    if plain is not None:
        expected = torch.from_numpy(np.load(folder / "header.npy"))
        assert torch.equal(plain.nan_to_num(), expected.nan_to_num())
        assert torch.equal(zipped.nan_to_num(), expected.nan_to_num())
    elif header in SOUND and version != b"\3\0":
        pytest.fail("a sound header is refused")


@given(
    dtype=st.sampled_from(("F32", "BF16", "F8_E4M3", "I64", "nonsense", "")),
    shape=st.lists(st.integers(-2, 9) | st.integers(0, 2**65), max_size=3),
    ends=st.tuples(st.integers(-2, 120) | st.integers(0, 2**65), st.integers(-2, 120) | st.integers(0, 2**65)),
    name=st.text(max_size=5),
)
@example(dtype="F32", shape=[5, 5], ends=(0, 100), name="z")
@example(dtype="BF16", shape=[2, 25], ends=(0, 100), name="")
@settings(max_examples=200)
def test_random_safetensors_headers(tmp_path_factory, dtype, shape, ends, name):
    path = tmp_path_factory.getbasetemp() / "header.safetensors"
    head = json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": ends}}).encode()
    write_anew(path, struct.pack("<Q", len(head)) + head + bytes(range(100)))
    rows, size = read_or_one_line(path), {"F32": 25, "BF16": 50}.get(dtype)
    sound = ends == (0, 100) and len(shape) == 2 and math.prod(shape) == size and min(shape) > 0
    assert (rows is not None) == sound
    if sound:
        kind = torch.float32 if dtype == "F32" else torch.bfloat16
        assert torch.equal(rows, torch.frombuffer(bytearray(range(100)), dtype=kind).reshape(shape))


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory):
    """The bytes of a sound file of every kind, by its name."""
    folder = tmp_path_factory.mktemp("sound")
    for suffix in SUFFIXES:
        save(folder / f"rows{suffix}", ROWS)
    np.savez_compressed(folder / "small.npz", a=ROWS.numpy(), b=np.arange(3))
    np.save(folder / "objects.npy", np.array([[Evil(folder / "mark")]], dtype=object))
    torch.save(ROWS, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"z": ROWS[1:, ::2], "y": torch.arange(4)}, folder / "dict.pt")
    torch.save({"z": ROWS.T, "y": torch.arange(4)}, folder / "dict.pth", _use_new_zipfile_serialization=False)
    torch.save(Evil(folder / "mark"), folder / "evil.pt")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}, folder / "mark"


@given(data=st.data())
@settings(max_examples=1500)
def test_damaged_files(sound_files, tmp_path_factory, data):
    contents, mark = sound_files
    name = data.draw(st.sampled_from(sorted(contents)))
    damaged = bytearray(contents[name])
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    keep = data.draw(st.just(len(damaged)) | st.integers(0, len(damaged)))
    path = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    write_anew(path, damaged[:keep])
    read_or_one_line(path)
    assert not mark.exists()


@given(data=st.data())
@settings(max_examples=400)
def test_damaged_pickles_inside_sound_zips(sound_files, tmp_path_factory, data):
    contents, mark = sound_files
    name = data.draw(st.sampled_from(("rows.pt", "dict.pt", "evil.pt")))
    path = tmp_path_factory.getbasetemp() / f"inside-{name}"
    write_anew(path, contents[name])
    flips = data.draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4))

    def flip(pickled):
        flipped = bytearray(pickled)
        for place, value in flips:
            flipped[place % len(flipped)] = value
        return bytes(flipped)

    rewrite_pt(path, flip)
    read_or_one_line(path)
    assert not mark.exists()
