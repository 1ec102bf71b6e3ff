"""How the runs of a training are shared out among threads. It changes a step's time and none of its bits."""

import itertools
from collections.abc import Iterable

import torch

from dyncollapse.model.pairs import Pairs
from dyncollapse.model.streams import JoinedStream

# Cost of a step, in numbers, for which one more thread pays: of PyTorch that of 4 runs of 128 pairs, since for less it
# takes longer to wake one than it saves; likewise of Python where it is woken once for many steps on arrays, otherwise
# that of 16 such runs. Measured on two cores (docs/results.md).
WORTH_A_THREAD, WORTH_A_SHARE = 2**16, 2**18
ALL = slice(None)


def shares(pairs: Pairs | Iterable[Pairs], runs: torch.Size) -> list[tuple[slice, Pairs | Iterable[Pairs]]]:
    """Split runs where generators change, into shares large enough for a thread of Python each.

    Args:
        pairs: A fixed batch or a stream of batches.
        runs: Shape of the runs.

    Returns:
        The rows of each share along the first run axis, and its batches. They depend on the shapes alone, so that
        results do not depend on the number of threads.
    """
    streams = pairs.streams if isinstance(pairs, JoinedStream) else ()
    edges = [0, *itertools.accumulate(stream.runs[0] for stream in streams)]
    if not streams or runs != (edges[-1], *streams[0].runs[1:]):  # the runs' axes are not the batches'
        return [(ALL, pairs)]
    ends = list(itertools.accumulate(stream.numbers_per_step for stream in streams))
    groups = itertools.groupby(
        range(len(streams)), lambda i: (ends[i] - streams[i].numbers_per_step / 2) // WORTH_A_SHARE
    )
    spans = ((own[0], own[-1] + 1) for own in (list(group) for _, group in groups))
    return [(slice(edges[first], edges[stop]), JoinedStream(streams[first:stop])) for first, stop in spans]


def thread_counts(parts: int, numbers: int, compiled: bool, workers: int, available: int) -> tuple[int, int]:
    """Return how many of Python's threads step the parts of an ensemble, and how many of PyTorch's each of them has.

    Args:
        parts: Shares of the runs that are stepped by themselves.
        numbers: The cost of a step on all of them, as from `streams.numbers_per_step`.
        compiled: Whether most of that is in compiled functions.
        workers: Threads of Python that are asked for.
        available: Threads that PyTorch has.

    Returns:
        Threads of Python, and threads of PyTorch for each of them.
    """
    # One worker per thread. With less than two parts per thread, one per part: no part then waits for a second round.
    workers = parts if parts < 2 * workers else workers
    useful = max(1, numbers // (WORTH_A_SHARE if compiled else WORTH_A_THREAD))
    return workers, max(1, min(available, useful) // workers)
