"""How large a batch fits into memory, asked when one did not."""

import gc
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from dyncollapse.bridge.loading import Batch
from dyncollapse.bridge.processes import Process
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.trainer import build_trainer

# Pairs per process at which memory is measured after there was too little of it, and the share to fill (ours).
TRIAL_PAIRS, FILL = (4, 8), 0.9


def batch_advice(recipe: Recipe, process: Process, channels: int) -> str:
    """Say which batch would fit, by the memory of two small ones."""
    given = f"--batch-size {recipe.batch_size} does not fit into memory"
    if process.device.type != "cuda":
        return f"{given}; halve it until it does"
    torch.cuda.empty_cache()
    available = torch.cuda.get_device_properties(process.device).total_memory
    with suppress(torch.OutOfMemoryError):
        peaks = [_peak(recipe, process, channels, pairs) for pairs in TRIAL_PAIRS]
        fits = fitting_batch(peaks, available) * process.count
        half = " (--precision bfloat16 takes about half)" if recipe.precision == "float32" else ""
        if fits >= 2:
            return f"{given}; by the memory of smaller ones about {fits} would{half}"
    return f"{given}, nor do small ones; give smaller --image-size or another --arch"


def fitting_batch(peaks: Sequence[int], available: int) -> int:
    """Pairs per process that fill FILL of the memory, from the peaks at TRIAL_PAIRS on a line; 0 where none do."""
    (few, more), (low, high) = TRIAL_PAIRS, peaks
    slope = max(1.0, (high - low) / (more - few))
    return max(0, int((FILL * available - low) / slope) + few)


def _peak(recipe: Recipe, process: Process, channels: int, pairs: int) -> int:
    """Most memory of a step with so many pairs."""
    small = replace(recipe, batch_size=pairs, compile=False)
    alone = Process(0, 1, process.device)
    trainer = build_trainer(small, alone, pairs, channels)
    side = recipe.image_size
    views = tuple(torch.zeros(pairs, channels, side, side, device=process.device) for _ in range(2))
    torch.cuda.reset_peak_memory_stats(process.device)
    trainer.step(0, Batch(views, torch.arange(pairs)))
    peak = int(torch.cuda.max_memory_allocated(process.device))
    del trainer
    gc.collect()
    torch.cuda.empty_cache()
    return peak
