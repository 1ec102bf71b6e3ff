"""Flows that run beside SGD: the same bits as one after the other, and nothing lost when one of them ends early."""

from contextlib import suppress

import torch
from helpers.simulation import SMALL

from dyncollapse.dynamics.solver import FlowFailed
from dyncollapse.dynamics.training import Diverged
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.simulation.build import build
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.run import run

ALL = ("sgd", "flow", "population")


def kept(progress=lambda *_: None, threads=2, **given):
    """Status and records after each of the dynamics; what was raised is left out."""
    found = []
    with suppress(Diverged, FlowFailed, KeyboardInterrupt):
        run(build(resolve({**SMALL, **given})), progress, found.append, threads=threads)
    return [(outcome.status, dict(outcome.trajectories)) for outcome in found]


def test_threads_change_no_bits_and_no_order():
    alone, beside = kept(threads=1, dynamics=ALL), kept(threads=3, dynamics=ALL)
    assert [(status, list(paths)) for status, paths in beside] == [
        ("running", ["sgd"]),
        ("running", ["sgd", "flow"]),
        ("finished", list(ALL)),
    ]
    for name in ALL:
        assert torch.equal(alone[-1][1][name].product, beside[-1][1][name].product)


def test_threads_of_the_process_stay():
    before = torch.get_num_threads()
    kept()
    assert torch.get_num_threads() == before


def test_ctrl_c_keeps_what_both_had_reached():
    begun = set()

    def stop(name, done, _total):
        if done:
            begun.add(name)
        if name == "sgd" and begun >= {"sgd", "flow"}:
            raise KeyboardInterrupt

    ((status, paths),) = kept(stop, dynamics=ALL, steps=10**6, flow_batches=64)
    assert (status, list(paths)) == ("interrupted", ["sgd", "flow"])
    assert all(0 < path.time[-1] < 10**4 for path in paths.values())


def test_a_ctrl_c_while_flows_are_waited_for_keeps_them(monkeypatch):
    def interrupted(_beside, _name):
        raise KeyboardInterrupt

    monkeypatch.setattr("dyncollapse.simulation.beside.Beside.result", interrupted)
    (_, (status, paths)) = kept(flow_batches=64)
    assert (status, next(iter(paths))) == ("interrupted", "sgd")


def test_of_sgd_that_diverges_its_own_record_alone_is_kept():
    ((status, paths),) = kept(lr=1e6)
    assert (status, list(paths)) == ("diverged", ["sgd"])


def test_a_flow_that_fails_waits_for_sgd(monkeypatch):
    short = Trajectory(torch.zeros(1), (torch.zeros(1, 2, 2),), torch.zeros(1))

    def fail(*_args, **_kwargs):
        raise FlowFailed("no step is small enough", short, 0.0)

    monkeypatch.setattr("dyncollapse.simulation.run.sample_flow", fail)
    assert [(status, list(paths)) for status, paths in kept()] == [("running", ["sgd"]), ("failed", ["sgd", "flow"])]


def test_what_is_known_is_not_run_again():
    simulation, records = build(resolve({**SMALL, "dynamics": ALL})), []
    first = run(simulation, lambda *_: None, lambda _: None, threads=2)
    known = {"flow": first.trajectories["flow"]}
    again = run(simulation, lambda name, *_: records.append(name), lambda _: None, known, threads=2)
    assert again.trajectories["flow"] is known["flow"]
    assert set(records) == {"sgd", "population"}
