"""Folders of images as people have them: hidden and system names, links, special files, and none of the classes."""

import os
import shutil
import socket

import pytest
from helpers.bridge import write_images

from dyncollapse.bridge import open_data
from dyncollapse.bridge.data.image_folders import find_images


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A set of two classes of two images, in a folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return write_images(tmp_path / "set", 2)


def opened(root, names=("cat/0000", "cat/0001", "dog/0000", "dog/0001")):
    """What was skipped in a set, which must hold these images and no others."""
    lines = []
    data = open_data(str(root), lines.append)
    found = [os.path.splitext(os.path.relpath(path, root))[0] for path in data.train.paths]
    assert found == list(names)
    assert len(lines) <= 1
    assert all("\n" not in line for line in lines)
    return lines[0].removeprefix(f"`data` {root}: skipped ") if lines else ""


def test_nothing_is_said_of_a_set_without_fault(root):
    assert opened(root) == ""


@pytest.mark.parametrize(
    "name",
    [
        ".ipynb_checkpoints",
        "__MACOSX",
        "@eaDir",
        "lost+found",
        "$RECYCLE.BIN",
        "$Recycle.Bin",
        "System Volume Information",
        "#recycle",
        ".git",
        "__pycache__",
    ],
)
@pytest.mark.parametrize("place", ["", "cat"])
def test_hidden_and_system_folders_are_no_classes(name, place, root):
    hidden = root / place / name
    hidden.mkdir()
    told = f"1 hidden or system file or folder ({os.path.join(place, name)})"
    assert opened(root) == told  # empty
    shutil.copy(root / "cat" / "0000.jpg", hidden)
    assert opened(root) == told


def test_hidden_and_system_files_are_no_images(root):
    for name in ("._0000.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "Desktop.INI"):
        (root / "cat" / name).write_bytes(b"\0\5\26\7")
    assert opened(root) == (
        "5 hidden or system files and folders (cat/.DS_Store, cat/._0000.jpg, cat/Desktop.INI, cat/Thumbs.db, "
        "cat/desktop.ini)"
    )


@pytest.mark.parametrize("target", [".", "..", "../..", "/", "../cat/up"])
def test_links_to_parents_repeat_nothing(target, root):
    os.symlink(target, root / "cat" / "up")
    kind = "link to nothing" if target == "../cat/up" else "link to a parent folder"
    assert opened(root) == f"1 {kind} (cat/up)"


def test_links_repeat_nothing(root):
    for name in ("aaa", "zzz"):  # before and after the folder itself, which goes by its own name
        os.symlink("cat", root / name)
    os.symlink("../dog", root / "cat" / "x")
    os.symlink("../cat", root / "dog" / "y")
    os.symlink("0000.jpg", root / "cat" / "copy.jpg")
    assert opened(root) == "5 links to what is in the set already (aaa, zzz, cat/x, dog/y, cat/copy.jpg)"


def test_linked_folders_and_files_count_once(root, tmp_path):
    other = write_images(tmp_path / "other", 1)
    os.symlink(other, other / "cat" / "round")
    for name in ("ext", "ext2"):
        os.symlink(other / "cat", root / name)
    for name in ("a.JPG", "b.jpg"):
        os.symlink(other / "dog" / "0000.jpg", root / "dog" / name)
    names = ("cat/0000", "cat/0001", "dog/0000", "dog/0001", "dog/a", "ext/0000")
    said = opened(root, names)
    assert "1 link to a parent folder (ext/round)" in said
    assert "2 links to what is in the set already (ext2, dog/b.jpg)" in said


def test_links_to_nothing_and_to_each_other(root):
    os.symlink("gone", root / "bird")
    os.symlink("gone.png", root / "cat" / "x.png")
    os.symlink("b", root / "cat" / "a")
    os.symlink("a", root / "cat" / "b")
    assert opened(root) == "4 links to nothing (bird, cat/a, cat/b, cat/x.png)"


def test_special_files_are_no_images(root):
    os.mkfifo(root / "cat" / "pipe.png")
    os.mkfifo(root / "cat" / "pipe")
    os.symlink("/dev/zero", root / "dog" / "zero.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("set/cat/socket.png")
        said = opened(root)
    assert said == "3 names of images that are no regular files (cat/pipe.png, cat/socket.png, dog/zero.png)"


def test_deep_trees_end(root, monkeypatch):
    monkeypatch.chdir(root / "cat")
    for _ in range(30):
        os.mkdir("deep" * 50)
        os.chdir("deep" * 50)
    os.chdir(root)
    said = opened(root)
    assert said.startswith("1 folder that cannot be read (cat/deep")
    assert len(said) < 300
    os.rename(root / "cat" / ("deep" * 50), root / "a")
    os.system(f"rm -r {root}/a")  # whose whole path pytest could not remove


def test_folder_that_cannot_be_read_is_named(root, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert opened(root, ("cat/0000", "cat/0001")) == "1 folder that cannot be read (dog)"
    with pytest.raises(ValueError, match=r"set/dog cannot be read \(Permission denied\)"):
        find_images(str(root / "dog"))


def test_names_that_are_no_text(root):
    os.rename(root / "dog", os.fsencode(root) + b"/d\xff\x1b[2Jog")
    (root / "e\nmpty").mkdir()
    lines = []
    data = open_data(str(root), lines.append)
    assert lines == [f"`data` {root}: skipped 1 folder without images (e\\nmpty)"]
    assert data.train.read(3).shape == (3, 40, 30)
    assert data.train.name(3).endswith(r"d\udcff\x1b[2Jog/0001.jpg")


def test_deeper_images_and_upper_case_suffixes(root):
    (root / "dog" / "a" / "b").mkdir(parents=True)
    shutil.move(root / "dog" / "0000.jpg", root / "dog" / "a" / "b" / "0.JPeG")
    (root / "dog" / "notes.txt").write_text("")
    assert opened(root, ("cat/0000", "cat/0001", "dog/0001", "dog/a/b/0")) == ""


@pytest.mark.parametrize("name", ["set", "set/", "set//", "./set", "set/../set"])
def test_a_folder_may_be_named_in_any_way(name, root):
    os.symlink("..", root / "cat" / "up")
    (root / ".hidden").mkdir()
    lines = []
    assert len(open_data(name, lines.append).train) == 4
    assert lines[0].endswith("skipped 1 hidden or system file or folder (.hidden), 1 link to a parent folder (cat/up)")


# --- Classes, or none


def test_flat_folder_has_images_without_classes(root):
    (root / "cat" / ".DS_Store").write_text("")
    (root / "cat" / "later").mkdir()
    lines = []
    data = open_data(str(root / "cat"), lines.append)
    assert data.train.labels.tolist() == [-1, -1]
    assert data.classes == []
    assert lines[0].endswith("skipped 1 hidden or system file or folder (.DS_Store), 1 folder without images (later)")
    with pytest.raises(ValueError, match=r"the training images of data .* have no classes, which a probe needs"):
        data.check_labels()


def test_class_without_images_is_named_and_skipped(root):
    (root / "bird").mkdir()
    (root / "cow" / ".cache").mkdir(parents=True)
    said = opened(root)
    assert said.endswith("2 folders without images (bird, cow)")
    assert open_data(str(root), str).classes == ["cat", "dog"]


def test_few_images_beside_the_classes_are_skipped_and_many_refused(root):
    shutil.copy(root / "cat" / "0000.jpg", root / "preview.jpg")
    assert opened(root) == "1 image beside the class folders (preview.jpg)"
    for number in range(3):
        shutil.copy(root / "cat" / "0000.jpg", root / f"{number}.jpg")
    with pytest.raises(ValueError, match="holds 4 images itself and 4 in folders; move one of the two away"):
        open_data(str(root))


def test_folder_without_images_says_what_it_has_instead(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / ".hidden").mkdir()
    with pytest.raises(ValueError, match=r"holds no images \(.*\); skipped: 1 hidden .* \(.hidden\), 1 folder without"):
        open_data(str(tmp_path))


@pytest.fixture
def splits(tmp_path):
    for number, name in enumerate(("train", "val")):
        write_images(tmp_path / "both" / name, 2, seed=number)
    return tmp_path / "both"


def test_hidden_folders_beside_and_in_splits(splits):
    for name in (".git", "__MACOSX", "train/.ipynb_checkpoints", "val/@eaDir"):
        (splits / name).mkdir()
    lines = []
    data = open_data(str(splits), lines.append)
    assert (len(data.train), len(data.test), data.classes) == (4, 4, ["cat", "dog"])
    assert lines[0].endswith(": skipped 2 hidden or system files and folders (train/.ipynb_checkpoints, val/@eaDir)")
    data.check_labels()


def test_class_that_one_split_has_empty(splits):
    for path in (splits / "train" / "cat").iterdir():
        path.unlink()
    lines = []
    data = open_data(str(splits), lines.append)
    assert lines[0].endswith("1 folder without images (train/cat)")
    assert (data.classes, data.train.labels.tolist(), data.test.labels.tolist()) == (
        ["cat", "dog"],
        [1, 1],
        [0, 0, 1, 1],
    )
    with pytest.raises(ValueError, match="has training images of one class only"):
        data.check_labels()
    write_images(splits / "more", 1)
    shutil.move(splits / "more" / "cat", splits / "train" / "eel")
    (splits / "val" / "eel").mkdir()
    with pytest.raises(ValueError, match="has test images of cat, and no training images of it"):
        open_data(str(splits), str).check_labels()


def test_flat_test_images_beside_classes_as_in_the_imagenet_archives(splits):
    for name in ("cat", "dog"):
        shutil.rmtree(splits / "val" / name)
    shutil.copy(splits / "train" / "cat" / "0000.jpg", splits / "val" / "ILSVRC2012_val_00000001.JPEG")
    data = open_data(str(splits))
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 0, 1, 1], [-1])
    with pytest.raises(ValueError, match=r"the test images of data .* have no classes"):
        data.check_labels()


def test_a_class_may_be_called_train(root):
    (root / "cat").rename(root / "train")
    assert opened(root, ("dog/0000", "dog/0001", "train/0000", "train/0001")) == ""


def test_split_that_is_the_other_by_a_link_is_refused(splits):
    shutil.rmtree(splits / "val")
    os.symlink("train", splits / "val")
    with pytest.raises(ValueError, match="by another name; it would test on the train images"):
        open_data(str(splits))


def test_data_without_a_name_or_with_an_impossible_one():
    for name in ("", "\0", "x" * 5000, "/dev/zero"):
        with pytest.raises(ValueError, match="is no folder"):
            open_data(name)
