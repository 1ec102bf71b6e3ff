"""The network of a published model, with the weights of its file, each compared by name and shape."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dyncollapse.bridge.models.backbones import BATCH_COUNT, Undrawn, check_patches, short_reason
from dyncollapse.bridge.models.foreign_matching import convert_by_timm, refuse_nan
from dyncollapse.bridge.models.published_config import CONFIG, ModelConfig, most_layers
from dyncollapse.runtime.files import printable, unmarked
from dyncollapse.runtime.settings import SettingError
from dyncollapse.simulation.footprint import check_room

OUTGROWN = 4  # times as many numbers as the file holds: a network of other sizes


def build_published(
    config: ModelConfig, side: int, tensors: Mapping[str, Tensor], shown: str
) -> tuple[nn.Module, int, list[str]]:
    """Build a model without its classifier and load its weights.

    Shapes are compared before weights are allocated, because a description can ask for any sizes.

    Args:
        config: The model.
        side: Side of the images, in pixels.
        tensors: All tensors of the file, by name.
        shown: What messages call the model.

    Returns:
        The network, the dimension of its representation, and sentences on what timm changed in the weights.

    Raises:
        SettingError: If timm cannot build the model, or if tensors are missing, left over or of another shape.
        ValueError: If weights are not finite.
    """
    if most_layers(config.arguments) > len(tensors):
        raise SettingError(f"{shown}: {CONFIG} asks for more layers than its weights have tensors")
    with torch.device("meta"):
        expected = _created(config, side, config.classes, shown)
        headless = _created(config, side, 0, shown)
    stored = [*headless.parameters(), *headless.buffers()]  # also tables that no file holds
    check_room(
        sum(one.numel() * one.itemsize for one in stored), "cpu", f"the network of {shown}", "name a smaller one"
    )
    width = _width(headless, config, side, shown)
    if side != config.image_size:
        check_patches(headless, shown, side)
    wanted = _shapes(headless)
    classifier = _shapes(expected).keys() - wanted.keys()
    own: Mapping[str, Tensor] = {name: tensor for name, tensor in tensors.items() if not name.endswith(BATCH_COUNT)}
    needed, there = (sum(map(torch.Size.numel, shapes)) for shapes in (wanted.values(), map(_shape, own.values())))
    sentences: list[str] = []
    if not _fits(own, wanted, classifier) and needed <= OUTGROWN * there:
        own, sentences = _translated(own, wanted, config, _created(config, side, 0, shown))
    _refuse_others(own, wanted, classifier, config, shown)
    refuse_nan(((name, own[name]) for name in wanted), shown)
    backbone = _created(config, side, 0, shown)
    backbone.load_state_dict({name: own[name] for name in wanted}, strict=False)  # all but BatchNorm's counters
    return backbone, width, sentences


def _translated(
    own: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], config: ModelConfig, backbone: nn.Module
) -> tuple[Mapping[str, Tensor], list[str]]:
    """Tensors by the network's names and shapes, as far as timm can translate them; sentences on what it changed."""
    converted = convert_by_timm(config.architecture, dict(own), backbone)
    if converted is None or not all(name in converted for name in wanted):
        return own, []
    sentences = [
        f"timm resampled {printable(name)} from {tuple(own[name].shape)} to {tuple(converted[name].shape)}."
        for name in wanted
        if name in own and own[name].shape != converted[name].shape
    ]
    return {name: tensor for name, tensor in converted.items() if not name.endswith(BATCH_COUNT)}, sentences


def _created(config: ModelConfig, side: int, classes: int, shown: str) -> nn.Module:
    """Create the model by timm with weights that are not set yet. Raises SettingError if it cannot be built so."""
    import timm

    name, channels = config.architecture, config.channels
    arguments: dict[str, Any] = dict(config.arguments)
    if config.fixed_size:
        arguments["img_size"] = side
    if config.listed:
        name = f"{name}.{config.tag}" if config.tag else name
    else:
        size = {"input_size": (channels, side, side), "fixed_input_size": config.fixed_size}
        arguments["pretrained_cfg"] = {"architecture": name, "classifier": None, **size}
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), Undrawn():
            warnings.simplefilter("ignore")  # names that timm has renamed, and torch's own
            model: nn.Module = timm.create_model(
                name, pretrained=False, num_classes=classes, in_chans=channels, **arguments
            )
    except Exception as error:  # a description of other sizes can fail in any way
        raise SettingError(
            f"{shown}: timm cannot build {config.architecture} for images of {side} pixels as {CONFIG} says "
            f"({short_reason(error)})"
        ) from None
    return model


def _width(headless: nn.Module, config: ModelConfig, side: int, shown: str) -> int:
    """Dimensions of the representation, from shapes alone. Raises SettingError unless it is a vector per image."""
    images = torch.zeros(1, config.channels, side, side, device="meta")
    try:
        with torch.no_grad():
            outputs = headless.eval()(images)
    except NotImplementedError:  # an operation that cannot run on shapes alone: only real images can tell
        return int(headless.num_features)  # type: ignore[arg-type]
    except Exception as error:
        raise SettingError(
            f"`image_size` is {side}, which {shown} cannot take ({short_reason(error)}); it was published for "
            f"{config.image_size}"
        ) from None
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise SettingError(
            f"{shown} gives {shape} for one image, not a vector: it is published without pooling; embed the images "
            "yourself and diagnose their tokens"
        )
    return int(outputs.shape[1])


def _shape(tensor: Tensor) -> torch.Size:
    return tensor.shape


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: one.shape for name, one in model.state_dict().items() if not name.endswith(BATCH_COUNT)}


def _fits(own: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], classifier: set[str]) -> bool:
    return own.keys() - classifier == wanted.keys() and all(own[name].shape == wanted[name] for name in wanted)


def _refuse_others(
    own: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], classifier: set[str], config: ModelConfig, shown: str
) -> None:
    """Raise SettingError if tensors are missing, left over, or of another shape."""
    missing = [name for name in wanted if name not in own]
    other = [name for name in wanted if name in own and own[name].shape != wanted[name]]
    extra = sorted(own.keys() - wanted.keys() - classifier)
    count = len(wanted) - len(missing) - len(other)
    where = f"{shown}: {count} of {len(wanted)} tensors matched ({config.architecture})"
    if missing:
        raise SettingError(f"{where}; {missing[0]} is missing, so its weights are not those that {CONFIG} describes")
    if other:
        has, needs = tuple(own[other[0]].shape), tuple(wanted[other[0]])
        raise SettingError(f"{where}; {other[0]} has shape {has}, and {CONFIG} describes {needs}")
    if extra:
        raise SettingError(
            f"{where}, but it has {len(extra)} more, such as {unmarked(extra[0])}, and so is another model"
        )
