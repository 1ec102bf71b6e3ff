"""Workers for a sweep: local processes, Dask and Slurm, each behind the interface of concurrent.futures."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from multiprocessing import current_process, get_all_start_methods, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dyncollapse.runtime.dispatch import Workers
from dyncollapse.runtime.extras import need
from dyncollapse.runtime.files import first_line, unmarked
from dyncollapse.runtime.process import PARENT, check_count, children_ignore_interrupts, cores, start_tracker_quietly
from dyncollapse.runtime.settings import SettingError

# A Dask scheduler that runs answers within milliseconds; 10 s, a rule of thumb, allow for one that is starting.
CONNECT = "10s"
# Minutes of a Slurm job whose time the options do not say: a day, which the default partitions of many clusters allow
# (a rule of thumb). submitit's own 5 minutes would end most packs.
SLURM_MINUTES = 24 * 60
# Seconds, rules of thumb: between two looks at the files of submitted jobs, a few system calls each; that cancelled
# jobs have to end; and between two questions to Slurm's controller, which serves all users of a cluster.
LOOK_AT_JOBS, GRACE, ASK_QUEUE = 0.5, 10.0, 20.0


def local_workers(count: int | None = None, threads: int = 1) -> Workers:
    """Processes on this machine, by default as many as its cores allow with `threads` each.

    A script that uses them runs its own work under `if __name__ == "__main__":`, for every process imports it. Raises
    ValueError for more than this machine can use; at the start, where the processes cannot import the script.
    """
    _check_program()
    check_count("threads", threads)
    count = max(1, cores() // threads) if count is None else count
    check_count("workers", count)
    return Workers(partial(_processes, count), count)


@contextmanager
def _processes(count: int) -> Iterator[Executor]:
    # Processes are forked from one that has only imported, for a fork of a program with threads may hang.
    server = "forkserver" in get_all_start_methods()
    context: Any = get_context("forkserver" if server else "spawn")
    if server:
        start_tracker_quietly()
        main = threading.current_thread() is threading.main_thread()  # another thread may end before its server
        first = ["dyncollapse.runtime.parent_watchdog"] if main else []
        context.set_forkserver_preload([*first, "dyncollapse.sweeps.points"])
    workers_end, own_end = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_watch_parent, initargs=(workers_end,))
    try:
        os.environ[PARENT] = str(os.getpid())
        try:
            with children_ignore_interrupts():  # the server and its first worker, whose imports take seconds
                pool.submit(os.getpid).result()
        except BrokenExecutor:
            raise ValueError(
                "the worker processes died at their start: memory ran out, or they import the script, "
                'which then starts workers itself; put its work under `if __name__ == "__main__":`'
            ) from None
        finally:
            os.environ.pop(PARENT, None)
        yield pool
    finally:  # without waiting for work: it has all been returned, or is not wanted any more
        own_end.close()
        pool.shutdown(cancel_futures=True)
        workers_end.close()


def _check_program() -> None:
    """Raise ValueError, one line, for a program that workers cannot import; end quietly in a worker that imports it."""
    if getattr(current_process(), "_inheriting", False):  # the parent will say why its workers died
        raise SystemExit(1)
    program = sys.modules["__main__"]
    file = getattr(program, "__file__", None)
    if getattr(program, "__spec__", None) is None and file is not None and not os.path.exists(file):
        raise ValueError(
            f"worker processes import the program that starts them, and {file} is no file; put the program in a file"
        )


def _watch_parent(workers_end: Connection) -> None:
    """End this process as soon as its parent closes the pipe: after the work, on Ctrl-C, and when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        workers_end.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def dask_workers(count: int | None = None, threads: int = 1, scheduler: str | None = None) -> Workers:
    """Dask: a LocalCluster of `count` processes, or the workers of the scheduler at an address.

    Raises ValueError, one line, where Dask is missing or, at the start, where no scheduler answers.
    """
    need("distributed", "cluster", "`executor` dask needs the extra")
    if scheduler is None:
        count = local_workers(count, threads).count
    return Workers(partial(_dask, count, scheduler), count)


@contextmanager
def _dask(count: int | None, scheduler: str | None) -> Iterator[Executor]:
    import logging

    from distributed import Client, LocalCluster

    # A worker that dies is reported at the end of the sweep, with its point; Dask would log every step of it.
    cluster: Any = nullcontext(scheduler)
    if scheduler is None:
        if os.name == "posix":
            start_tracker_quietly()
        with children_ignore_interrupts():
            cluster = LocalCluster(
                n_workers=count, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
            )
    with cluster as address:
        try:
            client = Client(address, timeout=CONNECT)
        except (OSError, ValueError, TypeError) as error:
            reason = unmarked(first_line(error))
            raise SettingError(
                f"`scheduler` {unmarked(str(scheduler))} does not answer ({reason}); start it, and give the address "
                "that it prints"
            ) from None
        with client:
            # A pack that is tried again is run again: its first try left no result to reuse.
            executor = client.get_executor(pure=False)
            try:
                yield executor
            finally:
                executor.shutdown(wait=False)


def slurm_workers(
    folder: Path,
    count: int | None = None,
    threads: int = 1,
    options: Mapping[str, str] | None = None,
    cluster: str = "slurm",
) -> Workers:
    """One Slurm job per pack, submitted by submitit, which keeps its files in `folder`; at most `count` at once.

    `options` are sbatch's, as submitit names them (partition, time in minutes, mem, ...); `cluster="local"` runs the
    jobs on this machine without Slurm. Raises ValueError, one line, where submitit or Slurm is missing or an option
    is unknown.
    """
    need("submitit", "cluster", "`executor` slurm needs the extra")
    import logging

    import submitit

    # Its warnings are that sacct does not answer, once every few seconds.
    logging.getLogger("submitit").setLevel(logging.ERROR)
    try:
        jobs = submitit.AutoExecutor(folder=folder, cluster=cluster)
        jobs.update_parameters(name="dyncollapse", cpus_per_task=threads, timeout_min=SLURM_MINUTES)
        given = {f"slurm_{name}": int(value) if value.isdigit() else value for name, value in (options or {}).items()}
        jobs.update_parameters(**given)
    except (NameError, RuntimeError, AssertionError) as error:
        raise _refused_by_slurm(error) from None
    return Workers(partial(_jobs, jobs), count)


def _refused_by_slurm(error: Exception) -> SettingError:
    reason = unmarked(first_line(error)).rstrip("?.")
    return SettingError(f"`executor` slurm: {reason}; run where Slurm is, with options it takes, or use local")


@contextmanager
def _jobs(jobs: Any) -> Iterator[Executor]:
    executor = _JobExecutor(jobs)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


class _JobExecutor(Executor):
    """submitit's jobs as the futures of the standard library: one thread looks at all of them."""

    def __init__(self, jobs: Any) -> None:
        self._jobs = jobs
        self._running: dict[Future[Any], Any] = {}
        self._looking: threading.Thread | None = None
        self._closed = threading.Event()

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            self._running[future] = self._jobs.submit(work, *args, **kwargs)
        except Exception as error:  # sbatch refuses, as it will refuse all others: a partition, a limit, memory
            raise _refused_by_slurm(error) from None
        if self._looking is None:
            self._looking = threading.Thread(target=self._look, daemon=True)
            self._looking.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if cancel_futures:
            for future, job in list(self._running.items()):
                if future.cancel():
                    job.cancel(check=False)
        deadline = time.monotonic() + GRACE if cancel_futures else math.inf
        while wait and self._running and time.monotonic() < deadline:
            time.sleep(LOOK_AT_JOBS)
        self._closed.set()

    def _look(self) -> None:
        asked, lost = time.monotonic(), set[str]()
        while not self._closed.wait(LOOK_AT_JOBS):
            dead = set[str]()
            if self._jobs.cluster == "slurm" and time.monotonic() - asked > ASK_QUEUE:
                # What misses twice has had the time to write its result.
                missing = _ended({job.job_id for job in self._running.values()})
                asked, dead, lost = time.monotonic(), missing & lost, missing
            for future, job in list(self._running.items()):
                done = job.done()
                if done or job.job_id in dead:
                    del self._running[future]
                    if future.set_running_or_notify_cancel():
                        _settle(future, job if done else None)


def _ended(jobs: set[str]) -> set[str]:
    """Those that neither wait nor run. submitit asks sacct for jobs that died, which many clusters do not have."""
    asked = subprocess.run(["squeue", "--me", "--noheader", "--format=%A"], capture_output=True, text=True, check=False)
    return jobs - set(asked.stdout.split()) if asked.returncode == 0 else set()


def _settle(future: Future[Any], job: Any) -> None:
    try:
        if job is None:
            raise RuntimeError("the job left Slurm's queue without a result")
        future.set_result(job.result())
    except Exception as error:
        future.set_exception(error)
