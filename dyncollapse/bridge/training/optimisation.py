"""Optimisers and the learning rate's schedule, all of timm and torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import Optimizer

from dyncollapse.bridge.recipe import Recipe

if TYPE_CHECKING:
    from timm.scheduler import CosineLRScheduler


def build_optimiser(recipe: Recipe, encoder: nn.Module) -> Optimizer:
    """The recipe's optimiser over the encoder's parameters; vectors (biases, norms, gains) are not decayed.

    lars is timm's: trust ratio 0.001 |w| / (|g| + wd |w|), for decayed parameters only; the gradient's decay is added
    after the norms are taken, momentum after the ratio.
    """
    from timm.optim import create_optimizer_v2

    name = "momentum" if recipe.optimiser == "sgd" else recipe.optimiser  # timm's sgd is Nesterov's
    return create_optimizer_v2(encoder, name, recipe.lr, recipe.weight_decay, recipe.momentum)


def build_schedule(recipe: Recipe, optimiser: Optimizer, steps_per_epoch: int) -> "CosineLRScheduler":
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
def chosen_kernels(recipe: Recipe) -> Iterator[None]:
    """Convolutions by the fastest kernels, tried at the first step, or with `deterministic` by those that repeat.

    What has no kernel that repeats is warned of, by torch.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts; without it, it may vary
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=not recipe.deterministic, deterministic=recipe.deterministic
        ):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inference whose rounding is float32's, as its noise floor says: TF32 convolutions round to 11 bits."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Mixed precision where the recipe asks for it."""
    dtype = getattr(torch, recipe.precision)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
