"""Encoders: a backbone, whose output is the representation r, and a projector, whose output is the embedding z."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dyncollapse.bridge.models.backbones import build_backbone, check_size, has_fixed_size, representation_dim
from dyncollapse.bridge.models.projectors import build_projector
from dyncollapse.bridge.recipe import Recipe


@dataclass(frozen=True)
class EncoderSpec:
    """The model of an encoder and the images that it takes, known of every encoder, whoever trained it.

    Attributes:
        arch: The timm model, or one of `backbones.SMALL`, or a widened ResNet.
        stem: Its first layers, one of `recipe.STEMS`.
        channels: Channels of the images.
        image_size: Side of the images, in pixels.
        augment: The views it was trained on, one of `recipe.AUGMENTATIONS`.
    """

    arch: str
    stem: str
    channels: int
    image_size: int
    augment: str


def spec_of(recipe: Recipe, channels: int) -> EncoderSpec:
    """The model and the images of a recipe's encoder."""
    return EncoderSpec(recipe.arch, recipe.stem, channels, recipe.image_size, recipe.augment)


class Encoder(nn.Module):
    """Images to representations and embeddings."""

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        """Put a projector behind a backbone."""
        super().__init__()
        self.backbone, self.projector = backbone, projector

    def forward(self, images: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n m"]]:
        """Return r and z."""
        r = self.backbone(images)
        return r, self.projector(r)


def build_encoder(recipe: Recipe, channels: int) -> Encoder:
    """Build a recipe's encoder with random weights, which depend on its seed alone.

    Args:
        recipe: Its model, stem, size of images, projector and seed.
        channels: Channels of the images.

    Returns:
        The encoder, on torch's default device.

    Raises:
        SettingError: For a model, stem, size or projector that cannot be built.
    """
    if has_fixed_size(recipe.arch):
        check_size(recipe.arch, recipe.stem, channels, recipe.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        backbone = build_backbone(recipe.arch, recipe.stem, channels, recipe.image_size)
        return Encoder(backbone, build_projector(recipe, representation_dim(backbone)))


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
