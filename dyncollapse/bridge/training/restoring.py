"""Restore optimiser, schedule and scaler from a checkpoint, checked against those of a run that has just begun."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.training.optimisation import build_optimiser

# Entries that change from step to step; the recipe determines all others.
RATE, SCALE, GROWTH = "lr", "scale", "_growth_tracker"


def restore_states(
    states: Mapping[str, Any], recipe: Recipe, optimiser: Optimizer, schedule: Any, scaler: GradScaler
) -> None:
    """Check states from a file and load them. torch and timm would accept any value and fail steps later.

    Args:
        states: State dicts `optimiser`, `schedule` and `scaler` of a checkpoint.
        recipe: The run's settings.
        optimiser: The run's new optimiser.
        schedule: The run's new schedule.
        scaler: The run's new scaler.

    Raises:
        ValueError: If a state does not belong to this run; the message names the first.
    """
    begun = optimiser.state_dict()
    for own, found in zip(begun["param_groups"], states["optimiser"]["param_groups"], strict=True):
        # Versions of torch differ in their settings; the schedule sets the rate.
        common = own.keys() & found.keys() - {RATE}
        _require(_alike(*({name: group[name] for name in common} for group in (found, own))), "optimiser's settings")
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    kinds = _kinds(recipe)
    for number, values in states["optimiser"]["state"].items():
        _require(type(number) is int and 0 <= number < len(parameters), "optimiser's numbering")
        _require(values.keys() == kinds.keys(), "optimiser's state")
        for name, value in values.items():
            shape = parameters[number].shape if kinds[name] else torch.Size()
            kept = isinstance(value, Tensor) and value.shape == shape and value.layout == torch.strided
            _require(
                (kept and not value.is_complex()) or (not kinds[name] and _is_number(value)), f"optimiser's {name}"
            )
    _require(_alike(states["schedule"], schedule.state_dict()), "schedule")
    scale, own = states["scaler"], scaler.state_dict()
    _require(_alike({**scale, **{name: own[name] for name in (SCALE, GROWTH) if name in own}}, own), "loss scaling")
    _require(not own or (_is_number(scale[SCALE]) and type(scale[GROWTH]) is int), "loss scale")
    optimiser.load_state_dict({**begun, "state": states["optimiser"]["state"]})
    scaler.load_state_dict(scale)


def _kinds(recipe: Recipe) -> dict[str, bool]:
    """The entries of the optimiser's state per parameter, and whether each has the parameter's shape."""
    layer = nn.Linear(2, 3, bias=False)
    optimiser = build_optimiser(recipe, layer)
    layer.weight.grad = torch.zeros_like(layer.weight)
    optimiser.step()
    kept: Mapping[str, Any] = optimiser.state[layer.weight]
    return {name: isinstance(value, Tensor) and value.shape == layer.weight.shape for name, value in kept.items()}


def _alike(found: Any, own: Any) -> bool:
    """Whether two nested plain values are equal in types and values."""
    if type(found) is not type(own):
        return False
    if isinstance(own, dict):
        return found.keys() == own.keys() and all(_alike(found[name], own[name]) for name in own)
    if isinstance(own, list | tuple):
        return len(found) == len(own) and all(map(_alike, found, own))
    return bool(found == own)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(sound: bool, what: str) -> None:
    if not sound:
        raise ValueError(f"the {what} does not belong to this run")
