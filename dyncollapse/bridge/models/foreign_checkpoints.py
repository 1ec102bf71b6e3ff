"""Find the backbone and the projector in checkpoints of other libraries, by the names of their tensors.

A file is a tree of dicts. A tensor's name is its path in the tree, such as `model.backbone.conv1.weight`. The prefix
before the backbone's own names is the one under which most of them match, so no list of libraries is needed. The tests
hold a synthetic file for each known layout.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from dyncollapse.bridge.models.backbones import backbone_shapes, representation_dim
from dyncollapse.bridge.models.encoders import Encoder, EncoderSpec
from dyncollapse.bridge.models.foreign_matching import (
    MatchedBackbone,
    complete_copies,
    match_backbone,
    refuse_nan,
)
from dyncollapse.bridge.models.foreign_names import find_places, renamed, some, unwrapped
from dyncollapse.bridge.models.foreign_projectors import ProjectorHints, find_projector
from dyncollapse.bridge.models.projectors import SubVector
from dyncollapse.bridge.recipe import AUGMENTATIONS, NARROWEST_IMAGE, STEMS, WIDEST_IMAGE
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.settings import SettingError, quoted

GUESSES = ("resnet50", "resnet18", "resnet34", "resnet101", "resnet152", "resnet10")


@dataclass(frozen=True)
class Hints:
    """What the caller knows about a checkpoint of another library.

    Attributes:
        arch: The timm model; None to detect one of GUESSES.
        stem: First layers, one of `recipe.STEMS`; None to detect them.
        renames: Beginnings of tensor names and their replacements, applied before anything else.
        d0: Dimensions that DirectCLR's embedding keeps; None for another projector.
        image_size: Side of the images, in pixels; None for the checkpoint's own.
        augment: The augmentations it was trained with, one of `recipe.AUGMENTATIONS`; None to follow its stem.
        projector: What the caller knows about the projector.
    """

    arch: str | None = None
    stem: str | None = None
    renames: Mapping[str, str] = field(default_factory=dict)
    d0: int | None = None
    image_size: int | None = None
    augment: str | None = None
    projector: ProjectorHints = field(default_factory=ProjectorHints)

    def __post_init__(self) -> None:
        """Check names and sizes."""
        for name, value, allowed in (("stem", self.stem, STEMS), ("augment", self.augment, AUGMENTATIONS)):
            if value is not None and value not in allowed:
                raise SettingError(f"`{name}` is {quoted(value)}; choose one of {', '.join(allowed)}")
        if self.image_size is not None and not NARROWEST_IMAGE <= self.image_size <= WIDEST_IMAGE:
            raise SettingError(f"`image_size` is {self.image_size}; give {NARROWEST_IMAGE} to {WIDEST_IMAGE}")


@dataclass(frozen=True, eq=False)
class ForeignEncoder:
    """An encoder that another library trained.

    Attributes:
        encoder: Backbone and projector; the projector is the identity if none was recognised.
        spec: The model and the images that it takes.
        has_projector: Whether a projector was recognised.
        matched: How many tensors were matched, and which projector was found.
        assumptions: Sentences on what the file does not say and was assumed.
        left_out: Sentences on layers that may be the projector and were not used.
    """

    encoder: Encoder
    spec: EncoderSpec
    has_projector: bool
    matched: str
    assumptions: tuple[str, ...]
    left_out: tuple[str, ...]


def find_encoder(named: Iterable[tuple[str, Tensor]], shown: str, hints: Hints) -> ForeignEncoder:
    """Find a backbone and its projector among the tensors of a file.

    Args:
        named: All tensors with their paths in the file.
        shown: The file's name, for messages.
        hints: What the caller knows about the file.

    Returns:
        The encoder, in training mode.

    Raises:
        SettingError: If tensors of the backbone are missing, left over or of another shape; also as `find_projector`.
        ValueError: If weights are not finite.
    """
    tensors = renamed(unwrapped(named), hints.renames)
    if not tensors:
        raise ValueError(f"{shown} holds no tensors, so no encoder")
    _refuse_without_convolutions(tensors, hints.arch, shown)
    places = find_places(tensors, [hints.arch] if hints.arch else GUESSES, hints.stem)
    if not places:
        raise SettingError(
            f"{shown} has 0 of {hints.arch or 'any ResNet'}'s tensors under any prefix; its names are like "
            f"{some(tensors)}; give `arch`{_suggestion(tensors)}, or `renames` OLD=NEW"
        )
    backbone = match_backbone(tensors, places, hints.stem, hints.image_size, shown)
    used = set(places[0].names.values())
    copies = [name for place in complete_copies(places) for name in place.names.values()]
    beside = {name: tensor for name, tensor in tensors.items() if name not in used}
    projector, words, assumptions, left_out = _projector(backbone, beside, places[0].prefix, hints, copies, shown)
    views = hints.augment or ("imagenet" if backbone.stem == "imagenet" else "cifar")
    assumptions = [*backbone.assumptions, *assumptions, _assumption_on_pixels(backbone.channels)]
    if hints.augment is None:
        assumptions.append(f"Augmented views are those of {views}, by its first layers; `augment` names others.")
    return ForeignEncoder(
        Encoder(backbone.backbone, projector or nn.Identity()),
        EncoderSpec(backbone.arch, backbone.stem, backbone.channels, backbone.image_size, views),
        projector is not None,
        f"{backbone.matched}; {words}",
        tuple(assumptions),
        tuple(left_out),
    )


def _refuse_without_convolutions(tensors: Mapping[str, Tensor], arch: str | None, shown: str) -> None:
    """Refuse a file without the weights of any convolution, with which image backbones begin."""
    needed = arch is None or any(len(shape) == 4 for shape in backbone_shapes(arch, "imagenet").values())
    if needed and not any(tensor.ndim == 4 for tensor in tensors.values()):
        raise SettingError(
            f"{shown} holds no image backbone: none of its tensors is a convolution's; its names are like "
            f"{some(tensors)}; embed the data yourself, save the embeddings as .npy and use dyncollapse diagnose FILE"
        )


def _suggestion(tensors: Mapping[str, Tensor]) -> str:
    """A model to try, if the tensors look like a vision transformer's."""
    patches = [t for name, t in tensors.items() if name.endswith("patch_embed.proj.weight") and t.ndim == 4]
    names = {192: "tiny", 384: "small", 768: "base", 1024: "large"}
    if not patches or len(patches[0]) not in names:
        return ""
    side, dinov2 = patches[0].shape[-1], any(name.endswith("mask_token") for name in tensors)
    return f", such as vit_{names[len(patches[0])]}_patch{side}_{'dinov2' if dinov2 else '224'}"


def _projector(
    backbone: MatchedBackbone,
    beside: Mapping[str, Tensor],
    prefix: str,
    hints: Hints,
    copies: Sequence[str],
    shown: str,
) -> tuple[nn.Module | None, str, list[str], list[str]]:
    """The projector behind a backbone: DirectCLR's if d0 is given, else the one in the file.

    Also returned are its description, sentences on assumptions, and sentences on layers that were left out.
    """
    dim, d0 = representation_dim(backbone.backbone), hints.d0
    if d0 is not None and not 1 <= d0 <= dim:
        raise SettingError(
            f"`d0` is {d0}, but {backbone.arch} gives representations of {dim} dimensions; give 1 to {dim}"
        )
    if d0 is not None and hints.projector != ProjectorHints():
        raise SettingError(
            "`d0` makes the embedding a part of the representation; drop it, or the options `projector_`..."
        )
    projector, left_out = find_projector(beside, prefix, dim, hints.projector, copies)
    if d0 is not None:
        assumptions = [f"The embedding is the first {d0} of the {dim} dimensions of the representation."]
        if projector:
            assumptions.append(f"{unmarked(projector.path)} ({projector.layers}) is left out, because `d0` is given.")
        return SubVector(d0), f"projector: the first {d0}", assumptions, left_out
    if projector is None:
        return None, "no recognised projector", [], left_out
    own = ((name, tensor) for name, tensor in beside.items() if name.startswith(f"{projector.path}."))
    refuse_nan(own, shown)
    words = f"projector {unmarked(projector.path)}: {projector.layers}"
    return projector.module, words, list(projector.assumptions), left_out


def _assumption_on_pixels(channels: int) -> str:
    where = "ImageNet's mean and deviation" if channels == 3 else "a mean and deviation of 0.5"
    return f"Pixels are normalised by {where}; the file does not say what training used."
