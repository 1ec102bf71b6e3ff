"""Functions of NumPy arrays that numba compiles, once for each type of number, and keeps on the disk.

They hold no lock of the interpreter while they run, so that threads run them beside each other.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from dyncollapse.runtime.process import collecting_later

with collecting_later():
    from numba import njit

LOGGER = logging.getLogger(__name__)
Function = TypeVar("Function", bound=Callable[..., Any])

# Sums may be reordered and products joined to them. NaN and infinities keep their meaning: divergence is told by them.
REORDERED = frozenset({"reassoc", "contract", "arcp", "nsz"})


def compiled(function: Function) -> Function:
    """Decorate a function of arrays and numbers to be compiled at its first call.

    What is compiled is kept beside the function's file, or in the user's cache where that folder cannot be written.
    numba notices changes of this file alone, so the functions that it calls, which are `inlined`, belong there too.
    That it is compiled, which takes seconds, is logged.
    """
    try:
        dispatcher = njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no folder to keep it in
        return njit(**_OPTIONS)(function)
    if hasattr(dispatcher, "_cache"):  # not where numba is switched off
        _watch(dispatcher._cache, function.__name__)
    return dispatcher


def inlined(function: Function) -> Function:
    """Decorate a function that `compiled` ones call, to become part of each of them.

    Left to itself, numba calls a version of its own in the process that compiles, and another in those that read the
    result from the disk: their sums were measured to differ in the last bits.
    """
    return njit(forceinline=True, **_OPTIONS)(function)


def compile_for(function: Callable[..., Any], *arguments: Any) -> None:
    """Compile a `compiled` function for numba's types of its arguments, or load it; nothing where numba is off."""
    compile_now = getattr(function, "compile", None)
    if compile_now is not None:
        compile_now(arguments)


def _watch(cache: Any, name: str) -> None:
    """Log what is compiled, also because it cannot be read: by itself numba raises what unpickling does."""
    load = cache.load_overload

    def loaded(*given: Any) -> Any:
        kept = None
        try:
            with collecting_later():  # at the first call numba imports what it knows of Python and NumPy
                kept = load(*given)
        except Exception:  # whatever unpickling damaged bytes raises
            with suppress(OSError):
                cache.flush()
        if kept is None:
            LOGGER.info("compiling %s", name)
        return kept

    cache.load_overload = loaded


_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(REORDERED)}
