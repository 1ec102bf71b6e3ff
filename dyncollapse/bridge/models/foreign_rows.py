"""Projectors of others: rows of layers, built from the names and shapes of their tensors.

A state dict holds neither activations nor what follows a row. What stands between two layers is taken from the source
of the library whose names these are, or assumed; either way it is said in a sentence.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from dyncollapse.bridge.models.foreign_names import COUNT
from dyncollapse.bridge.models.projectors import UnitNorm
from dyncollapse.runtime.files import printable

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "leaky-relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}
NORMALISE = "normalise"
LAST: dict[str, type[nn.Module]] = {NORMALISE: UnitNorm, **ACTIVATIONS}  # what may follow the last layer
# Numbers left out in a row: an activation, perhaps with dropout beside it. More, and the row is something else.
WIDEST_GAP = 3
DEEPEST = 4  # rows of rows of layers
PARAMETERS = {"weight", "bias", "running_mean", "running_var"}
# fc0, bn0, fc1, ... are a row in this order, with room for an activation before the next fc.
NUMBERED = re.compile(r"(?=.)(?P<word>[a-z]+)?_?(?P<number>\d{1,4})?")
LINEAR_WORDS, NORM_WORDS = ("fc", "linear", "lin", "layer", "l", "dense"), ("bn", "norm", "ln", "batchnorm")
PASSED = ("clf",)  # VISSL's heads follow each other as 0.clf.0, 1.clf.0
LAST_LAYER = "last_layer"  # DINO's prototypes, behind a normalisation


class NotARow(ValueError):
    """Tensors that are no row of linear layers and norms; the message says why."""


@dataclass(frozen=True)
class Layer:
    """The tensors of one layer, its name in the file, and its place in the row."""

    name: str
    place: tuple[int, ...]
    tensors: Mapping[str, Tensor]

    @property
    def is_linear(self) -> bool:
        """Whether it has a matrix."""
        return "weight" in self.tensors and self.tensors["weight"].ndim == 2


@dataclass(frozen=True)
class Row:
    """Layers in order, below a path in the file; `dino` where DINO's last layer is beside them."""

    path: str
    layers: Sequence[Layer]
    dino: bool

    @property
    def lone(self) -> bool:
        """Whether it is one linear layer alone."""
        return len(self.layers) == 1 and self.layers[0].is_linear and not self.dino

    @property
    def width(self) -> int:
        """Outputs of its last linear layer; 0 where there is none."""
        return next((len(layer.tensors["weight"]) for layer in reversed(self.layers) if layer.is_linear), 0)


@dataclass(frozen=True, eq=False)
class Head:
    """A projector, its layers in words, and what was assumed of it."""

    path: str
    module: nn.Module
    layers: str
    assumptions: Sequence[str]
    activated: bool  # whether there is room for activations in it


@dataclass(frozen=True)
class Reading:
    """How a row is to be read: what stands between its layers, where that is from, and what follows the last."""

    activation: str = "relu"
    asked: bool = False
    source: str | None = None
    last: str | None = None


def read_row(path: str, own: Mapping[str, Tensor]) -> Row:
    """The layers below a path, by the rest of their names. Raises NotARow, with the reason."""
    dino = any(name.startswith(LAST_LAYER) for name in own)
    rest = {n: t for n, t in own.items() if not n.endswith(COUNT) and not n.startswith(LAST_LAYER)}
    while len(firsts := {name.partition(".")[0] for name in rest}) == 1:
        (first,) = firsts
        if first in PARAMETERS or any(character.isdigit() for character in first):
            break
        path, rest = f"{path}.{first}", {name.partition(".")[2]: tensor for name, tensor in rest.items()}
    if not rest:
        raise NotARow("it has no layers")
    if rest.keys() <= PARAMETERS:
        return Row(path, [Layer("", (0,), rest)], dino)
    layers: dict[str, Layer] = {}
    for name, tensor in rest.items():
        layer, _, part = name.rpartition(".")
        if part not in PARAMETERS or not layer:
            raise NotARow(f"it has {printable(name)}")
        known = layers.get(layer)
        layers[layer] = Layer(layer, _place(layer), {**(known.tensors if known else {}), part: tensor})
    row = sorted(layers.values(), key=lambda layer: layer.place)
    if len({layer.place for layer in row}) < len(row):
        raise NotARow("two of its layers have one number")
    return Row(path, row, dino)


def _place(name: str) -> tuple[int, ...]:
    """Where a layer stands: its numbers, from the outermost row inwards."""
    parts = [part for part in name.split(".") if part not in PASSED]
    place = []
    for part in parts:
        found = NUMBERED.fullmatch(part)
        if found is None or not 1 <= len(parts) <= DEEPEST or found["word"] not in (None, *LINEAR_WORDS, *NORM_WORDS):
            raise NotARow(f"it has {printable(name)}")
        number = int(found["number"] or 0)
        place.append(number if found["word"] is None else 3 * number + (found["word"] in NORM_WORDS))
    if not place:
        raise NotARow(f"it has {printable(name)}")
    return tuple(place)


def build_head(row: Row, dim: int, reading: Reading) -> Head:
    """The projector that a row is, for representations of dimension `dim`. Raises NotARow where it does not fit."""
    modules: list[nn.Module] = []
    gaps = []
    before: Layer | None = None
    for layer in row.layers:
        if before is not None and _room(row, before, layer, reading.asked):
            modules.append(ACTIVATIONS[reading.activation]())
            gaps.append(f"{printable(before.name)} and {printable(layer.name)}")
        modules.append(_module(layer, dim))
        dim = modules[-1].out_features if isinstance(modules[-1], nn.Linear) else dim
        before = layer
    if reading.last:
        modules.append(LAST[reading.last]())
    return Head(
        row.path, nn.Sequential(*modules), _in_words(modules), _assumed(row, modules, gaps, reading), bool(gaps)
    )


def _room(row: Row, before: Layer, layer: Layer, asked: bool) -> bool:
    """Whether an activation stands between two layers: where a number is left out; where none is, only if asked for."""
    gap = _gap(before, layer)
    if gap > WIDEST_GAP:
        raise NotARow(f"its layers {before.name} and {layer.name} are {gap + 1} numbers apart")
    full = not any(_gap(one, other) for one, other in pairwise(row.layers))
    return gap > 0 or (asked and full and layer.is_linear)


def _gap(before: Layer, layer: Layer) -> int:
    """Numbers left out between two layers; where a row within the row ends, its last may be one before a matrix."""
    level = next((k for k, (a, b) in enumerate(zip(before.place, layer.place, strict=False)) if a != b), 0)
    ends = len(before.place) > level + 1 and layer.is_linear
    return layer.place[level] - before.place[level] - 1 + sum(layer.place[level + 1 :]) + ends


def _in_words(modules: Sequence[nn.Module]) -> str:
    """Layers with their sizes, for a message."""
    names = {kind: name for name, kind in LAST.items()}
    return ", ".join(
        f"Linear {module.in_features}-{module.out_features}"
        if isinstance(module, nn.Linear)
        else names.get(type(module), type(module).__name__)
        for module in modules
    )


def _module(layer: Layer, dim: int) -> nn.Module:
    """One layer with its tensors. Raises NotARow for one that does not take `dim` values."""
    tensors = dict(layer.tensors)
    weight = tensors.get("weight")
    where = f"its layer {printable(layer.name)}" if layer.name else "it"
    module: nn.Module
    if "running_mean" in tensors:
        module = nn.BatchNorm1d(dim, affine="weight" in tensors)
    elif layer.is_linear:
        assert weight is not None
        if weight.shape[1] != dim:
            raise NotARow(f"{where} takes {weight.shape[1]} values where there are {dim}")
        module = nn.Linear(dim, len(weight), bias="bias" in tensors)
    elif weight is not None and weight.ndim == 1 and "bias" in tensors:
        module = nn.LayerNorm(dim)
    elif weight is not None and weight.ndim == 1:
        module = nn.PReLU(len(weight))
    else:
        raise NotARow(f"{where} is neither linear nor a norm")
    shapes = {name: value.shape for name, value in module.state_dict().items() if not name.endswith(COUNT)}
    if shapes != {name: value.shape for name, value in tensors.items()}:
        raise NotARow(f"the shapes of {where} do not fit together")
    module.load_state_dict(tensors, strict=False)
    return module


def _assumed(row: Row, modules: Sequence[nn.Module], gaps: Sequence[str], reading: Reading) -> list[str]:
    """What was taken for granted of a projector, in sentences."""
    said = []
    path, first = printable(row.path), row.layers[0]
    if gaps:
        why = "; a state dict does not hold activations, and --projector-activation names another."
        if reading.source:
            why = f", as in {reading.source}{why}"
        if reading.asked:
            why = ", as --projector-activation says."
        said.append(f"{path} has {reading.activation} between its layers {', '.join(gaps)}{why}")
    elif sum(layer.is_linear for layer in row.layers) > 1:
        said.append(
            f"{path} has nothing between its linear layers, because their numbers leave no room; an activation is put "
            "there by --projector-activation."
        )
    if any(first.place) and not any(map(str.isalpha, first.name)):
        said.append(f"{path} begins with {first.name}: what stands before it is taken to change nothing.")
    if any(isinstance(module, nn.LayerNorm) for module in modules):
        said.append(f"The norms of {path} that hold no running mean are taken for LayerNorm.")
    if any(isinstance(module, nn.BatchNorm1d | nn.LayerNorm) for module in modules):
        said.append(f"The norms of {path} add 1e-5 to the variance, as torch's do unless told otherwise.")
    if reading.last:
        said.append(f"{reading.last} follows the last layer of {path}, as --projector-last says.")
    elif row.dino:
        said.append(
            f"The embedding is what enters {path}'s last layer: DINO divides it by its length there (--projector-last "
            f"{NORMALISE}), and the last layer's outputs are scores of prototypes."
        )
    else:
        said.append(f"Nothing follows the last layer of {path}; --projector-last names an activation, or {NORMALISE}.")
    return said
