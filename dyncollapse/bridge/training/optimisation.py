"""Optimisers and learning rate schedules of timm and torch, kernels and precision."""

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
    """Build the recipe's optimiser; vectors (biases, norms, gains) are not decayed.

    timm's lars has the trust ratio 0.001 |w| / (|g| + wd |w|) and applies it to decayed parameters only. It adds the
    decay to the gradient after taking the norms, and momentum after applying the ratio.

    Args:
        recipe: The run's settings.
        encoder: The network.

    Returns:
        The optimiser of the encoder's parameters.
    """
    from timm.optim import create_optimizer_v2

    name = "momentum" if recipe.optimiser == "sgd" else recipe.optimiser  # timm's sgd is Nesterov's
    return create_optimizer_v2(encoder, name, recipe.lr, recipe.weight_decay, recipe.momentum)


def build_schedule(recipe: Recipe, optimiser: Optimizer, steps_per_epoch: int) -> "CosineLRScheduler":
    """Build timm's schedule: a linear warm-up from 0, then a cosine to 0, in steps.

    Args:
        recipe: The run's settings.
        optimiser: The optimiser whose rate it sets.
        steps_per_epoch: Steps in an epoch.

    Returns:
        The schedule; `step_update(k)` sets the rate of step k.
    """
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
    """Use cuDNN's fastest kernels, found at the first step, or with `deterministic` only deterministic ones.

    torch warns of operations without a deterministic kernel.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
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
    """Inference in full float32, which the noise floor assumes: TF32 convolutions would round to 11 bits."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Mixed precision if the recipe asks for it."""
    dtype = getattr(torch, recipe.precision)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
