"""Computations in float32 or wider, inside autocast and for half-precision inputs as well."""

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

DEVICES = ("cpu", "cuda")

_inside = threading.local()  # per thread, like autocast itself


def outside_autocast(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a function to compute in the precision of its inputs, even inside `torch.autocast`."""

    @wraps(function)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if not (torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")):
            return function(*args, **kwargs)
        before = inside_autocast()
        with ExitStack() as stack:
            for device in filter(torch.is_autocast_enabled, DEVICES):
                stack.enter_context(torch.autocast(device, enabled=False))
            _inside.autocast = True
            try:
                return function(*args, **kwargs)
            finally:
                _inside.autocast = before

    return wrapped


def full_precision(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a function to compute outside autocast, on tensors in their common precision, at least float32.

    Its results have that precision. Gradients have the precision of each input.
    """
    outside = outside_autocast(function)

    @wraps(function)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        kinds = {t.dtype for t in (*args, *kwargs.values()) if isinstance(t, Tensor) and t.is_floating_point()}
        if len(kinds) == 1 and not kinds.isdisjoint((torch.float32, torch.float64)):
            return outside(*args, **kwargs)
        widest = common_precision(kinds)
        return outside(*(_widened(a, widest) for a in args), **{k: _widened(v, widest) for k, v in kwargs.items()})

    return wrapped


def common_precision(kinds: Iterable[torch.dtype]) -> torch.dtype:
    """Return float64 where that is among the types, else float32."""
    return torch.float64 if torch.float64 in kinds else torch.float32


def exact_product(a: Float[Tensor, "... b m"], b: Float[Tensor, "... m n"]) -> Float[Tensor, "... b n"]:
    """A b, whose gradient is computed outside autocast as well, wherever `backward` is called."""
    return _Product.apply(a, b) if inside_autocast() else a @ b


def inside_autocast() -> bool:
    """Whether a function decorated above was called inside autocast and has not returned."""
    return getattr(_inside, "autocast", False)


def _widened(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a @ b

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        # By this function again, so that second derivatives are exact as well.
        slopes = _Product.apply(slope, b.mT), _Product.apply(a.mT, slope)
        return slopes[0].sum_to_size(a.shape), slopes[1].sum_to_size(b.shape)
