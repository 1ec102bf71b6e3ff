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
from multiprocessing import current_process, forkserver, get_all_start_methods, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dyncollapse.runtime.dispatch import Workers
from dyncollapse.runtime.extras import need
from dyncollapse.runtime.files import first_line, unmarked
from dyncollapse.runtime.process import PARENT, check_count, children_ignore_interrupts, cores, start_tracker_quietly
from dyncollapse.runtime.settings import SettingError

# What workers of this program import, numba among it.
PRELOADED = (
    "dyncollapse.sweeps.points",
    "dyncollapse.claims.run",
    "dyncollapse.model._forces_compiled",
    "dyncollapse.runtime.numba_first_call",
)
# A running Dask scheduler answers within milliseconds; 10 s, a rule of thumb, leave time for one that is starting.
CONNECT = "10s"
# Time limit of a Slurm job, in minutes, where the options set none: a day, which the default partitions of many
# clusters allow (a rule of thumb). submitit's default of 5 minutes would end most packs.
SLURM_MINUTES = 24 * 60
# Seconds, all rules of thumb: between two looks at the files of submitted jobs, which take a few system calls each;
# until cancelled jobs must have ended; and between two questions to Slurm's controller, which serves all users.
LOOK_AT_JOBS, GRACE, ASK_QUEUE = 0.5, 10.0, 20.0


def local_workers(count: int | None = None, threads: int = 1) -> Workers:
    """Worker processes on this machine.

    Each process imports the script that starts it, so a script puts its own work under `if __name__ == "__main__":`.
    Nothing is started before `Sweep.run`.

    Args:
        count: Processes, each of which runs one pack at a time; by default the number of cores over `threads`.
        threads: CPU threads of each process, as `Configuration.threads` sets them; only the default of `count`
            depends on it.

    Returns:
        The workers.

    Raises:
        ValueError: For fewer than one process or thread, and for more than this machine can use; for a program on
            standard input, which processes cannot import. `Sweep.run` raises it where the processes die at their start.

    Examples:
        >>> local_workers(count=2).count
        2
    """
    _check_program()
    check_count("threads", threads)
    count = max(1, cores() // threads) if count is None else count
    check_count("workers", count)
    return Workers(partial(_processes, count), count)


@contextmanager
def _processes(count: int) -> Iterator[Executor]:
    context: Any = get_context("forkserver" if begin_server() else "spawn")
    workers_end, own_end = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_watch_parent, initargs=(workers_end,))
    try:
        try:
            with children_ignore_interrupts():  # the server and its first worker import for seconds
                pool.submit(os.getpid).result()
        except BrokenExecutor:
            raise ValueError(
                "the worker processes died at their start: memory ran out, or the script that they import "
                'starts workers itself; put its work under `if __name__ == "__main__":`'
            ) from None
        yield pool
    finally:  # without waiting: all work has been returned, or is no longer wanted
        own_end.close()
        pool.shutdown(cancel_futures=True)
        workers_end.close()


def begin_server() -> bool:
    """Start the server from which workers are forked, unless it runs, and return while it still imports.

    It only imports: forking a program that has threads may hang. What starts it early can import meanwhile.

    Returns:
        Whether this system has such a server.
    """
    if "forkserver" not in get_all_start_methods():
        return False
    start_tracker_quietly()
    main = threading.current_thread() is threading.main_thread()  # another thread may end before its server
    first = ["dyncollapse.runtime.parent_watchdog"] if main else []
    forkserver.set_forkserver_preload([*first, *PRELOADED])
    os.environ[PARENT] = str(os.getpid())
    try:
        with children_ignore_interrupts():
            forkserver.ensure_running()
    finally:
        os.environ.pop(PARENT, None)
    return True


def _check_program() -> None:
    """Raise ValueError for a program that workers cannot import; end quietly in a worker that is importing it."""
    if getattr(current_process(), "_inheriting", False):  # the parent reports why its workers died
        raise SystemExit(1)
    program = sys.modules["__main__"]
    file = getattr(program, "__file__", None)
    if getattr(program, "__spec__", None) is None and file is not None and not os.path.exists(file):
        raise ValueError(
            f"worker processes import the program that starts them, and {file} is not a file; save the program in one"
        )


def _watch_parent(workers_end: Connection) -> None:
    """End this process as soon as its parent closes the pipe: after the work, on Ctrl-C, or when killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        workers_end.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def dask_workers(count: int | None = None, threads: int = 1, scheduler: str | None = None) -> Workers:
    """Workers of a Dask cluster: one that is started on this machine, or an existing one.

    Args:
        count: Packs that run at the same time. On this machine, the processes of the new cluster, by default as in
            `local_workers`; with a scheduler, by default as many as its cluster has room for.
        threads: As in `local_workers`.
        scheduler: Address of the existing cluster's scheduler, as "tcp://host:8786"; None starts a LocalCluster.

    Returns:
        The workers.

    Raises:
        SettingError: Where Dask is not installed; `Sweep.run` raises it where no scheduler answers. It is a ValueError.

    Examples:
        >>> dask_workers(scheduler="tcp://login-node:8786").count is None  # the scheduler decides
        True
    """
    need("distributed", "cluster", "`executor` dask needs the extra")
    if scheduler is None:
        count = local_workers(count, threads).count
    return Workers(partial(_dask, count, scheduler), count)


@contextmanager
def _dask(count: int | None, scheduler: str | None) -> Iterator[Executor]:
    from distributed import Client

    with nullcontext(scheduler) if scheduler else _local_cluster(count) as address:
        try:
            client = Client(address, timeout=CONNECT)
        except (OSError, ValueError, TypeError) as error:
            reason = unmarked(first_line(error))
            raise SettingError(
                f"`scheduler` {unmarked(str(scheduler))} does not answer ({reason}); start it, and give the address "
                "that it prints"
            ) from None
        with client:
            # Not pure: a pack that is tried again must run again, as its first try left no result to reuse.
            executor = client.get_executor(pure=False)
            try:
                yield executor
            finally:
                executor.shutdown(wait=False)


@contextmanager
def _local_cluster(count: int | None) -> Iterator[Any]:
    import logging

    import dask
    from distributed import LocalCluster

    # Forked from the server of all local workers, a process of Dask need not import PyTorch again.
    method = "forkserver" if begin_server() else "spawn"
    # The sweep reports a worker that dies at its end, with the point; Dask would log every step of that death.
    quiet = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": logging.CRITICAL}
    with dask.config.set({"distributed.worker.multiprocessing-method": method}):
        with children_ignore_interrupts():
            cluster = LocalCluster(n_workers=count, **quiet)
        with cluster:
            yield cluster


def slurm_workers(
    folder: Path,
    count: int | None = None,
    threads: int = 1,
    options: Mapping[str, str] | None = None,
    cluster: str = "slurm",
) -> Workers:
    """Slurm jobs, one per pack, submitted by submitit.

    Args:
        folder: Where submitit keeps its job scripts, logs and pickled results; all nodes must see it.
        count: Jobs in the queue at the same time; None submits up to a thousand and leaves the rest to Slurm.
        threads: CPUs of each job, as `Configuration.threads` uses them.
        options: Options of sbatch as submitit names them: partition, account, mem, time (in minutes), ...
        cluster: "slurm", or "local" to run the jobs on this machine without Slurm, for tests.

    Returns:
        The workers.

    Raises:
        SettingError: Where submitit is not installed, Slurm is not on this machine, or an option is unknown;
            `Sweep.run` raises it where sbatch refuses a job. It is a ValueError.

    Examples:
        >>> slurm_workers(Path("slurm"), 50, options={"partition": "short", "time": "60"}, cluster="local").count
        50
    """
    need("submitit", "cluster", "`executor` slurm needs the extra")
    import logging

    import submitit

    # Where sacct does not answer, submitit would warn of that every few seconds.
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
    """submitit's jobs as futures of the standard library; one thread watches all of them."""

    def __init__(self, jobs: Any) -> None:
        self._jobs = jobs
        self._running: dict[Future[Any], Any] = {}
        self._looking: threading.Thread | None = None
        self._closed = threading.Event()

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            self._running[future] = self._jobs.submit(work, *args, **kwargs)
        except Exception as error:  # what sbatch refuses (a partition, a limit, memory) it would refuse for all packs
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
                # A job that is missing twice in a row has had time to write its result.
                missing = _ended({job.job_id for job in self._running.values()})
                asked, dead, lost = time.monotonic(), missing & lost, missing
            for future, job in list(self._running.items()):
                done = job.done()
                if done or job.job_id in dead:
                    del self._running[future]
                    if future.set_running_or_notify_cancel():
                        _settle(future, job if done else None)


def _ended(jobs: set[str]) -> set[str]:
    """The jobs that left the queue, by squeue: submitit asks sacct, which many clusters do not have."""
    asked = subprocess.run(["squeue", "--me", "--noheader", "--format=%A"], capture_output=True, text=True, check=False)
    return jobs - set(asked.stdout.split()) if asked.returncode == 0 else set()


def _settle(future: Future[Any], job: Any) -> None:
    try:
        if job is None:
            raise RuntimeError("the job left Slurm's queue without a result")
        future.set_result(job.result())
    except Exception as error:
        future.set_exception(error)
