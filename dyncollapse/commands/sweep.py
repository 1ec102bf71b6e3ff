"""Run `dyncollapse sweep`: a grid of simulations, its plan, its table, its failures and its picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from dyncollapse.commands.console import open_console, open_table
from dyncollapse.commands.options import SINGLE
from dyncollapse.commands.shared import bad_input, fail, note, one_form, say, say_saved, use_machine, warn
from dyncollapse.commands.sweep_command import sweep_command
from dyncollapse.runtime.canvas import save_pictures
from dyncollapse.runtime.dispatch import Workers
from dyncollapse.runtime.files import printable
from dyncollapse.runtime.folders import DISK
from dyncollapse.runtime.page.record import Picture
from dyncollapse.runtime.page.render import PAGE, render, save_page
from dyncollapse.runtime.progress import duration, progress_line
from dyncollapse.runtime.settings import option
from dyncollapse.simulation.command import as_options
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.sweeps.estimate import Estimate, estimate
from dyncollapse.sweeps.grid import expand_grid, parse_grid
from dyncollapse.sweeps.layout import Layout, short
from dyncollapse.sweeps.options import WorkerOptions, workers_of
from dyncollapse.sweeps.page import sweep_page
from dyncollapse.sweeps.page_pictures import panel_pictures
from dyncollapse.sweeps.picture_options import SweepPictureOptions
from dyncollapse.sweeps.sweep import Sweep

SHOWN = 8  # letters of a point's name in the table, enough to find its folder
ROWS = 60  # of a table that a person reads


@dataclass(frozen=True)
class Plan:
    """What a sweep will do: the number of finished points, the packs of the others, and an estimate of these."""

    sweep: Sweep
    finished: int
    packs: Sequence[Sequence[Configuration]]
    busy: int
    estimate: Estimate


class Gathered(NamedTuple):
    """The table of a grid, the page, the names of the files beside the points, and a line on each that failed."""

    table: list[dict[str, Any]]
    page: str
    saved: list[str]
    problems: list[str]


def sweep(
    *,
    out: Path,
    where: WorkerOptions,
    pictures: SweepPictureOptions,
    dry_run: bool,
    as_json: bool,
    as_html: bool,
    **settings: Any,
) -> None:
    """Run a grid of simulations, or print its plan."""
    forms = one_form({"json": as_json, "html": as_html})
    if dry_run and as_html:
        fail(2, "--html prints results, and --dry-run has none; leave one out")
    with bad_input():
        asked = Sweep(out, _grid(settings))
        threads = max(point.threads or 1 for point in asked.points.values())  # the same for all points, see SINGLE
        chosen = workers_of(where, threads, out / "slurm")
        if where.executor == "local":
            for device in {point.device for point in asked.points.values()}:
                use_machine(device, threads)
    if dry_run:
        with bad_input():
            plan = _plan(asked, chosen, where.pack)
        if as_json:
            click.echo(json.dumps(_as_values(plan) | {"workers": chosen.count, **plan.estimate._asdict()}))
        print_plan(plan, to_stderr=as_json)
    else:
        _run(asked, chosen, where.pack, pictures, forms)


def _grid(settings: Mapping[str, Any]) -> list[Configuration]:
    """The points of the grid."""
    given = {name: value for name, value in settings.items() if value is not None}
    lists = parse_grid({name: text for name, text in given.items() if name not in SINGLE})
    return expand_grid({name: lists.get(name, value) for name, value in given.items()})


def _run(asked: Sweep, workers: Workers, most_runs: int | None, wanted: SweepPictureOptions, forms: list[str]) -> None:
    """Run the unfinished points; print, draw and save the results of all."""
    try:
        with bad_input(), progress_line() as progress:
            failures = asked.run(workers, most_runs=most_runs, progress=progress, tell=note)
        gathered = _gather(asked, wanted)
    except KeyboardInterrupt:
        done = len(asked.reports()[0])
        fail(130, f"Interrupted. {done} of {len(asked.points)} points are done; the same command continues.")
    except OSError as error:
        reason = f"{error.filename or asked.folder} cannot be written ({error.strerror})"
        fail(1 if error.errno in DISK else 2, f"{reason}; make room or access, and give the same command again")
    if forms == ["json"]:
        lost = [{"point": n, "failure": text, "config": asked.points[n].as_dict()} for n, text in failures.items()]
        values = {"folder": str(asked.folder), "points": len(asked.points), "table": gathered.table, "failures": lost}
        click.echo(json.dumps(values))
    if forms == ["html"]:
        click.echo(gathered.page, nl=False)
    print_sweep(asked, gathered.table, to_stderr=bool(forms))
    say_saved(asked.folder, ("points/", "sweep.json", *gathered.saved), to_stderr=bool(forms))
    print_failures(asked, failures)
    for problem in gathered.problems:
        warn(problem)
    if failures:
        fail(1, f"{len(failures)} of {len(asked.points)} points failed; the same command tries them again")


def _gather(asked: Sweep, wanted: SweepPictureOptions) -> Gathered:
    """Put together the results of this grid, and draw and save the pictures and the page of the whole folder."""
    everything, problems = asked, list[str]()
    try:
        everything = Sweep.open(asked.folder)
    except ValueError as error:
        problems.append(f"{', '.join(wanted.files)} could not be drawn ({error})")
    reports = everything.reports()[0]  # read once for pictures, page and table
    layout = Layout.of(everything.points, everything.axes, reports)
    names, pictures = list[str](), list[Picture]()
    if layout is not None and not problems:
        named = zip(wanted.files, wanted.plot, strict=True)
        drawing = {file: partial(layout.draw, kind) for file, kind in named}
        names, problems = save_pictures(everything.folder, drawing)
        pictures = panel_pictures(layout, wanted.plot)
    record = sweep_page(
        everything.points,
        reports,
        everything.failures(),
        folder=everything.folder,
        pictures=pictures,
        reproduce=sweep_command(everything),
    )
    page = render(record)
    unsaved = save_page(everything.folder / PAGE, page)
    table = asked.table({name: reports[name] for name in asked.points if name in reports})
    return Gathered(table, page, [*names, *([] if unsaved else [PAGE])], [*problems, *unsaved])


def print_sweep(asked: Sweep, table: Sequence[Mapping[str, Any]], *, to_stderr: bool) -> None:
    """Print a row per finished point."""
    console, axes = open_console(to_stderr), list(asked.axes)
    compared = any(row["sgd_vs_flow"] is not None for row in table)
    words = (name.replace("_", " ") for name in axes)
    rows = open_table("point", *words, "collapsed", "mechanism", *(["SGD-flow"] if compared else []))
    for row in table[:ROWS]:
        cells = [row["point"][:SHOWN], *(short(row[name]) for name in axes)]
        cells += [f"{row['collapsed']} of {row['out_dim'] or row['dim']}", row["mechanism"]]
        distance = row["sgd_vs_flow"]
        rows.add_row(*cells, *(["-" if distance is None else f"{distance:.2g}"] if compared else []))
    if table:
        console.print(rows)
    if len(table) > ROWS:
        folder = printable(str(asked.folder))
        console.print(f"... and {len(table) - ROWS} more: dyncollapse collect {folder}", soft_wrap=True)
    console.print(f"{len(table)} of {len(asked.points)} points are finished.")


def print_failures(asked: Sweep, failures: Mapping[str, str]) -> None:
    """Print each failed point on stderr, with its error and the command that runs it alone."""
    console = open_console(to_stderr=True)
    for name, text in failures.items():
        console.print(f"failed: {name}: {text}", style="red", soft_wrap=True)
        say(f"  dyncollapse simulate {as_options(asked.points[name])}", err=True)


def _plan(asked: Sweep, workers: Workers, most_runs: int | None) -> Plan:
    asked.check_folder()
    finished = asked.reports()[0]
    packs = asked.packs(finished, workers=workers.count, most_runs=most_runs)
    busy = max(1, min(workers.count or 1, len(packs)))
    return Plan(asked, len(finished), packs, busy, estimate(packs, busy))


def _as_values(plan: Plan) -> dict[str, Any]:
    """The plan as plain JSON values."""
    sizes = [{"points": len(pack), "runs": sum(point.runs for point in pack)} for pack in plan.packs]
    return {"points": len(plan.sweep.points), "finished": plan.finished, "packs": sizes}


def print_plan(plan: Plan, *, to_stderr: bool) -> None:
    """Print the numbers of points and packs, and a rough time."""
    console, points = open_console(to_stderr), len(plan.sweep.points)
    axes = [f"{len(values)} {option(name)}" for name, values in plan.sweep.axes.items()]
    console.print(f"{points} points: {' x '.join(axes) or 'one setting'}; {plan.finished} finished", soft_wrap=True)
    if not plan.packs:
        console.print("Nothing is left to run.")
        return
    table = open_table("packs", "points each", "runs each")
    sizes = [(len(pack), sum(point.runs for point in pack)) for pack in plan.packs]
    for size in sorted(set(sizes), reverse=True):
        table.add_row(str(sizes.count(size)), *map(str, size))
    console.print(table)
    seconds, memory = plan.estimate
    room = "" if memory is None else f" and {memory / 2**30:.2g} GiB per worker"
    workers = f"{plan.busy} worker{'s'[: plan.busy > 1]}"
    console.print(f"Roughly {duration(seconds)} on {workers}{room}. Nothing was written.")
