"""Encoders: a backbone, which outputs the representation r, and a projector, which outputs the embedding z."""

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dyncollapse.bridge.data.augmentations import View, view_settings
from dyncollapse.bridge.data.preparation import Preparation
from dyncollapse.bridge.models.backbones import Undrawn, build_backbone, check_size, has_fixed_size, representation_dim
from dyncollapse.bridge.models.projectors import build_projector
from dyncollapse.bridge.recipe import Recipe


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder's model and the images that it takes, whichever library trained it.

    Attributes:
        arch: The timm model, or one of `backbones.SMALL`, or a widened ResNet.
        stem: First layers, one of `recipe.STEMS`.
        channels: Channels of the images.
        image_size: Side of the images, in pixels.
        augment: The augmentations it was trained with, one of `recipe.AUGMENTATIONS`.
        crop_scale: Smallest area of their crops; None for the usual one.
        colour: Factor on the strengths of their colour jitters.
        prepared: How a published model's images are resized, cropped and normalised; None for the usual way.
    """

    arch: str
    stem: str
    channels: int
    image_size: int
    augment: str
    crop_scale: float | None = None
    colour: float = 1.0
    prepared: Preparation | None = None

    @property
    def pair(self) -> tuple[View, View]:
        """The augmentations of two views."""
        return view_settings(self.augment, self.crop_scale, self.colour)

    def as_values(self) -> dict[str, object]:
        """The spec as plain JSON values; `prepared` only where a published model says it."""
        return {name: value for name, value in asdict(self).items() if name != "prepared" or value is not None}


def spec_of(recipe: Recipe, channels: int) -> EncoderSpec:
    """The spec of a recipe's encoder for images with this number of channels."""
    return EncoderSpec(
        recipe.arch, recipe.stem, channels, recipe.image_size, recipe.augment, recipe.crop_scale, recipe.colour
    )


class Encoder(nn.Module):
    """A backbone and a projector: maps images to representations r and embeddings z.

    Attributes:
        backbone: Maps images (n, c, h, w) to representations (n, d).
        projector: Maps representations to embeddings (n, m), on which the loss is computed.

    Examples:
        >>> encoder = Encoder(build_backbone("resnet10-narrow", "cifar", 1), nn.Linear(128, 16))
        >>> r, z = encoder(torch.zeros(2, 1, 8, 8))
        >>> r.shape, z.shape
        (torch.Size([2, 128]), torch.Size([2, 16]))
    """

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        """Keep both parts as submodules.

        Args:
            backbone: The network before the projector.
            projector: The network between representation and loss.
        """
        super().__init__()
        self.backbone, self.projector = backbone, projector

    def forward(self, images: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n m"]]:
        """Compute both outputs.

        Args:
            images: Normalised pixels.

        Returns:
            Representations r (n, d) and embeddings z (n, m).
        """
        r = self.backbone(images)
        return r, self.projector(r)


def build_encoder(recipe: Recipe, channels: int) -> Encoder:
    """Build a recipe's encoder with random weights that depend on the recipe's seed alone.

    Args:
        recipe: Settings; used are the model, stem, image size, projector and seed.
        channels: Channels of the images.

    Returns:
        The encoder, on torch's default device.

    Raises:
        SettingError: If the model, stem, image size or projector cannot be built.

    Examples:
        >>> from dyncollapse.bridge import resolve
        >>> encoder = build_encoder(resolve({"data": "digits", "projector": "linear"}), channels=1)
        >>> encoder.projector
        Linear(in_features=128, out_features=64, bias=False)
    """
    if has_fixed_size(recipe.arch):
        check_size(recipe.arch, recipe.stem, channels, recipe.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        backbone = build_backbone(recipe.arch, recipe.stem, channels, recipe.image_size)
        return Encoder(backbone, build_projector(recipe, representation_dim(backbone)))


def encoder_shapes(recipe: Recipe, channels: int) -> Encoder:
    """Build a recipe's encoder without numbers, on torch's device "meta", for questions about its shapes.

    Args:
        recipe: As for `build_encoder`.
        channels: As for `build_encoder`.

    Returns:
        The encoder; it takes no memory, and its outputs have shapes alone.

    Raises:
        SettingError: As from `build_encoder`.

    Examples:
        >>> from dyncollapse.bridge import resolve
        >>> embedding_dim(encoder_shapes(resolve({"data": "digits", "projector": "linear"}), channels=1))
        64
    """
    with torch.device("meta"), Undrawn():
        return build_encoder(recipe, channels)


def embedding_dim(encoder: Encoder) -> int:
    """The dimension of an encoder's embeddings, found by one forward pass of the projector."""
    dim = representation_dim(encoder.backbone)
    device = next(encoder.backbone.parameters()).device
    training = encoder.projector.training
    try:
        with torch.no_grad():
            return int(encoder.projector.eval()(torch.zeros(1, dim, device=device)).shape[1])
    finally:
        encoder.projector.train(training)
