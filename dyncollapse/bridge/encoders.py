"""Encoders: a timm backbone, whose output is the representation r, and a projector, whose output is the embedding z."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dyncollapse.bridge.projectors import build_projector
from dyncollapse.bridge.recipe import Recipe

# Small backbones of our own, as arguments of timm's ResNet-18.
NARROW: dict[str, dict[str, Any]] = {"resnet10-narrow": {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)}}
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


def build_backbone(arch: str, stem: str, channels: int) -> nn.Module:
    """A timm model without classifier, started at random; its `num_features` is the representation's dimension.

    Raises ValueError for a model that timm does not know, and for a small stem on a backbone that has no conv1.
    """
    import timm

    name, arguments = ("resnet18", NARROW[arch]) if arch in NARROW else (arch, {})
    if not timm.is_model(name):
        near = timm.list_models(f"*{name}*")[:8] or timm.list_models("resnet*")[:8]
        raise ValueError(f"--arch is {arch!r}; timm has {', '.join(near)}, ..., and here is {', '.join(NARROW)}")
    backbone = timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels, **arguments)
    if stem != "imagenet":
        conv = getattr(backbone, "conv1", None)
        if not isinstance(conv, nn.Conv2d):
            raise ValueError(f"--stem {stem} replaces a ResNet's conv1 and maxpool, which {arch} has not; use imagenet")
        conv1 = nn.Conv2d(channels, conv.out_channels, 3, padding=STEM_PADDING[stem], bias=False)
        nn.init.kaiming_normal_(conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm's ResNet
        backbone.conv1, backbone.maxpool = conv1, nn.Identity()
    return backbone


def build_encoder(recipe: Recipe, channels: int) -> Encoder:
    """The recipe's encoder, started at random by its seed alone. Raises ValueError as the parts do."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        backbone = build_backbone(recipe.arch, recipe.stem, channels)
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
