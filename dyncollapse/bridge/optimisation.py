"""Optimisers and the learning rate's schedule, all of timm and torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dyncollapse.bridge.recipe import Recipe


def build_optimiser(recipe: Recipe, encoder: nn.Module) -> Optimizer:
    """The recipe's optimiser over the encoder's parameters; vectors (biases, norms, gains) are not decayed.

    lars is timm's: trust ratio 0.001 |w| / (|g| + wd |w|), for decayed parameters only; the gradient's decay is added
    after the norms are taken, momentum after the ratio.
    """
    from timm.optim import create_optimizer_v2

    name = "momentum" if recipe.optimiser == "sgd" else recipe.optimiser  # timm's sgd is Nesterov's
    return create_optimizer_v2(encoder, name, recipe.lr, recipe.weight_decay, recipe.momentum)


def build_schedule(recipe: Recipe, optimiser: Optimizer, steps_per_epoch: int) -> Any:
    """Warm-up from 0 and a cosine to 0, by timm, in steps; `step_update(k)` sets the rate of step k."""
    from timm.scheduler import CosineLRScheduler

    warmup = min(round(recipe.warmup * steps_per_epoch), recipe.epochs * steps_per_epoch - 1)
    return CosineLRScheduler(
        optimiser,
        t_initial=recipe.epochs * steps_per_epoch - warmup,
        warmup_t=warmup,
        warmup_prefix=True,  # the cosine starts where the warm-up ends, at the peak
        warmup_lr_init=0.0,
        t_in_epochs=False,
    )


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inference whose rounding is float32's, as its noise floor says: TF32 convolutions round to 11 bits."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Mixed precision where the recipe asks for it."""
    dtype = getattr(torch, recipe.precision)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
