"""How long work takes on a device that runs behind the program."""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

Result = TypeVar("Result")


def wait(device: torch.device) -> None:
    """Let the device finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(device: torch.device) -> float:
    """The time, in seconds, at which the device has finished what it was given."""
    wait(device)
    return time.perf_counter()


def timed(work: Callable[[], Result], device: torch.device) -> tuple[Result, float]:
    """What `work` returns, and the seconds until the device has finished it."""
    start = clock(device)
    result = work()
    return result, clock(device) - start


def seconds_per_call(work: Callable[[], object], device: torch.device, seconds: float, *, warm: int = 1) -> float:
    """Mean time of a call, measured by torch.utils.benchmark over at least so many seconds.

    The device is waited for between blocks of calls, which are long enough that waiting costs nothing beside them.

    Args:
        work: What is measured.
        device: Where it runs.
        seconds: How long to measure.
        warm: Calls that come first and do not count. Those that find the length of a block do not count either.

    Returns:
        Seconds.

    Example:
        >>> 1e-3 < seconds_per_call(lambda: time.sleep(1e-3), torch.device("cpu"), 0.02) < 1
        True
    """
    # Its import looks for a CUDA compiler and logs what it finds: only what measures may say so.
    from torch.utils.benchmark import Timer

    for _ in range(warm):
        work()
    # The Timer's own defaults are one thread and the current device, whatever the program has set.
    timer = Timer("work()", timer=partial(clock, device), globals={"work": work}, num_threads=torch.get_num_threads())
    return float(timer.blocked_autorange(min_run_time=seconds).mean)


def peak_memory(device: torch.device, work: Callable[[], object]) -> int | None:
    """Most bytes that tensors took on a GPU while `work` ran, earlier ones included; None on a CPU."""
    if device.type != "cuda":
        work()
        return None
    torch.cuda.reset_peak_memory_stats(device)
    work()
    wait(device)
    return int(torch.cuda.max_memory_allocated(device))
