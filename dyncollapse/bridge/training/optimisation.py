"""Optimisers and learning rate schedules of timm and torch, kernels and precision."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import Optimizer

from dyncollapse.bridge.recipe import Precision, Recipe
from dyncollapse.bridge.training.distributed import Process, gather_values
from dyncollapse.bridge.training.run_folder import CONFIG, read_run

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
    before = torch.get_deterministic_debug_mode()
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        _set_determinism(1, recipe.compile)
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=not recipe.deterministic, deterministic=recipe.deterministic
        ):
            yield
    finally:
        if recipe.deterministic:
            _set_determinism(before, recipe.compile)


def _set_determinism(mode: int, compiled: bool) -> None:
    """Set torch's mode: 0 takes any kernels, 1 warns of those that are not deterministic, 2 refuses them.

    `use_deterministic_algorithms` sets the mode of torch's compiler, too, and takes a second to import that.
    `set_deterministic_debug_mode` leaves the compiler alone.
    """
    if compiled:
        torch.use_deterministic_algorithms(mode > 0, warn_only=mode == 1)
    else:
        torch.set_deterministic_debug_mode(mode)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inference in full float32, which the noise floor assumes: TF32 convolutions would round to 11 bits."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Mixed precision if the recipe asks for it, or if it is unset and the device is faster with it."""
    dtype = getattr(torch, recipe.precision or default_precision(device.type))
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


@cache
def default_precision(device: str) -> Precision:
    """The precision of a network for which none is given: bfloat16 where the device computes in it, else float32.

    Other processors emulate bfloat16, which is slower than float32.

    Args:
        device: "cuda" or "cpu".

    Returns:
        The precision's name.

    Examples:
        >>> default_precision("cuda")
        'bfloat16'
    """
    if device != "cpu":
        emulated = torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False)
        return "float32" if emulated else "bfloat16"
    # torch has no public name for this in all of its versions; where one is missing, float32 is right, if not fastest.
    asked = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return "bfloat16" if any(supported is not None and supported() for supported in asked) else "float32"


def with_precision(recipe: Recipe, folder: Path, process: Process) -> Recipe:
    """Set a precision that is not given: that of the run in a folder, else the default of the device.

    A run keeps its precision wherever it is resumed.

    Args:
        recipe: The run's settings.
        folder: The run's folder, which may be empty.
        process: This process; all processes get the choice of the first.

    Returns:
        The settings with a precision.

    Raises:
        ValueError: If the folder's config.json cannot be read.
    """
    if recipe.precision is not None:
        return recipe
    chosen = default_precision(process.device.type)
    if process.first and (folder / CONFIG).exists():
        chosen = read_run(folder).recipe.precision or chosen
    return replace(recipe, precision=gather_values(chosen, process.count)[0])
