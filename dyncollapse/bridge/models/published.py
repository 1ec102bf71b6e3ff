"""Published models as encoders: timm's by name, those of the Hugging Face hub, and local folders in timm's layout."""

from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from dyncollapse.bridge.models.backbones import BATCH_COUNT
from dyncollapse.bridge.models.checkpoint_tensors import flatten, read_tensors
from dyncollapse.bridge.models.encoders import Encoder, EncoderSpec
from dyncollapse.bridge.models.foreign_checkpoints import Hints
from dyncollapse.bridge.models.projectors import SubVector
from dyncollapse.bridge.models.published_config import CONFIG, TRANSFORMERS, ModelConfig, of_folder, of_registry
from dyncollapse.bridge.models.published_files import WEIGHTS, hub_model, local_weights
from dyncollapse.bridge.models.published_weights import build_published
from dyncollapse.runtime.files import read_json, unmarked
from dyncollapse.runtime.settings import SettingError

TIMM, HUB, LOCAL = "timm/", ("hf-hub:", "hf_hub:"), "local-dir:"
SMALL_IMAGES = 64  # pixels: below, views are CIFAR-10's


@dataclass(frozen=True)
class Published:
    """Where a published model is from.

    Attributes:
        architecture: The timm model.
        tag: Name of its weights among those of the architecture; None if it has none.
        classes: Classes of its classifier, which is left out.
        repository: Its repository on the Hugging Face hub; None for a local folder.
        commit: The commit of its files; None if unknown.
        file: Name of the file of weights.

    Examples:
        >>> Published("resnet18", "a1_in1k", 1000, "timm/resnet18.a1_in1k", None, "model.safetensors").title
        'resnet18 of timm, tag a1_in1k'
    """

    architecture: str
    tag: str | None
    classes: int
    repository: str | None
    commit: str | None
    file: str

    @property
    def title(self) -> str:
        """The architecture; for weights from the hub also their tag and the beginning of their commit."""
        tag = f", tag {unmarked(self.tag)[:80]}" if self.tag and self.repository else ""
        commit = f", commit {unmarked(self.commit)[:7]}" if self.commit else ""
        return f"{self.architecture} of timm{tag}{commit}"

    def as_values(self) -> dict[str, object]:
        """The attributes as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class PublishedEncoder:
    """A published model as an encoder.

    Attributes:
        encoder: The model without its classifier, and the first dimensions as a projector if they were asked for.
        spec: The model and the images that it takes.
        published: Where it is from.
        has_embedding: Whether there is a projector.
        matched: How many tensors were matched, as a sentence.
        assumptions: Sentences on what the model does not say and was assumed.
    """

    encoder: Encoder
    spec: EncoderSpec
    published: Published
    has_embedding: bool
    matched: str
    assumptions: tuple[str, ...]


def is_published(name: str) -> bool:
    """Whether a name is that of a published model: of timm, of the hub, or a folder in timm's or transformers' layout.

    A file or another folder of that name comes first.

    Args:
        name: What was given as an encoder.

    Returns:
        Whether `load_published` reads it.

    Examples:
        >>> is_published("timm/resnet18.a1_in1k"), is_published("hf-hub:org/model"), is_published("resnet50.pth")
        (True, True, False)
    """
    if name.startswith((*HUB, LOCAL)):
        return True
    folder = Path(name)
    try:
        if folder.is_dir():
            return _has_layout(folder)
        return name.startswith(TIMM) and not folder.exists()
    except (OSError, ValueError):  # a name too long for a file, or with a zero byte
        return False


def _has_layout(folder: Path) -> bool:
    if any((folder / name).exists() for name in WEIGHTS):
        return True
    try:
        content = read_json(folder / CONFIG)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and any(key in content for key in ("architecture", *TRANSFORMERS))


def load_published(name: str, hints: Hints) -> PublishedEncoder:
    """Load a published model without its classifier.

    Weights are read from .safetensors, or from a .bin without unpickling it. Files that are not in the cache of the
    Hugging Face hub (HF_HOME) are downloaded into it; with HF_HUB_OFFLINE=1 nothing is.

    Args:
        name: timm/NAME, hf-hub:ORG/NAME, hf-hub:ORG/NAME@REVISION, or a folder with config.json and model.safetensors,
            with or without local-dir: before it.
        hints: `image_size`, `augment` and `d0` may be given.

    Returns:
        The model, in training mode.

    Raises:
        SettingError: If no such model is published, if it cannot be downloaded, or if its weights are those of another
            model.
        ValueError: If its files are damaged.
    """
    shown = unmarked(name)
    config, weights, repository, commit = _found(name, shown)
    side = hints.image_size or config.image_size
    published = Published(config.architecture, config.tag, config.classes, repository, commit, weights.name)
    tensors = dict(flatten(read_tensors(weights)))
    backbone, width, sentences = build_published(config, side, tensors, shown)
    if hints.d0 is not None and not 1 <= hints.d0 <= width:
        raise SettingError(
            f"`d0` is {hints.d0}, but {shown} gives representations of {width} dimensions; give 1 to {width}"
        )
    augment = hints.augment or ("cifar" if side < SMALL_IMAGES else "imagenet")
    spec = EncoderSpec(config.architecture, "imagenet", config.channels, side, augment, prepared=config.prepared)
    count = sum(not one.endswith(BATCH_COUNT) for one in backbone.state_dict())
    left_out = f", the classifier of {config.classes} classes left out" if config.classes else ""
    end = "no projector, so the representation alone is known"
    end = f"the first {hints.d0} dimensions as embedding" if hints.d0 else end
    assumed = (
        "" if hints.augment else f"Augmented views are those of {augment}, by its image size; `augment` names others."
    )
    resized = "" if side == config.image_size else f"It was published for images of {config.image_size} pixels."
    return PublishedEncoder(
        Encoder(backbone, SubVector(hints.d0) if hints.d0 else nn.Identity()),
        spec,
        published,
        hints.d0 is not None,
        f"{count} of {count} tensors matched ({published.title}{left_out}); {end}",
        tuple(filter(None, (*config.assumptions, *sentences, assumed, resized))),
    )


def _found(name: str, shown: str) -> tuple[ModelConfig, Path, str | None, str | None]:
    """The model's description, its file of weights, its repository, and the commit of both."""
    if name.startswith(LOCAL) or not name.startswith((TIMM, *HUB)) or Path(name).is_dir():
        folder = Path(name.removeprefix(LOCAL))
        return of_folder(folder, shown), local_weights(folder, shown), None, None
    if name.startswith(TIMM):
        bare, _, revision = name.removeprefix(TIMM).partition("@")
        config, known = of_registry(bare)
        if not known.hf_hub_id:
            raise SettingError(
                f"{shown} is not on the Hugging Face hub; download {known.url or 'its weights'} and name "
                f"the file, with `arch` {config.architecture}"
            )
        hub = hub_model(f"{known.hf_hub_id}{f'@{revision}' if revision else ''}", shown)
        weights, commit = hub.file(WEIGHTS)
        return config, weights, hub.repository, commit
    hub = hub_model(name.partition(":")[2], shown)
    description, commit = hub.file((CONFIG,))
    config = of_folder(description.parent, shown)
    if commit is not None:
        hub = hub_model(f"{hub.repository}@{commit}", shown)  # both files of one commit
    weights, commit = hub.file(WEIGHTS)
    return config, weights, hub.repository, commit
