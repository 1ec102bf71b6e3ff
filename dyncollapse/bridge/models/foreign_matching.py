"""Build a backbone from the tensors of a file: its first layers, image size and weights, and what was assumed."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dyncollapse.bridge.data.augmentations import COLOURS
from dyncollapse.bridge.models.backbones import (
    BATCH_COUNT,
    FIRST_WIDTH,
    SMALL,
    STEM_PADDING,
    Undrawn,
    backbone_shapes,
    build_backbone,
    check_size,
    has_fixed_size,
    usual_size,
)
from dyncollapse.bridge.models.foreign_names import UNUSED, Place, left_over, starts
from dyncollapse.runtime.files import printable, unmarked
from dyncollapse.runtime.settings import SettingError

WIDEST = 5  # times the usual channels: SwAV's and VICReg's widest ResNet-50


@dataclass(frozen=True, eq=False)
class MatchedBackbone:
    """A backbone with its weights.

    Attributes:
        arch: The model.
        stem: First layers, one of `recipe.STEMS`.
        channels: Channels of the images.
        image_size: Side of the images, in pixels.
        backbone: The network.
        matched: How many tensors were matched, as a sentence.
        assumptions: Sentences on what the file does not say and was assumed.
    """

    arch: str
    stem: str
    channels: int
    image_size: int
    backbone: nn.Module
    matched: str
    assumptions: Sequence[str]


def match_backbone(
    tensors: Mapping[str, Tensor], places: Sequence[Place], stem: str | None, image_size: int | None, shown: str
) -> MatchedBackbone:
    """Build the backbone at the best of the places and load its weights.

    Args:
        tensors: All tensors of the file, by name.
        places: Where backbones may be, best first.
        stem: First layers; None to detect them.
        image_size: Side of the images, in pixels; None for the checkpoint's own.
        shown: The file's name, for messages.

    Returns:
        The backbone.

    Raises:
        SettingError: If tensors of the backbone are missing, left over or of another shape.
        ValueError: If weights are not finite, or if the images have an unknown number of channels.
    """
    place = places[0]
    first = tensors.get(place.names.get("conv1.weight", ""))
    channels, arch = _channels(place, tensors, shown), _widened(place.arch, first)
    chosen = stem or _stem(place, first, tensors)
    _refuse_unpooled(place, first, shown)
    own_side = _own_side(place, tensors)
    side = image_size or own_side or usual_size(arch, chosen)
    check_size(arch, chosen, channels, side)
    with Undrawn():
        backbone = build_backbone(arch, chosen, channels, side)
    where = f"{arch}, stem {chosen}, prefix {unmarked(place.prefix) or 'none'}"
    matched, changes = _load_weights(backbone, place, tensors, where, shown)
    assumptions = _assumptions_on_names(places)
    if stem is None and chosen != "imagenet":  # cifar-stride-2 has the filters of cifar, and has to be named
        assumptions.append(
            "The first filters are 3 x 3, so no pooling is assumed after them, stride 1 and padding "
            f"{STEM_PADDING[chosen]}{', as in solo-learn' if '2' in chosen else ''}; `stem` names other first layers."
        )
    if image_size is None:
        why = "the size of its position embeddings" if own_side else "as is usual for this model"
        assumptions.append(f"Images have {side} x {side} pixels, {why}; `image_size` names another size.")
    return MatchedBackbone(arch, chosen, channels, side, backbone, matched, [*assumptions, *changes])


def refuse_nan(named: Iterable[tuple[str, Tensor]], shown: str) -> None:
    """Check that weights are finite. Raises ValueError with the name of the first tensor that is not."""
    for name, tensor in named:
        if not tensor.is_floating_point():
            continue
        numbers = tensor.float() if tensor.element_size() == 1 else tensor  # isfinite takes no 8-bit floats
        if math.isfinite(numbers.sum().item()):  # one pass; a sum that is too large to be finite says nothing
            continue
        if not bool(torch.isfinite(numbers).all()):
            kind = "NaN" if bool(torch.isnan(numbers).any()) else "infinity"
            raise ValueError(f"{shown}: {printable(name)} holds {kind}; take an earlier checkpoint")


def _channels(place: Place, tensors: Mapping[str, Tensor], shown: str) -> int:
    """Channels of the images, from the first filters. Raises ValueError for other than 1 or 3."""
    first = next((name for name, shape in backbone_shapes(place.arch, "imagenet").items() if len(shape) == 4), "")
    filters = tensors.get(place.names.get(first, ""))
    channels = 3 if filters is None or filters.ndim != 4 else int(filters.shape[1])
    if channels not in COLOURS:
        known = " or ".join(map(str, sorted(COLOURS)))
        raise ValueError(f"{shown}: the first filters take {channels} channels; images have {known} here")
    return channels


def _widened(arch: str, first: Tensor | None) -> str:
    """The name of the model with the width of its first filters, such as resnet50x2."""
    widened, rest = divmod(0 if first is None or first.ndim != 4 else len(first), FIRST_WIDTH)
    known = arch.removeprefix("resnet").isdigit() and arch not in SMALL
    return f"{arch}x{widened}" if known and not rest and 1 < widened <= WIDEST else arch


def _stem(place: Place, first: Tensor | None, tensors: Mapping[str, Tensor]) -> str:
    """Detect the first layers from the first filters; solo-learn's padding of 2 shows in the rest of its layout."""
    usual = backbone_shapes(place.arch, "imagenet").get("conv1.weight")
    if first is None or first.ndim != 4 or first.shape[-1] != 3 or usual is None or usual[-1] == 3:
        return "imagenet"
    parent = place.prefix.removesuffix("backbone.").removesuffix("encoder.")
    return "cifar-padding-2" if f"{parent}classifier.weight" in tensors else "cifar"


def _refuse_unpooled(place: Place, first: Tensor | None, shown: str) -> None:
    """Refuse a ResNet with large first filters and no max-pooling behind them: no stem here has this form."""
    unpooled = place.names.get("layer1.0.conv1.weight") == f"{place.prefix}3.0.conv1.weight"
    if unpooled and first is not None and first.shape[-1] != 3:
        kernel = " x ".join(map(str, first.shape[2:]))
        raise ValueError(
            f"{shown} has first filters of {kernel} without the max-pooling behind them, which is not read"
        )


def _own_side(place: Place, tensors: Mapping[str, Tensor]) -> int | None:
    """Side of the images that the position embeddings are for, in pixels; None for models without these."""
    if not has_fixed_size(place.arch):
        return None
    table, patches = (tensors.get(f"{place.prefix}{name}") for name in ("pos_embed", "patch_embed.proj.weight"))
    if table is None or table.ndim != 3 or patches is None or patches.ndim != 4:
        return None
    for tokens in (1, 0, 2, 5):  # tokens before the patches: class token, none, two, class token and four registers
        grid = math.isqrt(max(table.shape[1] - tokens, 0))
        if grid and grid * grid == table.shape[1] - tokens:
            return grid * int(patches.shape[-1])
    return None


def _assumptions_on_names(places: Sequence[Place]) -> list[str]:
    """Sentences on what was assumed about the backbone's names."""
    place, assumptions = places[0], []
    copies = complete_copies(places)
    if len(copies) > 1:
        assumptions.append(
            f"Of {len(copies)} copies of the backbone, that under {unmarked(place.prefix) or 'no prefix'} is taken; "
            f"`renames` {unmarked(_beginning_alone(copies))}={UNUSED} leaves it out, and then that under "
            f"{unmarked(copies[1].prefix) or 'no prefix'} is taken."
        )
    if place.by_order:
        assumptions.append("The backbone's tensors have other names, and are matched by their order and shapes.")
    return assumptions


def complete_copies(places: Sequence[Place]) -> list[Place]:
    """The places that hold all tensors of the model that is taken and nothing else, best first."""
    best = places[0]
    whole = (place for place in places if place.rank[0] == 0 and place.arch == best.arch)
    copies: dict[str, Place] = {}
    for place in whole if best.rank[0] == 0 else ():
        copies.setdefault(next(iter(place.names.values())), place)
    return [*copies.values()]


def _beginning_alone(copies: Sequence[Place]) -> str:
    """The shortest beginning of the first copy's names that begins no name of another copy."""
    first, others = copies[0], copies[1:]
    name = next(iter(first.names.values()))
    beginnings = [name[:start] for start in starts(name)[1:]]
    taken = [other for copy in others for other in copy.names.values()]
    return next((one for one in beginnings if not any(other.startswith(one) for other in taken)), name)


def _load_weights(
    backbone: nn.Module, place: Place, tensors: Mapping[str, Tensor], where: str, shown: str
) -> tuple[str, list[str]]:
    """Load the tensors; return how many were matched, as a sentence, and sentences on what timm changed.

    Raises SettingError if tensors are missing, left over or of another shape.
    """
    wanted = {name: tensor.shape for name, tensor in backbone.state_dict().items() if not name.endswith(BATCH_COUNT)}
    own = {name: tensors[other] for name, other in place.names.items()}
    extra, changes = list(place.extra), []
    if {name: tensor.shape for name, tensor in own.items()} != wanted or extra:
        below = {name[len(place.prefix) :]: t for name, t in tensors.items() if name.startswith(place.prefix)}
        converted = convert_by_timm(place.arch, below, backbone)
        if converted is not None and {name: converted[name].shape for name in wanted if name in converted} == wanted:
            changes = _changes_by_timm(own, {name: converted[name] for name in wanted})
            extra = left_over((name for name in converted if name not in wanted), wanted)
            own = converted
    weights = {name: own[name] for name in wanted if name in own and own[name].shape == wanted[name]}
    matched = f"{len(weights)} of {len(wanted)} tensors matched ({where})"
    if len(weights) < len(wanted):
        name = next(name for name in wanted if name not in weights)
        there = own.get(name)
        has = "is missing" if there is None else f"has shape {tuple(there.shape)}, not {tuple(wanted[name])}"
        raise SettingError(f"{shown}: {matched}; {name} {has}; give `arch`, `stem` or `renames` OLD=NEW that fit all")
    if extra:
        raise SettingError(
            f"{shown}: {matched}, but it has {len(extra)} more, such as {unmarked(extra[0])}, and so is another "
            "model; give its `arch`"
        )
    refuse_nan(((place.names.get(name, name), tensor) for name, tensor in weights.items()), shown)
    backbone.load_state_dict(weights, strict=False)
    return matched, changes


def convert_by_timm(arch: str, tensors: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor] | None:
    """Convert tensors by timm's reader for a model, which knows older names and resamples position embeddings.

    Args:
        arch: The model.
        tensors: Tensors by name, as a file has them.
        backbone: The network that will take them.

    Returns:
        The tensors by the network's names; None if timm has no reader for this model, or if it fails.
    """
    import timm

    if not timm.is_model(arch):
        return None
    module = sys.modules[timm.models.model_entrypoint(arch).__module__]
    convert: Callable[[dict[str, Tensor], nn.Module], object] | None = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return None
    try:
        converted = convert(tensors, backbone)
    except Exception:  # on files of another kind it may fail in any way; the mismatch is then reported
        return None
    if not isinstance(converted, Mapping):
        return None
    return {name: tensor for name, tensor in converted.items() if isinstance(tensor, Tensor)}


def _changes_by_timm(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    changed = [name for name, tensor in after.items() if name in before and before[name].shape != tensor.shape]
    sentences = [
        f"timm resampled {name} from {tuple(before[name].shape)} to {tuple(after[name].shape)}." for name in changed
    ]
    if after.keys() - before.keys():
        sentences.append("The backbone's tensors have older names, which timm's reader of this model translated.")
    return sentences
