"""Run `dyncollapse simulate`: one toy simulation, its table, its verdict and its folder."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dyncollapse.commands.console import open_console, open_table
from dyncollapse.commands.remedies import print_remedies
from dyncollapse.commands.shared import bad_input, fail, say_saved, use_machine, warn
from dyncollapse.diagnostics.verdict import Verdict
from dyncollapse.dynamics.solver import FlowFailed
from dyncollapse.dynamics.training import Diverged
from dyncollapse.runtime.canvas import save_pictures
from dyncollapse.runtime.files import CannotWrite
from dyncollapse.runtime.folders import claimed_folder, is_free
from dyncollapse.runtime.process import cores, uninterrupted
from dyncollapse.runtime.progress import duration, progress_bars
from dyncollapse.simulation.build import Simulation, build
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.picture_options import PictureOptions, Plot
from dyncollapse.simulation.prediction import time_per_step
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.remedies import remedies
from dyncollapse.simulation.report import RECORD, recorded, save, was_killed
from dyncollapse.simulation.representation import representation_dimensions
from dyncollapse.simulation.run import run
from dyncollapse.simulation.verdict import moment
from dyncollapse.sweeps.estimate import expected_seconds
from dyncollapse.theory.population import POPULATION_FACTOR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONG = 30.0  # seconds from which on a simulation says first how long it will take


def simulate(out: Path | None, as_json: bool, pictures: PictureOptions, **settings: Any) -> None:
    """Run one simulation, save it in its folder, and print its table and verdict."""
    with bad_input():
        configuration = resolve({name: value for name, value in settings.items() if value is not None})
        pictures.check(configuration)
        use_machine(configuration.device, configuration.threads or 1)
        simulation = build(configuration)  # bad settings are refused before a folder is made
        with claimed_folder(out, "simulate", partial(was_killed, configuration=configuration)) as folder:
            outcome, report = _run(simulation, folder)
            drawn, problems = _save_pictures(outcome, folder, pictures)
    if as_json:
        click.echo(json.dumps(report, allow_nan=False))
    print_outcome(outcome, report, to_stderr=as_json)
    for problem in problems:
        warn(problem)
    names = [RECORD, *(f"{name}.npz" for name in outcome.trajectories), *drawn]
    say_saved(folder, names, to_stderr=as_json)


def _run(simulation: Simulation, folder: Path) -> tuple[Outcome, dict[str, Any]]:
    """Run the simulation, or the rest of a killed one, and save each dynamics when it has ended.

    Returns the outcome, and the content of run.json.
    """
    configuration, report = replace(simulation.configuration, out=str(folder)), dict[str, Any]()

    def keep(so_far: Outcome) -> None:
        # Judging and saving take seconds, and training may have taken hours: one Ctrl-C must not lose it.
        with uninterrupted("\nSaving the results; Ctrl-C again stops without saving.\n"):
            report.update(save(so_far, folder))

    def kept() -> str:
        return "Nothing was recorded." if not any(folder.glob("*.npz")) else f"The results so far are in {folder}/"

    try:
        known = {} if is_free(folder) else recorded(folder)
        if known:
            click.echo(f"Continuing a run that was killed: {', '.join(known)} done", err=True)
        left = tuple(name for name in configuration.dynamics if name not in known)
        seconds = expected_seconds(replace(configuration, dynamics=left)) if left else 0.0
        if seconds > LONG:
            click.echo(f"This takes roughly {duration(seconds)}; Ctrl-C keeps what is done until then.", err=True)
        with progress_bars(left) as progress:
            threads = configuration.threads or cores()
            return run(replace(simulation, configuration=configuration), progress, keep, known, threads), report
    except (Diverged, FlowFailed) as error:
        fail(1, f"{error}. {kept()}")
    except KeyboardInterrupt:
        fail(130, f"Interrupted. {kept()}")
    except CannotWrite as error:
        fail(1, f"{error.filename} could not be written ({error.strerror}). {kept()}")


def print_outcome(outcome: Outcome, report: Mapping[str, Any], *, to_stderr: bool) -> None:
    """Print a row per dimension and the verdict; `report` is the content of run.json."""
    judged, ends = outcome.verdict, outcome.ends
    assert judged is not None
    first = next(iter(ends.values()))
    variances = [_column(values.mean(0).tolist()) for values in (first.data_var, first.aug_var, first.ratio)]
    linear = outcome.simulation.objective.activation == "linear"
    kind = ("mode", "data var", "aug var") if linear else ("dimension", "embedding var", "of it aug")
    priced = report["dynamics"][next(iter(ends))]
    costs = priced.get("probe_cost_by_mode")
    kept = representation_dimensions(outcome.simulation, next(iter(outcome.trajectories.values())))
    more = [*(["representation"] if kept else []), *(["probe misses"] if costs else [])]
    table = open_table(*kind, "rho", *ends, *more, "collapsed?")
    for k, fate in enumerate(_fates(judged, time_per_step(outcome.simulation.configuration))):
        row = [f"{k + 1}", *(column[k] for column in variances)]
        for end in ends.values():
            values = end.singular_value[:, k]
            row.append(f"{float(values.mean()):.3g} ± {float(values.std(correction=0)):.1g}")
        if kept:
            row.append(f"{float(kept.singular_value[:, k].mean()):.3g}" if k < kept.singular_value.shape[-1] else "-")
        if costs:
            row.append(f"{costs[k]:.1%}" if k < len(costs) else "-")
        table.add_row(*row, fate)
    console = open_console(to_stderr)
    console.print(table)
    for other, name in (("flow", "flow"), ("population", "population flow")):
        distance = report[f"sgd_vs_{other}"]
        if distance is not None and None not in distance.values():
            console.print(
                f"SGD and {name} differ by {distance['relative_distance']:.2g} of the flow's norm at most, "
                f"{distance['at_end']:.2g} at the end."
            )
    if "population" in ends:
        console.print(_population_limit(report), soft_wrap=True)
    if count := report["prediction"]["at_threshold"]:
        console.print(
            f"Modes at the threshold: {count} of {outcome.simulation.task.dim} have rho = 1 up to round-off. They "
            "decay to zero, but only as a power of time.",
            soft_wrap=True,
        )
    if costs:
        console.print(_price(priced, report["config"]["ridge"]), soft_wrap=True)
    console.print(judged.sentence, style="bold", soft_wrap=True)
    print_remedies(console, remedies(outcome))


def _price(priced: Mapping[str, Any], ridge: float) -> str:
    """One sentence on what collapse costs a ridge probe."""
    said = (
        f"A ridge probe (penalty {ridge:g}) of the embedding misses {priced['probe_cost']:.1%} of the data's variance"
    )
    if (below := priced.get("representation_probe_cost")) is not None:
        said += f", one of the representation below the last layer {below:.1%}"
    return said + "."


def _fates(judged: Verdict, step: float) -> list[str]:
    """The last column: each dimension's fate and, if it waits, until when; `step` is the flow time of an SGD step."""
    cells = []
    for one in judged.dimensions:
        escape = None if one.escape_time is None else moment(one.escape_time, step)
        end = "" if escape is None else " for ever" if escape == "never" else f" until {escape}"
        cells.append(f"{one.fate}{end}" if one.fate.collapsed else "no")
    return cells


def _population_limit(report: Mapping[str, Any]) -> str:
    """One sentence on whether the population flow may be compared with dynamics on finite batches."""
    name = next(name for name in ("sgd", "flow", "population") if name in report["dynamics"])
    limit, batch_size = report["dynamics"][name]["population_limit"], report["config"]["batch_size"]
    if limit is None:
        return "Population limit: whether batches of N behave as it says is not known for this network."
    needed, effective = limit["negatives_needed"], limit["effective_negatives"]
    if needed == 0:
        return "Population limit: equal to the expected flow at every N; only the noise of the batches differs."
    least = "more than any" if needed is None else f"N >= {POPULATION_FACTOR * needed:.3g}"
    counts = "" if effective is None else f", effectively {effective:.3g} negatives"
    return (
        f"Population limit at the end of {name}: {'valid' if limit['valid'] else 'not valid'} "
        f"(it takes {least}; N = {batch_size}{counts})."
    )


def _column(values: list[float]) -> list[str]:
    """Values with three decimals, or in scientific notation if the largest is too small or too large; NaN as a dash."""
    known = [value for value in values if not math.isnan(value)]
    fixed = 0.01 <= max(known, default=0.0) < 1e4
    return ["-" if math.isnan(v) else f"{v:.3f}" if fixed or v == 0 else f"{v:.1e}" for v in values]


def _save_pictures(outcome: Outcome, folder: Path, wanted: PictureOptions) -> tuple[list[str], list[str]]:
    """Draw the pictures into the run folder; the names of those that were drawn, and a line on each that was not."""

    def draw(name: Plot) -> "Figure":
        # Here, not above: importing Matplotlib fails when the user's settings of it are broken.
        from dyncollapse.commands.pictures import draw_outcome

        return draw_outcome(outcome, name)

    named = zip(wanted.files, wanted.plot, strict=True)
    return save_pictures(folder, {file: partial(draw, name) for file, name in named})
