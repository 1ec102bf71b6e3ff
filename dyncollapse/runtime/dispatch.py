"""Packs of work over an Executor: a bounded number at once; what dies is tried again, and nothing else is lost."""

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")

# Packs that a cluster of unknown size is given at once; its own scheduler decides when each runs. A rule of thumb: more
# than most clusters run at a time, and less than the jobs that they commonly let one user submit.
QUEUE = 1000


@dataclass(frozen=True)
class Workers:
    """How to start an Executor, and how many of its workers run at once.

    `start` returns a context that ends the executor and whatever it still runs. `count` is None where only a cluster's
    scheduler knows.
    """

    start: Callable[[], AbstractContextManager[Executor]]
    count: int | None


def dispatch(
    work: Callable[[list[Item]], Result], packs: Iterable[list[Item]], workers: Workers
) -> Iterator[tuple[list[Item], Result | Exception]]:
    """Yield every pack with what `work` returned for it, in the order in which packs end.

    `work` raises nothing, so an exception means that its worker died. Whatever ran at that time is suspected and,
    when all else is done, tried again one by one; a pack that dies alone is split into its items; an item that dies
    alone twice is yielded with the exception. Work may run more than once and must be idempotent.
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
    """Take packs from the left and yield each with its outcome, until none is left or the executor has broken."""
    running: dict[Future[Result], list[Item]] = {}
    broken = False
    with start() as executor:
        while running or (packs and not broken):
            while packs and not broken and len(running) < width:
                try:
                    future = executor.submit(work, packs[0])
                except BrokenExecutor:  # between two packs: none of them is to blame
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
