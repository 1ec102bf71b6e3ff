"""Name the linear layers of a file that may be its projector and were not taken, and say which options take them."""

from collections import Counter
from collections.abc import Collection, Mapping
from itertools import islice

from torch import Tensor

from dyncollapse.bridge.models.backbones import BATCH_COUNT
from dyncollapse.bridge.models.foreign_layers import (
    INNER_NAMES,
    PARAMETERS,
    ActivationChoice,
    ForeignProjector,
    LayerStack,
    NotAProjector,
    build_projector,
    read_stack,
)
from dyncollapse.bridge.models.foreign_names import below, starts
from dyncollapse.runtime.files import unmarked

MOST_TRIED = 32  # first layers that are tried: far more than a file has heads
MOST_LISTED = 8  # stacks that get a sentence of their own
MOST_TENSORS = 256  # below a path whose layers are read: far more than a projector has
MOST_LETTERS = 2000  # of the options that a message gives
MOST_RENAMED = 12  # layers that a message renames: more than projectors have


def describe(stack: LayerStack, projector: ForeignProjector, dim: int) -> str:
    """A sentence on layers that may be a projector and were not used, with the option that takes them."""
    path = unmarked(stack.path)
    what = f"{path} ({projector.layers}) is left out"
    if stack.lone:
        what = f"{path}, one linear layer from {dim} to {stack.width} dimensions, is left out: it may be a classifier"
    return f"{what}; if it is the projector, give `projector_prefix` {path}."


def how_to_rename(path: str, own: Mapping[str, Tensor], dim: int, *, listed: bool = True) -> str:
    """Say which inner names are understood, and how layers of other names are given such names.

    Args:
        path: The path of the layers.
        own: The tensors below it, by the rest of their names.
        dim: Dimension of the representation.
        listed: Whether to list the inner names that are understood.

    Returns:
        Words that follow the reason why the layers are not understood; empty if other names would not help.
    """
    numbered = _numbered(own)
    if numbered is None or _build(path, numbered[1], dim) is None:
        return ""
    renames = " ".join(
        f"`renames` {unmarked(f'{path}.{old}')}.={unmarked(path)}.{number}." for old, number in numbered[0].items()
    )
    if len(renames) > MOST_LETTERS:
        renames = "`renames` OLD=NEW for each layer"
    names = f"; inner names that are understood: {INNER_NAMES}" if listed else ""
    return f"{names}. If it is the projector, give {renames}"


def describe_left_over(
    tensors: Mapping[str, Tensor], dim: int, known: Collection[str], elsewhere: Collection[str], taken: str | None
) -> list[str]:
    """Name the stacks of linear layers under unknown names that take the representation.

    Args:
        tensors: All tensors beside the backbone, by name.
        dim: Dimension of the representation.
        known: Paths that are projectors by their names, which have sentences already.
        elsewhere: Names of the tensors of all copies of the backbone.
        taken: The path of the projector that was taken; None if there is none.

    Returns:
        Sentences. With a projector taken, one that names all others.
    """
    inside = _paths_to_descend(tensors, elsewhere)
    copies = set(elsewhere)
    seen = {*known, *([taken] if taken else [])}
    found: dict[str, str] = {}
    firsts = (name for name, tensor in tensors.items() if _takes(name, tensor, dim) and name not in copies)
    for name in islice((one for one in firsts if not seen.intersection(_paths(one))), MOST_TRIED):
        paths = [path for path in _paths(name) if path not in inside]
        if not paths or seen.intersection(paths):
            continue
        loose = _loose(tensors, paths[0], inside, dim)
        own = {one: tensor for one, tensor in tensors.items() if one.startswith(f"{paths[0]}.")}
        path, sentence = loose or _first_understood(below(own, paths), dim, listed=not found)
        seen |= set(_beside(tensors, path, inside)) if loose else {path}
        found[path] = sentence
    if not found or taken is None:
        rest = ", ".join(map(unmarked, [*found][MOST_LISTED:]))
        return [*found.values()][:MOST_LISTED] + ([f"Left out, too: {rest}."] if rest else [])
    others = ", ".join(map(unmarked, found))
    return [f"Other linear layers that take {dim} values are left out: {others}; `projector_prefix` names one of them."]


def _takes(name: str, tensor: Tensor, dim: int) -> bool:
    """Whether a tensor is the matrix of a layer that takes `dim` values."""
    return name.endswith(".weight") and tensor.ndim == 2 and tensor.shape[1] == dim


def _paths(name: str) -> list[str]:
    """The paths that a tensor is below, from the outermost."""
    return [name[: start - 1] for start in starts(name)[1:]]


def _paths_to_descend(tensors: Mapping[str, Tensor], elsewhere: Collection[str]) -> set[str]:
    """Paths above more than one projector: a copy of the backbone, convolutions, other kinds of tensors, or many."""
    known = {*PARAMETERS, BATCH_COUNT}
    others = (name for name, t in tensors.items() if t.ndim > 2 or name.rpartition(".")[2] not in known)
    counts = Counter(path for name in tensors for path in _paths(name))
    large = {path for path, count in counts.items() if count > MOST_TENSORS}
    return large.union(path for names in (others, elsewhere) for name in names for path in _paths(name))


def _first_understood(groups: Mapping[str, Mapping[str, Tensor]], dim: int, *, listed: bool) -> tuple[str, str]:
    """The outermost path whose layers are a projector, as they are or renamed, and a sentence; else the outermost."""
    failed: list[tuple[str, str]] = []
    for path, own in groups.items():
        try:
            stack = read_stack(path, own)
            return path, describe(stack, build_projector(stack, dim, ActivationChoice()), dim)
        except NotAProjector as reason:
            sentence = f"{unmarked(path)} is not understood as a projector: {reason}"
        words = how_to_rename(path, own, dim, listed=listed)
        if words:
            return path, f"{sentence}{words} `projector_prefix` {unmarked(path)}."
        failed.append((path, f"{sentence}."))
    return failed[0]


def _beside(tensors: Mapping[str, Tensor], path: str, inside: Collection[str]) -> dict[str, dict[str, Tensor]]:
    """Layers with a number for a name beside a layer, and the layer itself, by their paths."""
    parent = path[: len(path) - len(path.rpartition(".")[2])]
    paths: dict[str, None] = {}
    for name in tensors:
        part = name[len(parent) :].partition(".")[0] if name.startswith(parent) else ""
        if part.isdecimal() and parent + part not in inside:
            paths[parent + part] = None
            if len(paths) > MOST_RENAMED:
                return {}
    return below({name: tensor for name, tensor in tensors.items() if name.startswith(parent)}, paths)


def _loose(tensors: Mapping[str, Tensor], path: str, inside: Collection[str], dim: int) -> tuple[str, str] | None:
    """The first of several numbered layers that stand beside the backbone without a path of their own, and a sentence.

    So a sequence of a backbone and the layers of its projector saves them.
    """
    if not path.rpartition(".")[2].isdecimal():
        return None
    layers = _beside(tensors, path, inside)
    parent = path[: len(path) - len(path.rpartition(".")[2])]
    numbers = {one: one.removeprefix(parent) for one in layers}
    own = {f"{numbers[one]}.{rest}": tensor for one, layer in layers.items() for rest, tensor in layer.items()}
    projector = _build(path, own, dim)
    if len(layers) < 2 or projector is None:
        return None
    renames = " ".join(f"`renames` {unmarked(one)}.={unmarked(parent)}projector.{numbers[one]}." for one in layers)
    listed = ", ".join(map(unmarked, layers))
    return path, f"{listed} ({projector.layers}) are left out; if they are the projector, give {renames}"


def _numbered(own: Mapping[str, Tensor]) -> tuple[dict[str, int], dict[str, Tensor]] | None:
    """Number layers in the order of the file, with room for an activation before each matrix but the first.

    Args:
        own: Tensors by their names below the layers' path.

    Returns:
        Numbers by the layers' names, and the tensors by their new names; None for what no numbers help.
    """
    numbers: dict[str, int] = {}
    tensors: dict[str, Tensor] = {}
    last = -1
    for name, tensor in own.items():
        layer, _, part = name.rpartition(".")
        if not layer or part not in {*PARAMETERS, BATCH_COUNT} or len(numbers) > MOST_RENAMED:
            return None
        if layer not in numbers:
            last += 1 + (tensor.ndim == 2 and bool(numbers))
            numbers[layer] = last
        tensors[f"{numbers[layer]}.{part}"] = tensor
    return numbers, tensors


def _build(path: str, own: Mapping[str, Tensor], dim: int) -> ForeignProjector | None:
    try:
        return build_projector(read_stack(path, own), dim, ActivationChoice())
    except NotAProjector:
        return None
