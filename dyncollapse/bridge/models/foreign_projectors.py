"""Find the projector among the tensors beside the backbone, and list doubtful candidates that were left out."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from dyncollapse.bridge.models.foreign_layers import (
    ACTIVATIONS,
    LAST,
    ActivationChoice,
    ForeignProjector,
    LayerStack,
    NotAProjector,
    build_projector,
    read_stack,
)
from dyncollapse.bridge.models.foreign_left_over import describe, describe_left_over, how_to_rename
from dyncollapse.bridge.models.foreign_names import below, some, without_wrappers
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.settings import SettingError, quoted

# Names of projectors, most certain first.
WORDS = (
    "projector",
    "projection_head",
    "projection",
    "proj_head",
    "head",
    "heads",
    "neck",
    "g",
    "mlp",
    "fc",
)
# A single linear layer under such a name is more often a classifier than a projector.
CLASSIFIERS = ("head", "heads", "fc", "classifier", "linear", "online_head", "online_classifier")
MOST_LISTED = 3  # candidates with known names that a message lists


@dataclass(frozen=True)
class ProjectorHints:
    """What the caller knows about the projector.

    Attributes:
        prefix: Beginning of its tensors' names; None to search for it.
        activation: Between its layers, one of ACTIVATIONS; None for that of its library, or relu.
        last: What follows its last layer, one of LAST; None for nothing.
    """

    prefix: str | None = None
    activation: str | None = None
    last: str | None = None

    def __post_init__(self) -> None:
        """Check both names."""
        for name, value, known in (("activation", self.activation, ACTIVATIONS), ("last", self.last, LAST)):
            if value is not None and value not in known:
                raise SettingError(f"`projector_{name}` is {quoted(value)}; choose one of {', '.join(known)}")


@dataclass(frozen=True)
class Library:
    """How to recognise a library's projectors, and their activation.

    Attributes:
        name: What messages call them.
        path: Pattern of the projector's path.
        backbone: Pattern of the backbone's prefix.
        beside: Beginning of another name in the file; empty if none is needed.
        activation: Between the projector's layers, one of ACTIVATIONS.
    """

    name: str
    path: str
    backbone: str = ""
    beside: str = ""
    activation: str = "relu"


# From the source of each: facebookresearch/dino, lightly 1.5, lightning-bolts, MMSelfSup 1.0, VISSL, MoCo, MoCo v3,
# SimSiam, leftthomas/SimCLR, solo-learn, DirectCLR, Barlow Twins, VICReg, Spijkervet/SimCLR, SwAV, SupContrast and
# sthalles/SimCLR.
LIBRARIES = (
    Library("DINO's head", r"(\w*_)?head(_\w+)?\.mlp", activation="gelu"),
    Library("lightly's MSN", r"\w*head\w*\.layers", beside="anchor_projection_head.", activation="gelu"),
    Library("every head of lightly except DINO's and MSN's (gelu)", r"\w*head\w*\.layers"),
    Library("lightning-bolts' SimCLR", r"projection\.model"),
    Library("every neck of MMSelfSup", r"neck(\.\w+)?"),
    Library("VISSL's SimCLR", r"heads"),
    Library("MoCo v2", r"encoder_[qk]\.fc"),
    Library("MoCo v3", r"(base|momentum)_encoder\.(fc|head)"),
    Library("SimSiam", r"encoder\.fc", beside="predictor."),
    Library("leftthomas' SimCLR", r"g", backbone=r"f\."),
    Library("every method of solo-learn except VIbCReg (gelu)", r"projector", beside="classifier.weight"),
    Library("DirectCLR's SimCLR, Barlow Twins and VICReg", r"projector", backbone=r"backbone\."),
    Library("Spijkervet's SimCLR", r"projector", backbone=r"encoder\."),
    Library("SwAV", r"projection_head", beside="prototypes."),
    Library("SupContrast", r"head", backbone=r"encoder\."),
    Library("sthalles' SimCLR", r"backbone\.fc"),
)


def find_projector(
    tensors: Mapping[str, Tensor], prefix: str, dim: int, hints: ProjectorHints, copies: Collection[str] = ()
) -> tuple[ForeignProjector | None, list[str]]:
    """Find the projector of a backbone.

    Args:
        tensors: All tensors beside the backbone, by name.
        prefix: The beginning of the backbone's names.
        dim: Dimension of the representation.
        hints: What the caller knows about the projector.
        copies: Names of the tensors of all copies of the backbone.

    Returns:
        The projector, or None if no candidate is certain enough; and a sentence on each candidate that was left out.

    Raises:
        SettingError: If the projector named by `hints` is missing or no stack of linear layers and norms, or if a hint
            has no effect.
    """
    if hints.prefix is not None:
        return _named(tensors, prefix, dim, hints), []
    chosen: ForeignProjector | None = None
    left_out: list[str] = []
    words = dict(_candidates(prefix))
    groups = below(tensors, words)
    for path, own in groups.items():
        try:
            stack = read_stack(path, own)
            projector = build_projector(stack, dim, _choose_activation(stack, tensors, prefix, hints))
        except NotAProjector as reason:
            remedy = how_to_rename(path, own, dim) or "."
            left_out.append(f"{unmarked(path)} is not understood as a projector: {reason}{remedy}")
            continue
        sure = words[path] not in CLASSIFIERS if stack.lone else words[path] in WORDS
        if sure and chosen is None:
            chosen = projector
        else:
            left_out.append(describe(stack, projector, dim))
    _refuse_unused(chosen, hints)
    others = describe_left_over(tensors, dim, groups, [*copies, prefix], chosen.path if chosen else None)
    return chosen, left_out[:MOST_LISTED] + others


def _refuse_unused(projector: ForeignProjector | None, hints: ProjectorHints) -> None:
    """Refuse hints that have no effect."""
    if projector is None and (hints.activation or hints.last):
        name = f"projector_{'activation' if hints.activation else 'last'}"
        raise SettingError(f"`{name}` is given, but no projector was recognised; name it by `projector_prefix`")
    if projector is not None and hints.activation and not projector.has_activations:
        raise SettingError(
            f"`projector_activation` is {hints.activation}, but there is no room for one in "
            f"{unmarked(projector.path)} ({projector.layers}); leave it out"
        )


def _candidates(prefix: str) -> Iterator[tuple[str, str]]:
    """Yield paths where projectors may be, with their words: beside the backbone, or in place of its classifier."""
    base = prefix.rstrip(".")
    parent, _, name = base.rpartition(".")
    grand = parent.rpartition(".")[0]
    # The projector of teacher_backbone is teacher_head; that of backbone_momentum is projection_head_momentum.
    own = re.fullmatch(r"(\w+_)?(?:backbone|encoder)(_\w+)?", name)
    forms = ["{}"] if own is None or not any(own.groups()) else [f"{own[1] or ''}{{}}{own[2] or ''}", "{}"]
    seen = set()
    for form in forms:
        for word in dict.fromkeys((*WORDS, *CLASSIFIERS)):
            for place in (parent, grand, base):
                path = f"{place}.{form.format(word)}" if place else form.format(word)
                if path not in seen:
                    seen.add(path)
                    yield path, word


def _choose_activation(
    stack: LayerStack, tensors: Mapping[str, Tensor], prefix: str, hints: ProjectorHints
) -> ActivationChoice:
    """The activation between layers: the caller's, or that of the library that uses these names."""
    if hints.activation:
        return ActivationChoice(hints.activation, True, None, hints.last)
    if stack.dino:
        return ActivationChoice(LIBRARIES[0].activation, False, LIBRARIES[0].name, hints.last)
    for library in LIBRARIES:
        beside = not library.beside or any(f".{library.beside}" in f".{name}" for name in tensors)
        here = re.search(rf"(^|\.){library.path}$", stack.path) and re.search(rf"(^|\.){library.backbone}$", prefix)
        if beside and here:
            return ActivationChoice(library.activation, False, library.name, hints.last)
    return ActivationChoice(last=hints.last)


def _named(tensors: Mapping[str, Tensor], prefix: str, dim: int, hints: ProjectorHints) -> ForeignProjector:
    """The projector that the caller names. Raises SettingError if it is missing or not a stack of layers."""
    assert hints.prefix is not None
    wanted = without_wrappers(hints.prefix.strip("."))
    given = f"`projector_prefix` is {unmarked(hints.prefix)}"
    base = prefix.rstrip(".")
    near = [f"{place}.{wanted}" if place else wanted for place in (_parent(base), _parent(_parent(base)), base)]
    near.append(wanted)  # the whole path
    candidates = dict([*below(tensors, near).items()][:1]) if wanted else {}
    if not candidates and wanted:
        ends = ((name, f".{name}".find(f".{wanted}.")) for name in tensors)
        candidates = below(tensors, sorted({name[: end + len(wanted)] for name, end in ends if end >= 0}))
    if not candidates:
        raise SettingError(f"{given}, which begins no name beside the backbone; names there are like {some(tensors)}")
    if len(candidates) > 1:
        raise SettingError(f"{given}, which fits {some(candidates)}; give the whole of one")
    ((path, own),) = candidates.items()
    try:
        stack = read_stack(path, own)
        projector = build_projector(stack, dim, _choose_activation(stack, tensors, prefix, hints))
    except NotAProjector as reason:
        words = how_to_rename(path, own, dim)
        raise SettingError(f"{given}, which is not understood as a projector: {reason}{words}") from None
    _refuse_unused(projector, hints)
    return projector


def _parent(path: str) -> str:
    return path.rpartition(".")[0]
