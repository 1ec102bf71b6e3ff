"""Other people's checkpoints: the backbone found by its tensors' names, wherever they are, and the projector.

A file is a tree of dicts; its tensors get the names of their path in it, such as `model.module.backbone.conv1.weight`.
The prefix before the backbone's own names is whatever makes most of them match, so that no list of libraries has to be
kept; the tests hold one synthetic file for each layout that is known.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dyncollapse.bridge.encoders import build_backbone, representation_dim
from dyncollapse.bridge.projectors import SubVector
from dyncollapse.bridge.tensors import flatten
from dyncollapse.files import printable

GUESSES = ("resnet50", "resnet18", "resnet34", "resnet101", "resnet152")
PARTS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
# A backbone cut out of a ResNet as a list of children numbers them: with activation and pooling between, or without.
CHILDREN: tuple[dict[str, str], ...] = (
    {},
    dict(zip(PARTS, "014567", strict=True)),
    dict(zip(PARTS, "012345", strict=True)),
)
# The copy that training keeps for its own use, and the order in which a teacher goes before its student.
SECOND = ("encoder_k", "momentum", "target", "ema", "student")
PROJECTORS = ("projector", "projection_head.layers", "projection_head", "head", "neck", "heads.0.clf", "fc")
COUNT = "num_batches_tracked"  # says nothing, and old files have none


@dataclass(frozen=True, eq=False)
class Found:
    """A backbone with its weights, the projector where it was understood, and what was matched."""

    arch: str
    stem: str
    channels: int
    backbone: nn.Module
    projector: nn.Module | None
    matched: str


def find_backbone(
    content: Any,
    shown: str,
    arch: str | None = None,
    stem: str | None = None,
    renames: Mapping[str, str] | None = None,
    d0: int | None = None,
) -> Found:
    """The backbone in a file's content, and the projector.

    `arch` and `stem` are found out where they are not given; `renames` replaces beginnings of names first; `d0` makes
    the projector DirectCLR's, which no file holds. Raises ValueError where not all of the backbone's tensors are there.
    """
    tensors = _renamed(dict(flatten(content)), renames or {})
    if not tensors:
        raise ValueError(f"{shown} holds no tensors, so no encoder")
    place = _best_place(tensors, [arch] if arch else GUESSES, stem)
    if place is None:
        some = ", ".join(map(printable, list(tensors)[:3]))
        raise ValueError(
            f"{shown} has 0 of {arch or 'any ResNet'}'s tensors under any prefix; its names are like {some}; "
            "give --arch, or --prefix-map OLD=NEW"
        )
    own = {name: tensors[place.prefix + _numbered(name, place.numbers)] for name in place.there}
    first = own.get("conv1.weight")
    channels = int(first.shape[1]) if first is not None and first.ndim == 4 else 3
    stem = stem or _stem(first, place.prefix, tensors)
    backbone = build_backbone(place.arch, stem, channels)
    matched = _fill(backbone, own, f"{place.arch}, stem {stem}, prefix {printable(place.prefix) or 'none'}", shown)
    dim = representation_dim(backbone)
    if d0 is not None:
        if not 1 <= d0 <= dim:
            raise ValueError(
                f"--d0 is {d0}, but {place.arch} gives representations of {dim} dimensions; give 1 to {dim}"
            )
        return Found(place.arch, stem, channels, backbone, SubVector(d0), f"{matched}; projector: the first {d0}")
    name, projector = _projector(tensors, place.prefix, dim)
    told = f"projector {printable(name)}" if projector is not None else "no projector that is understood"
    return Found(place.arch, stem, channels, backbone, projector, f"{matched}; {told}")


@dataclass(frozen=True)
class _Place:
    """Where in a file a backbone may be: behind a prefix, its parts by name or number, and which tensors are there."""

    arch: str
    prefix: str
    numbers: Mapping[str, str]
    there: Sequence[str]
    missing: int

    @property
    def rank(self) -> tuple[int, int]:
        """The fewer are missing the better; of copies, the one that is meant for use."""
        return self.missing, sum(word in self.prefix for word in SECOND)


def _best_place(tensors: Mapping[str, Tensor], archs: Sequence[str], stem: str | None) -> _Place | None:
    places = []
    for arch in archs:
        names = _names(arch, stem)
        parts = {name.split(".")[0] for name in names}
        for numbers in CHILDREN if set(PARTS) <= parts else CHILDREN[:1]:
            for prefix in _prefixes(tensors, names, numbers):
                there = [name for name in names if prefix + _numbered(name, numbers) in tensors]
                places.append(_Place(arch, prefix, numbers, there, len(names) - len(there)))
    return min(places, key=lambda place: place.rank, default=None)


def _fill(backbone: nn.Module, own: Mapping[str, Tensor], where: str, shown: str) -> str:
    """Load the tensors, and say how many; ValueError unless they are all there and fit."""
    expected = {name: t for name, t in backbone.state_dict().items() if not name.endswith(COUNT)}
    fitting = {name: t for name, t in own.items() if name in expected and t.shape == expected[name].shape}
    matched = f"{len(fitting)} of {len(expected)} tensors matched ({where})"
    if len(fitting) < len(expected):
        name = next(name for name in expected if name not in fitting)
        there = own.get(name)
        has = "is missing" if there is None else f"has shape {tuple(there.shape)}, not {tuple(expected[name].shape)}"
        raise ValueError(f"{shown}: {matched}; {name} {has}; give --arch, --stem or --prefix-map OLD=NEW that fit all")
    backbone.load_state_dict(fitting, strict=False)
    return matched


def _renamed(tensors: dict[str, Tensor], renames: Mapping[str, str]) -> dict[str, Tensor]:
    """Names with the beginning that a rename asks for replaced, at whatever depth of the file it begins."""
    found = {}
    for name, tensor in tensors.items():
        for old, new in renames.items():
            place = f".{name}".find(f".{old}")
            if place >= 0:
                name = new + name[place + len(old) :]
                break
        found[name] = tensor
    if renames and found.keys() == tensors.keys():
        some = ", ".join(map(printable, list(tensors)[:3]))
        raise ValueError(f"--prefix-map {', '.join(renames)} begins no name in the file; its names are like {some}")
    return found


def _names(arch: str, stem: str | None) -> list[str]:
    """Names of the backbone's tensors, made without memory for them."""
    with torch.device("meta"):
        return [n for n in build_backbone(arch, stem or "imagenet", 3).state_dict() if not n.endswith(COUNT)]


def _numbered(name: str, numbers: Mapping[str, str]) -> str:
    part, dot, rest = name.partition(".")
    return numbers.get(part, part) + dot + rest


def _prefixes(tensors: Mapping[str, Tensor], names: Sequence[str], numbers: Mapping[str, str]) -> list[str]:
    """What stands before names that end as the backbone's first, middle and last ones do."""
    anchors = {_numbered(names[k], numbers) for k in (0, len(names) // 2, -1)}
    found = (
        name.removesuffix(anchor)
        for name in tensors
        for anchor in anchors
        if name == anchor or name.endswith(f".{anchor}")
    )
    return list(dict.fromkeys(found))


def _stem(first: Tensor | None, prefix: str, tensors: Mapping[str, Tensor]) -> str:
    """The first layers by the first filter; solo-learn's pads by 2, which only the rest of its layout tells."""
    if first is None or first.ndim != 4 or first.shape[-1] != 3:
        return "imagenet"
    parent = prefix.removesuffix("backbone.").removesuffix("encoder.")
    return "cifar-padding-2" if f"{parent}classifier.weight" in tensors else "cifar"


def _projector(tensors: Mapping[str, Tensor], prefix: str, dim: int) -> tuple[str, nn.Module | None]:
    """The projector beside the backbone, or in the place of its classifier, as layers in a row."""
    parent = prefix.rstrip(".").rpartition(".")[0]
    grand = parent.rpartition(".")[0]
    places = [f"{p}.{name}." if p else f"{name}." for name in PROJECTORS for p in (parent, grand, prefix.rstrip("."))]
    for place in dict.fromkeys(places):
        own = {name[len(place) :]: t for name, t in tensors.items() if name.startswith(place)}
        layers = _layers(own, dim)
        if layers is not None:
            return place.rstrip("."), layers
    return "", None


def _layers(own: Mapping[str, Tensor], dim: int) -> nn.Module | None:
    """Linear layers, norms and, where a number is left out, ReLUs; None for anything else."""
    numbered: dict[int, dict[str, Tensor]] = {}
    for name, tensor in own.items():
        if name.endswith(COUNT):
            continue
        # fc0, bn0, fc1, ... (MMSelfSup) are the numbers 0, 1, 3, ... of a row with ReLUs; weight alone is one layer.
        found = re.fullmatch(r"(?:(fc|bn)?(\d+)\.)?(weight|bias|running_mean|running_var)", name)
        if found is None:
            return None
        kind, number, part = found[1], int(found[2] or 0), found[3]
        place = number if kind is None else 3 * number + (kind == "bn")
        numbered.setdefault(place, {})[part] = tensor
    if not numbered:
        return None
    layers: list[nn.Module] = []
    for place in range(max(numbered) + 1):
        parts = numbered.get(place)
        if parts is None:
            layers.append(nn.ReLU())
        elif "running_mean" in parts:
            layers.append(nn.BatchNorm1d(len(parts["running_mean"]), affine="weight" in parts))
        elif "weight" in parts and parts["weight"].ndim == 2 and parts["weight"].shape[1] == dim:
            dim = len(parts["weight"])
            layers.append(nn.Linear(parts["weight"].shape[1], dim, bias="bias" in parts))
        else:
            return None
        if parts is not None:
            missing = layers[-1].load_state_dict(parts, strict=False).missing_keys
            if set(missing) - {COUNT}:
                return None
    return nn.Sequential(*layers)
