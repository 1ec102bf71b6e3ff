"""What runs beside the page ends when the page has moved on, when it takes too long, and when the server ends."""

import pytest
import torch

from dyncollapse import Diverged
from dyncollapse.explore.controls import configuration_of
from dyncollapse.explore.ended import ENDED
from dyncollapse.explore.running import Stopped, TooLong, record

SMALL = {"dim": 4, "steps": 300, "batch_size": 8}


@pytest.mark.parametrize("name", ["sgd", "flow", "population"])
def test_it_ends_when_the_page_has_moved_on_or_the_server_ends(name):
    c = configuration_of(SMALL)
    asked = []
    with pytest.raises(Stopped):
        record(c, name, stopped=lambda: asked.append(True) or len(asked) > 1)
    assert len(asked) == 2
    ENDED.set()
    try:
        with pytest.raises(Stopped):
            record(c, name)
    finally:
        ENDED.clear()
    whole = record(c, name)
    assert torch.allclose(whole.time[-1], torch.tensor(30.0).double())


def test_a_flow_that_takes_too_long_says_how_long():
    with pytest.raises(TooLong) as stopped:
        record(configuration_of({"dim": 6, "depth": 2}), "population", within=0.0)
    assert stopped.value.seconds > 0
    assert str(stopped.value).startswith("about ")


def test_shares_of_the_work_are_reported():
    seen = []
    record(configuration_of({**SMALL, "steps": 10_000}), "sgd", report=seen.append)
    assert seen == sorted(seen)
    assert all(0 <= share <= 1 for share in seen)


def test_sgd_that_diverges_says_so():
    with pytest.raises(Diverged):
        record(configuration_of({"dim": 4, "loss": "dot", "views": "two-sided", "temperature": 0.02, "lr": 0.5}), "sgd")
