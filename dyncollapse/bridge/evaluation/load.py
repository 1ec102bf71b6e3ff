"""An encoder from a file: a checkpoint of a run, the newest of a run's folder, or one of another library."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dyncollapse.bridge.models.checkpoint_tensors import flatten, read_tensors
from dyncollapse.bridge.models.encoders import Encoder, EncoderSpec, spec_of
from dyncollapse.bridge.models.foreign_checkpoints import Hints, find_encoder
from dyncollapse.bridge.models.foreign_projectors import ProjectorHints
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.training.checkpoints import Checkpoint, as_checkpoint, is_ours, newest
from dyncollapse.bridge.training.run_folder import CONFIG
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.settings import SettingError


@dataclass(frozen=True, eq=False)
class LoadedEncoder:
    """An encoder in evaluation mode, and what is known about it.

    Attributes:
        encoder: The network.
        spec: The model and the images that it takes.
        path: The file.
        matched: A sentence on how many tensors were matched.
        recipe: All settings of its run; None for a checkpoint of another library.
        step: The steps that it was trained for; None where unknown.
        run: The folder of the run whose newest checkpoint it is.
        has_embedding: Whether it has a projector.
        assumptions: Sentences on what a file of another library does not say. They name this module's parameters in
            backticks.
        left_out: Likewise, on what else might be its projector.
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

    @property
    def channels(self) -> int:
        """Channels of the images that it takes."""
        return self.spec.channels

    @property
    def data(self) -> str | None:
        """The images that it was trained on, where they are known."""
        return self.recipe.data if self.recipe else None

    def reworded(self, words: Callable[[str], str]) -> "LoadedEncoder":
        """The same with every sentence as `words` says it, for an interface that has other names for parameters."""
        return replace(self, assumptions=tuple(map(words, self.assumptions)), left_out=tuple(map(words, self.left_out)))

    def as_record(self) -> dict[str, object]:
        """What is known about it as plain JSON values; a checkpoint of another library has no recipe."""
        return {
            "checkpoint": str(self.path),
            "step": self.step,
            "matched": self.matched,
            "recipe": self.recipe.as_dict() if self.recipe else None,
            "encoder": asdict(self.spec),
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
) -> LoadedEncoder:
    """Load an encoder from a checkpoint, or from the newest one in a run's folder.

    All parameters but `path` and `trust` are for checkpoints of other libraries; those of a run know their own.

    Args:
        path: A file, or a run's folder.
        arch: The timm model; found among ResNets where it is not given.
        stem: Its first layers, one of `recipe.STEMS`; found where they are not given.
        renames: Beginnings of tensors' names and what replaces them.
        d0: The embedding is the first d0 dimensions of the representation (DirectCLR).
        image_size: Side of the images, in pixels; found where it is not given.
        augment: The views it was trained on, one of `recipe.AUGMENTATIONS`; by its stem where they are not given.
        projector_prefix: Where its projector is in the file, as a name.
        projector_activation: What stands between the projector's layers, one of `foreign_layers.ACTIVATIONS`.
        projector_last: What follows the projector's last layer, one of `foreign_layers.LAST`.
        trust: Unpickle the file, which may run any code.

    Returns:
        The encoder, and what is known and assumed about it.

    Raises:
        SettingError: One line, for parameters that do not fit the file, and for a backbone that is not whole.
        ValueError: One line, for a file that holds no encoder.
    """
    path = newest(path) if path.is_dir() else path
    shown = unmarked(str(path))
    projector = ProjectorHints(projector_prefix, projector_activation, projector_last)
    hints = Hints(arch, stem, renames or {}, d0, image_size, augment, projector)
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
    """An encoder that is in memory already, as `load_encoder` would return it.

    Args:
        encoder: The network of the recipe.
        recipe: All settings of its run.
        channels: Channels of its images.
        path: What messages call it.
        run: The folder of its run.

    Returns:
        The encoder, in evaluation mode.
    """
    return LoadedEncoder(encoder.eval(), spec_of(recipe, channels), path, recipe=recipe, run=run)


def _from_run(checkpoint: Checkpoint, path: Path) -> LoadedEncoder:
    """The encoder of a run's checkpoint."""
    recipe, count = checkpoint.recipe, len(checkpoint.states["model"])
    spec = spec_of(recipe, checkpoint.channels)
    folder = path.parent.parent
    run = folder if (folder / CONFIG).exists() and path == newest(folder) else None
    matched = f"{count} of {count} tensors matched ({recipe.arch}, projector {recipe.head})"
    return LoadedEncoder(checkpoint.encoder().eval(), spec, path, matched, recipe, checkpoint.step, run)


def _refuse_hints(hints: Hints, shown: str) -> None:
    """Refuse what is said about a checkpoint that knows it better."""
    given = {"arch": hints.arch, "stem": hints.stem, "renames": hints.renames or None, "d0": hints.d0}
    given |= {"image_size": hints.image_size, "augment": hints.augment}
    given |= {f"projector_{name}": value for name, value in asdict(hints.projector).items()}
    if wrong := [f"`{name}`" for name, value in given.items() if value is not None]:
        raise SettingError(f"{', '.join(wrong)}: {shown} is of dyncollapse and knows its own; leave it out")
