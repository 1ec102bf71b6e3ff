"""Functions of NumPy arrays that numba compiles, once for each type of number, and keeps on the disk.

They hold no lock of the interpreter while they run, so that threads run them beside each other.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

# Sums may be reordered and products joined to them. NaN and infinities keep their meaning: divergence is told by them.
REORDERED = frozenset({"reassoc", "contract", "arcp", "nsz"})


def compiled(function: Function) -> Function:
    """Decorate a function of arrays and numbers to be compiled at its first call.

    What is compiled is kept beside the function's file, or in the user's cache where that folder cannot be written.
    numba notices changes of this file alone, so the functions that it calls, which are `inlined`, belong there too.
    """
    try:
        dispatcher = njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no folder to keep it in
        return njit(**_OPTIONS)(function)
    if hasattr(dispatcher, "_cache"):  # not where numba is switched off
        _replace_damaged_files(dispatcher._cache)
    return dispatcher


def inlined(function: Function) -> Function:
    """Decorate a function that `compiled` ones call, to become part of each of them.

    Left to itself, numba calls a version of its own in the process that compiles, and another in those that read the
    result from the disk: their sums were measured to differ in the last bits.
    """
    return njit(forceinline=True, **_OPTIONS)(function)


def _replace_damaged_files(cache: Any) -> None:
    """Let numba compile anew where it cannot read what it kept; by itself it raises what unpickling does."""
    load = cache.load_overload

    def loaded(*given: Any) -> Any:
        try:
            return load(*given)
        except Exception:  # whatever unpickling damaged bytes raises
            with suppress(OSError):
                cache.flush()
            return None

    cache.load_overload = loaded


_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(REORDERED)}
