"""Ctrl-C, and SIGTERM that stands for it, at moments when they would lose what is done."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopped_as_by_ctrl_c() -> Iterator[None]:
    """Take SIGTERM, by which batch systems end a program, for Ctrl-C: what was recorded is kept."""
    if threading.current_thread() is not threading.main_thread():  # where signals cannot be set
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def uninterrupted(told: str = "") -> Iterator[None]:
    """Put Ctrl-C off to the end of the block, and tell the user so; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():  # where signals cannot be set
        yield
        return
    pressed, before = [], {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def later(*_: object) -> None:
        restore()
        pressed.append(True)
        os.write(2, told.encode())  # a handler may not wait for a stream that it interrupted

    for number in SIGNALS:
        signal.signal(number, later)
    try:
        yield
    finally:
        restore()
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
