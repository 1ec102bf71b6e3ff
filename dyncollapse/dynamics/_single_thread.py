"""NumPy's and SciPy's products on one thread while a flow is integrated."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import scipy.linalg  # noqa: F401 - numba's products are SciPy's, and libraries that are loaded later are not found
from threadpoolctl import ThreadpoolController

# Widest layers whose flows one thread integrates fastest. Threads wait for each other at every product: two cores with
# OpenBLAS took 9 times as long for layers of 128, 3 times for 256, 2 times for 512, and 0.8 to 1.2 times for 640.
WIDEST = 512
# The flow that has taken the other threads, by the name of what it took.
taken = dict[str, ExitStack]()


@contextmanager
def products_on_one_thread(width: int) -> Iterator[None]:
    """Keep NumPy and SciPy to one thread in flows of layers of this width, where that is faster.

    The number of threads belongs to the whole process, and the thread of Python that sets it has to restore it. Of
    flows in several of them the first one does both; when it ends, the others have all threads again.

    Args:
        width: Inputs or outputs of the widest layer. Beyond WIDEST nothing is done.
    """
    own = ExitStack()
    try:
        if width <= WIDEST and taken.setdefault("threads", own) is own:
            own.enter_context(pools().limit(limits=1))
        yield
    finally:  # also where Ctrl-C came before anything was taken
        if taken.get("threads") is own:
            own.close()
            del taken["threads"]


@cache
def pools() -> ThreadpoolController:
    """What sets the threads of NumPy's and SciPy's products."""
    return ThreadpoolController().select(user_api="blas")


def _give_back() -> None:
    """Give back what a flow has taken, in a process that was forked while it ran."""
    for stack in taken.values():
        stack.close()
    taken.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_give_back)
