"""An encoder from a file: a checkpoint of ours, the newest of a run's folder, or somebody else's."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from dyncollapse.bridge.models.encoders import Encoder, build_encoder
from dyncollapse.bridge.models.foreign_checkpoints import Found, find_backbone
from dyncollapse.bridge.models.foreign_heads import Asked
from dyncollapse.bridge.models.foreign_tensors import read_tensors
from dyncollapse.bridge.recipe import AUGMENTATIONS, STEMS, Recipe
from dyncollapse.bridge.training.checkpoints import as_checkpoint, is_ours, newest
from dyncollapse.bridge.training.run_folder import CONFIG
from dyncollapse.runtime.files import printable
from dyncollapse.runtime.settings import option

SIDES = 4, 4096  # of images, in pixels: one of the largest takes 200 MB as floats


@dataclass(frozen=True)
class Known:
    """What a checkpoint by others says of its encoder: the model, its first layers, and the images that it takes."""

    arch: str
    stem: str
    image_size: int
    augment: str

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Loaded:
    """An encoder in evaluation mode, what it was trained by as far as that is known, and how it was found.

    `run` is the folder of the run whose newest checkpoint it is, where it is one of ours. Of a checkpoint by others
    `assumptions` are sentences on what the file does not say, and `left_out` on what else might be its projector.
    """

    encoder: Encoder
    recipe: Recipe | Known
    channels: int
    path: Path
    matched: str
    step: int | None
    run: Path | None
    has_embedding: bool = True
    assumptions: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def data(self) -> str | None:
        """The images that it was trained on, where they are known."""
        return self.recipe.data if isinstance(self.recipe, Recipe) else None

    def as_record(self) -> dict[str, Any]:
        """What is known of it as plain JSON values; a checkpoint by others has no recipe."""
        known = self.recipe.as_dict()
        return {
            "checkpoint": str(self.path),
            "step": self.step,
            "matched": self.matched,
            "recipe": known if isinstance(self.recipe, Recipe) else None,
            "encoder": {name: known[name] for name in Known.__dataclass_fields__} | {"channels": self.channels},
            "assumptions": [*self.assumptions, *self.left_out],
        }


def load_encoder(
    path: Path,
    *,
    arch: str | None = None,
    stem: str | None = None,
    renames: Mapping[str, str] | None = None,
    d0: int | None = None,
    image_size: int | None = None,
    augment: str | None = None,
    projector_prefix: str | None = None,
    projector_activation: str | None = None,
    projector_last: str | None = None,
    trust: bool = False,
) -> Loaded:
    """Read a checkpoint, or the newest of a run's folder. The options are for those of others; ours know theirs.

    Args:
        path: A file, or a run's folder.
        arch: The timm model; found out, among ResNets, where it is not given.
        stem: Its first layers, one of `recipe.STEMS`; found out where they are not given.
        renames: Beginnings of tensors' names and what replaces them.
        d0: The embedding is the first d0 dimensions of the representation (DirectCLR).
        image_size: Side of the images, in pixels; found out where it is not given.
        augment: The views it was trained on, one of `recipe.AUGMENTATIONS`; by its stem where they are not given.
        projector_prefix: Where its projector is in the file, as a name.
        projector_activation: What stands between the projector's layers, one of `rows.ACTIVATIONS`.
        projector_last: What follows the projector's last layer, one of `rows.LAST`.
        trust: Unpickle the file, which may run any code.

    Returns:
        The encoder, and what is known and assumed of it.

    Raises:
        ValueError: One line, for a file that holds no encoder, or not the whole of one.
    """
    path = newest(path) if path.is_dir() else path
    shown = printable(str(path))
    asked = Asked(projector_prefix, projector_activation, projector_last)
    _check(stem, image_size, augment)
    content = read_tensors(path, trust=trust)
    if is_ours(content):
        given = {"arch": arch, "stem": stem, "prefix_map": renames or None, "d0": d0, "image_size": image_size}
        given |= {"augment": augment, **{f"projector_{name}": value for name, value in asdict(asked).items()}}
        if wrong := [option(name) for name, value in given.items() if value is not None]:
            raise ValueError(f"{', '.join(wrong)}: {shown} is of dyncollapse and knows its own; leave it out")
        return _own(content, path, shown)
    return _by_others(find_backbone(content, shown, arch, stem, renames, d0, image_size, asked), path, augment)


def _by_others(found: Found, path: Path, augment: str | None) -> Loaded:
    """A checkpoint by others: what is known of it, and what is assumed."""
    backbone = found.backbone
    views = augment or ("imagenet" if backbone.stem == "imagenet" else "cifar")
    said = [*found.assumptions, *_said_of_pixels(backbone.channels)]
    if augment is None:
        said.append(f"Augmented views are those of {views}, by its first layers; --augment names others.")
    return Loaded(
        Encoder(backbone.backbone, found.projector or nn.Identity()).eval(),
        Known(backbone.arch, backbone.stem, backbone.image_size, views),
        backbone.channels,
        path,
        found.told,
        None,
        None,
        found.projector is not None,
        tuple(said),
        tuple(found.left_out),
    )


def _own(content: dict[str, Any], path: Path, shown: str) -> Loaded:
    """A checkpoint that a run left."""
    own = as_checkpoint(content, shown)
    recipe, model = own.recipe, own.states["model"]
    encoder = build_encoder(recipe, own.channels)
    encoder.load_state_dict(model)
    folder = path.parent.parent
    home = folder if (folder / CONFIG).exists() and path == newest(folder) else None
    told = f"{len(model)} of {len(model)} tensors matched ({recipe.arch}, projector {recipe.head})"
    return Loaded(encoder.eval(), recipe, own.channels, path, told, own.step, home)


def _check(stem: str | None, image_size: int | None, augment: str | None) -> None:
    for name, value, allowed in (("--stem", stem, STEMS), ("--augment", augment, AUGMENTATIONS)):
        if value is not None and value not in allowed:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")
    least, most = SIDES
    if image_size is not None and not least <= image_size <= most:
        raise ValueError(f"--image-size is {image_size}; give {least} to {most}")


def _said_of_pixels(channels: int) -> list[str]:
    where = "ImageNet's mean and deviation" if channels == 3 else "a mean and deviation of 0.5"
    return [f"Pixels are normalised by {where}; the file does not say what training used."]
