"""The rough time of a simulation, where a single record takes longer than the look at it."""

import pytest
from helpers.constants import set_constant

from dyncollapse.simulation.configuration import resolve
from dyncollapse.sweeps import estimate


def test_a_slow_record_of_the_start_is_not_taken_for_no_progress(monkeypatch):
    set_constant(monkeypatch, "sweeps.estimate.GLANCE", 1e-9)  # every record takes longer than this
    small = resolve({"dim": 4, "batch_size": 16, "pool": 0, "dynamics": ("sgd",), "runs": 1, "steps": 100})
    assert 0 < estimate.expected_seconds(small) < 600


@pytest.mark.parametrize(("dynamics", "threads", "turns"), [("flow", 1, 5), ("flow", 2, 3), ("population", 2, 5)])
def test_runs_of_sample_flows_share_threads_and_those_of_population_flows_follow_each_other(dynamics, threads, turns):
    c = resolve({"dim": 4, "runs": 5, "threads": threads, "dynamics": (dynamics,)})
    assert estimate.turns(c, dynamics, c.threads or 1) == turns
