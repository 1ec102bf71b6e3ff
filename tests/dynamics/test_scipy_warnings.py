"""Threads that integrate beside each other ignore warnings, and leave the process's filters as they were."""

import warnings
from itertools import permutations

import pytest

from dyncollapse.dynamics._scipy import WARNINGS


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_filters_are_restored_when_the_last_thread_leaves(order):
    before = [*warnings.filters]
    threads = [WARNINGS.ignored() for _ in range(3)]
    for thread in threads:
        thread.__enter__()
    for left, number in enumerate(order, 1):
        warnings.warn("while some are within", stacklevel=1)  # an error in these tests
        threads[number].__exit__(None, None, None)
        assert (warnings.filters == before) is (left == 3)
    with pytest.raises(UserWarning, match="after all"):
        warnings.warn("after all", stacklevel=1)
