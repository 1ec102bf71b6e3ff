"""`dyncollapse sweep` and `dyncollapse collect`: a grid of simulations, and its table."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dyncollapse.commands.help_pages import GroupedCommand, grouped_option
from dyncollapse.commands.shared import (
    OUT,
    SINGLE,
    THREADS,
    bad_input,
    fail,
    say,
    say_saved,
    setting_options,
    use_machine,
    warn,
)
from dyncollapse.simulation.configuration import Configuration

if TYPE_CHECKING:
    from dyncollapse.runtime.dispatch import Workers
    from dyncollapse.sweeps.sweep import Sweep

EXECUTORS = ("local", "dask", "slurm")


@click.command(cls=GroupedCommand)
@setting_options(Configuration, lists=True)
@click.option("--out", type=OUT, required=True, help="Folder of the sweep, new or a sweep's.")
@grouped_option(
    "--executor", group="running", metavar="|".join(EXECUTORS), default="local", help="Where points run.  [local]"
)
@grouped_option(
    "--workers", group="running", type=THREADS, help="Packs at once.  [cores / --threads; a cluster: its own]"
)
@grouped_option(
    "--pack",
    "most_runs",
    group="running",
    type=click.IntRange(1, 10**6),
    help="Runs in an ensemble, at most.  [as many as are fastest]",
)
@grouped_option(
    "--scheduler",
    group="running",
    metavar="ADDRESS",
    help="Dask scheduler, tcp://...; none starts one on this machine.",
)
@grouped_option(
    "--slurm", group="running", metavar="KEY=VALUE,..", help="For sbatch: partition, account, time in minutes, mem, ..."
)
@grouped_option(
    "--dry-run", group="running", is_flag=True, help="Print points, packing and a rough estimate; write nothing."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; all else goes to stderr.")
def sweep(
    out: Path,
    executor: str,
    workers: int | None,
    most_runs: int | None,
    scheduler: str | None,
    slurm: str | None,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Run a grid of simulations, and resume it: what is finished in --out is not run again.

    Every setting takes several values: 1,2,3, or first:last:count with both ends, or first:last:count:log, or a
    mixture; the grid has all combinations. Points that differ only in start and data train as one ensemble (a pack),
    each as it would alone. --bias, --dynamics, --preset, --case and --threads (per worker) are one for all.
    """
    with bad_input():
        found = _plan(out, given)
        threads = given["threads"] or 1
        at_hand = _workers(executor, workers, threads, out, scheduler, slurm)
        if executor == "local":
            for device in {c.device for c in found.points.values()}:
                use_machine(device, threads)
    if dry_run:
        _dry_run(found, at_hand, most_runs, as_json)
        return

    from dyncollapse.commands.sweep_tables import print_failures, print_sweep
    from dyncollapse.runtime.folders import DISK
    from dyncollapse.runtime.progress import progress_line

    try:
        with bad_input(), progress_line() as progress:
            failures = found.run(at_hand, most_runs=most_runs, progress=progress, tell=lambda text: say(text, err=True))
        table, pictures, problem = _gather(found)
    except KeyboardInterrupt:
        done = len(found.reports()[0])
        fail(130, f"Interrupted. {done} of {len(found.points)} points are done; the same command goes on.")
    except OSError as error:
        said = f"{error.filename or out} cannot be written ({error.strerror})"
        fail(1 if error.errno in DISK else 2, f"{said}; the same command goes on, where it can write")
    if as_json:
        lost = [{"point": n, "failure": text, "config": found.points[n].as_dict()} for n, text in failures.items()]
        click.echo(json.dumps({"folder": str(out), "points": len(found.points), "table": table, "failures": lost}))
    print_sweep(found, table, to_stderr=as_json)
    say_saved(out, ("points/", "sweep.json", *pictures), to_stderr=as_json)
    print_failures(found, failures)
    if problem:
        warn(problem)
    if failures:
        fail(1, f"{len(failures)} of {len(found.points)} points failed; the same command tries them again")


def _gather(found: "Sweep") -> tuple[list[dict[str, Any]], list[str], str]:
    """The table, the pictures of the whole folder, other grids' too, and why those failed, which hides no row."""
    from dyncollapse.commands.sweep_tables import save_sweep

    try:
        everything = type(found).open(found.folder)
    except ValueError as error:
        return found.table(), [], f"sweep.png could not be drawn ({error})"
    reports = everything.reports()[0]  # read once for both
    pictures, problem = save_sweep(everything, reports)
    return found.table({name: reports[name] for name in found.points if name in reports}), pictures, problem


def _plan(out: Path, given: dict[str, Any]) -> "Sweep":
    from dyncollapse.sweeps.grid import expand_grid, parse_grid

    there = {name: value for name, value in given.items() if value is not None}
    lists = parse_grid({name: text for name, text in there.items() if name not in SINGLE})
    configurations = expand_grid({name: lists.get(name, value) for name, value in there.items()})

    from dyncollapse.sweeps.sweep import Sweep

    return Sweep(out, configurations)


def _workers(
    executor: str, count: int | None, threads: int, out: Path, scheduler: str | None, slurm: str | None
) -> "Workers":
    from dyncollapse.runtime.executors import dask_workers, local_workers, slurm_workers

    if executor not in EXECUTORS:
        raise ValueError(f"--executor is {executor!r}; choose one of {', '.join(EXECUTORS)}")
    for name, value, needed in (("--scheduler", scheduler, "dask"), ("--slurm", slurm, "slurm")):
        if value is not None and executor != needed:
            raise ValueError(f"{name} belongs to --executor {needed}; add it or drop {name}")
    if executor == "dask":
        return dask_workers(count, threads, scheduler)
    if executor == "slurm":
        pairs = [part.partition("=") for part in (slurm or "").split(",") if part]
        if wrong := next(("".join(pair) for pair in pairs if not (pair[0] and pair[2])), None):
            raise ValueError(f"--slurm holds {wrong!r}; write key=value,key=value")
        return slurm_workers(out / "slurm", count, threads, {key.strip(): value for key, _, value in pairs})
    return local_workers(count, threads)


def _dry_run(found: "Sweep", workers: "Workers", most_runs: int | None, as_json: bool) -> None:
    from dyncollapse.commands.sweep_tables import print_plan
    from dyncollapse.sweeps.estimate import estimate

    with bad_input():
        found.check_folder()
        done = found.reports()[0]
        packs = found.packs(done, workers=workers.count, most_runs=most_runs)
        busy = max(1, min(workers.count or 1, len(packs)))
        seconds, memory = estimate(packs, busy)
    if as_json:
        sizes = [{"points": len(pack), "runs": sum(c.runs for c in pack)} for pack in packs]
        numbers = {"points": len(found.points), "finished": len(done), "packs": sizes}
        click.echo(json.dumps(numbers | {"workers": workers.count, "seconds": seconds, "memory": memory}))
    print_plan(found, len(done), packs, busy, seconds, memory, to_stderr=as_json)


@click.command(cls=GroupedCommand)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=OUT, help="A .csv or .parquet file.  [CSV on stdout]")
def collect(folder: Path, out: Path | None) -> None:
    """Put the results of the sweep in FOLDER into one table, a row per finished point.

    Settings, verdict, losses and final singular values (mean over runs). What is not finished is told on stderr.
    """
    with bad_input():
        from dyncollapse.runtime.folders import DISK
        from dyncollapse.sweeps.sweep import Sweep
        from dyncollapse.sweeps.tables import check_table, write_csv, write_table

        if out is not None:
            check_table(out)
        found = Sweep.open(folder)
        reports, broken = found.reports()
        rows = found.table(reports)
    if out is None:
        if sys.stdout is None:
            fail(1, "standard output is closed; name a file with --out")
        write_csv(rows, sys.stdout)
    else:
        try:
            write_table(rows, out)
        except OSError as error:
            fail(1 if error.errno in DISK else 2, f"--out {out} could not be written ({error.strerror})")
        say(f"{len(rows)} points in {out}", err=True)
    from dyncollapse.commands.sweep_tables import print_failures

    for problem in broken.values():
        say(f"{problem}; the next sweep runs it again", err=True)
    print_failures(found, {name: text for name, text in found.failures().items() if name not in reports})
    if missing := len(found.points) - len(rows):
        say(f"{missing} of {len(found.points)} points are not finished; the sweep's command goes on", err=True)
