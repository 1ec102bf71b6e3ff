"""Backbones without classifier: timm's models, small and widened ResNets, and the image size that each takes."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dyncollapse.runtime.files import printable
from dyncollapse.runtime.settings import SettingError

# Models that timm lacks, as arguments of its ResNet-18: a narrow one for digits, and one with one block per stage
# (lightly's ResNet-9).
SMALL: dict[str, dict[str, tuple[int, ...]]] = {
    "resnet10-narrow": {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)},
    "resnet10": {"layers": (1, 1, 1, 1)},
}
# ResNet-10 with half the widths, whose representation may be wider than its half of 512 (resnet10-half-1024).
HALF = re.compile(r"resnet10-half(?:-([1-9]\d{0,4}))?")
HALF_STAGES = (32, 64, 128, 256)
# ResNets with every width multiplied, including the first layer's (SwAV, VICReg). torchvision's wide ResNets widen only
# the middle of each block.
WIDENED = re.compile(r"(resnet\d+)x([2-5])")
STAGES, FIRST_WIDTH = (64, 128, 256, 512), 64
# Padding and stride of the 3x3 convolutions that replace a ResNet's first layers.
STEM_PADDING = {"cifar": 1, "cifar-padding-2": 2, "cifar-stride-2": 1}
STEM_STRIDE = {"cifar": 1, "cifar-padding-2": 1, "cifar-stride-2": 2}
BATCH_COUNT = "num_batches_tracked"  # a counter of BatchNorm, missing in old files
NEAR = 8  # models that a message lists
MOST_LETTERS = 120  # letters of a library's message that ours repeats
# What fills tensors with random numbers; those of `nn.init` call a mode before they call the others.
DRAWS: frozenset[object] = frozenset(
    {Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.trunc_normal_}
    | {nn.init.kaiming_normal_, nn.init.kaiming_uniform_, nn.init.xavier_normal_, nn.init.xavier_uniform_}
)


class Undrawn(TorchFunctionMode):
    """Leave random weights undrawn while a model is built whose weights are read from a file, or not needed."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call what does not draw."""
        given = dict(kwargs or {})
        if func in DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


class Unnormed(TorchFunctionMode):
    """Skip BatchNorm while a network runs on shapes alone: it changes no shape, and takes most of the time."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call what is not BatchNorm."""
        return args[0] if func is nn.functional.batch_norm else func(*args, **(kwargs or {}))


def build_backbone(arch: str, stem: str, channels: int, image_size: int | None = None) -> nn.Module:
    """Build a backbone without classifier and with random weights.

    Args:
        arch: A timm model, resnet10-narrow, resnet10, resnet10-half, resnet10-half-N with N outputs, or a ResNet
            widened throughout, such as resnet50x2.
        stem: First layers: "imagenet" for the model's own, "cifar" for a 3x3 convolution without pooling,
            "cifar-padding-2" for the same with solo-learn's padding, "cifar-stride-2" for the same with stride 2.
        channels: Channels of the images.
        image_size: Side of the images, in pixels. Only models of a fixed size, such as vision transformers, use it.

    Returns:
        The backbone. It maps images (n, channels, side, side) to representations (n, R).

    Raises:
        SettingError: If timm does not know the model, if the backbone has no first convolution to replace, or if it
            cannot be built for this size.

    Examples:
        >>> representation_dim(build_backbone("resnet10-narrow", "cifar", channels=1))
        128
    """
    widened = WIDENED.fullmatch(arch)
    if widened:
        backbone = _widened(widened[1], int(widened[2]), channels)
    else:
        backbone = _create(arch, channels, image_size if has_fixed_size(arch) else None)
    if stem != "imagenet":
        conv = getattr(backbone, "conv1", None)
        if not isinstance(conv, nn.Conv2d):
            raise SettingError(
                f"`stem` {stem} replaces a ResNet's conv1 and maxpool, which {arch} does not have; use imagenet"
            )
        conv1 = nn.Conv2d(channels, conv.out_channels, 3, STEM_STRIDE[stem], STEM_PADDING[stem], bias=False)
        nn.init.kaiming_normal_(conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm's ResNet
        backbone.conv1, backbone.maxpool = conv1, nn.Identity()
    return backbone


def _create(
    arch: str, channels: int, image_size: int | None = None, stages: tuple[int, ...] | None = None
) -> nn.Module:
    """Create a model by timm, with an image size if it needs one, or with other widths of a ResNet's stages."""
    import timm

    name, settings = ("resnet18", _small(arch)) if _small(arch) else (arch, {})
    if not timm.is_model(name):
        near = timm.list_models(f"*{name}*")[:NEAR] or timm.list_models("resnet*")[:NEAR]
        raise SettingError(
            f"`arch` is {arch!r}, which timm does not have; its models are like {', '.join(near)}; "
            f"also known are {', '.join(SMALL)}, resnet10-half and resnet10-half-N with N outputs"
        )
    arguments: dict[str, Any] = dict(settings)  # models differ in their arguments
    if image_size is not None:
        arguments["img_size"] = image_size
    if stages is not None:
        arguments["channels"] = stages
    try:
        backbone: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels, **arguments)
    except (AssertionError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        if image_size is None:
            raise
        raise SettingError(
            f"`image_size` is {image_size}, for which timm cannot build {arch} ({short_reason(error)}); its usual "
            f"size is {usual_size(arch, 'imagenet')}"
        ) from None
    return backbone


def _small(arch: str) -> dict[str, tuple[int, ...]]:
    """Arguments of timm's ResNet-18 that make it one of the small models; none for another name."""
    half = HALF.fullmatch(arch)
    if half is None:
        return SMALL.get(arch, {})
    return {"layers": (1, 1, 1, 1), "channels": (*HALF_STAGES[:3], int(half[1] or HALF_STAGES[3]))}


def _widened(arch: str, factor: int, channels: int) -> nn.Module:
    """Build a ResNet with `factor` times the channels in every layer."""
    width = FIRST_WIDTH * factor
    backbone = _create(arch, channels, stages=tuple(factor * stage for stage in STAGES))
    block = backbone.get_submodule("layer1.0")
    inner = block.get_submodule("conv1")
    assert isinstance(inner, nn.Conv2d)
    first = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
    kernel = inner.kernel_size[0]
    second = nn.Conv2d(width, inner.out_channels, kernel, padding=kernel // 2, bias=False)
    backbone.conv1, backbone.bn1, block.conv1 = first, nn.BatchNorm2d(width), second
    if not hasattr(block, "conv3"):
        block.register_module("downsample", None)  # a basic block with equal widths needs no projection
    else:
        shortcut = block.get_submodule("downsample")
        projection = shortcut.get_submodule("0")
        assert isinstance(shortcut, nn.Sequential)
        assert isinstance(projection, nn.Conv2d)
        shortcut[0] = nn.Conv2d(width, projection.out_channels, 1, bias=False)
    for conv in (first, second):
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return backbone


@cache
def backbone_shapes(arch: str, stem: str) -> Mapping[str, torch.Size]:
    """Names and shapes of a backbone's tensors for images of 3 channels, found without allocating the weights."""
    with torch.device("meta"), Undrawn():
        state = build_backbone(arch, stem, 3).state_dict()
    return {name: tensor.shape for name, tensor in state.items() if not name.endswith(BATCH_COUNT)}


def has_fixed_size(arch: str) -> bool:
    """Whether a model is built for one image size, like a vision transformer with position embeddings."""
    import timm

    settings = timm.get_pretrained_cfg(arch) if timm.is_model(arch) else None
    return settings is not None and bool(settings.fixed_input_size)


def usual_size(arch: str, stem: str) -> int:
    """The usual side of a model's images, in pixels: 32 for the CIFAR stems, else timm's, else 224."""
    import timm

    if stem != "imagenet":
        return 32
    settings = timm.get_pretrained_cfg(arch) if has_fixed_size(arch) else None
    return 224 if settings is None else int(settings.input_size[-1])


@cache
def check_size(arch: str, stem: str, channels: int, image_size: int) -> None:
    """Check that a model takes images of a size, from shapes alone.

    Args:
        arch: As for `build_backbone`.
        stem: As for `build_backbone`.
        channels: Channels of the images.
        image_size: Side of the images, in pixels.

    Raises:
        SettingError: If it does not. One line, with the model's usual size.
    """
    try:
        with torch.device("meta"), torch.no_grad():
            with Undrawn():
                backbone = build_backbone(arch, stem, channels, image_size).eval()
            with Unnormed():
                backbone(torch.zeros(1, channels, image_size, image_size))
    except NotImplementedError:  # an operation that cannot run on shapes alone: only real images can tell
        return
    except (AssertionError, RuntimeError, IndexError, ZeroDivisionError, TypeError) as error:
        raise SettingError(
            f"`image_size` is {image_size}, which {arch} cannot take ({short_reason(error)}); "
            f"its usual size is {usual_size(arch, stem)}"
        ) from None
    if has_fixed_size(arch):
        check_patches(backbone, arch, image_size)


def check_patches(backbone: nn.Module, shown: str, image_size: int) -> None:
    """Check that a vision transformer's patches fill images of a size. Raises SettingError, with a model's name."""
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and image_size % patch[0]:
        raise SettingError(
            f"`image_size` is {image_size}, but {shown} cuts images into patches of {patch[0]} pixels; give a multiple"
        )


def short_reason(error: Exception) -> str:
    """The first line of a library's message, without backticks, which mark settings."""
    lines = str(error).strip().splitlines()
    return printable(lines[0][:MOST_LETTERS]).replace("`", "'") if lines else type(error).__name__


def representation_dim(backbone: nn.Module) -> int:
    """The dimension R of a backbone's output."""
    # Some backbones, such as MobileNetV3, have one more layer before the classifier.
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)  # type: ignore[arg-type]
