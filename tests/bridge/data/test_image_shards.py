"""Shards of webdataset: what its own reader yields, names and splits, damage, and the index that is kept."""

import gc
import gzip
import hashlib
import io
import json
import os
import tarfile
import warnings

import numpy as np
import pytest
import torch
from helpers.image_sources import as_shards, pack, pictures, pixels_of, png, same_images
from PIL import Image

from dyncollapse.bridge import Skipped, Unreadable, open_data
from dyncollapse.bridge.data.images import hold

RED = png(np.full((6, 5, 3), (255, 0, 0), np.uint8))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """The current folder, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path / "set")
    return tmp_path / "set"


def opened(name, said=None):
    """Data, and the one line on what was skipped, without its beginning."""
    lines = []
    data = open_data(str(name), lines.append)
    assert all("\n" not in line for line in lines)
    assert len(lines) <= 1
    told = lines[0].removeprefix(f"`data` {name}: skipped ") if lines else ""
    assert told == data.skipped
    if said is not None:
        assert said in told
    return data


def sample(key, label=0, content=RED, extension="png"):
    return [(f"{key}.{extension}", content), (f"{key}.cls", str(label).encode())]


# --- As webdataset writes and reads them


def test_its_own_reader_yields_the_same_images_and_labels(place):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset
    as_shards(place, {"train": pictures()})
    paths = sorted(str(path) for path in place.glob("*.tar"))
    assert len(paths) == 3
    with warnings.catch_warnings():  # it leaves files open
        warnings.simplefilter("ignore")
        reader = webdataset.WebDataset(paths, shardshuffle=False, empty_check=False).decode("rgb8")
        theirs = [(torch.from_numpy(image).permute(2, 0, 1), label) for image, label in reader.to_tuple("png", "cls")]
        gc.collect()
    data = opened(place)
    assert data.train.labels.tolist() == [label for _, label in theirs]
    assert all(torch.equal(ours, image) for ours, (image, _) in zip(pixels_of(data.train), theirs, strict=True))
    assert data.train.name(6) == f"{paths[1]}/train/0006.png"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_and_long_names(form, place):
    long = "d" * 90 + "/" + "k" * 90
    pack(place / "0.tar", [*sample("a.b/c", 3), *sample(long, 5), *sample("ä/日本", 7)], form)
    data = opened(place)
    assert (data.train.labels.tolist(), data.classes) == ([0, 1, 2], ["3", "5", "7"])
    assert [int(image[0].min()) for image in pixels_of(data.train)] == [255] * 3


def test_labels_of_json_and_none_at_all(place):
    def with_json(key, **values):
        return [(f"{key}.jpg", RED), (f"{key}.json", json.dumps(values).encode())]

    pack(place / "0.tar", [*with_json("a", label=4), *with_json("b", cls=9, label="dog")])
    data = opened(place)
    assert (data.train.labels.tolist(), data.classes) == ([0, 1], ["4", "9"])
    pack(place / "0.tar", [("a.jpg", RED), ("b.jpg", RED)])
    data = opened(place)
    assert (data.train.labels.tolist(), data.classes) == ([-1, -1], [])
    with pytest.raises(ValueError, match=r"the training images of data .* have no classes"):
        data.check_labels()


@pytest.mark.parametrize(
    "label", [("a.cls", b"dog"), ("a.cls", b"1.0"), ("a.json", b'{"label": "dog"}'), ("a.json", b" " * 2**17)]
)
def test_labels_of_which_none_can_be_read_are_said(label, place):
    pack(place / "0.tar", [("a.jpg", RED), label])
    data = opened(place)
    assert data.train.labels.tolist() == [-1]
    assert data.skipped == "1 label that cannot be read as a whole number (0.tar/a)"
    with pytest.raises(ValueError, match=r"have no classes.* skipped: 1 label that cannot be read"):
        data.check_labels()


def test_names_of_classes(place):
    pack(place / "0.tar", [*sample("a", 1), *sample("b", 0)])
    (place / "classes.txt").write_text("cat\ndog\n")
    data = opened(place)
    assert (data.classes, data.train.labels.tolist()) == (["cat", "dog"], [1, 0])
    (place / "classes.txt").write_text("cat\n")
    with pytest.raises(ValueError, match=r"classes.txt does not fit the shards: a label is 1, and there are 1 names"):
        open_data(str(place))
    (place / "classes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"classes.txt cannot be read \(it is in UTF-16"):
        open_data(str(place))


def test_pixels_are_those_of_the_same_file_in_a_folder(place):
    grey = io.BytesIO()
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(grey, "PNG")
    pack(place / "0.tar", sample("a", content=grey.getvalue()))
    assert opened(place).train.read(0)[0].tolist() == [[0, 1, 255]]


# --- Names


def test_splits_by_names_and_by_folders(place):
    made = {"train": pictures(3), "val": pictures(1), "test": pictures(2)}
    as_shards(place / "flat", made)
    data = opened(place / "flat", "1 shard of another split (set-test-0000.tar)")
    assert (len(data.train), len(data.test)) == (6, 2)
    as_shards(place / "parted" / "train", {"a": made["train"]})
    as_shards(place / "parted" / "validation", {"a": made["val"]})
    data = opened(place / "parted")
    assert (len(data.train), len(data.test)) == (6, 2)
    os.rename(place / "parted" / "train", place / "elsewhere")
    with pytest.raises(ValueError, match="has test shards and no train/; is it only half copied"):
        open_data(str(place / "parted"))
    data = opened(place / "parted" / "validation")
    assert (len(data.train), data.test) == (2, None)


def test_patterns(place):
    as_shards(place, {"train": pictures(6), "val": pictures(2)}, per_shard=2)
    data = opened("set-train-{0001..0003}.tar")
    assert (len(data.train), data.test) == (6, None)
    assert data.train.name(0).startswith("set-train-0001.tar/")
    data = opened("set-{train,val}-{0000..0001}.tar")
    assert (len(data.train), len(data.test)) == (4, 4)
    assert len(opened("set-val-0000.tar").train) == 2
    for number in (8, 9, 10):
        pack(place / f"x{number}.tar", sample("a"))
    assert len(opened("x{8..10}.tar").train) == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train-{0000..0003}.tar", "4 of 4 shards do not exist: train-0000.tar, "),
        ("gone.tar", "1 of 1 shards do not exist: gone.tar; copy them"),
        ("{0..999999999}.tar", "is a range of 1000000000; give 1 to 100000"),
        ("{9..1}.tar", "{9..1} is a range of 0"),
        ("{0..9999}{0..9999}.tar", "names 100000000 shards"),
        ("{a..b}.tar", "{a..b} is no range, as 0000..0099, and no list"),
        ("{{0..1}.tar", "2 of 2 shards do not exist: {0.tar"),
        ("x\x1b[31m.tar", r"x\x1b[31m.tar"),
    ],
)
def test_patterns_that_name_nothing(name, words):
    with pytest.raises(ValueError, match=r"^data ") as error:
        open_data(name)
    assert words in str(error.value)
    assert str(error.value).isprintable()


def test_image_files_win_over_shards_beside_them(place):
    pack(place / "0.tar", sample("a"))
    (place / "cat").mkdir()
    (place / "cat" / "1.png").write_bytes(RED)
    lines = []
    data = open_data(str(place), lines.append)
    assert data.classes == ["cat"]
    assert lines[0].startswith(f"`data` {place}: reads its image files, not 0.tar; name ")


# --- What is not sound


def link(name, kind=tarfile.SYMTYPE):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, "/etc/passwd"
    return entry


def test_what_is_skipped_is_counted(place):
    device = tarfile.TarInfo("dev.png")
    device.type = tarfile.CHRTYPE
    parts = [*sample("a"), link("b.png"), link("c.png", tarfile.LNKTYPE), device, ("._d.png", RED), ("README", b"x")]
    parts += [("e.txt", b"x"), ("f.png", RED), *sample("g", "cat"), *sample("h", -1), *sample("a"), ("a.png", RED)]
    parts += [("__meta__", b"x"), *sample("../../i", 1), ("/j.png", RED), ("/j.json", b"[" * 9000)]
    parts += [*sample("k", 2), ("k.JPG", RED)]
    pack(place / "0.tar", parts)
    data = opened(place)
    assert data.train.labels.tolist() == [0, 0, 1, 2]
    assert data.skipped == (
        "2 links in shards (0.tar/b.png, 0.tar/c.png), 1 device or sparse file in a shard (0.tar/dev.png), "
        "2 members that belong to no sample (0.tar/._d.png, 0.tar/README), 1 sample without an image (0.tar/e), "
        "3 labels that cannot be read as whole numbers (0.tar/g, 0.tar/h, 0.tar//j), "
        "1 second member of a name in its sample (0.tar/a.png), 1 second image of its sample (0.tar/k), "
        f"4 samples without a whole number as label ({', '.join(f'{place}/0.tar/{n}.png' for n in 'fgh')}, "
        f"{place}/0.tar//j.png)"
    )
    assert sorted(os.listdir(place)) == ["0.tar"]
    assert not os.path.lexists(place.parent / "i.png")


def damaged(at, value):
    """A sound shard in which bytes from `at` on are others, its header's checksum made right again."""

    def write(path):
        content = bytearray(pack(path, [*sample("a"), *sample("b", 1)]).read_bytes())
        content[at : at + len(value)] = value
        content[148:156] = b" " * 8
        content[148:156] = b"%06o\0 " % sum(content[:512])
        path.write_bytes(content)

    return write


def cut(path):
    content = pack(path, [*sample("a"), *sample("b", 1)]).read_bytes()
    path.write_bytes(content[: content.rindex(b"IEND")])


HOSTILE = {
    "text": (lambda path: path.write_text("no archive\n" * 99), "it is no tar archive"),
    "short": (lambda path: path.write_bytes(b"x"), "it is no tar archive"),
    "empty": (lambda path: path.write_bytes(b""), "it is no tar archive"),
    "zeros": (lambda path: path.write_bytes(bytes(10240)), ""),
    "gzip": (lambda path: path.write_bytes(gzip.compress(pack(path, sample("a")).read_bytes() * 9)), "by gzip; unpack"),
    "absurd size": (damaged(124, b"77777777777\0"), "would end at 8589935103, and the file ends at"),
    "binary size": (damaged(124, b"\x80" + b"\xff" * 11), "and the file ends at"),
    "negative size": (damaged(124, b"\xff" * 12), "a number in a header is none"),
    "size in words": (damaged(124, b"many\0"), "a number in a header is none"),
    "folder": (lambda path: path.mkdir(), "holds no images"),
    "pipe": (lambda path: os.mkfifo(path), "it is a pipe, not a regular file"),
    "loop": (lambda path: os.symlink(path.name, path), "Too many levels of symbolic links"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_is_left_of_a_damaged_shard_alone_but_others_count(kind, place):
    write, words = HOSTILE[kind]
    write(place / "0.tar")
    with pytest.raises(ValueError, match=r"no images") as error:
        open_data(str(place), lambda _line: None)
    assert words in str(error.value)
    assert str(error.value).isprintable()
    pack(place / "1.tar", sample("a"))
    assert len(opened(place, words if kind != "folder" else "").train) == 1


def test_a_shard_that_is_cut_short_gives_what_is_whole(place):
    cut(place / "0.tar")
    data = opened(place, "1 shard read only as far as it is sound (0.tar: the member at byte")
    assert len(data.train) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("path", "x" * 2**20), ("size", "-5"), ("size", str(2**62)), ("size", "7x"), ("GNU.sparse.map", "0,9")],
)
def test_hostile_attributes_of_a_member(name, value, place):
    entry = tarfile.TarInfo("b.png")
    entry.pax_headers = {name: value}
    pack(place / "0.tar", [*sample("a"), entry, *sample("c")])
    data = opened(place)
    assert len(data.train) in (1, 2)
    assert data.skipped


def test_an_image_that_cannot_be_decoded_is_named(place):
    pack(place / "0.tar", [*sample("a"), *sample("b", 1, b"no image"), *sample("c", 1)])
    images = opened(place).train
    with pytest.raises(Unreadable, match=rf"^{place}/0.tar/b.png cannot be read as an image \(cannot identify"):
        images.read(1)
    with pytest.raises(Unreadable, match="leave out strict"):
        hold(images, 8, Skipped(images, strict=True))
    skipped = Skipped(images, tell=str)
    assert len(hold(images, 8, skipped)) == 2
    assert skipped.sentence.endswith("were skipped: " + f"{place}/0.tar/b.png")


# --- The index


def cached(place):
    folder = place.parent / "cache" / "dyncollapse" / "shards"
    return next(path for path in folder.iterdir() if path.suffix == ".safetensors")


def test_the_index_is_made_once_and_again_for_other_shards(place, monkeypatch):
    as_shards(place, {"a": pictures()})
    first = opened(place).train
    made = []
    monkeypatch.setattr("dyncollapse.bridge.data.shard_index.samples_of", lambda path: made.append(path))
    again = opened(place).train
    assert made == []
    assert same_images(first, again)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.parent / "cache"))
    pack(place / "set-a-0000.tar", sample("new"))
    with pytest.raises(Unreadable, match="the shard has changed since it was opened"):
        first.read(0)
    assert len(opened(place).train) == 12 - 5 + 1
    assert len(list(cached(place).parent.glob("*.safetensors"))) == 1


def test_an_index_of_other_rules_is_not_read(place, monkeypatch):
    pack(place / "0.tar", sample("a"))
    with monkeypatch.context() as earlier:
        earlier.setattr("dyncollapse.bridge.data.shard_index.RULES", "0")
        opened(place)
    kept = place.parent / "cache" / "dyncollapse" / "shards"
    opened(place)
    assert len(list(kept.glob("*.safetensors"))) == 2


@pytest.mark.parametrize("at", [0, 8, 60, 0.3, 0.5, 0.7, 0.9, -1])
def test_a_damaged_index_is_made_anew(at, place):
    as_shards(place, {"a": pictures()})
    whole = opened(place).train
    path = cached(place)
    content = bytearray(path.read_bytes())
    content[int(at * len(content)) if isinstance(at, float) else at] ^= 0xFF
    path.write_bytes(content)
    assert same_images(opened(place).train, whole)


def test_an_index_that_points_elsewhere_is_not_believed(place):
    from safetensors.torch import load_file, save_file

    as_shards(place, {"a": pictures()})
    whole = opened(place).train
    path, columns = cached(place), load_file(cached(place))

    def with_digest(columns):
        names = ("stamps", "shards", "starts", "sizes", "labels", "skipped")
        digest = hashlib.sha256(b"".join(columns[name].numpy().tobytes() for name in names)).digest()
        return columns | {"digest": torch.tensor(list(digest), dtype=torch.uint8)}

    changes = {
        "shards": columns["shards"] + 1,
        "starts": columns["starts"] - 10**6,
        "sizes": columns["sizes"] + 10**6,
        "labels": columns["labels"] - 5,
        "stamps": columns["stamps"].flip(0),
        "skipped": torch.tensor(list(b'[["a","b",-1,[]]]'), dtype=torch.uint8),
    }
    for name, column in changes.items():
        save_file(with_digest(columns | {name: column}), path)
        assert same_images(opened(place).train, whole)
        assert torch.equal(load_file(path)[name], columns[name])
    for name in columns:
        save_file({other: column for other, column in columns.items() if other != name}, path)
        assert same_images(opened(place).train, whole)


def test_a_cache_that_cannot_be_written_is_no_obstacle(place, monkeypatch):
    (place / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "file"))
    pack(place / "0.tar", sample("a"))
    lines = []
    assert len(open_data(str(place), lines.append).train) == 1
    assert "the index of shards cannot be kept in" in lines[0]
