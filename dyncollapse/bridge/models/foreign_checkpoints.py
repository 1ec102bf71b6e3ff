"""Other people's checkpoints: the backbone found by its tensors' names, wherever they are, and the projector.

A file is a tree of dicts; its tensors get the names of their path in it, such as `model.backbone.conv1.weight`.
The prefix before the backbone's own names is whatever makes most of them match, so that no list of libraries has to be
kept; the tests hold one synthetic file for each layout that is known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from dyncollapse.bridge.models.encoders import representation_dim
from dyncollapse.bridge.models.foreign_heads import Asked, find_head
from dyncollapse.bridge.models.foreign_matching import Matched, match_backbone, refuse_nan
from dyncollapse.bridge.models.foreign_names import find_places, renamed, some, unwrapped
from dyncollapse.bridge.models.foreign_tensors import flatten
from dyncollapse.bridge.models.projectors import SubVector
from dyncollapse.runtime.files import printable

GUESSES = ("resnet50", "resnet18", "resnet34", "resnet101", "resnet152", "resnet10")


@dataclass(frozen=True, eq=False)
class Found:
    """A backbone with its weights, and the projector where it was understood.

    `told` says what was matched, `assumptions` what the file does not say and was taken for granted, `left_out` what
    else might be the projector; all are sentences.
    """

    backbone: Matched
    projector: nn.Module | None
    told: str
    assumptions: Sequence[str]
    left_out: Sequence[str]


def find_backbone(
    content: Any,
    shown: str,
    arch: str | None = None,
    stem: str | None = None,
    renames: Mapping[str, str] | None = None,
    d0: int | None = None,
    image_size: int | None = None,
    asked: Asked | None = None,
) -> Found:
    """The backbone in a file's content, and the projector.

    Args:
        content: What `read_tensors` returns.
        shown: The file's name for messages.
        arch: The timm model; found out among GUESSES where it is not given.
        stem: Its first layers; found out where they are not given.
        renames: Beginnings of names and what replaces them, before anything else.
        d0: Makes the projector DirectCLR's, which no file holds: the first d0 dimensions.
        image_size: Side of the images, in pixels; that of the checkpoint where it is not given.
        asked: What the user says of the projector.

    Raises:
        ValueError: Where not all of the backbone's tensors are there, or more of them, or where one does not fit or is
            not finite; and as `find_head` does.
    """
    tensors = renamed(unwrapped(flatten(content)), renames or {})
    if not tensors:
        raise ValueError(f"{shown} holds no tensors, so no encoder")
    places = find_places(tensors, [arch] if arch else GUESSES, stem)
    if not places:
        raise ValueError(
            f"{shown} has 0 of {arch or 'any ResNet'}'s tensors under any prefix; its names are like {some(tensors)}; "
            f"give --arch{_hint(tensors)}, or --prefix-map OLD=NEW"
        )
    matched = match_backbone(tensors, places, stem, image_size, shown)
    used = set(places[0].names.values())
    beside = {name: tensor for name, tensor in tensors.items() if name not in used}
    return _with_head(matched, beside, places[0].prefix, d0, asked or Asked(), shown)


def _hint(tensors: Mapping[str, Tensor]) -> str:
    """A model to try, where the tensors look like a vision transformer's."""
    patches = [t for name, t in tensors.items() if name.endswith("patch_embed.proj.weight") and t.ndim == 4]
    names = {192: "tiny", 384: "small", 768: "base", 1024: "large"}
    if not patches or len(patches[0]) not in names:
        return ""
    side, dinov2 = patches[0].shape[-1], any(name.endswith("mask_token") for name in tensors)
    return f", such as vit_{names[len(patches[0])]}_patch{side}_{'dinov2' if dinov2 else '224'}"


def _with_head(
    matched: Matched, beside: Mapping[str, Tensor], prefix: str, d0: int | None, asked: Asked, shown: str
) -> Found:
    """The projector behind a backbone: DirectCLR's where d0 is given, else the one that is in the file."""
    dim = representation_dim(matched.backbone)
    if d0 is not None and not 1 <= d0 <= dim:
        raise ValueError(f"--d0 is {d0}, but {matched.arch} gives representations of {dim} dimensions; give 1 to {dim}")
    if d0 is not None and asked != Asked():
        raise ValueError(
            "--d0 makes the embedding a part of the representation; drop it, or the options --projector-..."
        )
    head, left_out = find_head(beside, prefix, dim, asked)
    found = Found(matched, None, f"{matched.told}; no projector that is understood", matched.assumptions, left_out)
    if d0 is not None:
        said = [*found.assumptions, f"The embedding is the first {d0} of the {dim} dimensions of the representation."]
        if head:
            said.append(f"{printable(head.path)} ({head.layers}) is left out, because --d0 is given.")
        told = f"{matched.told}; projector: the first {d0}"
        return replace(found, projector=SubVector(d0), told=told, assumptions=said)
    if head is None:
        return found
    refuse_nan(((name, tensor) for name, tensor in beside.items() if name.startswith(f"{head.path}.")), shown)
    told = f"{matched.told}; projector {printable(head.path)}: {head.layers}"
    return replace(found, projector=head.module, told=told, assumptions=[*found.assumptions, *head.assumptions])
