"""Threads that integrate beside each other share what they change in the process, and leave it as it was."""

import contextlib
import io
import sys
import warnings

import pytest

from dyncollapse.dynamics._scipy import WARNINGS
from dyncollapse.dynamics._shared_context import SharedContext


def stages(context):
    """Enter the context three times, leave it as often, and say before each exit how many are still within."""
    for _ in range(3):
        context.__enter__()
    for within in (3, 2, 1):
        yield within
        context.__exit__(None, None, None)
    yield 0


def test_filters_are_restored_when_the_last_thread_leaves():
    before = [*warnings.filters]
    for within in stages(WARNINGS):
        assert (warnings.filters == before) is (within == 0)
        if within:
            warnings.warn("while some are within", stacklevel=1)  # an error in these tests
    with pytest.raises(UserWarning, match="after all"):
        warnings.warn("after all", stacklevel=1)


def test_the_terminal_is_given_back_when_the_last_thread_leaves():
    terminal, other = sys.stdout, io.StringIO()
    for within in stages(SharedContext(lambda: contextlib.redirect_stdout(other))):
        assert sys.stdout is (other if within else terminal)


def test_an_error_leaves_it_and_it_can_be_entered_again():
    terminal, other = sys.stdout, io.StringIO()
    context = SharedContext(lambda: contextlib.redirect_stdout(other))
    for _ in range(2):
        with pytest.raises(ValueError, match="no number"), context:
            int("no number")
        assert sys.stdout is terminal
        with context:
            assert sys.stdout is other
