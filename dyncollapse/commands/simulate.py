"""Run `dyncollapse simulate`: one toy simulation, its table, its verdict and its folder."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dyncollapse.commands.console import filled_table, open_console
from dyncollapse.commands.remedies import print_remedies
from dyncollapse.commands.shared import bad_input, fail, one_form, say_saved, use_machine, warn
from dyncollapse.dynamics.solver import FlowFailed
from dyncollapse.dynamics.training import Diverged
from dyncollapse.runtime.canvas import save_pictures
from dyncollapse.runtime.files import CannotWrite
from dyncollapse.runtime.folders import claimed_folder, is_free
from dyncollapse.runtime.page.render import PAGE, render, save_page
from dyncollapse.runtime.process import cores, uninterrupted
from dyncollapse.runtime.progress import duration, progress_bars
from dyncollapse.simulation.build import Simulation, build
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.page import simulation_page
from dyncollapse.simulation.picture_options import PictureOptions, Plot
from dyncollapse.simulation.presets import resolve
from dyncollapse.simulation.remedies import remedies
from dyncollapse.simulation.report import RECORD, recorded, save, was_killed
from dyncollapse.simulation.run import run
from dyncollapse.simulation.tables import dimension_table, remarks
from dyncollapse.sweeps.estimate import expected_seconds, is_short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONG = 30.0  # seconds from which on a simulation says first how long it will take


def simulate(out: Path | None, as_json: bool, as_html: bool, pictures: PictureOptions, **settings: Any) -> None:
    """Run one simulation, save it in its folder, and print its table and verdict."""
    forms = one_form({"json": as_json, "html": as_html})
    with bad_input():
        configuration = resolve({name: value for name, value in settings.items() if value is not None})
        pictures.check(configuration)
        use_machine(configuration.device, configuration.threads or 1)
        simulation = build(configuration)  # bad settings are refused before a folder is made
        with claimed_folder(out, "simulate", partial(was_killed, configuration=configuration)) as folder:
            outcome, report = _run(simulation, folder)
            drawn, problems = _save_pictures(outcome, folder, pictures)
            page = render(simulation_page(outcome, report))
            unsaved = save_page(folder / PAGE, page)
    if as_json:
        click.echo(json.dumps(report, allow_nan=False))
    if as_html:
        click.echo(page, nl=False)
    print_outcome(outcome, report, to_stderr=bool(forms))
    for problem in (*problems, *unsaved):
        warn(problem)
    names = [RECORD, *(f"{name}.npz" for name in outcome.trajectories), *drawn, *([] if unsaved else [PAGE])]
    say_saved(folder, names, to_stderr=bool(forms))


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
        rest = replace(configuration, dynamics=left) if left else None
        if rest is not None and not is_short(rest) and (seconds := expected_seconds(rest)) > LONG:
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
    console = open_console(to_stderr)
    console.print(filled_table(*dimension_table(outcome, report)))
    for text in remarks(outcome, report):
        console.print(text, soft_wrap=True)
    console.print(report["verdict"]["sentence"], style="bold", soft_wrap=True)
    print_remedies(console, remedies(outcome))


def _save_pictures(outcome: Outcome, folder: Path, wanted: PictureOptions) -> tuple[list[str], list[str]]:
    """Draw the pictures into the run folder; the names of those that were drawn, and a line on each that was not."""

    def draw(name: Plot) -> "Figure":
        # Here, not above: importing Matplotlib fails when the user's settings of it are broken.
        from dyncollapse.commands.pictures import draw_outcome

        return draw_outcome(outcome, name)

    named = zip(wanted.files, wanted.plot, strict=True)
    return save_pictures(folder, {file: partial(draw, name) for file, name in named})
