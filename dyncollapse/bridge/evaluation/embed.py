"""Embed a whole set of images into .npy files, float32, through memory maps."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dyncollapse.bridge.data.augmentations import View
from dyncollapse.bridge.data.batches import Batch, batches_in_order
from dyncollapse.bridge.data.image_sets import Images, labelled
from dyncollapse.bridge.data.skipped import Skipped
from dyncollapse.bridge.evaluation.load import LoadedEncoder
from dyncollapse.bridge.evaluation.row_files import RowFiles
from dyncollapse.bridge.models.encoders import Encoder
from dyncollapse.bridge.spaces import SPACES
from dyncollapse.bridge.training.batch_size import check_batch_room
from dyncollapse.bridge.training.optimisation import exact_float32
from dyncollapse.diagnostics.readers import read_rows
from dyncollapse.runtime.files import unmarked, write_json, write_whole
from dyncollapse.runtime.settings import SettingError

VIEWS_OF_LOSS = "two-sided"  # NT-Xent compares two augmented views, so the diagnosis of its encoders does, too
BATCH = 256
LABELS = "labels.npy"


@dataclass(frozen=True, eq=False)
class Embedded:
    """Memory-mapped rows of the images that `embed` embedded.

    Attributes:
        folder: The folder of the files.
        rows: By space ("representation", "embedding"): one array, or two with the other view of the same images.
        labels: The images' classes; -1 without classes.
        skipped: A sentence on images that could not be read; empty if all could.
        assumptions: Sentences on what another library's checkpoint does not say and was assumed.

    Examples:
        >>> views = torch.zeros(5, 128), torch.ones(5, 128)
        >>> embedded = Embedded(Path("z"), {"representation": views}, torch.arange(5), skipped="")
        >>> [tuple(view.shape) for view in embedded["representation"]]
        [(5, 128), (5, 128)]
    """

    folder: Path
    rows: dict[str, tuple[Float[Tensor, "n d"], ...]]
    labels: Int[Tensor, " n"]
    skipped: str
    assumptions: tuple[str, ...] = ()

    def __getitem__(self, space: str) -> tuple[Float[Tensor, "n d"], ...]:
        """The views of a space: one array, or two."""
        return self.rows[space]


def view_pair(views: str, pair: tuple[View, View]) -> tuple[View | None, ...]:
    """The augmentations for `views` of a pair of augmentations; None is the plain image."""
    first, second = pair
    return {"clean": (None,), "one-sided": (None, second), "two-sided": (first, second)}[views]


def file_names(spaces: Sequence[str], views: str) -> dict[tuple[str, int], str]:
    """The file name for each space and view (0, or 1 for the other view)."""
    count = 1 if views == "clean" else 2
    return {(space, k): f"{space}{'_pos' if k else ''}.npy" for space in spaces for k in range(count)}


def embed(
    pretrained: LoadedEncoder,
    images: Images,
    folder: Path,
    *,
    spaces: Sequence[str] | None = None,
    views: str = "clean",
    batch_size: int = BATCH,
    device: torch.device | str = "cpu",
    workers: int = 0,
    seed: int = 0,
    skipped: Skipped | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Embedded:
    """Write an encoder's representations and embeddings of all images to .npy files.

    The network runs in evaluation mode and float32, whatever it was trained in. Images that cannot be read have no row
    in any file; embed.json names them. A file is written whole or not at all.

    Args:
        pretrained: The encoder.
        images: n images. Without classes there is no labels.npy.
        folder: Gets representation.npy (n, d) and embedding.npy (n, m), the same with _pos for the other view,
            labels.npy (n,) and embed.json.
        spaces: Any of "representation" and "embedding"; None for both, and for the first alone if a published model has
            no other.
        views: "clean" for plain images, "one-sided" for a plain and an augmented view, "two-sided" for two augmented
            views.
        batch_size: Images at a time.
        device: Where the network computes.
        workers: Worker processes that read images; 0 to read in this process.
        seed: Seed of the augmented views.
        skipped: Record of images that cannot be read; None for one that reports nothing.
        progress: Called with the images that are done and the images in all.

    Returns:
        The rows, memory-mapped from the files.

    Raises:
        SettingError: If the embedding of an encoder without projector is asked for, if the encoder takes images with
            another number of channels, or if a batch does not fit into memory.
        ValueError: If none of the first images can be read.
        CannotWrite: If the disk is full.

    Examples:
        >>> from dyncollapse.bridge import build_encoder, open_data, resolve
        >>> from dyncollapse.bridge.evaluation.load import from_recipe
        >>> recipe = resolve({"data": "digits"})
        >>> untrained = from_recipe(build_encoder(recipe, channels=1), recipe, 1, Path("untrained"))
        >>> embedded = embed(untrained, open_data("digits").test, Path("."), views="two-sided")
        >>> r, r_pos = embedded["representation"]
        >>> r.shape, r_pos.shape, np.load("embedding.npy").shape
        (torch.Size([500, 128]), torch.Size([500, 128]), (500, 64))
    """
    spaces = pretrained.spaces if spaces is None else spaces
    _check_spaces(pretrained, spaces)
    pretrained.check_channels(images.channels)
    device = torch.device(device)
    skipped = skipped or Skipped(images, tell=lambda _text: None)
    encoder, spec = pretrained.encoder.to(device).eval(), pretrained.spec
    pair, names = view_pair(views, spec.pair), file_names(spaces, views)
    shape = (min(batch_size, len(images)), images.channels, spec.image_size, spec.image_size)
    check_batch_room(encoder.backbone, shape, len(pair), device)
    batches = batches_in_order(
        images,
        pair,
        spec.image_size,
        batch_size=batch_size,
        device=device,
        workers=workers,
        seed=seed,
        prepared=spec.prepared,
    )
    with RowFiles(folder, names, len(images)) as files:
        indices = _write_rows(files, encoder, batches, spaces, skipped, progress)
        files.finish()
    labels = images.labels[indices]
    if labelled(images):
        write_whole(folder / LABELS, lambda file: np.save(file, labels.numpy()))
    record = {
        **pretrained.as_record(),
        "views": views,
        "seed": seed,
        "rows": len(indices),
        "skipped": [reason for _, reason in sorted(skipped.reasons.items())],
        "files": [*names.values(), *([LABELS] if labelled(images) else [])],
    }
    write_json(folder / "embed.json", record)
    rows = {space: tuple(read_rows(folder / names[key]) for key in names if key[0] == space) for space in spaces}
    return Embedded(folder, rows, labels, skipped.sentence, (*pretrained.assumptions, *pretrained.left_out))


def _check_spaces(pretrained: LoadedEncoder, spaces: Sequence[str]) -> None:
    """Raise SettingError for the embedding of an encoder without projector."""
    if "embedding" in spaces and not pretrained.has_embedding:
        left_out = "".join(f" {text}" for text in pretrained.left_out)
        raise SettingError(
            f"{unmarked(str(pretrained.path))} has no recognised projector; use `spaces` representation, or give "
            f"`d0`.{left_out}"
        )


def _write_rows(
    files: RowFiles,
    encoder: Encoder,
    batches: Iterable[Batch],
    spaces: Sequence[str],
    skipped: Skipped,
    progress: Callable[[int, int], None] | None,
) -> Int[Tensor, " n"]:
    """Embed every batch; return the numbers of the images that have a row."""
    indices: list[Tensor] = []
    for batch in batches:
        skipped.add(batch.failures)
        if not len(batch.indices):
            skipped.check(files.rows)
            continue
        rows = {}
        for k, view in enumerate(batch.views):
            with exact_float32():
                outputs = encoder(view.contiguous(memory_format=torch.channels_last))
            for space, values in zip(SPACES, outputs, strict=True):
                if space in spaces:
                    rows[space, k] = values.float().cpu().numpy()
        files.add(rows)
        indices.append(batch.indices)
        skipped.check(files.rows)
        if progress is not None:
            progress(files.rows + len(skipped.reasons), files.most)
    skipped.check(files.rows, ended=True)
    return torch.cat(indices)
