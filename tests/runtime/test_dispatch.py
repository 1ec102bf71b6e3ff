"""The rules by which work that dies is tried again, on an executor that breaks by a script."""

from collections import Counter
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor

import pytest

from dyncollapse.runtime.dispatch import Workers, dispatch


class Fragile(Executor):
    """Runs work at once; an item of `deadly` breaks the executor, with all that it holds, or fails its own future."""

    def __init__(self, deadly, breaks, lives, width):
        self.deadly, self.breaks, self.lives, self.width = deadly, breaks, lives, width
        self.pending, self.broken, self.most = [], False, 0

    def submit(self, work, items, /):
        if self.broken:
            raise BrokenExecutor("broken")
        future = Future()
        self.pending.append((future, work, items))
        self.most = max(self.most, len(self.pending))
        if len(self.pending) == self.width:
            self.flush()
        return future

    def flush(self):
        died = [items for _, _, items in self.pending if self.dies(items)]
        if died and self.breaks:
            self.broken = True
        for future, work, items in self.pending:
            if self.broken:
                future.set_exception(BrokenExecutor("killed"))
            elif items in died:
                future.set_exception(RuntimeError("lost"))
            else:
                future.set_result(work(items))
        self.pending = []

    def dies(self, items):
        hit = [item for item in items if item in self.deadly and self.lives[item] > 0]
        self.lives.subtract(hit)
        return bool(hit)


@pytest.mark.parametrize("breaks", [True, False])
@pytest.mark.parametrize("lives", [1, 99])
def test_only_what_dies_twice_alone_is_lost(breaks, lives):
    started, worked = [], Counter()
    counts = Counter(dict.fromkeys((3, 8), lives))

    def work(items):
        worked.update(items)
        return [10 * item for item in items]

    def start():
        started.append(Fragile({3, 8}, breaks, counts, width=1))
        return started[-1]

    packs = [[1, 2, 3], [4, 5], [6], [7, 8], [9]]
    found, lost = {}, {}
    for pack, outcome in dispatch(work, packs, Workers(start, 1)):
        if isinstance(outcome, Exception):
            lost[pack[0]] = outcome
            assert len(pack) == 1
        else:
            found |= dict(zip(pack, outcome, strict=True))
    if lives == 1:
        assert not lost
    else:
        assert set(lost) == {3, 8}
    assert found == {item: 10 * item for item in range(1, 10) if item not in lost}
    assert all(count == 1 for count in worked.values())  # nothing that was returned is done again
    assert len(started) > 1 if breaks else len(started) <= 2


def test_no_more_than_the_width_is_given_out_at_once():
    held = []

    class Counting(ThreadPoolExecutor):
        def submit(self, work, /, *args):
            held.append(sum(not future.done() for future in futures))
            futures.append(super().submit(work, *args))
            return futures[-1]

    futures = []
    packs = [[i] for i in range(20)]
    found = list(dispatch(lambda items: items, packs, Workers(lambda: Counting(4), 3)))
    assert sorted(pack for pack, _ in found) == packs
    assert max(held) <= 2


def test_ctrl_c_passes_and_ends_the_executor():
    ended = []

    class Ending(ThreadPoolExecutor):
        def __exit__(self, *args):
            ended.append(args[0])
            return super().__exit__(*args)

    class Stop(BaseException):
        pass

    def work(_items):
        raise Stop

    with pytest.raises(Stop):
        list(dispatch(work, [[1]], Workers(lambda: Ending(1), 1)))
    assert ended == [Stop]


def test_nothing_to_do_starts_nothing():
    assert list(dispatch(lambda items: items, [], Workers(lambda: pytest.fail("started"), 1))) == []
