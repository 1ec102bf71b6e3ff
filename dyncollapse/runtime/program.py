"""The end of a program, without the half second in which Python frees every module of PyTorch and SciPy."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from inspect import currentframe
from traceback import walk_stack


def run_program(command: Callable[[], object]) -> None:
    """Call what a program does, and end the process as Python would, except that nothing is freed.

    Functions of `atexit` are called and buffers are written. The end is left to Python where anything could come after
    it: a caller that may catch SystemExit, as profilers do, other threads, a prompt (`python -i`), or a text to print.

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
        if isinstance(ended.code, int | None) and _is_last() and not _is_caught():
            _end(ended.code or 0)
        raise


def _is_last() -> bool:
    """Whether neither a thread nor a prompt comes after this program."""
    prompt = sys.flags.inspect or sys.flags.interactive or os.environ.get("PYTHONINSPECT")
    return not prompt and all(one.daemon or one is threading.main_thread() for one in threading.enumerate())


def _is_caught() -> bool:
    """Whether a caller may catch what is raised here: one that handles exceptions, or that is no Python program."""
    frames = [frame for frame, _ in walk_stack(currentframe())]
    callers = [frame.f_code for frame in frames if frame.f_globals.get("__name__") not in (__name__, "runpy")]
    return not callers or callers[-1].co_name != "<module>" or any(code.co_exceptiontable for code in callers)


def _end(code: int) -> None:
    """End the process; returns where a buffer cannot be written, which Python reports."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # without a traceback: what there was to do is done
    atexit._run_exitfuncs()
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # a program without a terminal may have none
            stream.flush()
    except (OSError, ValueError):
        return
    os._exit(code)
