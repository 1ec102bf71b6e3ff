"""Packs of work on an Executor: a bounded number at once, and a worker that dies loses only what kills workers."""

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")

# Packs that are submitted at once to a cluster of unknown size; its own scheduler decides when each runs. A rule of
# thumb: more than most clusters run at a time, and fewer than the jobs that most of them let one user submit.
QUEUE = 1000


@dataclass(frozen=True)
class Workers:
    """How to start the workers of a sweep, and how many packs they run at once.

    `local_workers`, `dask_workers` and `slurm_workers` make one; any other `concurrent.futures.Executor` works, too.

    Attributes:
        start: A function without arguments that returns a context manager. Entering it gives an Executor; leaving it
            ends the executor and whatever it still runs.
        count: Packs that run at the same time; None where only the scheduler of a cluster knows.

    Examples:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> workers = Workers(start=lambda: ThreadPoolExecutor(2), count=2)
        >>> with workers.start() as executor:
        ...     executor.submit(pow, 2, 10).result()
        1024
    """

    start: Callable[[], AbstractContextManager[Executor]]
    count: int | None


def dispatch(
    work: Callable[[list[Item]], Result], packs: Iterable[list[Item]], workers: Workers
) -> Iterator[tuple[list[Item], Result | Exception]]:
    """Run `work` on every pack, and yield each pack with its result in the order in which packs finish.

    `work` reports failures in its result, so an exception means that its worker died. All packs that ran at that
    moment are suspects: they are tried again, one at a time, when everything else is done. A pack that dies alone is
    split into its items. An item that dies alone twice is yielded with the exception. Work may therefore run more than
    once and must be idempotent.

    Args:
        work: Called with a pack in a worker; workers that are processes need it to be picklable.
        packs: Lists of items.
        workers: Where the packs run.

    Yields:
        A pack with its result, or with the exception that its worker's death left.
    """
    waiting, suspects, deaths = deque(packs), deque[list[Item]](), Counter[Item]()
    while waiting or suspects:
        alone = not waiting
        for pack, outcome in _until_broken(
            work, suspects if alone else waiting, workers.start, 1 if alone else workers.count or QUEUE
        ):
            if not isinstance(outcome, Exception):
                yield pack, outcome
            elif not alone:
                suspects.append(pack)
            elif len(pack) > 1:
                suspects.extend([item] for item in pack)
            else:
                deaths.update(pack)
                if deaths[pack[0]] == 2:
                    yield pack, outcome
                else:
                    suspects.append(pack)


def _until_broken(
    work: Callable[[list[Item]], Result],
    packs: deque[list[Item]],
    start: Callable[[], AbstractContextManager[Executor]],
    width: int,
) -> Iterator[tuple[list[Item], Result | Exception]]:
    """Take packs from the left and yield each with its outcome, until none is left or the executor breaks."""
    running: dict[Future[Result], list[Item]] = {}
    broken = False
    with start() as executor:
        while running or (packs and not broken):
            while packs and not broken and len(running) < width:
                try:
                    future = executor.submit(work, packs[0])
                except BrokenExecutor:  # it broke between two packs: neither of them is a suspect
                    broken = True
                else:
                    running[future] = packs.popleft()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                outcome = _outcome(future)
                broken = broken or isinstance(outcome, BrokenExecutor)
                yield running.pop(future), outcome


def _outcome(future: Future[Result]) -> Result | Exception:
    try:
        return future.result()
    except Exception as error:
        return error
