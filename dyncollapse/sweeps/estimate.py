"""A rough estimate of a sweep's time and memory, from a few steps of each shape of pack."""

import math
import sys
import time as clock
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from threadpoolctl import threadpool_limits

from dyncollapse.dynamics.training import Diverged
from dyncollapse.runtime.process import cores, torch_threads
from dyncollapse.simulation.build import build
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.report import report
from dyncollapse.simulation.run import run
from dyncollapse.sweeps.packing import shape_of
from dyncollapse.sweeps.points import threads_of_each

# Seconds for which each dynamics of a shape is watched, most SGD steps of that, and most shapes that are watched: rules
# of thumb that keep an estimate within a few seconds.
WATCHED, STEPS, SHAPES = 0.4, 200, 8
# Seconds for which each dynamics of a single simulation is watched before it starts.
GLANCE = 0.15


class Estimate(NamedTuple):
    """Rough time and memory of a sweep.

    Attributes:
        seconds: Time of the whole sweep.
        memory: Bytes per worker; None where the system does not report memory.
    """

    seconds: float
    memory: int | None


def estimate(packs: Sequence[Sequence[Configuration]], workers: int) -> Estimate:
    """Estimate what a sweep takes, by timing a few steps of each shape of pack, of SHAPES of them at most.

    Args:
        packs: The sweep's packs.
        workers: How many of them run at the same time.

    Returns:
        Time and memory.
    """
    of_shape: dict[tuple[object, ...], list[Sequence[Configuration]]] = {}
    for pack in packs:
        of_shape.setdefault((*shape_of(pack[0]), sum(c.runs for c in pack)), []).append(pack)
    shapes = list(of_shape.values())
    watched = shapes[:: -(-len(shapes) // SHAPES) or 1]
    seconds = [_seconds(alike[0], threads_of_each(workers)) for alike in watched]
    per_run = sum(seconds) / max(1, sum(c.runs for alike in watched for c in alike[0]))
    total = longest = 0.0
    for alike in shapes:
        known = seconds[watched.index(alike)] if alike in watched else per_run * sum(c.runs for c in alike[0])
        total, longest = total + known * len(alike), max(longest, known)
    pools = max((sum(c.runs * c.pool * c.dim for c in pack) * 8 for pack in packs), default=0)
    return Estimate(max(total / workers, longest), _peak_memory(pools))


def expected_seconds(configuration: Configuration) -> float:
    """Roughly the seconds that a simulation will take, from the first moments of each of its dynamics."""
    return _seconds([configuration], cores(), GLANCE)


# A flow that hardly advances is watched PATIENCE times as long, and then counted as advanced by LEAST_SHARE.
PATIENCE, LEAST_SHARE = 10, 1e-9


class _Seen(Exception):
    """The simulation has been watched for long enough."""


def _seconds(pack: Sequence[Configuration], threads: int, watched: float = WATCHED) -> float:
    """Seconds of one pack: SGD of all its runs at once, with `threads` unless the points set theirs, flows by point."""
    first = replace(pack[0], pool=min(pack[0].pool, 4 * pack[0].batch_size))  # a short look needs few samples
    together = replace(first, runs=sum(c.runs for c in pack), steps=min(STEPS, first.steps), dynamics=("sgd",))
    threads = first.threads or threads
    with torch_threads(first.threads or 1), threadpool_limits(first.threads or 1, "blas"):
        total = _report_seconds(first) * len(first.dynamics) * len(pack)
        for name in first.dynamics:
            if name == "sgd":
                total += _watch(together, threads, watched, first.steps / together.steps)
            else:
                total += _watch(replace(first, dynamics=(name,)), threads, watched) * len(pack)
    return total


def _report_seconds(configuration: Configuration) -> float:
    simulation = build(replace(configuration, steps=1, dynamics=("sgd",)))
    try:
        outcome = run(simulation, lambda *_: None, lambda _: None)
    except Diverged:  # the point itself will diverge, too, and then writes no report
        return 0.0
    started = clock.perf_counter()
    report(outcome)
    return clock.perf_counter() - started


def _watch(configuration: Configuration, threads: int, watched: float, times: float = 1.0) -> float:
    """Seconds of one dynamics, from how far it comes in `watched` seconds; SGD goes on for `times` as many steps.

    The solvers of flows take about equal steps in log(1 + t), so flows are extrapolated in log(1 + t): measured, this
    is within a factor of 2 for depths 1 to 3.
    """
    (name,), began = configuration.dynamics, clock.perf_counter()
    simulation = build(configuration)
    started, share = clock.perf_counter(), 0.0
    parts = turns(configuration, name, threads)

    def look(_name: str, done: float, total: float) -> None:
        nonlocal share, started
        if (
            name == "sgd" and done == 0
        ):  # with a large batch, the record of the start may take longer than the whole look
            started = clock.perf_counter()
            return
        if name == "sgd":
            share = done / total
        else:
            finished, within = divmod(done / total * parts, 1)
            share = (finished + math.log1p(within * total) / math.log1p(total)) / parts
        looked = clock.perf_counter() - started
        if looked > watched and (share > LEAST_SHARE or looked > PATIENCE * watched):
            raise _Seen

    try:
        run(simulation, look, lambda _: None, threads=threads)
        share = 1.0
    except _Seen:
        pass
    except Exception:  # a failure is reported when the sweep runs; here it counts for the time until it happened
        share = share or 1.0
    return started - began + times * (clock.perf_counter() - started) / max(share, LEAST_SHARE)


def turns(configuration: Configuration, name: str, threads: int) -> int:
    """How many runs of a flow a thread integrates, one after the other; only runs of a sample flow share threads."""
    return math.ceil(configuration.runs / (threads if name == "flow" else 1))


def _peak_memory(more: int) -> int | None:
    """The peak memory of this process, which has just done the work of a worker, plus `more` bytes."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit + more
