"""Memory of a training step: check that a batch fits before the first step, and say which batch would fit."""

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dyncollapse.bridge.data.batches import Batch
from dyncollapse.bridge.models.backbones import Unnormed
from dyncollapse.bridge.models.encoders import Encoder
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.training.distributed import Process
from dyncollapse.bridge.training.trainer import build_trainer
from dyncollapse.simulation.footprint import check_room

# Pairs per process whose memory is measured after it ran out: two small batches determine a line.
TRIAL_PAIRS = (4, 8)
FILL = 0.9  # usable share of the memory, a rule of thumb: fragmentation and other processes take the rest


def check_step_room(recipe: Recipe, encoder: Encoder, process: Process, channels: int) -> None:
    """Check that a training step fits into memory.

    The estimate counts weights, gradients and one momentum; both views of the process's share of the batch; the outputs
    of convolutions and linear layers, kept for the backward pass; and the logits of the whole batch.

    Args:
        recipe: The run's settings.
        encoder: The network.
        process: This process, which holds a share of every batch.
        channels: Channels of the images.

    Raises:
        SettingError: If it does not fit. One line with the memory that a step takes and the memory that is free.
    """
    share = 2 * recipe.batch_size // process.count
    shape = (share, channels, recipe.image_size, recipe.image_size)
    weights = sum(weight.numel() for weight in encoder.parameters())
    size = 4 if recipe.precision == "float32" else 2
    logits = (2 * recipe.batch_size) ** 2
    needed = 4 * (3 * weights + math.prod(shape) + logits) + size * sum(_outputs(encoder.backbone, shape))
    check_room(needed, process.device, "a step of this run", "lower `batch_size` or `image_size`")


def check_batch_room(backbone: nn.Module, shape: tuple[int, int, int, int], views: int, device: torch.device) -> None:
    """Check that a batch of images can be embedded in memory.

    Args:
        backbone: The network.
        shape: Shape of the batch: images, channels, height and width.
        views: Views of each image.
        device: Where the network computes.

    Raises:
        SettingError: If it cannot. One line with the memory that the batch takes and the memory that is free.
    """
    needed = 4 * (views * math.prod(shape) + max(_outputs(backbone, shape), default=0))
    check_room(needed, device, f"a batch of {shape[0]} images", "lower `batch_size` or `image_size`")


def _outputs(backbone: nn.Module, shape: tuple[int, int, int, int]) -> list[int]:
    """Sizes of the outputs of all convolutions and linear layers, from shapes alone."""
    sizes: list[int] = []
    meta = {name: tensor.to("meta") for name, tensor in (*backbone.named_parameters(), *backbone.named_buffers())}
    # A backbone that does not take such images is refused elsewhere, with the reason.
    refused = suppress(RuntimeError, AssertionError, ValueError)
    with _sizes_noted(backbone, sizes), refused, torch.no_grad(), Unnormed():
        functional_call(backbone, meta, (torch.empty(shape, device="meta"),))
    return sizes


@contextmanager
def _sizes_noted(module: nn.Module, sizes: list[int]) -> Iterator[None]:
    """Record in `sizes` the output sizes of all convolutions and linear layers while the context lasts."""

    def note(_layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sizes.append(output.numel())

    layers = (layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    handles = [layer.register_forward_hook(note) for layer in layers]
    training = module.training
    try:
        module.eval()
        yield
    finally:
        module.train(training)
        for handle in handles:
            handle.remove()


def batch_advice(recipe: Recipe, process: Process, channels: int) -> str:
    """Say which batch would fit, extrapolated from the memory of two small ones.

    Args:
        recipe: The run's settings.
        process: This process.
        channels: Channels of the images.

    Returns:
        A sentence that names settings in backticks.
    """
    given = f"`batch_size` {recipe.batch_size} does not fit into memory"
    if process.device.type != "cuda":
        return f"{given}; halve it until it does"
    torch.cuda.empty_cache()
    available = torch.cuda.get_device_properties(process.device).total_memory
    with suppress(torch.OutOfMemoryError):
        peaks = [_peak(recipe, process, channels, pairs) for pairs in TRIAL_PAIRS]
        fits = largest_batch(peaks, available) * process.count
        half = " (`precision` bfloat16 takes about half)" if recipe.precision == "float32" else ""
        if fits >= 2:
            return f"{given}; judged by smaller ones, about {fits} would{half}"
    return f"{given}, nor do small ones; give smaller `image_size` or another `arch`"


def largest_batch(peaks: Sequence[int], available: int) -> int:
    """Pairs per process that fill FILL of the available bytes, on the line through the peaks at TRIAL_PAIRS."""
    (few, more), (low, high) = TRIAL_PAIRS, peaks
    slope = max(1.0, (high - low) / (more - few))
    return max(0, int((FILL * available - low) / slope) + few)


def _peak(recipe: Recipe, process: Process, channels: int, pairs: int) -> int:
    """Peak memory of a step with this many pairs, in bytes."""
    small = replace(recipe, batch_size=pairs, compile=False)
    single = Process(0, 1, process.device)
    trainer = build_trainer(small, single, pairs, channels)
    side = recipe.image_size
    views = tuple(torch.zeros(pairs, channels, side, side, device=process.device) for _ in range(2))
    torch.cuda.reset_peak_memory_stats(process.device)
    trainer.step(0, Batch(views, torch.arange(pairs)))
    peak = int(torch.cuda.max_memory_allocated(process.device))
    del trainer
    gc.collect()
    torch.cuda.empty_cache()
    return peak
