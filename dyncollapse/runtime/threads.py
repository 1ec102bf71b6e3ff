"""How many threads and processes may run, and how many threads PyTorch uses."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from dyncollapse.runtime.settings import SettingError

# Most threads or processes for each core that may be used. More only wait for each other, and thousands exhaust the
# system's limit; 16 is a rule of thumb that leaves room for work that waits for disks.
PER_CORE = 16


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
