"""Time work on a device that runs asynchronously."""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

Result = TypeVar("Result")


def wait(device: torch.device) -> None:
    """Wait until the device has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(device: torch.device) -> float:
    """The time, in seconds, at which the device has finished all work."""
    wait(device)
    return time.perf_counter()


def timed(work: Callable[[], Result], device: torch.device) -> tuple[Result, float]:
    """Call `work`; return its result and the seconds until the device has finished it."""
    start = clock(device)
    result = work()
    return result, clock(device) - start


def seconds_per_call(work: Callable[[], object], device: torch.device, seconds: float, *, warm: int = 1) -> float:
    """Measure the mean time of a call by torch.utils.benchmark.

    The device is synchronised between blocks of calls, which are long enough that this costs nothing in comparison.

    Args:
        work: The call to measure.
        device: Where it runs.
        seconds: Shortest time to measure.
        warm: Calls before the measurement. Calls that find the length of a block do not count either.

    Returns:
        Seconds per call.

    Examples:
        >>> 1e-3 < seconds_per_call(lambda: time.sleep(1e-3), torch.device("cpu"), 0.02) < 1
        True
    """
    # Its import looks for a CUDA compiler and logs the result, so it is imported only here.
    from torch.utils.benchmark import Timer

    for _ in range(warm):
        work()
    # The Timer's defaults, one thread and the current device, would ignore the program's settings.
    timer = Timer("work()", timer=partial(clock, device), globals={"work": work}, num_threads=torch.get_num_threads())
    return float(timer.blocked_autorange(min_run_time=seconds).mean)


def peak_memory(device: torch.device, work: Callable[[], object]) -> int | None:
    """Peak memory of all tensors on a GPU while `work` runs, in bytes; None on a CPU."""
    if device.type != "cuda":
        work()
        return None
    torch.cuda.reset_peak_memory_stats(device)
    work()
    wait(device)
    return int(torch.cuda.max_memory_allocated(device))
