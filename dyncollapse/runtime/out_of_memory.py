"""One error for memory that ran out, whichever allocator refused it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dyncollapse.runtime.files import first_line

CPU_ALLOCATOR = "DefaultCPUAllocator"  # in torch's message for CPU memory, which has no error type of its own


class OutOfMemory(MemoryError):
    """A tensor did not fit into the memory of a CPU or GPU; the message is the allocator's."""


@contextmanager
def out_of_memory_raised() -> Iterator[None]:
    """Turn torch's errors about memory in the block into OutOfMemory.

    Raises:
        OutOfMemory: In one line. Its traceback keeps the tensors that filled the memory alive as long as it lives.

    Examples:
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
