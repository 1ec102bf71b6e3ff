"""Run `dyncollapse bridge check`: every projector on digits, compared with the paper's tables."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dyncollapse.bridge.evaluation.digits_check import SEEDS, SWEPT, check_recipes, run_check
from dyncollapse.bridge.evaluation.paper_tables import as_markdown, compare
from dyncollapse.bridge.training.loop import Stopped
from dyncollapse.bridge.training.run_folder import find_runs
from dyncollapse.commands.bridge_real_scale import RealScaleOptions, check_real_scale
from dyncollapse.commands.bridge_shared import refusals
from dyncollapse.commands.bridge_table import print_table
from dyncollapse.commands.shared import fail, say_saved, warn
from dyncollapse.runtime.canvas import save_picture
from dyncollapse.runtime.files import CannotWrite, write_bytes, write_json
from dyncollapse.runtime.folders import claimed_folder
from dyncollapse.runtime.process import check_count
from dyncollapse.runtime.progress import progress_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class DigitsOptions:
    """The options of the check on digits."""

    seeds: int | None
    epochs: int | None
    short: bool
    workers: int | None

    def named(self) -> list[str]:
        """The names of the options that were given."""
        given = {"--seeds": self.seeds, "--epochs": self.epochs, "--short": self.short, "--workers": self.workers}
        return [name for name, value in given.items() if value]


def check(
    *,
    seeds: int | None,
    epochs: int | None,
    short: bool,
    workers: int | None,
    full: bool,
    tiny: bool,
    device: str | None,
    cifar: Path | None,
    minutes: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Check the projectors on digits or, with `full`, the full size on one device."""
    on_digits = DigitsOptions(seeds, epochs, short, workers)
    at_real_scale = RealScaleOptions(tiny, device, cifar, minutes)
    full = full or tiny
    if wrong := (on_digits if full else at_real_scale).named():
        here = "only for the check on digits; drop it, or --full and --tiny"
        fail(2, f"{', '.join(wrong)}: {here if full else 'only with --full or --tiny; add one, or drop it'}")
    if full:
        check_real_scale(at_real_scale, out, as_json=as_json)
    else:
        _check_on_digits(on_digits, out, as_json=as_json)


def _check_on_digits(options: DigitsOptions, out: Path | None, *, as_json: bool) -> None:
    """Run all recipes, print the table, and exit with 1 if one failed."""
    with refusals():
        if options.workers is not None:
            check_count("workers", options.workers)
        recipes = check_recipes(options.seeds or SEEDS, short=options.short, epochs=options.epochs)
        # A check that was killed early leaves empty folders of runs: the same command may continue it.
        with claimed_folder(out, "check", lambda folder: any((folder / name).is_dir() for name in recipes)) as folder:
            again = f"dyncollapse bridge check --out {folder} with the same options continues"
            try:
                with progress_line("steps") as advance:
                    failures = run_check(folder, recipes, options.workers, advance)
                compared = _save(folder) | {"failures": failures}
            except (KeyboardInterrupt, Stopped):
                fail(130, f"Interrupted; the results so far are in {folder}/, and {again}")
            except CannotWrite as error:
                fail(1, f"{error.filename} could not be written ({error.strerror}); {again}")
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **compared}, allow_nan=False))
    print_table(compared, to_stderr=as_json)
    pictures = [path.name for path in folder.glob("figures.png")]
    say_saved(folder, ("table.json", "table.md", *pictures, "and a folder of each run"), to_stderr=as_json)
    if failures:
        fail(1, "; ".join(f"{name}: {text}" for name, text in failures.items()))


def _save(folder: Path) -> dict[str, Any]:
    """Compare the finished runs with the paper, and save table and figures."""

    def draw() -> "Figure":
        # Here, not above: importing Matplotlib fails when the user's settings of it are broken.
        from dyncollapse.bridge.evaluation.check_pictures import draw_check

        return draw_check(runs)

    runs = find_runs([folder])
    compared = compare([run for run in runs if not run.folder.name.startswith(SWEPT)])
    write_json(folder / "table.json", compared)
    write_bytes(folder / "table.md", as_markdown(compared["rows"]).encode())
    if problem := save_picture(folder / "figures.png", draw):
        warn(problem)
    return {**compared}
