"""Dynamics that run in a thread of their own, beside what the main thread runs."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import torch

from dyncollapse.dynamics.trajectory import Trajectory

Work = Callable[[Callable[[float, float], None]], Trajectory]


class Beside:
    """Runs pieces of work in a thread, one after the other, from the start of its `with` block to its end at most."""

    def __init__(self, works: Mapping[str, Work], progress: Callable[[str, float, float], None]) -> None:
        """Take work by name, each a function of where it reports (done, total), and where all progress goes."""
        self._works, self._progress = works, progress
        self._lock, self._stopped, self._threads = threading.Lock(), threading.Event(), torch.get_num_threads()
        self._futures: dict[str, Future[Trajectory]] = {}

    def __enter__(self) -> Self:
        """Begin."""
        if self._works:
            self._pool = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
            self._futures = {name: self._pool.submit(self._run, name) for name in self._works}
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what has not ended."""
        if self._works:
            self.stop()
            self._pool.shutdown()
            torch.set_num_threads(self._threads)  # PyTorch gives later threads as many as the last one asked for

    def report(self, name: str, done: float, total: float) -> None:
        """Report progress, one thread at a time."""
        with self._lock:
            self._progress(name, done, total)

    def result(self, name: str) -> Trajectory:
        """Wait for a record; raises what its work raised, and KeyboardInterrupt on Ctrl-C."""
        return self._futures[name].result()

    def stop(self) -> dict[str, Trajectory]:
        """Stop all work as Ctrl-C does, and return what each piece of it had recorded."""
        begun = {name: future for name, future in self._futures.items() if not future.cancel()}
        self._stopped.set()
        records: dict[str, Trajectory] = {}
        for name, future in begun.items():
            failure = future.exception()
            path = future.result() if failure is None else getattr(failure, "trajectory", None)
            records |= {} if path is None else {name: path}
        return records

    def _run(self, name: str) -> Trajectory:
        def report(done: float, total: float) -> None:
            if self._stopped.is_set():
                raise KeyboardInterrupt
            self.report(name, done, total)

        return self._works[name](report)
