"""Packs of work over an Executor: so many at once, whatever dies is tried again, and nothing else is lost."""

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")


# Packs that a cluster of unknown size is given at once (ours): its own scheduler decides when each runs.
QUEUE = 1000


@dataclass(frozen=True)
class Workers:
    """How to start an Executor, as a context that ends it and whatever it still runs, and how many work at once.

    `count` is None where only a cluster's scheduler knows.
    """

    start: Callable[[], AbstractContextManager[Executor]]
    count: int | None


def dispatch(
    work: Callable[[list[Item]], Result], packs: Iterable[list[Item]], workers: Workers
) -> Iterator[tuple[list[Item], Result | Exception]]:
    """Yield every pack with what `work` made of it, in the order in which they end.

    `work` raises nothing, so an exception means that its worker died. Whatever ran at that time is suspected and,
    when all else is done, tried again one by one; a pack that dies alone is parted into its items; an item that dies
    alone twice is yielded with the exception. Work is so repeated, and must not mind.
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
    """Take packs from the left and yield them with their outcome, until none is left or the executor has broken."""
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
