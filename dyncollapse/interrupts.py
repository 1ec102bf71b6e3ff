"""Ctrl-C, and SIGTERM that stands for it, at moments when they would lose what is done; and what a kill leaves."""

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
    """Take SIGTERM, by which batch systems end a program, for Ctrl-C: what was recorded is kept."""
    before = _handlers(signal.SIGTERM)
    _handle(dict.fromkeys(before, signal.default_int_handler))
    try:
        yield
    finally:
        _handle(before)


@contextmanager
def uninterrupted(told: str = "") -> Iterator[None]:
    """Put Ctrl-C off to the end of the block, and tell the user so; a second one ends it at once."""
    pressed, before = [], _handlers(*SIGNALS)

    def later(*_: object) -> None:
        _handle(before)
        pressed.append(True)
        os.write(2, told.encode())  # a handler may not wait for a stream that it interrupted

    _handle(dict.fromkeys(before, later))
    try:
        yield
    finally:
        _handle(before)
    if pressed:
        raise KeyboardInterrupt


@contextmanager
def deaf_children() -> Iterator[None]:
    """Start processes that leave Ctrl-C to this one, which puts it off meanwhile; theirs would be a traceback each."""
    with uninterrupted():
        if not hasattr(signal, "pthread_sigmask"):
            yield
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which processes inherit
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent(parent: int | None = None) -> None:
    """Have Linux kill this process when the thread that started it ends, however that happens.

    `parent` is the process of that thread, where it is known: had that ended before, nothing would come of its end.
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
    """What handles the signals, without those that are ignored, as in the background; none where none can be set."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in numbers}
    return {number: handler for number, handler in found.items() if handler not in (signal.SIG_IGN, None)}


def _handle(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
