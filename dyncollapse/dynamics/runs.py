"""Flows that take their runs one by one: each has steps of its own, and a Jacobian of all would be mostly zeros."""

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from dyncollapse.dynamics._single_thread import products_on_one_thread
from dyncollapse.dynamics._unseen import UNSEEN
from dyncollapse.dynamics.solver import FlowFailed, Progress
from dyncollapse.dynamics.statistics import Record, Recorder, with_statistics
from dyncollapse.dynamics.trajectory import Interrupted, Trajectory, parameter_fields, parameters_of
from dyncollapse.model.networks import Weights
from dyncollapse.model.pairs import Pairs
from dyncollapse.runtime.process import torch_threads

Flow = Callable[[tuple[int, ...], Progress | None], Trajectory]


def run_by_run(flow: Flow, runs: Sequence[int], progress: Progress | None, threads: int = 1) -> Trajectory:
    """Integrate every run on its own and stack the records. The result does not depend on the number of threads.

    Args:
        flow: Integrates the run at an index, and reports its progress to the function that it is given.
        runs: Shape of the runs; without axes the flow is that of the only run.
        progress: Called with (t, t_end), where t runs over all runs.
        threads: Threads that take runs; each has one thread of PyTorch.

    Returns:
        One record of all runs.

    Raises:
        FlowFailed: That of the first run that fails, with the finished runs before it as its trajectory; if there are
            none, with its own.
        Interrupted: Likewise.
    """
    if not runs:
        return flow((), progress)
    indices, done = list(np.ndindex(*runs)), list[Trajectory]()
    shares = _Shares(len(indices), progress)
    try:
        for path in _in_order(flow, indices, shares, threads):
            done.append(path)
    except (FlowFailed, Interrupted) as stop:
        stop.trajectory = _stacked(done, (len(done),)) if done else _stacked([stop.trajectory], (1,))
        raise
    return _stacked(done, tuple(runs))


def recorded(flow: Callable[[], Trajectory], record: Record | None, weights: Weights) -> Trajectory:
    """Integrate, and add statistics to the record, also to that of a flow that could not go on; warn of saddles.

    Args:
        flow: Makes the record.
        record: What to record beside the weights, or None.
        weights: Where the flow starts: what cannot be recorded is refused before it does.

    Returns:
        The record with its statistics.
    """
    Recorder(record, weights[0].shape[:-2]).at(weights)
    try:
        with products_on_one_thread(max(size for layer in weights for size in layer.shape[-2:])):
            path = flow()
        if (since := path.meta.get(UNSEEN)) is not None:
            warnings.warn(
                f"from t = {since:.6g} on something grew from below the tolerance. CVODE may have stepped over it, and "
                "the flow may have stayed at a saddle. DOP853, which would follow it, takes too many evaluations. "
                "Start from layers of one size, ask for a smaller rtol, or raise max_evaluations",
                stacklevel=4,  # where the flow was called, behind the decorator of public functions
            )
        return with_statistics(path, record)
    except (FlowFailed, Interrupted) as stop:
        stop.trajectory = with_statistics(stop.trajectory, record)
        raise


def pairs_of_run(pairs: Pairs, index: tuple[int, ...]) -> Pairs:
    """Batches (*batches, n, d) of one run, from those (*batches, *runs, n, d) of all; axes of size 1 belong to all."""

    def own(x: Tensor) -> Tensor:
        # Views may have fewer axes than the runs, and axes of size 1, which all runs share.
        axes = min(len(index), x.ndim - 2)
        for axis, i in zip(range(x.ndim - 2 - axes, x.ndim - 2), index[len(index) - axes :], strict=True):
            x = x.narrow(axis, 0 if x.shape[axis] == 1 else i, 1)
        return x.flatten(x.ndim - 2 - axes, x.ndim - 2) if axes else x

    return Pairs(own(pairs.anchor), own(pairs.positive), pairs.views)


class _Shares:
    """How far each run has come, and whether all have to stop."""

    def __init__(self, runs: int, progress: Progress | None) -> None:
        self.stopped = threading.Event()
        self._shares, self._progress, self._lock = [0.0] * runs, progress, threading.Lock()

    def of(self, run: int) -> Progress:
        def report(t: float, end: float) -> None:
            if self.stopped.is_set():
                raise KeyboardInterrupt
            if self._progress is not None:
                with self._lock:
                    self._shares[run] = t / end
                    self._progress(sum(self._shares) / len(self._shares) * end, end)

        return report


def _in_order(flow: Flow, indices: Sequence[tuple[int, ...]], shares: _Shares, threads: int) -> Iterator[Trajectory]:
    """Yield the runs' records in order; with several threads all of them are under way."""
    if threads < 2:
        for number, index in enumerate(indices):
            yield flow(index, shares.of(number))
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    with torch_threads(1), pool:
        waiting = [pool.submit(flow, index, shares.of(number)) for number, index in enumerate(indices)]
        try:
            for future in waiting:
                try:
                    yield future.result()
                except KeyboardInterrupt:
                    shares.stopped.set()
                    future.result()  # raises Interrupted with what this run had reached, unless it has ended
                    raise
        finally:
            shares.stopped.set()
            pool.shutdown(cancel_futures=True)


def _stacked(done: list[Trajectory], runs: tuple[int, ...]) -> Trajectory:
    """Join records of single runs, which share their times, into one with run axes."""
    rests = [path.meta["rest_time"] for path in done if path.meta.get("rest_time") is not None]
    counts = ("seconds", "evaluations", "jacobians", "jacobian_products")
    known = [name for name in counts if any(name in path.meta for path in done)]
    meta = done[0].meta | {name: sum(path.meta.get(name, 0) for path in done) for name in known}
    meta |= {"atol": min(path.meta["atol"] for path in done)}
    meta |= {"largest_atol": max(path.meta["largest_atol"] for path in done)}
    # A method of max is DOP853 where some runs were left to CVODE.
    firsts = dict.fromkeys(("stiff_method", "stiff_from", UNSEEN), min)
    for name, chosen in (firsts | {"stiff_until": max, "method": max}).items():
        if found := [path.meta[name] for path in done if name in path.meta]:
            meta |= {name: chosen(found)}
    meta |= {"rest_time": max(rests) if len(rests) == len(done) else None}

    def joined(kind: Callable[[Trajectory], Sequence[Tensor]]) -> tuple[Tensor, ...]:
        return tuple(torch.stack(paths, 1).unflatten(1, runs) for paths in zip(*map(kind, done), strict=True))

    (loss,) = joined(lambda path: (path.loss,))
    fields = parameter_fields(joined(parameters_of), len(done[0].weights))
    return Trajectory(done[0].time, loss=loss, meta=meta, **fields)
