"""A loss of a user's own: what it has to be, what it may bring along, and one line for each way to get it wrong."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


class Loss(Protocol):
    """A loss on embeddings: a function, or an object with `__call__`.

    It takes the anchors z, the positives z_pos and the negatives, (*any, n, m) each, and returns one loss per batch,
    (*any): a mean over the rows. The negatives are `z` itself for one-sided views and `z_pos` for two-sided ones; a
    loss without negatives ignores them. SGD and sample flows differentiate it automatically.

    References:
        docs/how-to/add-a-loss.md.

    Examples:
        >>> from dyncollapse import Objective
        >>> def pull(z, z_pos, negatives):
        ...     return (z - z_pos).square().sum(-1).mean(-1)
        >>> Objective(pull).name
        'pull'
    """

    def __call__(self, z: Tensor, z_pos: Tensor, negatives: Tensor, /) -> Tensor:
        """Return one loss per batch (*any)."""


@runtime_checkable
class LossWithGradient(Protocol):
    """A loss that brings its gradient: automatic differentiation is not used.

    Examples:
        >>> class Pull:
        ...     def __call__(self, z, z_pos, negatives):
        ...         return (z - z_pos).square().sum(-1).mean(-1)
        ...     def gradient(self, z, z_pos, negatives):
        ...         slope = 2 * (z - z_pos) / z.shape[-2]
        ...         return slope, -slope
        >>> isinstance(Pull(), LossWithGradient)
        True
    """

    def gradient(self, z: Tensor, z_pos: Tensor, negatives: Tensor, /) -> tuple[Tensor, ...]:
        """Gradients with respect to z and z_pos, and of negatives if it uses them, in the shapes of these."""


@runtime_checkable
class LossWithPopulation(Protocol):
    """A loss that brings its limit of infinitely many Gaussian samples, for a linear network with product P.

    Examples:
        >>> class Pull:
        ...     def __call__(self, z, z_pos, negatives):
        ...         return (z - z_pos).square().sum(-1).mean(-1)
        ...     def population_loss(self, product, task):
        ...         return (product @ task.aug_cov * product).sum((-2, -1))
        ...     def population_force(self, product, task):
        ...         return -2 * task.aug_cov
        >>> isinstance(Pull(), LossWithPopulation)
        True
    """

    def population_loss(self, product: Tensor, task: Any, /) -> Tensor:
        """The loss (*runs) at P (*runs, m, d) under a `GaussianTask`."""

    def population_force(self, product: Tensor, task: Any, /) -> Tensor:
        """X (*runs, d, d) with dL/dP = -P X."""


def loss_name(loss: Any) -> str:
    """What messages call a loss: its name, that of its function, or that of its class."""
    while isinstance(loss, partial):
        loss = loss.func
    return loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)


def check_arguments(loss: Any) -> None:
    """Raise ValueError unless a loss of one's own takes z, z_pos and negatives, as far as its signature says."""
    if isinstance(loss, type):
        raise ValueError(f"the loss {loss_name(loss)} is a class; give an object of it, such as {loss_name(loss)}()")
    # A module's call takes anything; its `forward` says what it needs.
    functions = {loss_name(loss): loss.forward if isinstance(loss, torch.nn.Module) else loss}
    if isinstance(loss, LossWithGradient):
        functions[f"{loss_name(loss)}.gradient"] = loss.gradient
    for name, function in functions.items():
        try:
            inspect.signature(function).bind(None, None, None)
        except TypeError:
            raise ValueError(
                f"the loss {name} takes {inspect.signature(function)}; it must take three arguments, the embeddings "
                "(z, z_pos, negatives), and return one loss per batch: wrap it in a function that does"
            ) from None
        except ValueError:  # a function without a signature: it is called and may raise
            continue


@contextmanager
def called(loss: Any) -> Iterator[None]:
    """Name the loss whose call ends in an error of PyTorch or of a call: these name neither it nor a remedy."""
    try:
        yield
    except (RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else "no reason given"
        raise ValueError(
            f"the loss {loss_name(loss)} raised {type(error).__name__}: {reason}; it must compute one loss per batch "
            "from embeddings (*any, n, m) by PyTorch's differentiable operations alone, without .numpy() or .backward()"
        ) from error


def differentiated(loss: Any, value: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of a loss's sum by automatic differentiation; ValueError where there are none."""
    _check_differentiable(loss, value.requires_grad)
    with called(loss):
        slopes = torch.autograd.grad(value.sum(), list(parameters), allow_unused=True)
    _check_differentiable(loss, any(slope is not None for slope in slopes))
    return tuple(torch.zeros_like(p) if g is None else g for g, p in zip(slopes, parameters, strict=True))


def check_value(loss: Any, value: Any, z: Tensor) -> Tensor:
    """Return what a loss of one's own returned; ValueError unless it is one floating-point number per batch."""
    if not isinstance(value, Tensor):
        raise ValueError(f"the loss {loss_name(loss)} returned a {type(value).__name__}; it must return a tensor")
    if value.is_floating_point() and torch.finfo(value.dtype).eps > torch.finfo(z.dtype).eps:
        raise ValueError(
            f"the loss {loss_name(loss)} returned {value.dtype} for embeddings of {z.dtype}; compute it in their "
            "precision, without .float() or constants of another type"
        )
    if value.shape != z.shape[:-2] or not value.is_floating_point():
        raise ValueError(
            f"the loss {loss_name(loss)} returned {tuple(value.shape)} of {value.dtype} for embeddings "
            f"{tuple(z.shape)}; it must return one number per batch, {tuple(z.shape[:-2])}: reduce the last two axes"
        )
    return value


def check_slopes(loss: Any, slopes: Any, z: Tensor) -> tuple[Tensor, ...]:
    """Return a loss's own gradients; ValueError unless they are two or three in the embeddings' shape."""
    several = isinstance(slopes, tuple | list)
    if several and not all(isinstance(g, Tensor) and g.dtype == z.dtype for g in slopes):
        kinds = ", ".join(str(g.dtype) if isinstance(g, Tensor) else type(g).__name__ for g in slopes)
        raise ValueError(f"{loss_name(loss)}.gradient returned {kinds}; it must return tensors of {z.dtype}, as z is")
    if not several or len(slopes) not in (2, 3) or any(g.shape != z.shape for g in slopes):
        given = f"gradients of shapes {[tuple(g.shape) for g in slopes]}" if several else f"a {type(slopes).__name__}"
        raise ValueError(
            f"{loss_name(loss)}.gradient returned {given}; it must return one of {tuple(z.shape)} for z, z_pos and, "
            "if it uses them, negatives"
        )
    return tuple(slopes)


def check_limit(loss: Any, name: str, value: Any, shape: Sequence[int], product: Tensor) -> Tensor:
    """Return what a loss's own population limit returned; ValueError unless it has this shape and P's precision."""
    what = f"{loss_name(loss)}.{name} returned"
    found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    if found != tuple(shape):
        raise ValueError(f"{what} {found}; it must be a tensor {tuple(shape)}, the runs' axes first")
    if value.dtype != product.dtype:
        raise ValueError(f"{what} {value.dtype} for a product of {product.dtype}; compute it in that precision")
    return value.detach() if not product.requires_grad else value


def check_number(loss: Any, name: str, value: Tensor, product: Tensor) -> Tensor:
    """Return it; ValueError where a loss's own population limit is NaN at a finite product."""
    if bool(value.isnan().any()) and bool(product.isfinite().all()):
        raise ValueError(
            f"{loss_name(loss)}.{name} returned NaN at a product whose largest entry is {product.abs().max():.3g}; "
            "keep it finite there"
        )
    return value


def _check_differentiable(loss: Any, depends: bool) -> None:
    if not depends:
        raise ValueError(
            f"the loss {loss_name(loss)} cannot be differentiated: its value does not depend on the embeddings through "
            "PyTorch's operations; leave out .detach(), .item(), NumPy and torch.no_grad(), or give it a `gradient`"
        )


def check_finite(loss: Any, value: Tensor, slopes: tuple[Tensor, ...]) -> None:
    """Raise ValueError where a loss of one's own or its gradient is not finite at the start of a path."""
    for what, tensors in (("is", (value,)), ("has a gradient that is", slopes)):
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise ValueError(
                f"the loss {loss_name(loss)} {what} NaN or infinite at the start; keep it finite there, as with a "
                "small number under a root or in a denominator"
            )
