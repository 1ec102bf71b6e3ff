"""Write rows of embeddings to .npy files batch by batch; a file gets its name when it is complete."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from jaxtyping import Float32
from numpy.lib.format import open_memmap

from dyncollapse.runtime.files import writing

BLOCK = 4096  # rows copied at a time when a file is shortened
View = tuple[str, int]  # a space, and 0 or 1 for the other view


class RowFiles:
    """The .npy files of some spaces and views: float32, one row per image.

    Use it as a context: its end removes unfinished files. Methods raise CannotWrite if the disk is full.
    """

    def __init__(self, folder: Path, names: Mapping[View, str], most: int) -> None:
        """Prepare the files; nothing is written yet.

        Args:
            folder: The folder of the files.
            names: File names by space and view.
            most: Largest number of rows.
        """
        self.most, self.rows = most, 0
        self.paths = {view: folder / name for view, name in names.items()}
        self.partial = {view: folder / f"{name}.partial" for view, name in names.items()}
        self.arrays: dict[View, np.memmap] = {}

    def __enter__(self) -> Self:
        """Begin to fill the files."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove unfinished files."""
        self.arrays.clear()
        for path in self.partial.values():
            path.unlink(missing_ok=True)

    def add(self, views: Mapping[View, Float32[np.ndarray, "n d"]]) -> None:
        """Add the rows of a batch, equally many for each view."""
        for view, values in views.items():
            if view not in self.arrays:
                self.arrays[view] = _allocate(self.partial[view], (self.most, values.shape[1]))
            self.arrays[view][self.rows : self.rows + len(values)] = values
        self.rows += max(map(len, views.values()), default=0)

    def finish(self) -> None:
        """Shorten the files to the rows that were added and give them their names."""
        for view, array in self.arrays.items():
            array.flush()
            if self.rows < self.most:
                _shorten(self.partial[view], self.rows)
            os.replace(self.partial[view], self.paths[view])


def _allocate(path: Path, shape: tuple[int, int]) -> np.memmap:
    """Create a memory map and reserve its disk space: otherwise a full disk would crash the process at some row."""
    with writing(path.with_suffix("")):
        array = open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _shorten(path: Path, rows: int) -> None:
    """Replace a .npy file by a copy of its first rows, because its header holds their number."""
    whole = np.load(path, mmap_mode="r")
    shorter = path.with_suffix(".shorter")
    try:
        array = _allocate(shorter, (rows, whole.shape[1]))
        for start in range(0, rows, BLOCK):
            array[start : min(start + BLOCK, rows)] = whole[start : min(start + BLOCK, rows)]
        array.flush()
        os.replace(shorter, path)
    finally:
        shorter.unlink(missing_ok=True)
