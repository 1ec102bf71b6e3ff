"""A rough estimate of a sweep's time and memory, from a few steps of each shape of pack."""

import math
import sys
import time as clock
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from threadpoolctl import threadpool_limits

from dyncollapse.dynamics.training import Diverged
from dyncollapse.model.streams import numbers_per_step
from dyncollapse.runtime.process import cores, torch_threads
from dyncollapse.simulation.build import build
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.prediction import time_per_step
from dyncollapse.simulation.report import report
from dyncollapse.simulation.run import run
from dyncollapse.sweeps.packing import shape_of
from dyncollapse.sweeps.points import threads_of_each

# Seconds for which each dynamics of a shape is watched, most SGD steps of that, and most shapes that are watched: rules
# of thumb that keep an estimate within a few seconds.
WATCHED, STEPS, SHAPES = 0.4, 200, 8
# Seconds for which each dynamics of a single simulation is watched before it starts.
GLANCE = 0.15


# A simulation that reads and writes fewer numbers is short: at 6 ns each, as measured on an AMD EPYC of family 25, it
# takes 9 s. In each evaluation the calls of a layer cost as much as CALLS numbers, other losses and ReLU at most OTHERS
# times as much as Eq. 2, and a step of a flow takes STAGES evaluations. Rules of thumb, rather too large.
SHORT, CALLS, OTHERS, STAGES = 1.5e9, 2e4, 4, {"flow": 12, "population": 3}


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


def is_short(configuration: Configuration) -> bool:
    """Whether a simulation surely takes only some seconds, by its settings alone; False where they do not tell.

    Args:
        configuration: The settings.

    Returns:
        True for SGD, and flows of linear networks under Eq. 2, of few steps on small batches.

    Examples:
        >>> is_short(Configuration()), is_short(Configuration(steps=10**6))
        (True, False)
    """
    c, plain = configuration, configuration.loss == "infonce" and configuration.activation == "linear"
    each, calls, total = numbers_per_step(c.batch_size, max(c.layer_widths)), CALLS * c.depth, 0.0
    for name in c.dynamics:
        if name == "sgd":
            total += c.steps * max(calls, c.runs * each) * (1 if plain else OTHERS)
        else:
            steps = typical_steps(c, name, c.steps * time_per_step(c))
            one = c.flow_batches * each if name == "flow" else 2 * c.depth * max(c.layer_widths) ** 3
            total += c.runs * STAGES[name] * steps * max(calls, one) if plain else math.inf
    return c.device == "cpu" and total < SHORT


# A flow is watched until its solver has taken LEAST_STEPS, or for PATIENCE times as long. Rules of thumb.
LEAST_STEPS, PATIENCE = 5, 10


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
    """Seconds of one dynamics, from how far it comes in `watched` seconds; SGD goes on for `times` as many steps."""
    (name,), began = configuration.dynamics, clock.perf_counter()
    simulation = build(configuration)
    started, looks, expected = clock.perf_counter(), 0, 0.0

    def look(_name: str, done: float, total: float) -> None:
        nonlocal started, looks, expected
        if done == 0:  # the record of the start, or the first evaluation, may take longer than the whole look
            started = clock.perf_counter()
            return
        looked, looks = clock.perf_counter() - started, looks + 1
        if name == "sgd":
            expected = times * looked * total / done
        else:
            expected = _flow_seconds(configuration, threads, looked, looks, done, total)
        few = name != "sgd" and looks < LEAST_STEPS * _at_once(configuration, name, threads)
        if looked > (PATIENCE * watched if few else watched):
            raise _Seen

    try:
        run(simulation, look, lambda _: None, threads=threads)
        expected = times * (clock.perf_counter() - started)
    except _Seen:
        pass
    except Exception:  # a failure is reported when the sweep runs; here it counts for the time until it happened
        expected = clock.perf_counter() - started
    return started - began + expected


def _flow_seconds(
    configuration: Configuration, threads: int, looked: float, looks: int, done: float, total: float
) -> float:
    """Seconds of all runs of a flow that took `looks` steps, in `looked` seconds, to a mean time of `done`."""
    (name,) = configuration.dynamics
    parts, at_once = turns(configuration, name, threads), _at_once(configuration, name, threads)
    finished, within = divmod(done / total * parts, 1)
    here, end = (typical_steps(configuration, name, t) for t in (within * total, total))
    if finished:
        return parts * looked / (finished + here / end)
    return parts * (looked + looked * at_once / looks * (end - here))


def typical_steps(configuration: Configuration, name: str, t: float) -> float:
    """How many steps a flow's solver takes to flow time t: rough fits to measured flows of default settings.

    CVODE takes about as many steps in 128 dimensions as in 8: at most 100 per unit of time at first, and later 12 for
    each factor of 10. In all they cost as much as 500 early steps for one layer, and five times as much for each
    further one. Explicit steps of sample flows grow with t under softmax losses. Under spectral those of deep networks
    stay of one size until the flow is stiff, from where CVODE takes a few more.

    Measured on one quiet machine from default starts, estimated over real seconds: population flows of dim 8 to 256,
    depth 1 to 3 and 3 000 to 300 000 steps 0.7 to 3.1, sample flows of infonce with dim 32 to 128 0.7 to 1.4. Far off
    are flows that start very small (20 times too long at `init_scale` 1e-4), and sample flows that go on fitting their
    few batches (too short: 6 times in 8 dimensions, 7 times under ReLU, up to 10 times under dot).

    Args:
        configuration: Has the depth and the loss.
        name: "population" or "flow".
        t: Flow time.

    Returns:
        Steps.
    """
    if name == "population":
        most = 100.0 * 5**configuration.depth
        return 12 * math.log10(1 + 1000 * t) + most * t / (t + most / 100)
    if configuration.loss == "spectral":
        return 15 * math.log10(1 + 10 * t) + 1.5 * (configuration.depth - 1) * min(t, 300)
    return 20 * t / (1 + t) + 11 * math.log10(1 + 10 * t)


def turns(configuration: Configuration, name: str, threads: int) -> int:
    """How many runs of a flow a thread integrates, one after the other; only runs of a sample flow share threads."""
    return math.ceil(configuration.runs / _at_once(configuration, name, threads))


def _at_once(configuration: Configuration, name: str, threads: int) -> int:
    return min(configuration.runs, threads) if name == "flow" else 1


def _peak_memory(more: int) -> int | None:
    """The peak memory of this process, which has just done the work of a worker, plus `more` bytes."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit + more
