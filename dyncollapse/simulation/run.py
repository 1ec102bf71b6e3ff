"""Run one toy simulation: each dynamics of its configuration, all from the same start."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch

from dyncollapse.dynamics.flow import population_flow, sample_flow
from dyncollapse.dynamics.solver import FlowFailed
from dyncollapse.dynamics.training import Diverged, record_steps, train
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.pairs import stack_pairs
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

    Args:
        simulation: The simulation.
        progress: Called as progress(name of the dynamics, done, total).
        keep: Called with the outcome so far whenever a dynamics has ended, also by an error.
        known: Records of dynamics that need not run again, by name.
        threads: CPU threads for the runs of SGD and of sample flows, as in `train`.

    Returns:
        The outcome.

    Raises:
        Diverged: Where SGD leaves its bounds; its record is in the outcome that `keep` got.
        FlowFailed: Where a solver gives up; likewise.
        KeyboardInterrupt: On Ctrl-C; likewise.
    """
    outcome = Outcome(simulation)
    names = simulation.configuration.dynamics
    for name in names:
        try:
            path = (known or {}).get(name) or _dynamics(name, simulation, partial(progress, name), threads)
        except (Diverged, FlowFailed, KeyboardInterrupt) as stop:
            record: Trajectory | None = getattr(stop, "trajectory", None)  # a Ctrl-C between two dynamics has none
            more: dict[str, Trajectory] = {name: record} if record is not None and len(record.time) else {}
            status = {Diverged: "diverged", FlowFailed: "failed"}.get(type(stop), "interrupted")
            keep(replace(outcome, trajectories={**outcome.trajectories, **more}, status=status))
            raise
        status = "finished" if name == names[-1] else "running"
        outcome = replace(outcome, trajectories={**outcome.trajectories, name: path}, status=status)
        keep(outcome)
    return outcome


def _dynamics(
    name: str, simulation: Simulation, progress: Callable[[float, float], None], threads: int | None
) -> Trajectory:
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
