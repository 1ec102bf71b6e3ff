"""Tell what kind of images a folder holds: image files, a dataset of Hugging Face, or webdataset shards."""

import os
from collections import deque
from collections.abc import Callable, Iterator

from dyncollapse.bridge.data.image_folders import SUFFIXES, is_hidden
from dyncollapse.runtime.files import unmarked

SAVED, HUB, SHARDS, FILES = "saved dataset", "parquet files", ".tar shards", "image files"
# What `save_to_disk` writes: of a dataset with splits, and of one split.
SAVED_MARKS = ("dataset_dict.json",), ("state.json", "dataset_info.json")
PARQUET, TAR = ".parquet", ".tar"
DEPTH = {PARQUET: 3, TAR: 1}  # of folders in which such a file counts: CONFIG/train/0000.parquet, train/0000.tar


def kind_of_folder(name: str, tell: Callable[[str], object]) -> str:
    """Tell what kind of images a folder holds. Image files win over others beside them, then parquet files.

    Args:
        name: The folder.
        tell: Called with one line if there are files of several kinds.

    Returns:
        SAVED, HUB, SHARDS or FILES; the last also for a folder without any of these.
    """
    if any(all(os.path.isfile(os.path.join(name, mark)) for mark in marks) for marks in SAVED_MARKS):
        return SAVED
    found: dict[str, str] = {}
    for depth, folder, files in _walk(name):
        for suffix, most in DEPTH.items():
            if depth <= most and (others := [file for file in files if file.lower().endswith(suffix)]):
                found.setdefault(suffix, os.path.join(folder, min(others)))
        if any(file.lower().endswith(SUFFIXES) and os.path.isfile(os.path.join(folder, file)) for file in files):
            if found:
                others = [unmarked(os.path.relpath(path, name)) for path in found.values()]
                tell(
                    f"`data` {unmarked(name)}: reads its image files, not {' and '.join(others)}; "
                    "name hf:FOLDER for parquet files, or the .tar files themselves"
                )
            return FILES
    if len(found) > 1:
        shard = unmarked(os.path.relpath(found[TAR], name))
        tell(
            f"`data` {unmarked(name)}: reads its parquet files, not {shard}; name the .tar files themselves for shards"
        )
    return HUB if PARQUET in found else SHARDS if TAR in found else FILES


def _walk(root: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield depth, path and names of files of every folder, the upper ones first, once each, hidden ones not."""
    waiting, visited = deque([(0, root)]), set()
    while waiting:
        depth, folder = waiting.popleft()
        if (real := os.path.realpath(folder)) in visited:
            continue
        visited.add(real)
        try:
            with os.scandir(folder) as entries:
                inside = [(entry.name, _is_folder(entry)) for entry in entries if not is_hidden(entry.name)]
        except OSError:
            continue
        waiting.extend((depth + 1, os.path.join(folder, name)) for name, is_folder in sorted(inside) if is_folder)
        yield depth, folder, [name for name, is_folder in inside if not is_folder]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a cycle of links
        return False
