"""Where the points of a sweep run: the options of the command line, in one record."""

from pathlib import Path
from typing import Literal

from dyncollapse.runtime.dispatch import Workers
from dyncollapse.runtime.executors import dask_workers, local_workers, slurm_workers
from dyncollapse.runtime.records import MOST_WORKERS, Text, Whole, record, setting
from dyncollapse.runtime.settings import SettingError, quoted

Executor = Literal["local", "dask", "slurm"]
MOST_PACKED = 10**6


@record
class WorkerOptions:
    """Where points run, how many at a time, and in how large packs.

    Raises:
        SettingError: One line for an option of another type or out of range, and for an option of another executor.

    Examples:
        >>> WorkerOptions(executor="slurm", slurm="partition=gpu,time=120").sbatch
        {'partition': 'gpu', 'time': '120'}
    """

    executor: Executor = setting(
        "local",
        "Where points run: processes on this machine, a Dask cluster, or a Slurm job per pack.",
        group="running",
    )
    workers: Whole | None = setting(
        None,
        "Packs run at a time.",
        group="running",
        unit="processes",
        low=1,
        high=MOST_WORKERS,
        unset="cores / `threads`; on a cluster, as many as it has",
    )
    pack: Whole | None = setting(
        None,
        "Most runs in one ensemble.",
        group="running",
        unit="runs",
        low=1,
        high=MOST_PACKED,
        unset="the fastest number",
    )
    scheduler: Text | None = setting(
        None,
        "Dask scheduler, tcp://...",
        group="running",
        metavar="ADDRESS",
        unset="one that is started on this machine",
    )
    slurm: Text | None = setting(
        None,
        "Options of sbatch: partition, account, time in minutes, mem, ...",
        group="running",
        metavar="KEY=VALUE,..",
    )

    def __post_init__(self) -> None:
        """Check that each option belongs to the executor."""
        for name, value, needed in (("scheduler", self.scheduler, "dask"), ("slurm", self.slurm, "slurm")):
            if value is not None and self.executor != needed:
                raise SettingError(f"`{name}` belongs to `executor` {needed}; add it or drop `{name}`")
        if wrong := next((part for part in self._parts if not all(part.partition("=")[::2])), None):
            raise SettingError(f"`slurm` holds {quoted(wrong)}; write key=value,key=value")

    @property
    def _parts(self) -> list[str]:
        return [part for part in (self.slurm or "").split(",") if part]

    @property
    def sbatch(self) -> dict[str, str]:
        """The options of sbatch by name."""
        return {key.strip(): value for key, _, value in (part.partition("=") for part in self._parts)}


def workers_of(where: WorkerOptions, threads: int, logs: Path) -> Workers:
    """The workers for the points of a sweep.

    Args:
        where: The executor and its options.
        threads: CPU threads of each worker.
        logs: Where Slurm writes its files.

    Returns:
        The workers, which are not started yet.

    Raises:
        SettingError: For what this machine or cluster cannot run.

    Examples:
        >>> workers_of(WorkerOptions(workers=2), 1, Path("slurm")).count
        2
    """
    if where.executor == "dask":
        return dask_workers(where.workers, threads, where.scheduler)
    if where.executor == "slurm":
        return slurm_workers(logs, where.workers, threads, where.sbatch)
    return local_workers(where.workers, threads)
