"""Shapes and types in annotations, checked in the wings that compute.

`helpers.shapes` imports nothing of the package, so that conftest.py can install the hook before the package is there.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Self

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

CHECKED = tuple(f"dyncollapse.{wing}" for wing in ("model", "theory", "dynamics", "diagnostics"))
CALLS = 300  # that are checked in each test,
EACH = 5  # and of each function: a loop does again what it did before
NUMBERS = BeartypeConf(is_pep484_tower=True)  # an int is a float


def check_annotations() -> None:
    """Check the annotations of all modules in CHECKED that are imported from now on.

    jaxtyping's hook decorates every function with `jaxtyping.jaxtyped`, and makes its two stubs at once: seconds for
    functions that no test calls, and anew for a function in a function, whenever that is defined. Here `checked` comes
    in its place, which has them made at the first call to check.
    """
    jaxtyping.jaxtyped = lambda *, typechecker: checked  # type: ignore[assignment]  # noqa: ARG005
    jaxtyping.install_import_hook(CHECKED, None)


def check_next_calls() -> None:
    """Check that many calls from here on."""
    global _left
    _left = CALLS
    _seen.clear()


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check the first calls of a function, with everything that it was given and has returned."""
    if isinstance(function, type) or "return" not in function.__annotations__:
        return function
    if function.__module__.endswith("_compiled"):
        return function  # numba compiles functions as they are written
    if _left <= 0 and "<locals>" in function.__qualname__:
        return function  # a `def` in a function, again and again in a loop: to wrap it takes longer than many calls
    key, check = id(function.__code__), None  # one for all functions that a `def` in a function makes

    @wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal check
        global _left
        if _left <= 0 or (before := _seen.get(key, 0)) >= EACH:
            return function(*args, **kwargs)
        _left -= 1
        _seen[key] = before + 1
        if check is None:
            check = jaxtyped(function, typechecker=results)
        return check(*args, **kwargs)

    return counted


def results(stub: Callable[..., Any]) -> Callable[..., Any]:
    """Check what a function returned, together with what it was given, and not before it has returned.

    jaxtyping hands over two stubs per function: one with its arguments, called before it, and one with its result as
    `ret0` as well, called after it. The first is let pass: a function may refuse what is wrong in words of its own. So
    are constructors: what uses a record refuses what does not fit in it.
    """
    if stub.__name__ == "__init__" or "ret0" not in stub.__code__.co_varnames:
        return stub
    hints = stub.__annotations__
    stub.__annotations__ = {name: Any if hint in (Self, type[Self]) else hint for name, hint in hints.items()}
    return beartype(stub, conf=NUMBERS)


_left = CALLS
_seen: dict[int, int] = {}
