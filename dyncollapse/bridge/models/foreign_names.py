"""Where in a file's tensors a backbone is: words that wrappers add, prefixes, and other names for the same layers."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from torch import Tensor

from dyncollapse.bridge.models.backbones import BATCH_COUNT, backbone_shapes
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.settings import SettingError

# What torch.compile, DistributedDataParallel, activation checkpointing, FSDP, Lightning and Opacus add to names.
WRAPPERS = frozenset(
    (
        "module",
        "_module",
        "_orig_mod",
        "_checkpoint_wrapped_module",
        "_fsdp_wrapped_module",
        "_forward_module",
    )
)
PARTS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
# A ResNet cut into a list of its children numbers them: all of them, without the max-pooling, or without activations.
CHILDREN: tuple[dict[str, str], ...] = (
    {},
    dict(zip(PARTS, "014567", strict=True)),
    dict(zip(PARTS, "013456", strict=True)),
    dict(zip(PARTS, "012345", strict=True)),
)
# The residual branch's projection: torchvision and timm name it downsample; lightly and SupContrast shortcut.
SHORTCUTS = ("downsample", "shortcut")
# The copy that training keeps for its own use, and the order in which a teacher goes before its student.
SECOND = ("encoder_k", "momentum", "target", "ema", "student", "anchor")
# Constants that older versions of timm saved; they are made from the image's size alone.
CONSTANTS = ("relative_position_index", "attn_mask", "relative_coords_table")
MOST_PREFIXES = 32  # looked at for each model: far more than the copies in any training checkpoint
MOST_PARTS = 32  # of a name, at either end: far more than any network nests


@dataclass(frozen=True)
class Place:
    """Where a backbone may be: its prefix, the name in the file of each of its tensors, and what does not match.

    Attributes:
        arch: The model.
        prefix: What stands before its names.
        names: The name in the file of each tensor that is there, by the model's own name.
        missing: Tensors of the model that the file lacks.
        extra: Names below the prefix that look like a larger model's.
        by_order: Whether names say nothing, and tensors were matched by order and shape.
    """

    arch: str
    prefix: str
    names: Mapping[str, str]
    missing: int
    extra: Sequence[str]
    by_order: bool = False

    @property
    def rank(self) -> tuple[int, int]:
        """The fewer are missing or left over the better; of copies, the one that is meant for use."""
        return self.missing + len(self.extra), sum(word in self.prefix for word in SECOND)


def without_wrappers(name: str) -> str:
    """A name without the words that wrappers add, wherever they stand."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def unwrapped(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors by their names without wrappers; of two that would share a name, the second keeps its own."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in named:
        short = without_wrappers(name)
        tensors[name if not short or short in tensors else short] = tensor
    return tensors


def renamed(tensors: dict[str, Tensor], renames: Mapping[str, str]) -> dict[str, Tensor]:
    """Tensors with the beginnings of their names replaced, at whatever depth of the file these stand.

    Args:
        tensors: Tensors by name, without wrappers.
        renames: Beginnings of names and what replaces them; of several that fit, the first counts.

    Returns:
        The tensors by their new names.

    Raises:
        SettingError: Where no rename changes any name.
    """
    beginnings = {without_wrappers(old): new for old, new in renames.items()}
    beginnings = {old: new for old, new in beginnings.items() if old or new}  # a lone wrapper's word is gone already
    result = {}
    for name, tensor in tensors.items():
        for old, new in beginnings.items():
            place = f".{name}".find(f".{old}")
            if place >= 0:
                name = new + name[place + len(old) :]
                break
        result[name] = tensor
    if beginnings and result.keys() == tensors.keys():
        given = unmarked(", ".join(renames))
        raise SettingError(f"`renames` {given} begins no name in the file; its names are like {some(tensors)}")
    return result


def some(names: Iterable[str]) -> str:
    """A few names, for a message."""
    return ", ".join(unmarked(name) for name, _ in zip(names, range(3), strict=False))


def find_places(tensors: Mapping[str, Tensor], archs: Sequence[str], stem: str | None) -> list[Place]:
    """Where backbones of these models may be, best first."""
    variants = [(arch, theirs) for arch in archs for theirs in _variants(tensors, arch, stem)]
    anchors = {anchor for _, theirs in variants for anchor in _anchors(theirs)}
    before: dict[str, list[str]] = {anchor: [] for anchor in anchors}
    for name in tensors:
        for start in _starts(name):
            if name[start:] in before:
                before[name[start:]].append(name[:start])
    places = []
    for arch, theirs in variants:
        prefixes = Counter(prefix for anchor in _anchors(theirs) for prefix in before[anchor])
        places += [_place(tensors, arch, prefix, theirs) for prefix, _ in prefixes.most_common(MOST_PREFIXES)]
    places.sort(key=lambda place: place.rank)
    if not places or places[0].rank[0]:
        places = in_order(tensors, archs, stem) + places
    return places


def below(tensors: Mapping[str, Tensor], paths: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """Under each of these paths, what is there, by the rest of its name; paths with nothing are left out."""
    wanted = dict.fromkeys(paths)
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        for start in _starts(name)[1:]:
            if name[: start - 1] in wanted:
                grouped.setdefault(name[: start - 1], {})[name[start:]] = tensor
    return {path: grouped[path] for path in wanted if path in grouped}


def _starts(name: str) -> list[int]:
    """Where the parts of a name begin, the first and the last MOST_PARTS of them."""
    starts = [0, *(match.end() for match in re.finditer(r"\.", name))]
    return starts if len(starts) <= 2 * MOST_PARTS else starts[:MOST_PARTS] + starts[-MOST_PARTS:]


def _variants(tensors: Mapping[str, Tensor], arch: str, stem: str | None) -> list[dict[str, str]]:
    """The names that a model's tensors may have in a file, by the model's own."""
    names = list(backbone_shapes(arch, stem or "imagenet"))
    numberings = CHILDREN if set(PARTS) <= {name.split(".")[0] for name in names} else CHILDREN[:1]
    shortcuts = SHORTCUTS if any(".shortcut." in name for name in tensors) else SHORTCUTS[:1]
    return [{name: _theirs(name, n, shortcut) for name in names} for n in numberings for shortcut in shortcuts]


def _anchors(theirs: Mapping[str, str]) -> set[str]:
    """Names of the first, the middle and the last tensor: what stands before them is a prefix to try."""
    others = list(theirs.values())
    return {others[k] for k in (0, len(others) // 2, -1)}


def _place(tensors: Mapping[str, Tensor], arch: str, prefix: str, theirs: Mapping[str, str]) -> Place:
    names = {name: prefix + other for name, other in theirs.items() if prefix + other in tensors}
    missing, extra = len(theirs) - len(names), []
    if missing < len(names):  # with less, what is left over does not matter
        known = set(theirs.values())
        rest = [name[len(prefix) :] for name in tensors if name.startswith(prefix)]
        extra = left_over((name for name in rest if name not in known), theirs.values())
    return Place(arch, prefix, names, missing, extra)


def left_over(names: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Of names that a model has not, those of its parts: they say that the file's model is a larger one."""
    parts = {name.split(".")[0] for name in wanted} - {"fc", "head"}  # where classifiers are
    constants = (BATCH_COUNT, *CONSTANTS)
    return [name for name in names if name.split(".")[0] in parts and name.rpartition(".")[2] not in constants]


def _theirs(name: str, numbers: Mapping[str, str], shortcut: str) -> str:
    part, dot, rest = name.partition(".")
    return (numbers.get(part, part) + dot + rest).replace(".downsample.", f".{shortcut}.")


def in_order(tensors: Mapping[str, Tensor], archs: Sequence[str], stem: str | None) -> list[Place]:
    """ResNets under unknown names, whose tensors follow each other with the kinds and shapes that a model's do.

    Only whole ones count, and each name has to end as the model's does (weight, running_mean, ...). timm's
    `remap_state_dict` reads such files, too, but checks the number of values alone.
    """
    names = [name for name in tensors if not name.endswith(BATCH_COUNT)]
    shapes, kinds = [tensors[name].shape for name in names], [name.rpartition(".")[2] for name in names]
    places = []
    for arch in archs:
        wanted = backbone_shapes(arch, stem or "imagenet")
        if not set(PARTS) <= {name.split(".")[0] for name in wanted}:
            continue  # blocks that all look alike may be fewer than the file has
        ends, sizes, length = [name.rpartition(".")[2] for name in wanted], list(wanted.values()), len(wanted)
        for start in range(len(names) - length + 1):
            end = start + length
            first, after = shapes[start], shapes[end] if end < len(names) else ()
            # The first convolution may be another stem's: its kernel and the images' channels are left open.
            if len(first) != 4 or first[0] != sizes[0][0] or kinds[start:end] != ends:
                continue
            # A further convolution would be a block more than the model has, unless another copy begins with it.
            if shapes[start + 1 : end] == sizes[1:] and (len(after) != 4 or after == first):
                chosen = names[start:end]
                columns = zip(*(name.split(".") for name in chosen), strict=False)
                prefix = ".".join(column[0] for column in takewhile(lambda column: len({*column}) == 1, columns))
                pairs = dict(zip(wanted, chosen, strict=True))
                places.append(Place(arch, f"{prefix}." if prefix else "", pairs, 0, (), by_order=True))
    return places
