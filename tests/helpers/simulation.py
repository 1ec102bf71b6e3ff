"""Short simulations, and their reports as a reader gets them."""

import json

import torch

from dyncollapse import Trajectory
from dyncollapse.simulation.build import build
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.report import report
from dyncollapse.simulation.run import run

SMALL = {"dim": 4, "aug_dim": 2, "batch_size": 16, "pool": 64, "steps": 30, "runs": 2, "flow_batches": 2}


def simulate(**given):
    return run(build(resolve({**SMALL, **given})), lambda *_: None, lambda _: None)


def diagonal(outcome, *entries):
    """Make an outcome whose SGD has ended, without having moved, at one layer diag(entries), every run alike."""
    runs = outcome.simulation.configuration.runs
    weight = torch.diag(torch.tensor(entries, dtype=torch.float64)).expand(1, runs, -1, -1)
    path = Trajectory(torch.tensor([3.0]).double(), (weight,), torch.zeros(1, runs), (), {"seconds": 0.0})
    return Outcome(outcome.simulation, {"sgd": path})


def as_json(outcome):
    return json.loads(json.dumps(report(outcome), allow_nan=False))
