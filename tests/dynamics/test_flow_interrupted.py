import numpy as np
import pytest
import torch
from helpers.flow import draw, population_problem, stop_after

import dyncollapse.dynamics._scipy as solver_module
from dyncollapse import FlowFailed, Interrupted, population_flow, sample_flow
from dyncollapse.dynamics.equation import Equation


def test_interruption_keeps_the_record(generator):
    weights, pairs = draw(generator)

    def stop(t, end):
        assert end == 5.0
        if t > 2:
            raise KeyboardInterrupt

    times = np.linspace(0, 5, 51)
    with pytest.raises(Interrupted, match="interrupted at t = ") as stopped:
        sample_flow(weights, pairs, times, progress=stop)
    path = stopped.value.trajectory
    assert len(path.time) > 2
    assert path.time[0] == 0
    assert (path.time.diff() > 0).all()
    assert np.array_equal(path.time, times[: len(path.time)])
    expected = sample_flow(weights, pairs, times)
    assert torch.equal(path.product, expected.product[: len(path.time)])


def test_interruption_before_the_first_record(generator):
    weights, pairs = draw(generator)

    def stop(_t, _end):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        sample_flow(weights, pairs, [1.0, 2.0], progress=stop)
    assert len(stopped.value.trajectory.time) == 0


def test_interruption_while_the_losses_are_computed_keeps_the_record(generator, monkeypatch):
    weights, task = population_problem(generator)
    whole, losses, asked = population_flow(weights, task, [1.0, 2.0]), Equation.losses, []

    def once(*args):
        asked.append(args)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return losses(*args)

    monkeypatch.setattr(Equation, "losses", once)
    with pytest.raises(Interrupted) as stopped:
        population_flow(weights, task, [1.0, 2.0])
    assert torch.equal(stopped.value.trajectory.product, whole.product)
    assert torch.equal(stopped.value.trajectory.loss, whole.loss)


def test_interruption_in_a_later_run_keeps_the_finished_ones(generator):
    weights, task = population_problem(generator, runs=(3,))
    times = np.linspace(0, 5, 6)
    first = population_flow(tuple(w[0] for w in weights), task, times)
    with pytest.raises(Interrupted) as stopped:
        population_flow(weights, task, times, progress=stop_after(0.5))
    path = stopped.value.trajectory
    assert path.time.tolist() == times.tolist()
    assert path.product.shape == (6, 1, 5, 4)
    assert torch.equal(path.product[:, 0], first.product)
    assert torch.equal(path.loss[:, 0], first.loss)
    assert path.meta["evaluations"] == first.meta["evaluations"]


def test_interruption_in_the_first_run_keeps_its_part(generator):
    weights, task = population_problem(generator, runs=(3,))
    with pytest.raises(Interrupted, match="interrupted at t = ") as stopped:
        population_flow(weights, task, np.linspace(0, 5, 51), progress=stop_after(0.2))
    path = stopped.value.trajectory
    assert 2 < len(path.time) < 51
    assert path.product.shape == (len(path.time), 1, 5, 4)
    expected = population_flow(tuple(w[0] for w in weights), task, path.time)
    torch.testing.assert_close(path.product[:, 0], expected.product, rtol=0, atol=1e-6)
    with pytest.raises(Interrupted) as stopped:
        population_flow(weights, task, [1.0, 2.0], progress=stop_after(0))
    assert stopped.value.trajectory.product.shape == (0, 1, 5, 4)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_failure_of_a_run_keeps_the_finished_ones(broken, generator, monkeypatch):
    weights, task = population_problem(generator, runs=(3,))
    times = [0.0, 1.0, 2.0, 3.0]
    whole = population_flow(weights, task, times, method="LSODA")
    solvers = []

    class GivesUp(solver_module.LSODA):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            solvers.append(self)

        def step(self):
            if len(solvers) == broken + 1 and self.t >= np.log1p(1.5):
                self.status = "failed"
                return "Enough."
            return super().step()

    monkeypatch.setitem(solver_module.SOLVERS, "LSODA", GivesUp)
    with pytest.raises(FlowFailed, match=r"beyond t = 1\.[5-9]\d* of 3, where .*: Enough\.") as failed:
        population_flow(weights, task, times, method="LSODA")
    path = failed.value.trajectory
    if broken:
        assert path.time.tolist() == times
        assert torch.equal(path.product, whole.product[:, :broken])
    else:
        assert path.time.tolist() == times[:2]
        assert torch.equal(path.product, whole.product[:2, :1])


@pytest.mark.parametrize("runs", [(), (1,), (3,)])
def test_progress_climbs_over_all_runs_to_the_end(runs, generator):
    weights, task = population_problem(generator, runs=runs)
    seen = []
    population_flow(weights, task, [1.0, 5.0], progress=lambda t, end: seen.append((t, end)))
    shares, ends = zip(*seen, strict=True)
    assert set(ends) == {5.0}
    assert list(shares) == sorted(shares)
    assert shares[0] >= 0
    assert shares[-1] == pytest.approx(5.0, rel=1e-12)


@pytest.mark.parametrize("method", ["CVODE", "LSODA", "BDF", "DOP853", "RK45"])
def test_what_was_reached_is_recorded_at_exactly_the_asked_times(method, generator):
    weights, task = population_problem(generator)
    times = np.linspace(0, 6, 25)
    whole = population_flow(weights, task, times, method=method)
    cut_short = {
        Interrupted: {"progress": stop_after(0.5)},
        FlowFailed: {"max_evaluations": whole.meta["evaluations"] // 2},
    }
    for stop, settings in cut_short.items():
        with pytest.raises(stop) as stopped:
            population_flow(weights, task, times, method=method, **settings)
        path = stopped.value.trajectory
        kept = len(path.time)
        assert 2 < kept < 25
        assert np.array_equal(path.time, times[:kept])
        assert torch.equal(path.product, whole.product[:kept])
