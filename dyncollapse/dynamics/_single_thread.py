"""NumPy's and SciPy's products on one thread while a flow is integrated."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import scipy.linalg  # noqa: F401 - numba's products are SciPy's, and only loaded libraries are found
from threadpoolctl import ThreadpoolController

# Widest layers whose flows one thread integrates fastest. Threads wait for each other at every product: two cores with
# OpenBLAS took 9 times as long for layers of 128, 2.6 times for 256, 1.7 times for 512, and 0.8 to 1.2 times for 640.
WIDEST = 512
_TAKEN = threading.Lock()


@contextmanager
def products_on_one_thread(width: int) -> Iterator[None]:
    """Keep NumPy and SciPy to one thread in flows of layers of this width, where that is faster.

    The number of threads belongs to the whole process, and what sets it has to restore it. Of flows in several threads
    of Python the first one does both.

    Args:
        width: Inputs or outputs of the widest layer. Beyond WIDEST nothing is done.
    """
    if width > WIDEST or not _TAKEN.acquire(blocking=False):
        yield
        return
    try:
        with pools().limit(limits=1):
            yield
    finally:
        _TAKEN.release()


@cache
def pools() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")
