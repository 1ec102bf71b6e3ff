"""Notice that a mapped file changes while it is in use."""

import ctypes
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dyncollapse.runtime.files import printable

ADVICE = "give a copy that nothing writes to"


@contextmanager
def unchanged(paths: Iterable[Path]) -> Iterator[None]:
    """Check that mapped files do not change while the block uses them.

    Args:
        paths: The files.

    Yields:
        Nothing. If a file becomes shorter, the system ends the process at the first number that is missing: with one
        line on stderr and exit code 2.

    Raises:
        ValueError: At the end of the block, for a file that was written to or replaced.
    """
    before = {path: _state(path) for path in paths}
    with _ended_in_one_line(f"a file was cut while it was read; {ADVICE}"):
        yield
    for path, state in before.items():
        if _state(path) != state:
            raise ValueError(f"{printable(str(path))} was changed while it was read; {ADVICE}")


def _state(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def _ended_in_one_line(message: str) -> Iterator[None]:
    """End the process in one line if it reads beyond a file; handlers in Python would run only after the read."""
    if not hasattr(signal, "SIGBUS") or threading.current_thread() is not threading.main_thread():
        yield
        return

    first = threading.Lock()  # several threads may read beyond the file at once

    def end(_number: int) -> None:
        if first.acquire(blocking=False):
            os.write(2, f"dyncollapse: {message}\n".encode())
            os._exit(2)
        signal.pause()

    library = ctypes.CDLL(None)
    library.signal.restype, library.signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(end)
    before = library.signal(signal.SIGBUS, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        library.signal(signal.SIGBUS, before)
