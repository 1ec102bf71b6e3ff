"""Flows that take their runs one by one, as implicit solvers have to: a Jacobian of all runs would be mostly zeros."""

from collections.abc import Callable

import torch

from dyncollapse.dynamics.solver import FlowFailed, Progress
from dyncollapse.dynamics.trajectory import Interrupted, Trajectory
from dyncollapse.model.networks import Weights


def run_by_run(
    flow: Callable[[Weights, Progress | None], Trajectory], weights: Weights, progress: Progress | None
) -> Trajectory:
    """Integrate every run on its own and stack the records.

    Args:
        flow: Integrates one run, and reports its progress to the function that it is given.
        weights: One tensor (*runs, out, in) per layer.
        progress: Called with (t, t_end), where t runs over all runs.

    Returns:
        One record of all runs.

    Raises:
        FlowFailed: As from `flow`, like Interrupted with the finished runs as its trajectory.
    """
    runs, done = weights[0].shape[:-2], []
    singles = list(zip(*(w.flatten(0, -3) for w in weights), strict=True))
    try:
        for number, single in enumerate(singles):
            share = None
            if progress:

                def share(t: float, end: float, number: int = number) -> None:
                    progress((number + t / end) / len(singles) * end, end)

            done.append(flow(single, share))
    except (FlowFailed, Interrupted) as stop:
        stop.trajectory = _stacked(done, (len(done),)) if done else _stacked([stop.trajectory], (1,))
        raise
    return _stacked(done, runs)


def _stacked(done: list[Trajectory], runs: tuple[int, ...]) -> Trajectory:
    """Join records of single runs, which share their times, into one with run axes."""
    rests = [path.meta["rest_time"] for path in done if path.meta.get("rest_time") is not None]
    totals = {
        name: sum(path.meta[name] for path in done)
        for name in ("seconds", "evaluations", "jacobians", "jacobian_products")
        if name in done[0].meta
    }
    meta = done[0].meta | totals | {"rest_time": max(rests) if len(rests) == len(done) else None}
    layers = tuple(
        torch.stack(paths, dim=1).unflatten(1, runs) for paths in zip(*(path.weights for path in done), strict=True)
    )
    loss = torch.stack([path.loss for path in done], dim=1).unflatten(1, runs)
    return Trajectory(done[0].time, layers, loss, (), meta)
