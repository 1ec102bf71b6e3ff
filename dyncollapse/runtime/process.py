"""What belongs to the whole process: how it handles signals and ends, its threads and its memory.

The server of worker processes imports this before anything that takes long; nothing heavy is imported here.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from dyncollapse.runtime.settings import SettingError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PARENT = "DYNCOLLAPSE_PARENT"  # in the environment of a server of workers: the process that starts it
PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
# Most threads or processes for each core that may be used. More only wait for each other, and thousands exhaust the
# system's limit; 16 is a rule of thumb that leaves room for work that waits for disks.
PER_CORE = 16
# Names of glibc's malloc.h, and what they are set to here: 32 MB is the most that it allows for the second.
M_TRIM_THRESHOLD, KEPT = -1, 2**28
M_MMAP_THRESHOLD, LARGEST = -3, 2**25


@contextmanager
def stopped_as_by_ctrl_c() -> Iterator[None]:
    """Handle SIGTERM, by which batch systems end a program, as Ctrl-C: what was recorded is kept."""
    before = _handlers(signal.SIGTERM)
    _handle(dict.fromkeys(before, signal.default_int_handler))
    try:
        yield
    finally:
        _handle(before)


@contextmanager
def uninterrupted(message: str = "") -> Iterator[None]:
    """Delay Ctrl-C to the end of the block, and write `message` to stderr when it comes; a second one acts at once."""
    pressed, before = [], _handlers(*SIGNALS)

    def later(*_: object) -> None:
        _handle(before)
        pressed.append(True)
        os.write(2, message.encode())  # a handler must not wait for a stream that it interrupted

    _handle(dict.fromkeys(before, later))
    try:
        yield
    finally:
        _handle(before)
    if pressed:
        raise KeyboardInterrupt


@contextmanager
def children_ignore_interrupts() -> Iterator[None]:
    """Start processes in the block that ignore Ctrl-C, which this one delays meanwhile.

    A terminal sends Ctrl-C to all of them: each would print a traceback.
    """
    with uninterrupted():
        if not hasattr(signal, "pthread_sigmask"):
            yield
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit the mask
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent(parent: int | None = None) -> None:
    """Have Linux kill this process when the thread that started it ends, however that happens.

    Args:
        parent: The process of that thread, where it is known. If it has ended already, this process ends at once,
            since Linux would not notice.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if parent not in (None, os.getppid()):
            os._exit(1)


def start_tracker_quietly() -> None:
    """Start multiprocessing's tracker of semaphores, unless it runs, so that it removes what a kill leaves silently.

    It outlives the killed program by a moment, and would warn on a terminal that shows the next prompt already.
    """
    name = "PYTHONWARNINGS"
    before = os.environ.get(name)
    os.environ[name] = ",".join(filter(None, (before, "ignore:resource_tracker")))
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _handlers(*numbers: signal.Signals) -> dict[signal.Signals, Any]:
    """The handlers of these signals, except ignored ones (a job in the background); empty where none can be set."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in numbers}
    return {number: handler for number, handler in found.items() if handler not in (signal.SIG_IGN, None)}


def _handle(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def cores() -> int:
    """Processor cores that this process may use; 1 where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def check_count(name: str, count: int, least: int = 1) -> None:
    """Raise SettingError, one line, for more threads or processes than this machine can use."""
    most = PER_CORE * cores()
    if not least <= count <= most:
        raise SettingError(
            f"`{name}` is {count}; it must be between {least} and {most}, {PER_CORE} for each core that may be used"
        )


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch use `count` threads on the CPU within the block.

    The number belongs to the whole process: of blocks that overlap in several Python threads, the last to end decides.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def recycle_freed_memory() -> None:
    """Let glibc use freed memory again, instead of giving it back and mapping it anew at every step.

    By default it does so for every block beyond 128 kB, at a page fault per 4 kB. Measured: half of the time of an
    SGD step on 64 runs, a sixth of an exact Jacobian. It is a setting of the whole process, which then keeps up to
    256 MB that it does not use: for programs and workers, never for library functions. The command line calls it; call
    it once at the start of a script of your own. Other C libraries are left as they are.

    Example:
        >>> recycle_freed_memory()
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)


def available_memory() -> int | None:
    """Bytes that this process can still take without swapping; None where the system does not say."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024 * int(fields["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None
