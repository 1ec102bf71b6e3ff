"""Embeddings of a whole set of images as .npy files, float32, written through a memory map."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.lib.format import open_memmap
from torch import Tensor

from dyncollapse.bridge.data.augmentations import PAIRS, View
from dyncollapse.bridge.data.batches import batches_in_order
from dyncollapse.bridge.data.images import Images, Skipped, labelled
from dyncollapse.bridge.evaluation.load import Loaded
from dyncollapse.bridge.training.batch_size import check_batch_room
from dyncollapse.bridge.training.collapse_monitor import SPACES
from dyncollapse.bridge.training.optimisation import exact_float32
from dyncollapse.diagnostics.readers import read_rows
from dyncollapse.runtime.files import printable, write_json, write_whole, writing

# Which views are embedded: each image as it is, then with an augmented one beside it, or two of those.
VIEWS = ("clean", "one-sided", "two-sided")
VIEWS_OF_LOSS = "two-sided"  # NT-Xent compares two augmented views, and so does a diagnosis of what it trained
BATCH = 256
LABELS = "labels.npy"
ROWS = 4096  # moved at a time where rows are left out


@dataclass(frozen=True, eq=False)
class Embedded:
    """Rows of both spaces, memory-mapped: per space one array, or two with the other view of the same images."""

    folder: Path
    rows: dict[str, tuple[Float[Tensor, "n d"], ...]]
    labels: Int[Tensor, " n"]
    skipped: str
    assumptions: tuple[str, ...] = ()  # on the encoder, where others trained it

    def __getitem__(self, space: str) -> tuple[Float[Tensor, "n d"], ...]:
        """The views of a space."""
        return self.rows[space]


def view_pair(views: str, augment: str) -> tuple[View | None, ...]:
    """The augmentations that `views` of VIEWS names; None leaves an image as it is."""
    first, second = PAIRS[augment]
    return {"clean": (None,), "one-sided": (None, second), "two-sided": (first, second)}[views]


def file_names(spaces: Sequence[str], views: str) -> dict[tuple[str, int], str]:
    """File of each space and view."""
    count = 1 if views == "clean" else 2
    return {(space, k): f"{space}{'_pos' if k else ''}.npy" for space in spaces for k in range(count)}


def embed(
    loaded: Loaded,
    images: Images,
    folder: Path,
    *,
    spaces: Sequence[str] = SPACES,
    views: str = "clean",
    batch_size: int = BATCH,
    device: torch.device | str = "cpu",
    workers: int = 0,
    seed: int = 0,
    skipped: Skipped | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Embedded:
    """Write representation.npy, embedding.npy, their _pos.npy with the other view, labels.npy and embed.json.

    Images without classes have no labels.npy. The network is in evaluation mode and float32, whatever it was trained
    in. Images that cannot be read have no row in any file; embed.json names them. Files are whole or not there. Raises
    ValueError for an embedding space where the checkpoint has no projector and where the first images cannot be read,
    OSError where the disk is full.
    """
    if "embedding" in spaces and not loaded.has_embedding:
        seen = "".join(f" {text}" for text in loaded.left_out)
        raise ValueError(
            f"{printable(str(loaded.path))} has no projector that is understood; use --space representation, or give "
            f"--d0.{seen}"
        )
    device = torch.device(device)
    skipped = skipped or Skipped(images, tell=lambda _text: None)
    encoder = loaded.encoder.to(device).eval()
    recipe, names = loaded.recipe, file_names(spaces, views)
    shape = (min(batch_size, len(images)), images.channels, recipe.image_size, recipe.image_size)
    check_batch_room(encoder.backbone, shape, len(view_pair(views, recipe.augment)), device)
    partial = {key: folder / f"{name}.partial" for key, name in names.items()}
    maps: dict[tuple[str, int], np.ndarray] = {}
    kept: list[Tensor] = []
    row = 0
    try:
        batches = batches_in_order(
            images, view_pair(views, recipe.augment), recipe.image_size, batch_size, device, workers, seed
        )
        for batch in batches:
            skipped.add(batch.failures)
            if not len(batch.indices):
                skipped.check(row)
                continue
            for k, view in enumerate(batch.views):
                with exact_float32():
                    both = dict(zip(SPACES, encoder(view.contiguous(memory_format=torch.channels_last)), strict=True))
                for space in spaces:
                    values = both[space].float().cpu().numpy()
                    if (space, k) not in maps:
                        maps[space, k] = _allocate(partial[space, k], (len(images), values.shape[1]))
                    maps[space, k][row : row + len(values)] = values
            kept.append(batch.indices)
            row += len(batch.indices)
            skipped.check(row)
            if progress is not None:
                progress(row + len(skipped.reasons), len(images))
        skipped.check(row, ended=True)
        indices = torch.cat(kept)
        for key, array in maps.items():
            array.flush()  # type: ignore[attr-defined]
            if row < len(images):
                _shorten(partial[key], row)
            os.replace(partial[key], folder / names[key])
    finally:
        maps.clear()
        for path in partial.values():
            path.unlink(missing_ok=True)
    labels = images.labels[indices]
    files = [*names.values(), *([LABELS] if labelled(images) else [])]
    if LABELS in files:
        write_whole(folder / LABELS, lambda file: np.save(file, labels.numpy()))
    record = {
        **loaded.as_record(),
        "views": views,
        "seed": seed,
        "rows": row,
        "skipped": [reason for _, reason in sorted(skipped.reasons.items())],
        "files": files,
    }
    write_json(folder / "embed.json", record)
    rows = {space: tuple(read_rows(folder / names[key]) for key in names if key[0] == space) for space in spaces}
    return Embedded(folder, rows, labels, skipped.sentence, (*loaded.assumptions, *loaded.left_out))


def _allocate(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """A memory map whose room on the disk is there: a full disk is an error now, and not a crash at some row."""
    with writing(path.with_suffix("")):
        array = open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _shorten(path: Path, rows: int) -> None:
    """Cut a .npy to its first rows, by a copy: its header tells the number."""
    whole = np.load(path, mmap_mode="r")
    shorter = path.with_suffix(".shorter")
    try:
        array = _allocate(shorter, (rows, whole.shape[1]))
        for start in range(0, rows, ROWS):
            array[start : min(start + ROWS, rows)] = whole[start : min(start + ROWS, rows)]
        array.flush()  # type: ignore[attr-defined]
        os.replace(shorter, path)
    finally:
        shorter.unlink(missing_ok=True)
