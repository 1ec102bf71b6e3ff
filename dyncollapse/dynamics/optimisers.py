"""Any optimiser of torch.optim, and its schedule, as the step of an ensemble whose runs stay independent."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

# A function of the parameters, weights before biases, that makes an optimiser for them, or one and its schedule.
Factory = Callable[[list[Tensor]], Optimizer | tuple[Optimizer, LRScheduler]]

EXAMPLE = "lambda parameters: torch.optim.Adam(parameters, lr=1e-3)"


def check_factory(factory: Any) -> None:
    """Raise ValueError for what is no function, such as an optimiser that holds its parameters already."""
    if not callable(factory):
        raise ValueError(f"optimiser is of type {type(factory).__name__}; give a function such as {EXAMPLE}")


def optimiser_step(factory: Factory, parameters: Sequence[Tensor]) -> Callable[[Sequence[Tensor]], None]:
    """Make an optimiser for these parameters.

    Args:
        factory: Makes it, or it and its schedule.
        parameters: Weights and then biases, which the steps change in place. Those that the optimiser leaves out stay.

    Returns:
        A function of the gradients that takes one step of the optimiser, and then one of its schedule. It raises
        ValueError where one of them refuses, such as a schedule that has ended.

    Raises:
        ValueError: For what is no such function, an optimiser of other tensors, one that needs a closure, and a
            schedule that needs a metric.

    Examples:
        >>> w = torch.ones(1)
        >>> step = optimiser_step(lambda parameters: torch.optim.SGD(parameters, lr=0.25), [w])
        >>> step([torch.ones(1)])
        >>> w.item()
        0.75
    """
    optimiser, schedule = _built(factory, list(parameters))
    name = _name(optimiser, schedule)

    def step(gradients: Sequence[Tensor]) -> None:
        try:
            _take(optimiser, parameters, gradients)
            if schedule is not None:
                schedule.step()
        except Exception as error:  # optimisers and schedules refuse in their own ways
            raise ValueError(f"{name} refuses it: {_reason(error)}") from error

    return step


def optimiser_name(factory: Factory, parameters: Sequence[Tensor]) -> str:
    """Try an optimiser for one step on copies, and name it.

    Args:
        factory: Makes it.
        parameters: Weights and then biases, which stay as they are.

    Returns:
        Its name and its schedule's, as "Adam" or "Adam with CosineAnnealingLR".

    Raises:
        ValueError: As `optimiser_step`, and for an optimiser that cannot take the step.
    """
    copies = [p.detach().clone() for p in parameters]
    optimiser, schedule = _built(factory, copies)
    name = _name(optimiser, schedule)
    try:
        _take(optimiser, copies, [torch.ones_like(p) for p in copies])
    except Exception as error:  # optimisers refuse in their own ways
        raise ValueError(
            f"{name} cannot take a step with dense gradients in the shapes of the layers: {_reason(error)}"
        ) from None
    return name


def check_independent(factory: Factory, parameters: Sequence[Tensor], axes: int) -> None:
    """Raise ValueError for an optimiser under which the runs of an ensemble move each other, as by a global norm.

    Two runs take a few steps twice, the second time with other gradients for the second run. The first run must end at
    the same bits.

    Args:
        factory: Makes the optimiser.
        parameters: Weights and then biases, of which only shapes and types are used.
        axes: How many axes of runs they begin with.
    """
    generator, ends = torch.Generator().manual_seed(0), []
    drawn = [
        torch.randn(3, 2, *p.shape[axes:], generator=generator, dtype=torch.float64).to(p.dtype) for p in parameters
    ]
    for scale in (1.0, 1e3):
        copies = [values[0].clone() for values in drawn]
        optimiser, _ = _built(factory, copies)
        for values in zip(*drawn, strict=True):
            _take(optimiser, copies, [torch.stack([one, scale * other]) for one, other in values])
        ends.append([copy[0] for copy in copies])
    if not all(map(torch.equal, *ends)):
        raise ValueError(
            f"{optimiser_name(factory, parameters)} mixes the runs of an ensemble: the step of one depends on the "
            "gradients of the others; train each run by itself, or choose an optimiser that acts entry by entry"
        )


def _name(optimiser: Optimizer, schedule: Any) -> str:
    return type(optimiser).__name__ + (f" with {type(schedule).__name__}" if schedule is not None else "")


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _take(optimiser: Optimizer, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimiser.step()


def _built(factory: Factory, parameters: list[Tensor]) -> tuple[Optimizer, Any]:
    made = factory(parameters)
    optimiser, schedule = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(optimiser, Optimizer):
        raise ValueError(
            f"optimiser returned a {type(made).__name__}; it must return a torch.optim.Optimizer, as {EXAMPLE} does, "
            "or a tuple of one and its schedule"
        )
    name, own = type(optimiser).__name__, {id(p) for p in parameters}
    if not all(id(p) in own for group in optimiser.param_groups for p in group["params"]):
        raise ValueError(f"the {name} steps other tensors than it was given; make it for those, as {EXAMPLE} does")
    if _required(optimiser):
        raise ValueError(
            f"{name} needs a closure, which evaluates the loss several times a step; choose one that steps by a "
            "gradient, such as Adam"
        )
    if schedule is not None and (not callable(getattr(schedule, "step", None)) or _required(schedule)):
        raise ValueError(
            f"the schedule {type(schedule).__name__} does not follow the number of steps alone; choose an LRScheduler "
            "whose step() takes no metric"
        )
    if schedule is not None and getattr(schedule, "optimizer", optimiser) is not optimiser:
        raise ValueError(f"the schedule {type(schedule).__name__} belongs to another optimiser than the {name}")
    return optimiser, schedule


def _required(stepper: Any) -> bool:
    """Whether `step` takes arguments without a default; of the class, since a schedule wraps its optimiser's."""
    _, *parameters = inspect.signature(type(stepper).step).parameters.values()
    return any(p.default is p.empty for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
