"""The rough time of a simulation, where a single record takes longer than the look at it."""

from helpers.constants import set_constant

from dyncollapse.simulation.configuration import resolve
from dyncollapse.sweeps import estimate


def test_a_slow_record_of_the_start_is_not_taken_for_no_progress(monkeypatch):
    set_constant(monkeypatch, "sweeps.estimate.GLANCE", 1e-9)  # every record takes longer than this
    small = resolve({"dim": 4, "batch_size": 16, "pool": 0, "dynamics": ("sgd",), "runs": 1, "steps": 100})
    assert 0 < estimate.expected_seconds(small) < 600
