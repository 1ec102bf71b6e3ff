"""Encoders: a timm backbone, whose output is the representation r, and a projector, whose output is the embedding z."""

import re
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dyncollapse.bridge.models.projectors import build_projector
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.runtime.files import printable

# Backbones that timm has not under a name, as arguments of its ResNet-18: a small one for digits, and one block a stage
# (lightly's ResNet-9).
SMALL: dict[str, dict[str, Any]] = {
    "resnet10-narrow": {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)},
    "resnet10": {"layers": (1, 1, 1, 1)},
}
# ResNets with every width multiplied, the first layer's too (SwAV, VICReg); torchvision's wide ones widen only the
# middle of each block.
WIDENED = re.compile(r"(resnet\d+)x([2-5])")
STAGES, FIRST_WIDTH = (64, 128, 256, 512), 64
STEM_PADDING = {"cifar": 1, "cifar-padding-2": 2}


class Encoder(nn.Module):
    """Images to representations and embeddings."""

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        """Put one behind the other."""
        super().__init__()
        self.backbone, self.projector = backbone, projector

    def forward(self, images: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n m"]]:
        """Return r and z."""
        r = self.backbone(images)
        return r, self.projector(r)


def build_backbone(arch: str, stem: str, channels: int, image_size: int | None = None) -> nn.Module:
    """A timm model without classifier, started at random; its `num_features` is the representation's dimension.

    Args:
        arch: A timm model, or one of SMALL, or a ResNet widened throughout, such as resnet50x2.
        stem: One of `recipe.STEMS`: the model's own first layers, or a 3x3 convolution without pooling.
        channels: Channels of the images.
        image_size: Side of the images, in pixels, for models of a fixed size; those of any size ignore it.

    Raises:
        ValueError: For a model that timm does not know, for a small stem on a backbone that has no conv1, and for a
            size that a model of fixed size cannot be built for.
    """
    widened = WIDENED.fullmatch(arch)
    if widened:
        backbone = _widened(widened[1], int(widened[2]), channels)
    else:
        arguments = {"img_size": image_size} if image_size and has_fixed_size(arch) else {}
        backbone = _create(arch, channels, arguments)
    if stem != "imagenet":
        conv = getattr(backbone, "conv1", None)
        if not isinstance(conv, nn.Conv2d):
            raise ValueError(f"--stem {stem} replaces a ResNet's conv1 and maxpool, which {arch} has not; use imagenet")
        conv1 = nn.Conv2d(channels, conv.out_channels, 3, padding=STEM_PADDING[stem], bias=False)
        nn.init.kaiming_normal_(conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm's ResNet
        backbone.conv1, backbone.maxpool = conv1, nn.Identity()
    return backbone


def _create(arch: str, channels: int, arguments: dict[str, Any]) -> nn.Module:
    import timm

    name, settings = ("resnet18", SMALL[arch]) if arch in SMALL else (arch, {})
    if not timm.is_model(name):
        near = timm.list_models(f"*{name}*")[:8] or timm.list_models("resnet*")[:8]
        raise ValueError(f"--arch is {arch!r}; timm has {', '.join(near)}, ..., and here is {', '.join(SMALL)}")
    try:
        backbone: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=0, in_chans=channels, **settings, **arguments
        )
    except (AssertionError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        if not arguments:
            raise
        raise ValueError(
            f"--image-size is {arguments['img_size']}, for which timm cannot build {arch} ({_short(error)}); its usual "
            f"size is {usual_size(arch, 'imagenet')}"
        ) from None
    return backbone


def _widened(arch: str, factor: int, channels: int) -> nn.Module:
    """A ResNet of `factor` times the channels everywhere."""
    width = FIRST_WIDTH * factor
    backbone: Any = _create(arch, channels, {"channels": tuple(factor * stage for stage in STAGES)})
    first = backbone.layer1[0]
    backbone.conv1 = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
    backbone.bn1 = nn.BatchNorm2d(width)
    inner = first.conv1
    first.conv1 = nn.Conv2d(width, inner.out_channels, inner.kernel_size, padding=inner.padding, bias=False)
    if not hasattr(first, "conv3"):
        first.downsample = None  # a basic block of one width has nothing to project
    else:
        first.downsample[0] = nn.Conv2d(width, first.downsample[0].out_channels, 1, bias=False)
    for conv in (backbone.conv1, first.conv1):
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return cast(nn.Module, backbone)


def has_fixed_size(arch: str) -> bool:
    """Whether a model is built for images of one size, as a vision transformer with a table of positions is."""
    import timm

    settings = timm.get_pretrained_cfg(arch) if timm.is_model(arch) else None
    return settings is not None and bool(settings.fixed_input_size)


def usual_size(arch: str, stem: str) -> int:
    """Side of the images that a model is commonly given, in pixels: 32 for small stems, else timm's or 224."""
    import timm

    if stem != "imagenet":
        return 32
    settings = timm.get_pretrained_cfg(arch) if has_fixed_size(arch) else None
    return 224 if settings is None else int(settings.input_size[-1])


def check_size(arch: str, stem: str, channels: int, image_size: int) -> None:
    """Refuse a size of images that the model cannot take. Raises ValueError, one line; costs no computation."""
    try:
        with torch.device("meta"), torch.no_grad():
            backbone = build_backbone(arch, stem, channels, image_size).eval()
            backbone(torch.zeros(1, channels, image_size, image_size))
    except NotImplementedError:  # an operation without a form for shapes alone: only real images can tell
        return
    except (AssertionError, RuntimeError, IndexError, ZeroDivisionError, TypeError) as error:
        raise ValueError(
            f"--image-size is {image_size}, which {arch} cannot take ({_short(error)}); "
            f"its usual size is {usual_size(arch, stem)}"
        ) from None
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", None)
    if has_fixed_size(arch) and isinstance(patch, tuple) and image_size % patch[0]:
        raise ValueError(
            f"--image-size is {image_size}, but {arch} cuts images into patches of {patch[0]} pixels; give a multiple"
        )


def _short(error: Exception) -> str:
    """The first line of a library's message, without the rest."""
    lines = str(error).strip().splitlines()
    return printable(lines[0][:120]) if lines else type(error).__name__


def build_encoder(recipe: Recipe, channels: int) -> Encoder:
    """The recipe's encoder, started at random by its seed alone. Raises ValueError as the parts do."""
    if has_fixed_size(recipe.arch):
        check_size(recipe.arch, recipe.stem, channels, recipe.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        backbone = build_backbone(recipe.arch, recipe.stem, channels, recipe.image_size)
        return Encoder(backbone, build_projector(recipe, representation_dim(backbone)))


def representation_dim(backbone: nn.Module) -> int:
    """Dimension of the backbone's output."""
    # Some backbones (MobileNetV3) widen their features once more before the classifier that was left out.
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)  # type: ignore[arg-type]


def embedding_dim(encoder: Encoder) -> int:
    """Dimension of the projector's output."""
    dim = representation_dim(encoder.backbone)
    device = next(encoder.backbone.parameters()).device
    training = encoder.projector.training
    try:
        with torch.no_grad():
            return int(encoder.projector.eval()(torch.zeros(1, dim, device=device)).shape[1])
    finally:
        encoder.projector.train(training)
