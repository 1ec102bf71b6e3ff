"""Room on Python's stack for the frames of a test."""

from collections.abc import Callable
from typing import Any

SLOTS = 2**17  # 1 MiB, so that Python takes 2 MiB at once and the other half is left for what is called


def with_room(call: Callable[[], Any]) -> Any:
    """Call a function so that all frames below it lie in one piece of memory.

    CPython keeps frames in pieces of 16 kB. It asks the system for one whenever a call goes beyond the last, and gives
    it back on return. Where a loop happens to call across that edge, as deep below pytest it did in many tests, each
    pass took two calls of the system and new pages. A function that claims a large stack has a large piece.
    """
    return call()


with_room.__code__ = with_room.__code__.replace(co_stacksize=SLOTS)
