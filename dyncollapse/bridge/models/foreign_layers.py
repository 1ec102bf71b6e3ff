"""Projectors of other libraries: stacks of layers, built from the names and shapes of their tensors.

A state dict holds neither activations nor what follows the last layer. What stands between two layers is taken from the
source of the library that uses these names, or assumed; either way a sentence in `assumptions` says so.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from dyncollapse.bridge.models.backbones import BATCH_COUNT
from dyncollapse.bridge.models.projectors import UnitNorm
from dyncollapse.runtime.files import unmarked

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
# Numbers left out between layers: an activation, perhaps with dropout. Wider gaps mean that this is no projector.
WIDEST_GAP = 3
DEEPEST = 4  # stacks inside stacks
PARAMETERS = {"weight", "bias", "running_mean", "running_var"}
# fc0, bn0, fc1, ... are a stack in this order, with room for an activation before the next fc.
NUMBERED = re.compile(r"(?=.)(?P<word>[a-z]+)?_?(?P<number>\d{1,4})?")
LINEAR_WORDS, NORM_WORDS = ("fc", "linear", "lin", "layer", "l", "dense"), ("bn", "norm", "ln", "batchnorm")
PASSED = ("clf",)  # VISSL's heads follow each other as 0.clf.0, 1.clf.0
LAST_LAYER = "last_layer"  # DINO's prototypes, behind a normalisation


class NotAProjector(ValueError):
    """Tensors that are no stack of linear layers and norms; the message says why."""


@dataclass(frozen=True)
class Layer:
    """The tensors of one layer, its name in the file, and its place in the stack."""

    name: str
    place: tuple[int, ...]
    tensors: Mapping[str, Tensor]

    @property
    def is_linear(self) -> bool:
        """Whether it has a matrix."""
        return "weight" in self.tensors and self.tensors["weight"].ndim == 2


@dataclass(frozen=True)
class LayerStack:
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
class ForeignProjector:
    """A projector, its layers in words, and what was assumed about it.

    `has_activations` says whether there is room for activations between its layers.
    """

    path: str
    module: nn.Module
    layers: str
    assumptions: Sequence[str]
    has_activations: bool


@dataclass(frozen=True)
class ActivationChoice:
    """What stands between the layers of a stack, where that is known from, and what follows the last layer."""

    activation: str = "relu"
    given: bool = False  # by the caller
    source: str | None = None
    last: str | None = None


def read_stack(path: str, own: Mapping[str, Tensor]) -> LayerStack:
    """The layers below a path, by the rest of their names. Raises NotAProjector, with the reason."""
    dino = any(name.startswith(LAST_LAYER) for name in own)
    rest = {n: t for n, t in own.items() if not n.endswith(BATCH_COUNT) and not n.startswith(LAST_LAYER)}
    while len(firsts := {name.partition(".")[0] for name in rest}) == 1:
        (first,) = firsts
        if first in PARAMETERS or any(character.isdigit() for character in first):
            break
        path, rest = f"{path}.{first}", {name.partition(".")[2]: tensor for name, tensor in rest.items()}
    if not rest:
        raise NotAProjector("it has no layers")
    if rest.keys() <= PARAMETERS:
        return LayerStack(path, [Layer("", (0,), rest)], dino)
    layers: dict[str, Layer] = {}
    for name, tensor in rest.items():
        layer, _, part = name.rpartition(".")
        if part not in PARAMETERS or not layer:
            raise NotAProjector(f"it has {unmarked(name)}")
        known = layers.get(layer)
        layers[layer] = Layer(layer, _place(layer), {**(known.tensors if known else {}), part: tensor})
    ordered = sorted(layers.values(), key=lambda layer: layer.place)
    if len({layer.place for layer in ordered}) < len(ordered):
        raise NotAProjector("two of its layers have one number")
    return LayerStack(path, ordered, dino)


def _place(name: str) -> tuple[int, ...]:
    """Where a layer stands: its numbers, from the outermost stack inwards."""
    parts = [part for part in name.split(".") if part not in PASSED]
    place = []
    for part in parts:
        match = NUMBERED.fullmatch(part)
        if match is None or not 1 <= len(parts) <= DEEPEST or match["word"] not in (None, *LINEAR_WORDS, *NORM_WORDS):
            raise NotAProjector(f"it has {unmarked(name)}")
        number = int(match["number"] or 0)
        place.append(number if match["word"] is None else 3 * number + (match["word"] in NORM_WORDS))
    if not place:
        raise NotAProjector(f"it has {unmarked(name)}")
    return tuple(place)


def build_projector(stack: LayerStack, dim: int, choice: ActivationChoice) -> ForeignProjector:
    """The projector with a stack's layers.

    Args:
        stack: Layers in order.
        dim: Dimension of the representations that it takes.
        choice: What stands between the layers and what follows the last.

    Returns:
        The projector with its weights.

    Raises:
        NotAProjector: Where layers do not fit together, or not to `dim`.
    """
    modules: list[nn.Module] = []
    gaps = []
    before: Layer | None = None
    for layer in stack.layers:
        if before is not None and _has_activation(stack, before, layer, choice.given):
            modules.append(ACTIVATIONS[choice.activation]())
            gaps.append(f"{unmarked(before.name)} and {unmarked(layer.name)}")
        modules.append(_module(layer, dim))
        dim = modules[-1].out_features if isinstance(modules[-1], nn.Linear) else dim
        before = layer
    if choice.last:
        modules.append(LAST[choice.last]())
    assumptions = _assumptions(stack, modules, gaps, choice)
    return ForeignProjector(stack.path, nn.Sequential(*modules), _in_words(modules), assumptions, bool(gaps))


def _has_activation(stack: LayerStack, before: Layer, layer: Layer, given: bool) -> bool:
    """Whether an activation stands between two layers.

    It does where a number is left out. Where no number is, it does only if the caller named an activation.
    """
    gap = _gap(before, layer)
    if gap > WIDEST_GAP:
        raise NotAProjector(f"its layers {before.name} and {layer.name} are {gap + 1} numbers apart")
    full = not any(_gap(one, other) for one, other in pairwise(stack.layers))
    return gap > 0 or (given and full and layer.is_linear)


def _gap(before: Layer, layer: Layer) -> int:
    """Numbers left out between two layers; the last layer of an inner stack may be one number before a matrix."""
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
    """One layer with its tensors. Raises NotAProjector for one that does not take `dim` values."""
    tensors = dict(layer.tensors)
    weight = tensors.get("weight")
    where = f"its layer {unmarked(layer.name)}" if layer.name else "it"
    module: nn.Module
    if "running_mean" in tensors:
        module = nn.BatchNorm1d(dim, affine="weight" in tensors)
    elif layer.is_linear:
        assert weight is not None
        if weight.shape[1] != dim:
            raise NotAProjector(f"{where} takes {weight.shape[1]} values where there are {dim}")
        module = nn.Linear(dim, len(weight), bias="bias" in tensors)
    elif weight is not None and weight.ndim == 1 and "bias" in tensors:
        module = nn.LayerNorm(dim)
    elif weight is not None and weight.ndim == 1:
        module = nn.PReLU(len(weight))
    else:
        raise NotAProjector(f"{where} is neither linear nor a norm")
    shapes = {name: value.shape for name, value in module.state_dict().items() if not name.endswith(BATCH_COUNT)}
    if shapes != {name: value.shape for name, value in tensors.items()}:
        raise NotAProjector(f"the shapes of {where} do not fit together")
    module.load_state_dict(tensors, strict=False)
    return module


def _assumptions(
    stack: LayerStack, modules: Sequence[nn.Module], gaps: Sequence[str], choice: ActivationChoice
) -> list[str]:
    """What was taken for granted about a projector, in sentences."""
    sentences = []
    path, first = unmarked(stack.path), stack.layers[0]
    if gaps:
        why = "; a state dict does not hold activations, and `projector_activation` names another."
        if choice.source:
            why = f", as in {choice.source}{why}"
        if choice.given:
            why = ", as `projector_activation` says."
        sentences.append(f"{path} has {choice.activation} between its layers {', '.join(gaps)}{why}")
    elif sum(layer.is_linear for layer in stack.layers) > 1:
        sentences.append(
            f"{path} has nothing between its linear layers, because their numbers leave no room; an activation is put "
            "there by `projector_activation`."
        )
    if any(first.place) and not any(map(str.isalpha, first.name)):
        sentences.append(f"{path} begins with {first.name}: what stands before it is taken to change nothing.")
    if any(isinstance(module, nn.LayerNorm) for module in modules):
        sentences.append(f"The norms of {path} that hold no running mean are taken for LayerNorm.")
    if any(isinstance(module, nn.BatchNorm1d | nn.LayerNorm) for module in modules):
        sentences.append(f"The norms of {path} add 1e-5 to the variance, as torch's do unless told otherwise.")
    if choice.last:
        sentences.append(f"{choice.last} follows the last layer of {path}, as `projector_last` says.")
    elif stack.dino:
        sentences.append(
            f"The embedding is what enters {path}'s last layer: DINO divides it by its length there (`projector_last` "
            f"{NORMALISE}), and the last layer's outputs are scores of prototypes."
        )
    else:
        sentences.append(
            f"Nothing follows the last layer of {path}; `projector_last` names an activation, or {NORMALISE}."
        )
    return sentences
