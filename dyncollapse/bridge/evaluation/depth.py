"""Where an encoder loses dimensions: the effective rank of its features after each stage, from pixels to embedding."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dyncollapse.bridge.data.batches import batches_in_order
from dyncollapse.bridge.data.image_sets import Images
from dyncollapse.bridge.evaluation.load import LoadedEncoder
from dyncollapse.bridge.models.encoders import Encoder
from dyncollapse.bridge.training.optimisation import exact_float32
from dyncollapse.diagnostics.measures import effective_rank
from dyncollapse.diagnostics.spectra import covariance_spectrum

MOST = 4096  # images: eight for each dimension of a representation of 512
BATCH = 256
LISTS = ("blocks", "stages")  # timm's names of what holds a transformer's blocks, or the stages of a ConvNeXt


@dataclass(frozen=True)
class StageRank:
    """The effective rank of an encoder's features after one stage.

    Attributes:
        stage: Name of the module, as "backbone.layer4" or "projector.0".
        dim: Number of its channels.
        effective_rank: Of the covariance of the features, averaged over positions in the image.

    Examples:
        >>> StageRank("backbone.layer4", 512, 61.5).as_values()["dim"]
        512
    """

    stage: str
    dim: int
    effective_rank: float

    def as_values(self) -> dict[str, object]:
        """The rank as plain JSON values."""
        return asdict(self)


def ranks_by_depth(pretrained: LoadedEncoder, images: Images, *, device: torch.device | str = "cpu") -> list[StageRank]:
    """Measure the effective rank of the features after each stage of the backbone and each layer of the projector.

    Images are plain, at most 4096 of them. Features with positions are averaged over these, as the last stage's are in
    a ResNet's representation. Stages are the direct parts of the backbone that have parts themselves, and each block or
    stage of timm's lists of them.

    Args:
        pretrained: The encoder.
        images: n images.
        device: Where the network computes.

    Returns:
        A rank for each stage, in the order of computation.

    References:
        Roy and Vetterli (2007) for the effective rank.

    Examples:
        >>> from pathlib import Path
        >>> from dyncollapse.bridge import build_encoder, open_data, resolve
        >>> from dyncollapse.bridge.evaluation.load import from_recipe
        >>> recipe = resolve({"data": "digits", "projector": "linear"})
        >>> untrained = from_recipe(build_encoder(recipe, channels=1), recipe, 1, Path("untrained"))
        >>> [(rank.stage, rank.dim) for rank in ranks_by_depth(untrained, open_data("digits").test)][-2:]
        [('backbone.layer4', 128), ('projector', 64)]
    """
    device = torch.device(device)
    encoder, spec = pretrained.encoder.to(device).eval(), pretrained.spec
    collected: dict[str, list[Tensor]] = {}
    batches = batches_in_order(
        images, (None,), spec.image_size, batch_size=BATCH, device=device, workers=0, seed=0, prepared=spec.prepared
    )
    with _collecting(encoder, collected), exact_float32():
        for batch in islice(batches, -(-MOST // BATCH)):
            if len(batch.indices):
                encoder(batch.views[0].contiguous(memory_format=torch.channels_last))
    return [_rank(stage, torch.cat(parts)) for stage, parts in collected.items()]


@contextmanager
def _collecting(encoder: Encoder, collected: dict[str, list[Tensor]]) -> Iterator[None]:
    """Collect the pooled outputs of every stage while images pass."""
    stages = {f"backbone.{name}": part for name, part in _stages(encoder.backbone)}
    stages |= {
        name: part
        for name, part in encoder.projector.named_modules(prefix="projector")
        if not list(part.children()) and not isinstance(part, nn.Identity)
    }

    channels_last = getattr(encoder.backbone, "output_fmt", "") == "NHWC"  # of timm's models with windows

    def collect(stage: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim in (2, 3, 4):
            collected.setdefault(stage, []).append(_pooled(output, channels_last).to("cpu", torch.float64))

    with ExitStack() as hooks:
        for stage, part in stages.items():
            handle = part.register_forward_hook(lambda _part, _inputs, output, stage=stage: collect(stage, output))
            hooks.callback(handle.remove)
        yield


def _stages(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a backbone that have parts themselves; each block or stage of its own, where timm lists these."""
    for name, part in backbone.named_children():
        if name in LISTS:
            yield from ((f"{name}.{number}", one) for number, one in part.named_children() if _is_stage(one))
        elif _is_stage(part):
            yield name, part


def _is_stage(part: nn.Module) -> bool:
    """Whether a part of a backbone has parts and weights itself; a final pooling has no weights."""
    return bool(list(part.children())) and next(part.parameters(), None) is not None


def _pooled(features: Float[Tensor, "n *shape"], channels_last: bool) -> Float[Tensor, "n c"]:
    """Average over positions: the two axes of an image's features beside the channels, the middle axis of tokens."""
    if features.ndim == 4:
        return features.mean((1, 2) if channels_last else (2, 3))
    return features.mean(1) if features.ndim == 3 else features


def _rank(stage: str, features: Float[Tensor, "n c"]) -> StageRank:
    """The effective rank of features; 0 if they do not vary."""
    spectrum = covariance_spectrum(features)
    return StageRank(stage, features.shape[1], float(effective_rank(spectrum)) if float(spectrum[0]) > 0 else 0.0)
