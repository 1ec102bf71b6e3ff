"""Waiting for what another process or thread does; a slow machine only makes it take longer."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

ONE_THREAD: Mapping[str, str] = {**os.environ, "OMP_NUM_THREADS": "1"}
# Seconds after which a test gives up what never happens. No test says by it how fast something is.
PATIENCE = 300.0

Found = TypeVar("Found")


def eventually(look: Callable[[], Found], seconds: float = PATIENCE) -> Found:
    """What `look` returns as soon as that is true; AssertionError where it never is."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"this has not happened within {seconds:.0f} s"
        time.sleep(0.01)
    return found


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        os.kill(pid, 0)
        return sys.platform != "linux" or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@contextmanager
def little_work(seconds: float) -> Iterator[None]:
    """Fail where the block takes more seconds of processor time, which other processes do not take away."""
    started = time.process_time()
    yield
    assert time.process_time() - started < seconds
