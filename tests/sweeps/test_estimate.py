"""The rough time of a simulation, where a single record takes longer than the look at it."""

import functools
import itertools

import pytest
from helpers.constants import set_constant

from dyncollapse.simulation.build import build
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.run import run
from dyncollapse.sweeps import estimate


def test_a_slow_record_of_the_start_is_not_taken_for_no_progress(monkeypatch):
    set_constant(monkeypatch, "sweeps.estimate.GLANCE", 1e-9)  # every record takes longer than this
    small = resolve({"dim": 4, "batch_size": 16, "pool": 0, "dynamics": ("sgd",), "runs": 1, "steps": 100})
    assert 0 < estimate.expected_seconds(small) < 600


@pytest.mark.parametrize(("dynamics", "threads", "turns"), [("flow", 1, 5), ("flow", 2, 3), ("population", 2, 5)])
def test_runs_of_sample_flows_share_threads_and_those_of_population_flows_follow_each_other(dynamics, threads, turns):
    c = resolve({"dim": 4, "runs": 5, "threads": threads, "dynamics": (dynamics,)})
    assert estimate.turns(c, dynamics, c.threads or 1) == turns


FLOWS = {
    "one layer": ("population", {"dim": 32, "depth": 1}),
    "two layers": ("population", {"dim": 16, "depth": 2}),
    "two layers, weak": ("population", {"dim": 16, "depth": 2, "aug_strength": 0.5}),
    "runs": ("population", {"dim": 8, "depth": 2, "runs": 3}),
    "spectral": ("population", {"dim": 8, "depth": 2, "loss": "spectral"}),
    "late": ("population", {"dim": 8, "depth": 1, "steps": 10**7}),
    "samples": ("flow", {"dim": 16, "depth": 2, "batch_size": 64}),
}


@pytest.mark.parametrize(("name", "settings"), FLOWS.values(), ids=FLOWS)
def test_flows_are_estimated_from_their_first_steps(name, settings, monkeypatch):
    # A clock that a solver's step moves by 1, so that the estimate in seconds is one of steps.
    given = {"runs": 1, "steps": 300_000, "dynamics": (name,), "threads": 1} | settings
    c = resolve({**given, "aug_dim": given["dim"] // 2})
    expected, taken = [], itertools.count()
    for watched in (6, 60):
        ticks = itertools.count()
        with monkeypatch.context() as patch:
            patch.setattr(estimate.clock, "perf_counter", functools.partial(next, map(float, ticks)))
            set_constant(patch, "sweeps.estimate.GLANCE", watched)
            expected.append(estimate.expected_seconds(c))
    run(build(c), lambda *_: next(taken), lambda _: None, threads=1)
    steps = next(taken)
    assert all(1 / 4 < seconds / steps < 4 for seconds in expected), (expected, steps)


@pytest.mark.parametrize(
    ("given", "short"),
    [
        ({}, True),
        ({"dynamics": ("sgd", "flow", "population")}, True),
        ({"steps": 30_000}, False),
        ({"widths": "256,256,256", "aug_dim": 8, "dynamics": ("population",)}, False),
        ({"batch_size": 2048}, False),
        ({"runs": 100}, False),
        ({"loss": "dot", "temperature": 0.1}, False),  # whose flow may take many more steps than its settings tell
        ({"activation": "relu", "depth": 2}, False),
        ({"loss": "ntxent", "dynamics": ("sgd",), "steps": 100}, True),
    ],
)
def test_only_what_settings_show_to_be_short_is_not_timed_before_the_start(given, short):
    assert estimate.is_short(resolve(given)) == short
