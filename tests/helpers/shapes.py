"""Shapes and types in annotations, checked at every call of the wings that compute.

`helpers.shapes` imports nothing of the package, so that conftest.py can install the hook before the package is there.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Self

from beartype import BeartypeConf, beartype
from jaxtyping import config, install_import_hook

CHECKED = tuple(f"dyncollapse.{wing}" for wing in ("model", "theory", "dynamics", "diagnostics"))
CALLS = 300  # that are checked in each test: a loop does again what it did before
NUMBERS = BeartypeConf(is_pep484_tower=True)  # an int is a float


def check_annotations() -> None:
    """Check the annotations of all modules in CHECKED that are imported from now on."""
    install_import_hook(CHECKED, "helpers.shapes.checked")


def check_next_calls() -> None:
    """Check that many calls from here on."""
    global _left
    _left = CALLS
    config.update("jaxtyping_disable", False)


def checked(stub: Callable[..., Any]) -> Callable[..., Any]:
    """Check what a function returned, together with what it was given, and not before it has returned.

    jaxtyping hands over two stubs per function: one with its arguments, called before it, and one with its result as
    `ret0` as well, called after it. The first is let pass: a function may refuse what is wrong in words of its own. So
    are constructors: what uses a record refuses what does not fit in it.
    """
    if stub.__name__ == "__init__" or "ret0" not in stub.__code__.co_varnames:
        return stub
    hints = stub.__annotations__
    stub.__annotations__ = {name: Any if hint in (Self, type[Self]) else hint for name, hint in hints.items()}
    # A function in a function comes here whenever it is defined, and its check is made when there is a call to check.
    check = None if "<locals>" in stub.__qualname__ else beartype(stub, conf=NUMBERS)

    @wraps(stub)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal check
        global _left
        _left -= 1
        if _left < 0:
            config.update("jaxtyping_disable", True)
            return kwargs["ret0"]
        if check is None:
            check = beartype(stub, conf=NUMBERS)
        return check(*args, **kwargs)

    return counted


_left = CALLS
