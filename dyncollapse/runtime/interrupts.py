"""Ctrl-C and SIGTERM at moments when they would lose results, and child processes that end with their parent."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PARENT = "DYNCOLLAPSE_PARENT"  # in the environment of a server of workers: the process that starts it
PR_SET_PDEATHSIG = 1  # of Linux's prctl.h


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
