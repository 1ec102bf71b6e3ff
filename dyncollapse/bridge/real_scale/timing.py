"""How long work takes on a device that runs behind the program."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

Result = TypeVar("Result")

MOST_CALLS = 10_000


def wait(device: torch.device) -> None:
    """Let the device finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], Result], device: torch.device) -> tuple[Result, float]:
    """What `work` returns, and the seconds until the device has finished it."""
    wait(device)
    start = time.perf_counter()
    result = work()
    wait(device)
    return result, time.perf_counter() - start


def seconds_per_call(
    work: Callable[[], object], device: torch.device, seconds: float, *, warm: int = 1, least: int = 2
) -> float:
    """Mean time of a call over about so many seconds, and over `least` calls, after `warm` calls that do not count.

    How many calls that makes is found from the first: a program that looked at the clock instead would give a device
    that lags behind far too many.
    """

    def repeat(calls: int) -> None:
        for _ in range(calls):
            work()

    repeat(warm)
    _, once = timed(work, device)
    calls = min(MOST_CALLS, max(least, math.ceil(seconds / once)))
    return timed(partial(repeat, calls), device)[1] / calls


def peak_memory(device: torch.device, work: Callable[[], object]) -> int | None:
    """Most bytes that tensors took on a GPU while `work` ran, earlier ones included; None on a CPU."""
    if device.type != "cuda":
        work()
        return None
    torch.cuda.reset_peak_memory_stats(device)
    work()
    wait(device)
    return int(torch.cuda.max_memory_allocated(device))
