"""Image folders: find the images below a folder and their classes; report what was skipped and why."""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from dyncollapse.bridge.data.image_sets import NO_CLASS, FolderImages
from dyncollapse.bridge.data.name_lists import in_words, some
from dyncollapse.bridge.data.splits import Data
from dyncollapse.runtime.files import printable, unmarked

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
# Names that macOS, Windows, file systems, network storage and Python leave in folders. Dot names are hidden as well.
SYSTEM = {
    "__macosx",
    "@eadir",
    "@recycle",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "__pycache__",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
}
TRAIN = "train"
TESTS = ("val", "test")

# Reasons to skip an entry, in singular and plural.
HIDDEN = "hidden or system file or folder", "hidden or system files and folders"
LOOP = "link to a parent folder", "links to parent folders"
REPEATED = "link to what is in the set already", "links to what is in the set already"
DANGLING = "link to nothing", "links to nothing"
SPECIAL = "name of an image that is no regular file", "names of images that are no regular files"
CLOSED = "folder that cannot be read", "folders that cannot be read"
EMPTY = "folder without images", "folders without images"
BESIDE = "image beside the class folders", "images beside the class folders"


@dataclass(frozen=True)
class ImageFolder:
    """Images below a folder, in the order of their classes and paths.

    Attributes:
        paths: Their files.
        names: The class of each image; None if the images lie in the folder itself.
        empty: Class folders without images.
        skipped: Paths that were skipped, relative to the folder, by reason.
    """

    paths: list[str]
    names: list[str] | None
    empty: list[str]
    skipped: dict[tuple[str, str], list[str]]


@dataclass
class _Walk:
    """The state of a walk through a folder; it knows folders by their real paths and reads each once."""

    root: str
    files: list[tuple[str, str]] = field(default_factory=list)  # folder and name
    real: dict[str, str] = field(default_factory=dict)
    visited: set[str] = field(default_factory=set)
    folder_links: deque[tuple[str, str, str]] = field(default_factory=deque)
    file_links: list[tuple[str, str]] = field(default_factory=list)
    skipped: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def skip(self, kind: tuple[str, str], path: str) -> None:
        self.skipped.setdefault(kind, []).append(os.path.relpath(path, self.root))


def open_folder(name: str, tell: Callable[[str], object]) -> Data:
    """Open a folder of images.

    Args:
        name: The folder.
        tell: Called with one line if something in it is skipped.

    Returns:
        Training images, and test images if there are any.

    Raises:
        ValueError: As `find_splits`.
    """
    splits = find_splits(name)
    skipped: dict[tuple[str, str], list[str]] = {}
    for split, part in splits.items():
        for kind, names in part.skipped.items():
            skipped.setdefault(kind, []).extend(os.path.join(split, relative) for relative in names)
    if skipped:
        tell(f"`data` {unmarked(name)}: skipped {unmarked(in_words(skipped))}")
    classes = sorted({label for part in splits.values() for label in part.names or ()})
    numbers = {label: number for number, label in enumerate(classes)}
    train, *tests = (_labelled(part, numbers) for part in splits.values())
    return Data(train, tests[0] if tests else None, classes, name, in_words(skipped))


def _labelled(part: ImageFolder, numbers: dict[str, int]) -> FolderImages:
    labels = [NO_CLASS] * len(part.paths) if part.names is None else [numbers[label] for label in part.names]
    return FolderImages(part.paths, torch.tensor(labels, dtype=torch.int64))


def find_splits(name: str) -> dict[str, ImageFolder]:
    """List the training images of a folder and, if it has any, the test images.

    Args:
        name: A folder with train/ and val/ or test/, or a folder of images.

    Returns:
        Images by the name of their folder: train, and val or test; "" if there is no train/.

    Raises:
        ValueError: As `find_images`; also if train/ or the images of a class are missing, or if train/ and val/ are
            the same folder. One line.
    """
    tests = [split for split in TESTS if os.path.isdir(os.path.join(name, split))]
    train = os.path.join(name, TRAIN)
    if not os.path.isdir(train):
        if tests:
            raise ValueError(
                f"{printable(name)} has test images and no train/; is it only half copied? To use {tests[0]}/ alone, "
                "name that folder"
            )
        return {"": find_images(name)}
    training = find_images(train)
    if not tests and training.names is None and any(other != TRAIN for other in folder_names(name)):
        return {"": find_images(name)}  # train/ is a class folder here
    if not tests:
        return {TRAIN: training}
    test = os.path.join(name, tests[0])
    if os.path.samefile(train, test):
        raise ValueError(f"{printable(test)} is {printable(train)} by another name; it would test on the train images")
    splits = {TRAIN: training, tests[0]: find_images(test)}
    trained, tested = (split.names and set(split.names) for split in splits.values())
    # An empty class folder was reported as skipped; a missing one is an error.
    if (
        trained
        and tested
        and (odd := (trained - tested - {*splits[tests[0]].empty}) | (tested - trained - {*training.empty}))
    ):
        raise ValueError(
            f"{printable(train)} has {len(trained)} classes and {printable(test)} {len(tested)}; they differ in "
            f"{some(sorted(odd))}: is one of them only half copied?"
        )
    return splits


def find_images(root: str) -> ImageFolder:
    """List the images below a folder: those in its class folders or, without class folders, those in the folder itself.

    Skipped and counted are hidden and system names, links to parent folders, links to images that are in the set
    already, dangling links, special files, and folders that cannot be read. Every image appears once, and link cycles
    end.

    Args:
        root: The folder.

    Returns:
        The images, and what was skipped.

    Raises:
        ValueError: For a folder that cannot be read, holds no images, or has at least as many images beside its class
            folders as in them. One line.
    """
    walk = _Walk(root)
    _descend(walk, root, os.path.realpath(root))
    while walk.folder_links:
        folder, path, target = walk.folder_links.popleft()
        if _around(target, walk.real[folder]) or _around(target, walk.real[root]):
            walk.skip(LOOP, path)
        elif target in walk.visited:
            walk.skip(REPEATED, path)
        else:
            _descend(walk, path, target)
    _add_linked_files(walk)
    return _by_class(walk)


def _descend(walk: _Walk, start: str, real: str) -> None:
    """Visit a folder and its subfolders; links to folders wait, so that a folder is listed by its own path first."""
    waiting = [(start, real)]
    while waiting:
        path, real = waiting.pop()
        if real in walk.visited:
            continue
        walk.visited.add(real)
        try:
            with os.scandir(path) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if path == walk.root:
                raise ValueError(f"{printable(path)} cannot be read ({error.strerror})") from None
            walk.skip(CLOSED, path)
            continue
        walk.real[path] = real
        inner = [(entry.path, os.path.join(real, entry.name)) for entry in inside if _visit(walk, path, entry)]
        waiting += reversed(inner)


def _visit(walk: _Walk, folder: str, entry: os.DirEntry[str]) -> bool:
    """Record an entry of a folder; return whether it is a folder to visit."""
    if is_hidden(entry.name):
        walk.skip(HIDDEN, entry.path)
        return False
    linked, image = entry.is_symlink(), entry.name.lower().endswith(SUFFIXES)
    try:
        if entry.is_dir():
            if linked:
                walk.folder_links.append((folder, entry.path, os.path.realpath(entry.path)))
            return not linked
        if image and entry.is_file():
            (walk.file_links if linked else walk.files).append((folder, entry.name))
        elif linked and not os.path.exists(entry.path):
            walk.skip(DANGLING, entry.path)
        elif image:
            walk.skip(SPECIAL, entry.path)
    except OSError:  # a cycle of links
        walk.skip(DANGLING, entry.path)
    return False


def _add_linked_files(walk: _Walk) -> None:
    """Add linked images, except those that are in the set already."""
    if not walk.file_links:
        return
    known = {os.path.join(walk.real[folder], name) for folder, name in walk.files}
    for folder, name in walk.file_links:
        path = os.path.join(folder, name)
        target = os.path.realpath(path)
        if target in known:
            walk.skip(REPEATED, path)
        else:
            known.add(target)
            walk.files.append((folder, name))


def folder_names(root: str) -> list[str]:
    """Names of the subfolders of a folder, without hidden and system ones. Raises OSError."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if not is_hidden(entry.name) and os.path.isdir(entry.path))


def is_hidden(name: str) -> bool:
    """Whether a name begins with a dot, or is one that systems leave in folders."""
    return name.startswith(".") or name.lower() in SYSTEM


def _around(target: str, folder: str) -> bool:
    """Whether the real path `target` is `folder` or one of its parents."""
    return folder == target or folder.startswith(target.rstrip(os.sep) + os.sep)


def _by_class(walk: _Walk) -> ImageFolder:
    root, shown = walk.root, printable(walk.root)
    below = len(os.path.join(root, ""))

    def class_of(folder: str) -> str:
        return folder[below:].split(os.sep, 1)[0]

    loose = sorted(name for folder, name in walk.files if folder == root)
    sorted_files = sorted((class_of(folder), folder, name) for folder, name in walk.files if folder != root)
    children = {class_of(folder) for folder in walk.real if folder != root}
    empty = sorted(children - {name for name, _, _ in sorted_files})
    for name in empty:
        walk.skip(EMPTY, os.path.join(root, name))
    if sorted_files and len(loose) >= len(sorted_files):
        raise ValueError(
            f"{shown} holds {len(loose)} images itself and {len(sorted_files)} in folders; move one of the two away"
        )
    if sorted_files:
        for name in loose:
            walk.skip(BESIDE, os.path.join(root, name))
        paths = [os.path.join(folder, name) for _, folder, name in sorted_files]
        return ImageFolder(paths, [name for name, _, _ in sorted_files], empty, walk.skipped)
    if loose:
        return ImageFolder([os.path.join(root, name) for name in loose], None, empty, walk.skipped)
    ends = f"these end in {', '.join(SUFFIXES[:3])}, ..."
    besides = f"; skipped: {in_words(walk.skipped)}" if walk.skipped else ""
    raise ValueError(f"{shown} holds no images ({ends}){besides}; name another folder")
