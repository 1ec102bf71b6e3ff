"""An encoder from a file: a checkpoint of ours, the newest of a run's folder, or somebody else's."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from dyncollapse.bridge.checkpoints import as_checkpoint, is_ours, newest
from dyncollapse.bridge.encoders import Encoder, build_encoder
from dyncollapse.bridge.experiments import CONFIG
from dyncollapse.bridge.foreign import find_backbone
from dyncollapse.bridge.recipe import Recipe, resolve
from dyncollapse.bridge.tensors import read_tensors
from dyncollapse.files import printable

UNKNOWN = "unknown"  # the images that others trained on


@dataclass(frozen=True, eq=False)
class Loaded:
    """An encoder in evaluation mode, what it was trained by as far as that is known, and how it was found.

    `run` is the folder of the run whose newest checkpoint it is, where it is one of ours.
    """

    encoder: Encoder
    recipe: Recipe
    channels: int
    path: Path
    matched: str
    step: int | None
    run: Path | None
    has_embedding: bool = True


def load_encoder(
    path: Path,
    *,
    arch: str | None = None,
    stem: str | None = None,
    renames: Mapping[str, str] | None = None,
    d0: int | None = None,
    image_size: int | None = None,
    augment: str | None = None,
    trust: bool = False,
) -> Loaded:
    """Read a checkpoint, or the newest of a run's folder. The options are for those of others; ours know theirs.

    Raises ValueError, one line, for a file that holds no encoder, or not the whole of one.
    """
    path = newest(path) if path.is_dir() else path
    shown = printable(str(path))
    content = read_tensors(path, trust=trust)
    if is_ours(content):
        given = {"--arch": arch, "--stem": stem, "--prefix-map": renames, "--d0": d0}
        given |= {"--image-size": image_size, "--augment": augment}
        if wrong := [name for name, value in given.items() if value]:
            raise ValueError(f"{', '.join(wrong)}: {shown} is of dyncollapse and knows its own; leave it out")
        own = as_checkpoint(content, shown)
        recipe, model = own.recipe, own.states["model"]
        encoder = build_encoder(recipe, own.channels)
        encoder.load_state_dict(model)
        folder = path.parent.parent
        home = folder if (folder / CONFIG).exists() and path == newest(folder) else None
        told = f"{len(model)} of {len(model)} tensors matched ({recipe.arch}, projector {recipe.head})"
        return Loaded(encoder.eval(), recipe, own.channels, path, told, own.step, home)
    found = find_backbone(content, shown, arch, stem, renames, d0)
    known = {
        "image_size": 32 if found.stem != "imagenet" else None,
        "augment": "cifar" if found.stem != "imagenet" else None,
    }
    given = {"image_size": image_size, "augment": augment}
    settings = known | {name: value for name, value in given.items() if value is not None}
    recipe = resolve({"data": UNKNOWN, "arch": found.arch, "stem": found.stem, "precision": "float32", **settings})
    encoder = Encoder(found.backbone, found.projector or nn.Identity())
    return Loaded(encoder.eval(), recipe, found.channels, path, found.matched, None, None, found.projector is not None)
