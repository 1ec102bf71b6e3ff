"""How much memory there is, and what the C library does with it between steps."""

import ctypes
import sys
from functools import cache
from pathlib import Path

# Names of glibc's malloc.h, and what they are set to here: 32 MB is the most that it allows for the second.
M_TRIM_THRESHOLD, KEPT = -1, 2**28
M_MMAP_THRESHOLD, LARGEST = -3, 2**25


@cache
def recycle_freed_memory() -> None:
    """Let glibc use freed memory again, instead of giving it back and mapping it anew at every step.

    By default it does so for every block beyond 128 kB, at a page fault per 4 kB. Measured: half of the time of an
    SGD step on 64 runs, a sixth of an exact Jacobian. It is a setting of the whole process, which then keeps up to
    256 MB that it does not use: for programs and workers, never for library functions. The command line calls it; call
    it once at the start of a script of your own. Other C libraries are left as they are.

    Example:
        >>> recycle_freed_memory()
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)


def available_memory() -> int | None:
    """Bytes that this process can still take without swapping; None where the system does not say."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024 * int(fields["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None
