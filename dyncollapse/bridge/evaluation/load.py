"""Load an encoder: of a run, from another library's checkpoint, or a published model of timm or the hub."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dyncollapse.bridge.models.checkpoint_tensors import flatten, read_tensors
from dyncollapse.bridge.models.encoders import Encoder, EncoderSpec, spec_of
from dyncollapse.bridge.models.foreign_checkpoints import Hints, find_encoder
from dyncollapse.bridge.models.foreign_projectors import ProjectorHints
from dyncollapse.bridge.models.published import Published, is_published, load_published
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.spaces import SPACES
from dyncollapse.bridge.training.checkpoints import Checkpoint, as_checkpoint, is_ours, newest
from dyncollapse.bridge.training.run_folder import CONFIG
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.settings import SettingError


@dataclass(frozen=True, eq=False)
class LoadedEncoder:
    """An encoder in evaluation mode, and what is known about it.

    Attributes:
        encoder: The network.
        spec: Its model and the images that it takes: arch, stem, channels, image_size, augment.
        path: The checkpoint's file; for a published model, its name.
        matched: How many tensors were matched, as a sentence.
        recipe: All settings of its run; None for another library's checkpoint.
        step: Steps that it was trained for; None if unknown.
        run: Folder of the run, if this is the run's newest checkpoint.
        has_embedding: Whether it has a projector.
        assumptions: Sentences on what another library's file does not say and was assumed. They name parameters of
            `load_encoder` in backticks.
        left_out: Sentences on layers that may be the projector and were not used.
        published: Where a published model is from; None for a checkpoint.

    Examples:
        >>> from dyncollapse.bridge import build_encoder
        >>> from dyncollapse.bridge.models.encoders import EncoderSpec
        >>> spec = EncoderSpec("resnet10-narrow", "cifar", channels=1, image_size=8, augment="digits")
        >>> loaded = LoadedEncoder(build_encoder(Recipe(data="digits", arch="resnet10-narrow"), 1), spec, Path("mine"))
        >>> loaded.channels, loaded.data is None, loaded.as_record()["encoder"]["image_size"]
        (1, True, 8)
    """

    encoder: Encoder
    spec: EncoderSpec
    path: Path
    matched: str = ""
    recipe: Recipe | None = None
    step: int | None = None
    run: Path | None = None
    has_embedding: bool = True
    assumptions: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    published: Published | None = None

    @property
    def channels(self) -> int:
        """Channels of the images that it takes."""
        return self.spec.channels

    @property
    def spaces(self) -> tuple[str, ...]:
        """The spaces that are embedded if none are named: both, or that of a published model without an embedding.

        A projector that was not recognised in a checkpoint is an error instead, which says how to name it.
        """
        return SPACES if self.has_embedding or self.published is None else SPACES[:1]

    @property
    def data(self) -> str | None:
        """Name of the images that it was trained on; None if unknown."""
        return self.recipe.data if self.recipe else None

    def check_channels(self, channels: int) -> None:
        """Check that it takes images with this number of channels. Raises SettingError, one line."""
        if channels != self.channels:
            others = "give a folder of images, which are read in colour" if self.channels == 3 else "give `data` digits"
            raise SettingError(
                f"`data` has images of {channels} channel(s), and the encoder takes {self.channels}; {others}"
            )

    def reworded(self, words: Callable[[str], str]) -> "LoadedEncoder":
        """A copy with reworded sentences, for an interface that has other names for parameters.

        Args:
            words: Rewords one sentence.

        Returns:
            The copy.
        """
        return replace(self, assumptions=tuple(map(words, self.assumptions)), left_out=tuple(map(words, self.left_out)))

    def as_record(self) -> dict[str, object]:
        """What is known about the encoder, as plain JSON values.

        `recipe` is None for another library's, and `published` is there for a published model alone.
        """
        return {
            "checkpoint": str(self.path),
            "step": self.step,
            "matched": self.matched,
            "recipe": self.recipe.as_dict() if self.recipe else None,
            "encoder": self.spec.as_values(),
            "assumptions": [*self.assumptions, *self.left_out],
            **({"published": self.published.as_values()} if self.published else {}),
        }


def load_encoder(
    path: Path | str,
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
) -> LoadedEncoder:
    """Load an encoder from a checkpoint or the newest checkpoint in a run's folder, or load a published model.

    All parameters but `path` and `trust` are for checkpoints of other libraries. Checkpoints of `bridge pretrain` store
    their own settings. Published models say themselves how their images are resized, cropped and normalised, and take
    `d0`, `image_size` and `augment` alone; their files are kept in the cache of the Hugging Face hub.

    Args:
        path: A file, a run's folder, timm/NAME, hf-hub:ORG/NAME, hf-hub:ORG/NAME@REVISION, or a folder in timm's layout
            (config.json and model.safetensors).
        arch: The timm model; None to detect a ResNet.
        stem: First layers, such as "imagenet" or "cifar" (see `build_backbone`); None to detect them.
        renames: Beginnings of tensor names and their replacements.
        d0: Take the first d0 dimensions of the representation as the embedding (DirectCLR).
        image_size: Side of the images, in pixels; None for the checkpoint's own or the model's usual one.
        augment: The augmentations that the encoder was trained with: "imagenet", "cifar" or "digits"; None to follow
            its stem.
        projector_prefix: Beginning of the projector's tensor names; None to search for it.
        projector_activation: Between the projector's layers: "relu", "gelu", "tanh", "silu", "leaky-relu", "elu",
            "selu", "sigmoid" or "identity"; None for that of its library, or "relu".
        projector_last: What follows the projector's last layer: an activation or "normalise"; None for nothing.
        trust: Whether to unpickle the file, which may run any code in it.

    Returns:
        The encoder, with sentences on what was matched and assumed.

    Raises:
        SettingError: If a parameter does not fit the file, if the backbone is incomplete, or if a published model does
            not exist or cannot be downloaded. One line.
        ValueError: If the file holds no encoder, or cannot be read. One line.

    Examples:
        >>> import torch
        >>> from dyncollapse.bridge import build_backbone
        >>> weights = build_backbone("resnet10-narrow", "cifar", channels=3).state_dict()
        >>> torch.save({f"encoder.{name}": tensor for name, tensor in weights.items()}, "other.pt")
        >>> loaded = load_encoder(Path("other.pt"), arch="resnet10-narrow", d0=16)
        >>> loaded.matched
        '65 of 65 tensors matched (resnet10-narrow, stem cifar, prefix encoder.); projector: the first 16'
    """
    projector = ProjectorHints(projector_prefix, projector_activation, projector_last)
    hints = Hints(arch, stem, renames or {}, d0, image_size, augment, projector)
    name = path.as_posix() if isinstance(path, Path) else path
    if is_published(name):
        return _published(name, hints, trust=trust)
    path = Path(path)
    path = newest(path) if path.is_dir() else path
    shown = unmarked(str(path))
    content = read_tensors(path, trust=trust)
    if is_ours(content):
        _refuse_hints(hints, shown)
        return _from_run(as_checkpoint(content, shown), path)
    foreign = find_encoder(flatten(content), shown, hints)
    return LoadedEncoder(
        foreign.encoder.eval(),
        foreign.spec,
        path,
        foreign.matched,
        has_embedding=foreign.has_projector,
        assumptions=foreign.assumptions,
        left_out=foreign.left_out,
    )


def from_recipe(encoder: Encoder, recipe: Recipe, channels: int, path: Path, run: Path | None = None) -> LoadedEncoder:
    """Wrap an encoder in memory as `load_encoder` would return it.

    Args:
        encoder: The network of the recipe.
        recipe: All settings of its run.
        channels: Channels of its images.
        path: What messages call it.
        run: Folder of its run.

    Returns:
        The encoder, in evaluation mode.
    """
    return LoadedEncoder(encoder.eval(), spec_of(recipe, channels), path, recipe=recipe, run=run)


def _from_run(checkpoint: Checkpoint, path: Path) -> LoadedEncoder:
    """Build the encoder of a run's checkpoint."""
    recipe, count = checkpoint.recipe, len(checkpoint.states["model"])
    spec = spec_of(recipe, checkpoint.channels)
    folder = path.parent.parent
    run = folder if (folder / CONFIG).exists() and path == newest(folder) else None
    matched = f"{count} of {count} tensors matched ({recipe.arch}, projector {recipe.head})"
    return LoadedEncoder(checkpoint.encoder().eval(), spec, path, matched, recipe, checkpoint.step, run)


def _published(name: str, hints: Hints, *, trust: bool) -> LoadedEncoder:
    """Load a published model."""
    wrong = [name for name in _given(hints) if name not in ("d0", "image_size", "augment")] + ["trust"] * trust
    if wrong:
        raise SettingError(
            f"{', '.join(f'`{name}`' for name in wrong)}: {unmarked(name)} is a published model, which says itself how "
            "it is read; leave it out"
        )
    found = load_published(name, hints)
    return LoadedEncoder(
        found.encoder.eval(),
        found.spec,
        Path(name),
        found.matched,
        has_embedding=found.has_embedding,
        assumptions=found.assumptions,
        published=found.published,
    )


def _given(hints: Hints) -> list[str]:
    """Names of the hints that were given."""
    given = {"arch": hints.arch, "stem": hints.stem, "renames": hints.renames or None, "d0": hints.d0}
    given |= {"image_size": hints.image_size, "augment": hints.augment}
    given |= {f"projector_{name}": value for name, value in asdict(hints.projector).items()}
    return [name for name, value in given.items() if value is not None]


def _refuse_hints(hints: Hints, shown: str) -> None:
    """Raise SettingError for hints on a checkpoint that stores its own settings."""
    if wrong := [f"`{name}`" for name in _given(hints)]:
        raise SettingError(
            f"{', '.join(wrong)}: {shown} was saved by dyncollapse and stores its own settings; leave it out"
        )
