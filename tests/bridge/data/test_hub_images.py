"""Datasets of Hugging Face: columns, labels, splits, pixels of every mode, damage, and the Hub that is out of reach."""

import io
import json
import os
import shutil
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import torch
from helpers.image_sources import as_dataset, as_parquet, as_saved, pictures, png, same_images
from PIL import Image

from dyncollapse.bridge import Unreadable, open_data
from dyncollapse.bridge.data import hub_connection
from dyncollapse.bridge.data.hub_images import HubImages
from dyncollapse.bridge.data.pixels import read_rgb
from dyncollapse.runtime import extras

RED = png(np.full((6, 5, 3), (255, 0, 0), np.uint8))


@pytest.fixture(scope="module")
def library():
    import datasets

    return datasets


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, library):
    """The current folder, with a cache of its own."""
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path / "set")
    return tmp_path / "set"


def saved(place, library, columns, **features):
    """A saved dataset of images in the column `image` and of other columns."""
    count = len(next(iter(columns.values()), [0, 0]))
    columns = {"image": [{"bytes": RED, "path": None}] * count} | columns
    shape = library.Features({"image": library.Image()} | features)
    library.Dataset.from_dict(columns, features=shape).save_to_disk(place / "saved")
    return str(place / "saved")


def opened(name):
    lines = []
    data = open_data(name, lines.append)
    assert len(lines) <= 1
    assert all(line.isprintable() and line.startswith(f"`data` {name}: ") for line in lines)
    return data, lines[0].removeprefix(f"`data` {name}: ") if lines else ""


def refused(name):
    """The one line that says why data cannot be opened."""
    with pytest.raises(ValueError, match=r"^data ") as error:
        open_data(name, str)
    message = str(error.value)
    assert message.isprintable()
    assert len(message) < 600
    return message


# --- Columns and labels


def test_labels_that_are_missing_are_no_class(place, library):
    classes = library.ClassLabel(names=["cat", "dog", "eel"])
    data, told = opened(saved(place, library, {"label": [2, None, -1, 0]}, label=classes))
    assert (data.train.labels.tolist(), data.classes, told) == ([2, -1, -1, 0], ["cat", "dog", "eel"], "")
    with pytest.raises(ValueError, match=r"the training images of data .* have no classes"):
        data.check_labels()


@pytest.mark.parametrize(
    ("kind", "values", "labels", "classes"),
    [
        ("int16", [30, 7, None, 30], [1, 0, -1, 1], ["7", "30"]),
        ("uint64", [0, 1, 2, 2], [0, 1, 2, 2], ["0", "1", "2"]),
        ("string", ["dog", None, "cat", "dog"], [1, -1, 0, 1], ["cat", "dog"]),
        ("float64", [1.0, 2.0, 1.0, 2.0], [-1] * 4, []),
    ],
)
def test_labels_of_other_types(kind, values, labels, classes, place, library):
    data, _ = opened(saved(place, library, {"label": values}, label=library.Value(kind)))
    assert (data.train.labels.tolist(), data.classes) == (labels, classes)


@pytest.mark.parametrize("value", [-2, 2**60])
def test_labels_that_can_be_no_classes_are_refused(value, place, library):
    name = saved(place, library, {"label": [0, value]}, label=library.Value("int64"))
    assert "saved cannot be opened (ValueError: the labels in label go from" in refused(name)


def test_of_several_columns_the_usual_name_is_taken_and_the_others_are_said(place, library):
    names = {"img": library.Image(), "fine_label": library.ClassLabel(names=["a", "b"])}
    names |= {"coarse_label": library.ClassLabel(names=["x"]), "id": library.Value("int64")}
    images = [{"bytes": RED, "path": None}] * 2
    columns = {"img": images, "fine_label": [0, 1], "coarse_label": [0, 0], "id": [5, 6]}
    data, told = opened(saved(place, library, columns, **names))
    assert told == "images are those of image, not of img; labels are those of fine_label, not of coarse_label"
    assert (data.train.labels.tolist(), data.classes) == ([0, 1], ["a", "b"])


def test_labels_of_another_type_beside_the_chosen_ones_are_said(place, library):
    types = {"species": library.ClassLabel(names=["a", "b"]), "label": library.Value("int64")}
    data, told = opened(saved(place, library, {"species": [0, 1], "label": [5, 6]}, **types))
    assert told == "labels are those of species, not of label"
    assert data.classes == ["a", "b"]


@pytest.mark.parametrize(("kind", "values"), [("float32", [0.0, 1.0]), ("list", [[0], [0, 1]])])
def test_a_column_of_labels_that_can_be_no_classes_is_said(kind, values, place, library):
    feature = library.List(library.Value("int64")) if kind == "list" else library.Value(kind)
    data, told = opened(saved(place, library, {"label": values}, label=feature))
    assert told.lower().startswith(f"label gives no classes, since it holds {kind}, ")
    assert data.train.labels.tolist() == [-1, -1]


def test_without_images_the_columns_are_named(place, library):
    library.Dataset.from_dict({"text": ["a"], "label": [0]}).save_to_disk(place / "saved")
    assert "it has no column of images, but text, label" in refused(str(place / "saved"))


@pytest.mark.parametrize("kind", ["struct", "binary"])
def test_parquet_of_other_libraries(kind, place):
    import pyarrow
    from pyarrow import parquet

    images = [{"bytes": RED, "path": "a.png"}] * 2 if kind == "struct" else [RED] * 2
    (place / "other").mkdir()
    parquet.write_table(pyarrow.table({"image": images, "label": [1, 0]}), place / "other" / "train.parquet")
    data = open_data(str(place / "other"), str)
    assert data.train.labels.tolist() == [1, 0]
    assert data.train.read(1)[:, 0, 0].tolist() == [255, 0, 0]


# --- Pixels


def encoded(pixels, kind="PNG", mode=None):
    held = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(held, kind)
    return held.getvalue()


def test_pixels_of_every_mode_are_those_of_the_same_file_in_a_folder(place, library):
    rng = np.random.default_rng(0)
    colour, grey = rng.integers(0, 256, (8, 9, 4), dtype=np.uint8), rng.integers(0, 2**16, (8, 9), dtype=np.uint16)
    files = [encoded(colour[..., :3]), encoded(colour), encoded(colour[..., 0]), encoded(colour, mode="P")]
    files += [encoded(colour[..., 0], mode="LA"), encoded(colour[..., 0], mode="1"), encoded(grey)]
    files += [encoded(colour[..., :3], "JPEG", "CMYK"), encoded(colour[..., :3], "WEBP"), encoded(grey, "TIFF")]
    values = [{"bytes": content, "path": None} for content in files]
    data, _ = opened(saved(place, library, {"image": values}))
    for index, content in enumerate(files):
        (place / "file.png").write_bytes(content)
        assert torch.equal(data.train.read(index), torch.from_numpy(read_rgb("file.png")).permute(2, 0, 1))


def test_images_beside_the_dataset_are_read_and_what_is_no_image_is_named(place, library):
    (place / "a.png").write_bytes(RED)
    values = [{"bytes": None, "path": str(place / "a.png")}, {"bytes": None, "path": "a.png"}, None]
    values += [{"bytes": b"no image", "path": None}, {"bytes": None, "path": "/dev/zero"}]
    features = library.Features({"image": library.Image(decode=False)})
    rows = library.Dataset.from_dict({"image": values}, features=features)  # to save it would read the files
    images = HubImages(rows, "image", torch.arange(5), torch.zeros(5, dtype=torch.int64), "set")
    assert images.read(0)[:, 0, 0].tolist() == [255, 0, 0]
    for index, words in enumerate(("row 1 holds no image", "row 2 holds no image", "cannot identify", "no regular"), 1):
        with pytest.raises(Unreadable, match=words):
            images.read(index)


# --- Splits


@pytest.mark.parametrize(
    ("splits", "chosen", "words"),
    [
        ({"train": 3, "test": 1}, (6, 2), ""),
        ({"train": 3, "val": 2, "test": 1}, (6, 4), "test images are those of val, not of test"),
        ({"valid": 1, "train": 3, "validation": 2}, (6, 4), "test images are those of validation, not of valid"),
        ({"train": 3, "unsupervised": 1}, (6, None), ""),
        ({"test": 2}, (4, None), ""),
    ],
)
def test_splits(splits, chosen, words, place):
    as_saved(place / "saved", {name: pictures(count) for name, count in splits.items()})
    data, told = opened(str(place / "saved"))
    assert (len(data.train), data.test and len(data.test)) == chosen
    assert told == words


def test_splits_without_training_images_or_of_two_datasets_are_refused(place, library):
    as_saved(place / "saved", {"test": pictures(1), "validation": pictures(1)})
    assert "it has the splits test, validation, and no train" in refused(str(place / "saved"))
    other = as_dataset(pictures(1)).cast_column("label", library.ClassLabel(names=["cat", "fox"]))
    library.DatasetDict({"train": as_dataset(pictures(1)), "test": other}).save_to_disk(place / "two")
    assert "train and test differ in their columns or classes" in refused(str(place / "two"))
    as_dataset(pictures(1)).select([]).save_to_disk(place / "none", num_shards=1)
    assert "its split train has no rows" in refused(str(place / "none"))
    as_dataset(pictures(1)).select([]).save_to_disk(place / "no_file")
    assert "no_file has no rows" in refused(str(place / "no_file"))


def test_one_dataset_without_splits(place):
    as_dataset(pictures(2)).save_to_disk(place / "saved")
    data, told = opened(str(place / "saved"))
    assert (len(data.train), data.test, told) == (4, None, "")
    assert data.train.name(3) == f"{place / 'saved'} train row 3"


def test_parquet_wins_over_shards_beside_it_and_that_is_said(place):
    as_parquet(place / "set", {"train": pictures(1)})
    (place / "set" / "a.tar").write_bytes(b"")
    lines = []
    data = open_data("set", lines.append)
    assert len(data.train) == 2
    assert lines[0] == "`data` set: reads its parquet files, not a.tar; name the .tar files themselves for shards"


def test_configurations_of_a_folder(place):
    as_parquet(place / "set", {"train": pictures(1)})
    shutil.move(place / "set" / "data", place / "set" / "one")
    as_parquet(place / "set", {"train": pictures(2)})
    shutil.move(place / "set" / "data", place / "set" / "two")
    card = [f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("one", "two")]
    (place / "set" / "README.md").write_text("---\nconfigs:\n" + "".join(card) + "---\n")
    assert len(open_data("hf:set:two", str).train) == 4
    assert len(open_data("hf:set:one", str).train) == 2
    assert "cannot be opened (ValueError: Config name is missing." in refused("set")
    assert "cannot be opened (ValueError: BuilderConfig 'three' not found" in refused("hf:set:three")


@pytest.mark.parametrize("name", ["a[1]", "b*", "c?", "d[1]/inside", "link"])
def test_names_that_are_patterns_are_refused_and_nothing_else_is_read(name, place):
    for folder in (name, "bb"):
        as_parquet(place / folder, {"train": pictures(1)})
    if name == "link":
        (place / name).rename(place / "[x]")
        (place / name).symlink_to(place / "[x]")
    for given in (name, f"hf:{name}"):
        line = refused(given)
        assert line.startswith(f"data {given} is {place}/")
        assert line.endswith("takes *, ? and [ in names for patterns; rename the folder")


# --- Damage and code


def test_a_dataset_with_a_script_is_refused_and_the_script_not_run(place):
    as_parquet(place / "evil", {"train": pictures(1)})
    (place / "evil" / "evil.py").write_text("open('ran', 'w')")
    assert "Dataset scripts are no longer supported" in refused("hf:evil")
    assert not os.path.exists("ran")


@pytest.mark.parametrize("content", ["x,y\n1,2\n", '{"x": 1}\n'])
def test_other_ways_to_store_a_dataset_are_refused(content, place):
    (place / "table").mkdir()
    (place / "table" / f"train.{'csv' if ',' in content[:2] else 'json'}").write_text(content)
    assert "parquet, arrow, imagefolder can be read by this name" in refused("hf:table")


def damage(path, content):
    path.write_bytes(content(path.read_bytes()) if callable(content) else content)


HOSTILE = {
    "deep": ("dataset_info.json", b"[" * 10**5),
    "list": ("dataset_info.json", b"[]"),
    "number": ("state.json", b"1e999"),
    "empty": ("state.json", b"{}"),
    "features": ("dataset_info.json", b'{"features": {"image": {"_type": "Evil"}}}'),
    "text": ("state.json", b"\xff\xfe"),
    "elsewhere": ("state.json", lambda text: text.replace(b"data-00000", b"../../x")),
    "half": ("data-00000-of-00001.arrow", lambda content: content[: len(content) // 2]),
    "noise": ("data-00000-of-00001.arrow", b"ARROW1" + bytes(range(256)) * 9),
    "nothing": ("data-00000-of-00001.arrow", b""),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_damaged_saved_dataset_is_refused(kind, place):
    as_dataset(pictures(2)).save_to_disk(place / "saved")
    file, content = HOSTILE[kind]
    damage(place / "saved" / file, content)
    assert "saved cannot be opened (" in refused(str(place / "saved"))


@pytest.mark.parametrize("splits", ["../x", "", "a/b/c", 7, None])
def test_names_of_splits_that_lead_elsewhere_are_refused(splits, place):
    as_saved(place / "saved", {"train": pictures(1)})
    (place / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": [splits]}))
    assert "saved cannot be opened (" in refused(str(place / "saved"))


@pytest.mark.parametrize(
    ("cut", "words"), [(slice(-40), "magic bytes not found"), (slice(40), "ArrowInvalid"), (slice(0), "0 bytes")]
)
def test_damaged_parquet_is_refused_in_one_line(cut, words, place, capfd):
    as_parquet(place / "set", {"train": pictures(1)})
    damage(place / "set" / "data" / "train-00000-of-00001.parquet", lambda content: content[cut])
    capfd.readouterr()
    message = refused("set")
    assert "set cannot be opened (" in message
    assert words in message
    assert capfd.readouterr().err == ""


def test_damaged_pages_of_parquet_are_named(place, capfd):
    as_parquet(place / "set", {"train": pictures(1)})
    damage(place / "set" / "data" / "train-00000-of-00001.parquet", lambda text: text[:4] + b"\xff" * 40 + text[44:])
    capfd.readouterr()
    assert "An error occurred" not in refused("set")
    assert capfd.readouterr().err == ""


def test_offsets_beyond_the_end_are_found(place):
    as_dataset(pictures(2)).save_to_disk(place / "saved")
    path = place / "saved" / "data-00000-of-00001.arrow"
    content = path.read_bytes()
    size = len(pictures(2)[0][0])
    at = content.index(np.array([0, size], "<i4").tobytes())
    path.write_bytes(content[: at + 4] + np.array([2**30], "<i4").tobytes() + content[at + 8 :])
    assert "saved cannot be opened (" in refused(str(place / "saved"))


# --- The Hub


@pytest.mark.parametrize("name", ["hf:", "hf:a/b/c", "hf:../x", "hf:a b", "hf:https://x/y", "hf:" + "x" * 200, "hf:\0"])
def test_names_that_can_be_no_dataset(name):
    assert "write hf:ORG/NAME, hf:ORG/NAME:CONFIG, or hf:FOLDER" in refused(name)


def test_without_the_library_one_line_names_the_extra(place, monkeypatch):
    as_saved(place / "saved", {"train": pictures(1)})
    (place / "datasets").mkdir()  # a folder of this name is no library
    monkeypatch.setattr(extras, "find_spec", lambda _module: None)
    for name in ("hf:org/name", "saved"):
        assert refused(name).endswith("pip install 'dyncollapse[datasets]'")


@pytest.mark.parametrize("error", [URLError("no route to host"), TimeoutError("timed out")])
def test_without_a_network_what_is_cached_is_read_and_the_rest_refused(error, place, library, monkeypatch):
    def unreachable(*_, **__):
        raise error

    monkeypatch.setattr(hub_connection, "urlopen", unreachable)
    message = refused("hf:org/set")
    assert f"data hf:org/set is not in {library.config.HF_DATASETS_CACHE}, and " in message
    assert "cannot be reached; set HF_HOME to a folder that has it, or save it with save_to_disk" in message
    as_parquet(place / "set", {"train": pictures(2), "test": pictures(1)})
    local = open_data("set", str)
    os.rename(library.config.HF_DATASETS_CACHE / "set", library.config.HF_DATASETS_CACHE / "org___set")
    shutil.rmtree(place / "set")
    data, _ = opened("hf:org/set")
    assert (len(data.train), len(data.test), data.title) == (4, 2, "hf:org/set")
    assert same_images(data.train.take(torch.arange(1)), local.train.take(torch.arange(1)))
    assert not library.config.HF_HUB_OFFLINE


def test_a_server_that_refuses_is_a_server(monkeypatch, library):
    from huggingface_hub import constants

    def answers(error):
        def ask(*_, **__):
            raise error

        monkeypatch.setattr(hub_connection, "urlopen", ask)
        with hub_connection.offline_if_unreachable(library):
            return not constants.HF_HUB_OFFLINE

    assert answers(HTTPError("x", 403, "forbidden", {}, None))
    assert answers(URLError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"))
    assert not answers(URLError("Connection refused"))
