"""Ctrl-C at moments when it would lose what is done."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uninterrupted(told: str = "") -> Iterator[None]:
    """Put Ctrl-C off to the end of the block, and tell the user so; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():  # where signals cannot be set
        yield
        return
    pressed, before = [], signal.getsignal(signal.SIGINT)

    def later(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        pressed.append(True)
        os.write(2, told.encode())  # a handler may not wait for a stream that it interrupted

    signal.signal(signal.SIGINT, later)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
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
