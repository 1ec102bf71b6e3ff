"""The end of a program, without the half second in which Python frees every module of PyTorch and SciPy."""

import atexit
import os
import sys
import threading
from collections.abc import Callable
from traceback import walk_stack


def run_program(command: Callable[[], object]) -> None:
    """Call what a program does, and end the process as Python would, except that nothing is freed.

    Functions of `atexit` are called and buffers are written. Where this is not all that the process does, as under a
    profiler, or where threads go on, or where the end prints something, the end is left to Python.

    Args:
        command: Ends by SystemExit, as commands do.

    Raises:
        SystemExit: Where the end is left to Python.

    Examples:
        >>> try:
        ...     run_program(lambda: sys.exit(2))
        ... except SystemExit as ended:
        ...     print(ended.code)
        2
    """
    try:
        command()
    except SystemExit as ended:
        if isinstance(ended.code, int | None) and _is_whole_program() and _is_last_thread():
            _end(ended.code or 0)
        raise


def _is_whole_program() -> bool:
    """Whether only the program's own lines, and those that run a module for `python -m`, called `run_program`."""
    callers = [str(frame.f_globals.get("__name__")).partition(".")[0] for frame, _ in walk_stack(None)]
    return callers.count("__main__") == 1 and {*callers} <= {"__main__", "runpy", "dyncollapse"}


def _is_last_thread() -> bool:
    return all(thread.daemon or thread is threading.main_thread() for thread in threading.enumerate())


def _end(code: int) -> None:
    """End the process; returns where a buffer cannot be written, which Python reports."""
    atexit._run_exitfuncs()
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # a program without a terminal may have none
            stream.flush()
    except (OSError, ValueError):
        return
    os._exit(code)
