"""Shapes and types in annotations, checked in the wings that compute.

`helpers.shapes` imports nothing of the package, so that conftest.py can install the hook before the package is there.
"""

from collections.abc import Callable
from functools import wraps
from types import CodeType
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
    in its place, which has one made at the first call to check.
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
    if function.__name__ == "__init__":
        return function  # what uses a record refuses what does not fit in it
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
            check = shared_check(function)
        returned = function(*args, **kwargs)
        with jaxtyped("context"):  # in which a dimension has one size
            check(*args, **kwargs, ret0=returned)
        return returned

    return counted


def shared_check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The check of a function, made once for all functions that a `def` in a function makes: it takes a millisecond."""
    code = function.__code__
    if id(code) not in _checks:
        _checks[id(code)] = code, check_of(function)  # and the code is kept, so that no other gets its number
    return _checks[id(code)][1]


def check_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """What checks the arguments of a function together with its result, which it takes as `ret0`.

    jaxtyping makes two stubs per function: one with its arguments, to be called before it, and one with its result as
    well, to be called after it. Only the second is used, and alone: a function may refuse what is wrong in words of its
    own, and all else that jaxtyping does around a call takes longer than the check.
    """
    checks = []

    def keep(stub: Callable[..., Any]) -> Callable[..., Any]:
        if "ret0" in stub.__code__.co_varnames:
            hints = stub.__annotations__
            stub.__annotations__ = {name: Any if hint in (Self, type[Self]) else hint for name, hint in hints.items()}
            checks.append(beartype(stub, conf=NUMBERS))
        return stub

    jaxtyped(function, typechecker=keep)
    return checks[0]


_left = CALLS
_seen: dict[int, int] = {}
_checks: dict[int, tuple[CodeType, Callable[..., Any]]] = {}
