"""A context of the whole process that threads are in together."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack


class SharedContext:
    """A context that the first thread enters and the last one leaves.

    With a context of its own for each thread, such as `warnings.catch_warnings` or `contextlib.redirect_stdout`, the
    thread that ends last would restore what another had set.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        """Take the function that makes the context."""
        self._make, self._lock, self._threads, self._before = make, threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        """Enter the context, unless a thread is in it."""
        with self._lock:
            if self._threads == 0:
                self._before.enter_context(self._make())
            self._threads += 1

    def __exit__(self, *error: object) -> None:
        """Leave the context, unless a thread is in it."""
        with self._lock:
            self._threads -= 1
            if self._threads == 0:
                self._before.close()
