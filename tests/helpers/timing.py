"""Contenders timed in turns, by the seconds of this process's own cores: other programs may share the machine."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Contenders = Mapping[str, Callable[[], Any]]


def race(benchmark: Any, contenders: Contenders, rounds: int = 3) -> dict[str, Any]:
    """Time the first contender by pytest-benchmark, and in each round the others before it.

    Args:
        benchmark: The fixture of a test with `timer=time.process_time`. Gets the median seconds of each other contender
            and how many times as long as the first it takes.
        contenders: Functions by name.
        rounds: How often each runs.

    Returns:
        What each returned last.
    """
    results: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}

    def timed(name: str) -> None:
        started = time.process_time()
        results[name] = contenders[name]()
        seconds[name].append(time.process_time() - started)

    first, *others = contenders

    def run_others() -> None:
        for name in others:
            timed(name)

    benchmark.pedantic(timed, (first,), setup=run_others, rounds=rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name in others:
        benchmark.extra_info[name] = f"{medians[name]:.3g} s ({medians[name] / medians[first]:.2f} x)"
    return results
