"""Find where a backbone is among a file's tensors: words of wrappers, prefixes, and other names of its layers."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, takewhile
from operator import add

from torch import Tensor

from dyncollapse.bridge.models.backbones import BATCH_COUNT, backbone_shapes
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.settings import SettingError

# Words that torch.compile, DistributedDataParallel, activation checkpointing, FSDP, Lightning and Opacus add to names.
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
# A ResNet as a list of its children numbers them: all of them, without the max-pooling, or without activations too.
CHILDREN: tuple[dict[str, str], ...] = (
    {},
    dict(zip(PARTS, "014567", strict=True)),
    dict(zip(PARTS, "013456", strict=True)),
    dict(zip(PARTS, "012345", strict=True)),
)
# The residual branch's projection: torchvision and timm name it downsample; lightly and SupContrast shortcut.
SHORTCUTS = ("downsample", "shortcut")
# Words of the copies that only training uses; a prefix without them is preferred, so a teacher to its student.
SECOND = ("encoder_k", "momentum", "target", "ema", "student", "anchor")
# Constants that older versions of timm saved; they follow from the image size.
CONSTANTS = ("relative_position_index", "attn_mask", "relative_coords_table")
UNUSED = "unused"  # what a caller renames tensors to in order to leave them out
MOST_PREFIXES = 32  # tried for each model: far more than the copies in a training checkpoint
MOST_PARTS = 32  # parts of a name, at either end: far more than networks nest


@dataclass(frozen=True)
class Place:
    """Where in a file a backbone may be, and how well it matches there.

    Attributes:
        arch: The model.
        prefix: The beginning of its tensors' names in the file.
        names: The names in the file, by the model's own names, of all tensors that were found.
        missing: Number of the model's tensors that the file lacks.
        extra: Names below the prefix that look like those of a larger model.
        by_order: Whether tensors were matched by order and shape, because their names are unknown.
    """

    arch: str
    prefix: str
    names: Mapping[str, str]
    missing: int
    extra: Sequence[str]
    by_order: bool = False

    @property
    def rank(self) -> tuple[int, int]:
        """Sort key: tensors that are missing or left over, then words of copies that only training uses."""
        return self.missing + len(self.extra), sum(word in self.prefix for word in SECOND)


def without_wrappers(name: str) -> str:
    """Remove the words that wrappers add from a name."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def unwrapped(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors by their names without wrappers' words; of two with the same short name the second keeps its long one."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in named:
        short = without_wrappers(name)
        tensors[name if not short or short in tensors else short] = tensor
    return tensors


def renamed(tensors: dict[str, Tensor], renames: Mapping[str, str]) -> dict[str, Tensor]:
    """Replace beginnings of tensor names, or leave tensors out.

    A beginning is looked for at the start of the names. Only if it begins no name, it is looked for after every dot,
    and the first place in each name counts. What stands before it stays.

    Args:
        tensors: Tensors by name, without wrappers.
        renames: Beginnings of names and their replacements; the first that fits is used. The replacement UNUSED leaves
            the tensors out. If a beginning ends with a dot, its replacement needs none.

    Returns:
        The tensors by their new names.

    Raises:
        SettingError: If a beginning is in no name, if no name changes, or if two tensors would get one name.

    Examples:
        >>> import torch
        >>> tensors = {"net.ema.fc.weight": torch.ones(1), "net.fc.weight": torch.zeros(1)}
        >>> list(renamed(tensors, {"fc.": "head."}))
        ['net.ema.head.weight', 'net.head.weight']
        >>> list(renamed(tensors, {"net.ema": "unused"}))
        ['net.fc.weight']
    """
    rules = _rules(tensors, renames)
    result: dict[str, Tensor] = {}
    before: dict[str, str] = {}
    used = set()
    for name, tensor in tensors.items():
        rule = next((rule for rule in rules if rule.place(name) >= 0), None)
        used.add(rule)
        if rule is not None and rule.new.rstrip(".") == UNUSED:
            continue
        new = name if rule is None else rule.apply(name)
        if new in before:
            raise SettingError(
                f"`renames` would give {unmarked(before[new])} and {unmarked(name)} one name, {unmarked(new)}; "
                f"give another NEW, or leave one of them out by OLD={UNUSED}"
            )
        before[new], result[new] = name, tensor
    for rule in rules:
        if rule not in used:
            _refuse_idle(rule, tensors)
    if tensors and not result:
        raise SettingError(f"`renames` {unmarked(', '.join(renames))} leaves out all tensors; give a longer beginning")
    if rules and list(result) == list(tensors):
        raise SettingError(f"`renames` {unmarked(', '.join(renames))} changes no name; give another NEW")
    return result


@dataclass(frozen=True)
class _Rule:
    """A beginning of names and its replacement.

    Attributes:
        given: The beginning as the caller gave it.
        old: The beginning without wrappers.
        new: Its replacement.
        first: Whether it begins whole names, and so is looked for nowhere else.
    """

    given: str
    old: str
    new: str
    first: bool

    def place(self, name: str) -> int:
        """Where the beginning is in a name; -1 if it is not there."""
        if self.first:
            return 0 if name.startswith(self.old) else -1
        return f".{name}".find(f".{self.old}")

    def apply(self, name: str) -> str:
        """The new name, with one dot between parts."""
        place = self.place(name)
        new, rest = self.new, name[place + len(self.old) :]
        if new and not new.endswith(".") and (self.old.endswith(".") or not self.old):
            new = f"{new}."
        return name[:place] + new + (rest.removeprefix(".") if not new or new.endswith(".") else rest)


def _rules(tensors: Iterable[str], renames: Mapping[str, str]) -> list[_Rule]:
    """Prepare the renames. Raises SettingError for two of one beginning."""
    names, rules = list(tensors), {}
    for given, new in renames.items():
        old = without_wrappers(given)
        if not old and not new:  # a wrapper's word, which is removed anyway
            continue
        if old in rules:
            raise SettingError(f"`renames` {unmarked(given)} is given twice; give each beginning once")
        rules[old] = _Rule(given, old, new, any(name.startswith(old) for name in names))
    return list(rules.values())


def _refuse_idle(rule: _Rule, tensors: Mapping[str, Tensor]) -> None:
    given = f"`renames` {unmarked(rule.given)}"
    if any(rule.place(name) >= 0 for name in tensors):
        raise SettingError(f"{given} begins only names that an earlier one replaces; give it first, or leave it out")
    raise SettingError(f"{given} begins no name in the file; its names are like {some(tensors)}")


def some(names: Iterable[str]) -> str:
    """The first three names, for messages."""
    return ", ".join(unmarked(name) for name, _ in zip(names, range(3), strict=False))


def find_places(tensors: Mapping[str, Tensor], archs: Sequence[str], stem: str | None) -> list[Place]:
    """Find where backbones of these models may be in a file.

    Args:
        tensors: Tensors by name, without wrappers' words.
        archs: Models to look for.
        stem: First layers; None for the model's own.

    Returns:
        Places, best first.
    """
    variants = [(arch, theirs) for arch in archs for theirs in _variants(tensors, arch, stem)]
    anchors = {anchor for _, theirs in variants for anchor in _anchors(theirs)}
    before: dict[str, list[str]] = {anchor: [] for anchor in anchors}
    for name in tensors:
        for start in starts(name):
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
    """Group tensors by the paths they are below.

    Args:
        tensors: Tensors by name.
        paths: Paths to look below.

    Returns:
        By path, the tensors below it by the rest of their names; paths with none are left out.
    """
    wanted = dict.fromkeys(paths)
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        for start in starts(name)[1:]:
            if name[: start - 1] in wanted:
                grouped.setdefault(name[: start - 1], {})[name[start:]] = tensor
    return {path: grouped[path] for path in wanted if path in grouped}


def starts(name: str) -> list[int]:
    """Positions where the parts of a name begin; of a long name the first and last MOST_PARTS."""
    parts = name.split(".")
    found = list(map(add, accumulate(map(len, parts[:-1]), initial=0), count()))  # a dot before each but the first
    return found if len(found) <= 2 * MOST_PARTS else found[:MOST_PARTS] + found[-MOST_PARTS:]


def _variants(tensors: Mapping[str, Tensor], arch: str, stem: str | None) -> list[dict[str, str]]:
    """The names that a model's tensors may have in a file, by the model's own names."""
    names = list(backbone_shapes(arch, stem or "imagenet"))
    numberings = CHILDREN if set(PARTS) <= {name.split(".")[0] for name in names} else CHILDREN[:1]
    shortcuts = SHORTCUTS if any(".shortcut." in name for name in tensors) else SHORTCUTS[:1]
    return [{name: _theirs(name, n, shortcut) for name in names} for n in numberings for shortcut in shortcuts]


def _anchors(theirs: Mapping[str, str]) -> set[str]:
    """Names of the first, middle and last tensor; whatever precedes them in a file is a prefix to try."""
    others = list(theirs.values())
    return {others[k] for k in (0, len(others) // 2, -1)}


def _place(tensors: Mapping[str, Tensor], arch: str, prefix: str, theirs: Mapping[str, str]) -> Place:
    names = {name: prefix + other for name, other in theirs.items() if prefix + other in tensors}
    missing, extra = len(theirs) - len(names), []
    if missing < len(names):  # a worse match is not used, whatever is left over
        known = set(theirs.values())
        rest = [name[len(prefix) :] for name in tensors if name.startswith(prefix)]
        extra = left_over((name for name in rest if name not in known), theirs.values())
    return Place(arch, prefix, names, missing, extra)


def left_over(names: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Names that belong to a model's parts and that it does not have: signs of a larger model.

    Args:
        names: Names in a file that the model does not have.
        wanted: The model's own names.

    Returns:
        The names in the model's parts, without classifiers and constants.
    """
    parts = {name.split(".")[0] for name in wanted} - {"fc", "head"}  # where classifiers are
    constants = (BATCH_COUNT, *CONSTANTS)
    return [name for name in names if name.split(".")[0] in parts and name.rpartition(".")[2] not in constants]


def _theirs(name: str, numbers: Mapping[str, str], shortcut: str) -> str:
    part, dot, rest = name.partition(".")
    return (numbers.get(part, part) + dot + rest).replace(".downsample.", f".{shortcut}.")


def in_order(tensors: Mapping[str, Tensor], archs: Sequence[str], stem: str | None) -> list[Place]:
    """Find ResNets under unknown names by the order, kinds and shapes of their tensors.

    All tensors have to be there, and each name has to end as the model's does (weight, running_mean, ...). timm's
    `remap_state_dict` reads such files, too, but compares only the numbers of values.

    Args:
        tensors: Tensors by name, in the order of the file.
        archs: Models to try.
        stem: First layers; None for the model's own.

    Returns:
        The places that match.
    """
    names = [name for name in tensors if not name.endswith(BATCH_COUNT)]
    shapes, kinds = [tensors[name].shape for name in names], [name.rpartition(".")[2] for name in names]
    places = []
    for arch in archs:
        wanted = backbone_shapes(arch, stem or "imagenet")
        if not set(PARTS) <= {name.split(".")[0] for name in wanted}:
            continue  # of a network of equal blocks, a part of a deeper one would match
        ends, sizes, length = [name.rpartition(".")[2] for name in wanted], list(wanted.values()), len(wanted)
        for start in range(len(names) - length + 1):
            end = start + length
            first, after = shapes[start], shapes[end] if end < len(names) else ()
            # The first convolution may have another stem's kernel size and other channels.
            if len(first) != 4 or first[0] != sizes[0][0] or kinds[start:end] != ends:
                continue
            # A convolution behind the last tensor means a deeper model, unless it begins another copy.
            if shapes[start + 1 : end] == sizes[1:] and (len(after) != 4 or after == first):
                chosen = names[start:end]
                columns = zip(*(name.split(".") for name in chosen), strict=False)
                prefix = ".".join(column[0] for column in takewhile(lambda column: len({*column}) == 1, columns))
                pairs = dict(zip(wanted, chosen, strict=True))
                places.append(Place(arch, f"{prefix}." if prefix else "", pairs, 0, (), by_order=True))
    return places
