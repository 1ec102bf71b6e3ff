"""How many threads and processes there may be, and how many threads PyTorch uses."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from dyncollapse.runtime.settings import SettingError

# Threads, or processes, for each core that may be used: many more only wait for each other, and thousands exhaust what
# the system has of them.
PER_CORE = 16


def cores() -> int:
    """Processor cores that this process may use; 1 where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def check_count(name: str, count: int, least: int = 1) -> None:
    """Raise SettingError, one line, for a number of threads or processes on this machine that is out of reason."""
    most = PER_CORE * cores()
    if not least <= count <= most:
        raise SettingError(
            f"`{name}` is {count}; it must be between {least} and {most}, {PER_CORE} for each core that may be used"
        )


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Give PyTorch so many threads for a while, on the CPU.

    They are the whole process's: blocks that overlap, in several of Python's threads, leave the number of either.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
