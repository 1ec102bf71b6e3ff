"""Build projectors of other libraries, which are stacks of layers, from the names and shapes of their tensors.

A state dict holds neither activations nor what follows the last layer. The activation between two layers is that of the
library that uses these names or, if unknown, ReLU. Either way a sentence in `assumptions` says so.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

from torch import Tensor, nn

from dyncollapse.bridge.models.activations import Activation, Last
from dyncollapse.bridge.models.backbones import BATCH_COUNT
from dyncollapse.bridge.models.projectors import UnitNorm
from dyncollapse.runtime.files import unmarked

ACTIVATIONS: dict[str, type[nn.Module]] = dict(
    zip(
        get_args(Activation),
        (nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.Sigmoid, nn.Identity),
        strict=True,
    )
)
LAST = dict(zip(get_args(Last), (UnitNorm, *ACTIVATIONS.values()), strict=True))  # what may follow the last layer
# Largest gap in the numbers of layers, which an activation, perhaps with dropout, explains.
WIDEST_GAP = 3
DEEPEST = 4  # stacks inside stacks
PARAMETERS = {"weight", "bias", "running_mean", "running_var"}
# fc0, bn0, fc1, ... are a stack in this order, with room for an activation before fc1.
NUMBERED = re.compile(r"(?=.)(?P<word>[a-z]+)?_?(?P<number>\d{1,4})?")
LINEAR_WORDS, NORM_WORDS = ("fc", "linear", "lin", "layer", "l", "dense"), ("bn", "norm", "ln", "batchnorm")
INNER_NAMES = f"numbers, and {', '.join((*LINEAR_WORDS, *NORM_WORDS))} with or without a number (0, fc1, bn1)"
PASSED = ("clf",)  # a part of names without meaning here: VISSL's heads are 0.clf.0, 1.clf.0, ...
LAST_LAYER = "last_layer"  # DINO's prototypes, which follow a normalisation


class NotAProjector(ValueError):
    """Raised for tensors that are no stack of linear layers and norms; the message says why."""


@dataclass(frozen=True)
class Layer:
    """One layer of a stack.

    Attributes:
        name: Its name below the stack's path.
        place: Its place in the stack: its numbers, from the outermost stack inwards.
        tensors: Its tensors, by the last part of their names.
    """

    name: str
    place: tuple[int, ...]
    tensors: Mapping[str, Tensor]

    @property
    def is_linear(self) -> bool:
        """Whether its weight is a matrix."""
        return "weight" in self.tensors and self.tensors["weight"].ndim == 2


@dataclass(frozen=True)
class LayerStack:
    """Layers below a path in a file.

    Attributes:
        path: The path.
        layers: The layers, in order.
        dino: Whether DINO's last layer, which is not part of the stack, follows them in the file.
    """

    path: str
    layers: Sequence[Layer]
    dino: bool

    @property
    def lone(self) -> bool:
        """Whether it is a single linear layer."""
        return len(self.layers) == 1 and self.layers[0].is_linear and not self.dino

    @property
    def width(self) -> int:
        """Outputs of its last linear layer; 0 without one."""
        return next((len(layer.tensors["weight"]) for layer in reversed(self.layers) if layer.is_linear), 0)


@dataclass(frozen=True, eq=False)
class ForeignProjector:
    """A projector of another library.

    Attributes:
        path: Where it is in the file.
        module: The projector with its weights.
        layers: Its layers with their sizes, for messages.
        assumptions: Sentences on what the file does not say and was assumed.
        has_activations: Whether there is room for activations between its layers.
    """

    path: str
    module: nn.Module
    layers: str
    assumptions: Sequence[str]
    has_activations: bool


@dataclass(frozen=True)
class ActivationChoice:
    """The activation between the layers of a stack, and what follows the last layer.

    Attributes:
        activation: Between the layers.
        given: Whether the caller named it.
        source: The library whose source has it; None if unknown.
        last: What follows the last layer; None for nothing.
    """

    activation: str = "relu"
    given: bool = False
    source: str | None = None
    last: str | None = None


def read_stack(path: str, own: Mapping[str, Tensor]) -> LayerStack:
    """Order the layers below a path.

    Args:
        path: A path in the file.
        own: The tensors below it, by the rest of their names.

    Returns:
        The layers in order.

    Raises:
        NotAProjector: If they are no stack of layers, with the reason.
    """
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
    """The place of a layer: its numbers, from the outermost stack inwards."""
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
    """Build the projector of a stack of layers and load its weights.

    Args:
        stack: Layers in order.
        dim: Dimension of the representation.
        choice: The activation between the layers, and what follows the last.

    Returns:
        The projector with its weights.

    Raises:
        NotAProjector: If the layers fit neither each other nor `dim`.
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

    A gap in their numbers says so. Without any gap in the stack, an activation stands before each matrix only if the
    caller named one.
    """
    gap = _gap(before, layer)
    if gap > WIDEST_GAP:
        raise NotAProjector(f"its layers {before.name} and {layer.name} are {gap + 1} numbers apart")
    full = not any(_gap(one, other) for one, other in pairwise(stack.layers))
    return gap > 0 or (given and full and layer.is_linear)


def _gap(before: Layer, layer: Layer) -> int:
    """Numbers left out between two layers; one more if an inner stack ends before a matrix."""
    level = next((k for k, (a, b) in enumerate(zip(before.place, layer.place, strict=False)) if a != b), 0)
    ends = len(before.place) > level + 1 and layer.is_linear
    return layer.place[level] - before.place[level] - 1 + sum(layer.place[level + 1 :]) + ends


def _in_words(modules: Sequence[nn.Module]) -> str:
    """Describe layers with their sizes, for messages."""
    names = {kind: name for name, kind in LAST.items()}
    return ", ".join(
        f"Linear {module.in_features}-{module.out_features}"
        if isinstance(module, nn.Linear)
        else names.get(type(module), type(module).__name__)
        for module in modules
    )


def _module(layer: Layer, dim: int) -> nn.Module:
    """Build one layer with its tensors. Raises NotAProjector if it does not take `dim` values."""
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
    """Sentences on what was assumed about a projector."""
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
        sentences.append(f"{path} begins with {first.name}: what comes before it is assumed to be the identity.")
    if any(isinstance(module, nn.LayerNorm) for module in modules):
        sentences.append(f"The norms of {path} without a running mean are taken for LayerNorm.")
    if any(isinstance(module, nn.BatchNorm1d | nn.LayerNorm) for module in modules):
        sentences.append(f"The norms of {path} add 1e-5 to the variance, torch's default.")
    if choice.last:
        sentences.append(f"{choice.last} follows the last layer of {path}, as `projector_last` says.")
    elif stack.dino:
        sentences.append(
            f"The embedding is what enters {path}'s last layer: DINO divides it by its length there (`projector_last` "
            "normalise), and the last layer's outputs are scores of prototypes."
        )
    else:
        sentences.append(
            f"Nothing follows the last layer of {path}; `projector_last` names an activation, or normalise."
        )
    return sentences
