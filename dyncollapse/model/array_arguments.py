"""NumPy arrays wherever a signature says Tensor: converted once, at the door of a public function or record."""

import inspect
import math
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin

import torch
from torch import Tensor

from dyncollapse.model.conversion import as_tensor

TASK = "GaussianTask"
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Record = TypeVar("Record")


def _names(annotation: Any) -> set[str]:
    return {getattr(kind, "__name__", "") for kind in (annotation, *get_args(annotation))}


def takes_arrays(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a function to take arrays where its annotations say tensors, and lists of arrays for lists of tensors.

    Floating-point tensors are passed on as they are. Anything else is copied into a tensor, so that equal numbers give
    equal bits whatever their order in memory; integers become float64. Where the annotation admits integers, arrays
    keep their type and their memory: they may be large.

    Args:
        function: Its tensors are annotated Tensor, a jaxtyping type of it, or a tuple or Sequence of these.

    Returns:
        The function, which raises ValueError for an argument that is no array of real numbers, and for one with fewer
        axes than its annotation has; `function` itself where it takes no tensors.

    Examples:
        >>> @takes_arrays
        ... def half(w: Tensor) -> Tensor:
        ...     return w / 2
        >>> half([[2, 4]])
        tensor([[1., 2.]], dtype=torch.float64)
    """
    parameters = list(enumerate(inspect.signature(function).parameters.values()))
    expected = [(at, p.name, tensors) for at, p in parameters if (tensors := _tensors_in(p.annotation))]
    tasks = [(at, p.name) for at, p in parameters if TASK in _names(p.annotation)]
    if not expected and not tasks:
        return function

    @wraps(function)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        for position, name in tasks:
            if hasattr(args[position] if position < len(args) else kwargs.get(name), "__array__"):
                raise ValueError(f"{name} is an array; give a {TASK}, which is made of two covariances")
        given: Any = args
        for position, name, tensors in expected:
            if position < len(args):
                value = args[position]
                if type(value) is Tensor and value.ndim >= tensors.enough and value.is_floating_point():
                    continue  # as `take` would say, without the call: half of the cost
                if (taken := tensors.take(value, name)) is not value:
                    given = [*given]
                    given[position] = taken
            elif name in kwargs:
                kwargs[name] = tensors.take(kwargs[name], name)
        return function(*given, **kwargs)

    return wrapped


def array_fields(record: type[Record]) -> type[Record]:
    """Decorate a dataclass to take arrays for those of its fields that are annotated as tensors; see `takes_arrays`."""
    record.__init__ = takes_arrays(record.__init__)  # type: ignore[method-assign]
    return record


@dataclass(frozen=True)
class _Tensors:
    """What an annotation admits.

    Attributes:
        axes: Names of the axes as in the annotation, "" where it has none.
        least: Fewest axes.
        listed: Whether it is a list of tensors.
        stored: Whether integers may stay, and memory is shared.
        optional: Whether None may stand for the tensor.
        function: Whether a function may.
    """

    axes: str
    least: int
    listed: bool
    stored: bool
    optional: bool
    function: bool

    @cached_property
    def enough(self) -> float:
        """Axes from which on a floating-point tensor is taken as it is; a list of tensors is looked at in any case."""
        return math.inf if self.listed else self.least

    def take(self, value: Any, name: str) -> Any:
        """Return the value itself where it is what the annotation says, else tensors of its numbers."""
        if type(value) is Tensor and not self.listed:
            if (value.is_floating_point() or self.stored) and value.ndim >= self.least:
                return value
        elif type(value) is tuple and self.listed:
            for one in value:
                if type(one) is not Tensor or one.ndim < self.least or not one.is_floating_point():
                    break
            else:
                return value
        elif (self.optional and value is None) or (self.function and callable(value)):
            return value
        return self._converted(value, name)

    def _converted(self, value: Any, name: str) -> Any:
        if not self.listed:
            return self._one(value, name)
        if isinstance(value, Tensor) or hasattr(value, "__array__"):
            raise ValueError(f"{name} is one array; give a list of them, one per layer")
        try:
            return tuple(self._one(one, f"{name}[{place}]") for place, one in enumerate(value))
        except TypeError:
            kind = type(value).__name__
            raise ValueError(f"{name} is of type {kind}; give a list of arrays, one per layer") from None

    def _one(self, value: Any, name: str) -> Tensor:
        tensor = as_tensor(value, name)
        if tensor.ndim < self.least:
            axes = ", ".join(self.axes.split())
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; its axes are ({axes})")
        if self.stored:
            return tensor
        if not isinstance(value, Tensor):  # the caller's memory may be read-only, or change
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        return tensor if tensor.is_floating_point() else tensor.to(torch.float64)


def _tensors_in(annotation: Any) -> _Tensors | None:
    """What a parameter admits if its annotation names tensors, beside None, a number or a function at most."""
    union = get_origin(annotation) in (Union, types.UnionType)
    options = list(get_args(annotation)) if union else [annotation]
    tensors = [option for option in options if _is_tensor(option) or _is_tensor(_element(option))]
    optional, function = type(None) in options, any(get_origin(option) is Callable for option in options)
    if len(tensors) != 1 or len(options) != 1 + optional + function + (float in options):
        return None
    listed = not _is_tensor(tensors[0])
    kind = _element(tensors[0]) if listed else tensors[0]
    dims, variadic = getattr(kind, "dims", ()), getattr(kind, "index_variadic", None)
    return _Tensors(
        axes=getattr(kind, "dim_str", ""),
        least=len(dims) - (variadic is not None),
        listed=listed,
        stored=not all("float" in dtype for dtype in getattr(kind, "dtypes", ())),
        optional=optional,
        function=function,
    )


def _is_tensor(annotation: Any) -> bool:
    return annotation is Tensor or getattr(annotation, "array_type", None) is Tensor


def _element(annotation: Any) -> Any:
    """The type of which an annotation is a tuple or sequence."""
    return get_args(annotation)[0] if get_origin(annotation) in (tuple, Sequence) else None
