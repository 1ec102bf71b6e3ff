"""Run one toy simulation: each dynamics of its configuration, all from the same start."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from dyncollapse.dynamics.flow import population_flow, sample_flow
from dyncollapse.dynamics.solver import FlowFailed
from dyncollapse.dynamics.training import Diverged, record_steps, train
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.choices import Dynamics
from dyncollapse.model.pairs import stack_pairs
from dyncollapse.model.streams import JoinedStream
from dyncollapse.simulation.beside import Beside
from dyncollapse.simulation.build import Simulation
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.prediction import time_per_step

Progress = Callable[[str, float, float], None]


def run(
    simulation: Simulation,
    progress: Progress,
    keep: Callable[[Outcome], None],
    known: Mapping[str, Trajectory] | None = None,
    threads: int | None = None,
) -> Outcome:
    """Run each of the configuration's dynamics from the same start.

    SGD of few runs keeps one thread busy. Where there are more, the flows go on beside it.

    Args:
        simulation: The simulation.
        progress: Called as progress(name of the dynamics, done, total), by one thread at a time.
        keep: Called with the outcome so far whenever a dynamics has ended, in their order, also by an error.
        known: Records of dynamics that need not run again, by name.
        threads: CPU threads for the runs of SGD and of sample flows, as in `train`.

    Returns:
        The outcome.

    Raises:
        Diverged: Where SGD leaves its bounds; its record is in the outcome that `keep` got.
        FlowFailed: Where a solver gives up; likewise.
        KeyboardInterrupt: On Ctrl-C; likewise, with what flows beside it had reached.
    """
    outcome, known = Outcome(simulation), known or {}
    names = simulation.configuration.dynamics
    left = [name for name in names if name not in known]
    count = threads or torch.get_num_threads()
    works = {name: partial(_dynamics, name, simulation, count) for name in left}
    with Beside({name: works.pop(name) for name in _beside(simulation, left, count)}, progress) as beside:
        for name in names:
            try:
                if name in works:
                    path = works[name](partial(beside.report, name))
                else:
                    path = known[name] if name in known else beside.result(name)
            except (Diverged, FlowFailed, KeyboardInterrupt) as stop:
                found: dict[str, Trajectory] = {name: stop.trajectory} if hasattr(stop, "trajectory") else {}
                if isinstance(stop, KeyboardInterrupt):  # one between two dynamics has no record
                    found |= beside.stop()
                records = {other: path for other, path in found.items() if len(path.time)}
                status = {Diverged: "diverged", FlowFailed: "failed"}.get(type(stop), "interrupted")
                keep(replace(outcome, trajectories={**outcome.trajectories, **records}, status=status))
                raise
            status = "finished" if name == names[-1] else "running"
            outcome = replace(outcome, trajectories={**outcome.trajectories, name: path}, status=status)
            keep(outcome)
    return outcome


def _beside(simulation: Simulation, names: Sequence[Dynamics], threads: int) -> Sequence[Dynamics]:
    """The dynamics to run beside the first: flows, where that is SGD on a single thread of several."""
    alone = isinstance(simulation.stream, JoinedStream) or simulation.task.data_cov.is_cuda
    return names[1:] if names and names[0] == "sgd" and threads > 1 and not alone else []


def _dynamics(name: str, simulation: Simulation, threads: int, progress: Callable[[float, float], None]) -> Trajectory:
    configuration = simulation.configuration
    if name == "sgd":
        return train(
            simulation.weights,
            simulation.stream,
            lr=configuration.lr,
            steps=configuration.steps,
            objective=simulation.objective,
            biases=simulation.biases,
            predictor=simulation.predictor,
            momentum=configuration.momentum,
            weight_decay=configuration.weight_decay,
            progress=progress,
            threads=threads,
        )
    time = time_per_step(configuration) * torch.tensor(record_steps(configuration.steps), dtype=torch.float64)
    if name == "flow":
        batches = stack_pairs(list(itertools.islice(simulation.stream, configuration.flow_batches)))
        return sample_flow(
            simulation.weights,
            batches,
            time,
            objective=simulation.objective,
            biases=simulation.biases,
            predictor=simulation.predictor,
            weight_decay=configuration.weight_decay,
            progress=progress,
            threads=threads,
        )
    return population_flow(
        simulation.weights,
        simulation.task,
        time,
        objective=simulation.objective,
        predictor=simulation.predictor,
        weight_decay=configuration.weight_decay,
        progress=progress,
    )
