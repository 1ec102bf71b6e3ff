"""`dyncollapse bridge check`: every projector on digits, beside the paper's tables."""

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
from dyncollapse.commands.help_pages import GroupedCommand
from dyncollapse.commands.json_option import AS_JSON
from dyncollapse.commands.shared import EPOCHS, OUT, THREADS, FiniteRange, fail, say_saved, warn
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
        """Those that are given."""
        given = {"--seeds": self.seeds, "--epochs": self.epochs, "--short": self.short, "--workers": self.workers}
        return [name for name, value in given.items() if value]


@click.command(cls=GroupedCommand)
@click.option("--seeds", type=click.IntRange(1, 100), help="Runs of each projector.  [3]")
@click.option("--epochs", type=EPOCHS, help="Epochs of each run.  [30; 15 with --short]")
@click.option("--short", is_flag=True, help="Only the projectors of Table 1, and fewer sub-vectors.")
@click.option("--workers", type=THREADS, help="Runs at a time, on one core each.  [the number of cores]")
@click.option("--full", is_flag=True, help="Check the real scale on one device instead, part by part.")
@click.option("--tiny", is_flag=True, help="With --full: every part at toy size.")
@click.option("--device", help="With --full: cpu, cuda or cuda:N.  [cuda]")
@click.option("--cifar", type=click.Path(path_type=Path), help="With --full: a folder of CIFAR-10, or its archive.")
@click.option(
    "--minutes", type=FiniteRange(0, 10**4, min_open=True), help="With --full: time limit of all parts together.  [9]"
)
@click.option("--out", type=OUT, help="Folder, new or of an earlier check.  [runs/check-NNNN]")
@AS_JSON
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
    """Train a small ResNet on digits under every projector, probe and diagnose each, and set it beside the paper.

    Needs no data and no GPU, and about ten minutes on two cores. Leaves a run's folder for each, table.json, table.md
    and figures.png, small versions of the paper's Figures 2, 7b, 9 and 12. The same command goes on after Ctrl-C.

    --full is another check: whether, and how fast, ResNet-50 at 224 x 224, 50 000 embeddings, their covariances, 4096
    toy networks, resumption and, given CIFAR-10, the tables' rows run on one GPU. It leaves report.json, summary.md
    and pictures, and exits with 1 where a part failed.
    """
    on_digits = DigitsOptions(seeds, epochs, short, workers)
    at_real_scale = RealScaleOptions(tiny, device, cifar, minutes)
    full = full or tiny
    if wrong := (on_digits if full else at_real_scale).named():
        fail(2, f"{', '.join(wrong)}: not {'with' if full else 'without'} --full; drop it, or change that")
    if full:
        check_real_scale(at_real_scale, out, as_json=as_json)
    else:
        _check_on_digits(on_digits, out, as_json=as_json)


def _check_on_digits(options: DigitsOptions, out: Path | None, *, as_json: bool) -> None:
    """Do all runs, print the table and leave with 1 where one failed."""
    with refusals():
        if options.workers is not None:
            check_count("workers", options.workers)
        recipes = check_recipes(options.seeds or SEEDS, short=options.short, epochs=options.epochs)
        # A check that was killed at its start has left folders of runs, and nothing in them.
        with claimed_folder(out, "check", lambda folder: any((folder / name).is_dir() for name in recipes)) as folder:
            again = f"dyncollapse bridge check --out {folder} with the same options goes on"
            try:
                with progress_line("steps") as advance:
                    failures = run_check(folder, recipes, options.workers, advance)
                compared = _save(folder) | {"failures": failures}
            except (KeyboardInterrupt, Stopped):
                fail(130, f"Interrupted; what was saved until then is in {folder}/, and {again}")
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
    """Compare what there is with the paper, and save table and figures."""

    def draw() -> "Figure":
        # Imports Matplotlib, which fails where the user's settings of it are broken.
        from dyncollapse.bridge.evaluation.pictures import draw_check

        return draw_check(runs)

    runs = find_runs([folder])
    compared = compare([run for run in runs if not run.folder.name.startswith(SWEPT)])
    write_json(folder / "table.json", compared)
    write_bytes(folder / "table.md", as_markdown(compared["rows"]).encode())
    if problem := save_picture(folder / "figures.png", draw):
        warn(problem)
    return {**compared}
