"""Memory that ran out, as one type of error, whichever allocator refused it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dyncollapse.runtime.files import first_line

CPU_ALLOCATOR = "DefaultCPUAllocator"  # begins what torch says of a CPU's memory, for which it has no type


class OutOfMemory(MemoryError):
    """A tensor did not fit into the memory of a CPU or GPU; the message is the allocator's."""


@contextmanager
def out_of_memory_raised() -> Iterator[None]:
    """Raise OutOfMemory where torch finds no memory for a tensor.

    Raises:
        OutOfMemory: One line. Its traceback holds on to what filled the memory, as long as the error is held.

    Example:
        >>> with out_of_memory_raised():
        ...     torch.empty(2**60)
        Traceback (most recent call last):
            ...
        dyncollapse.runtime.out_of_memory.OutOfMemory: ...
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or CPU_ALLOCATOR in str(error):
            raise OutOfMemory(first_line(error)) from None
        raise
