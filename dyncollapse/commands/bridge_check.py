"""Run `dyncollapse bridge check`: every projector on digits or on the user's images, beside the paper's tables."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dyncollapse.bridge.data.splits import Data
from dyncollapse.bridge.evaluation.check_plan import Wishes
from dyncollapse.bridge.evaluation.check_rows import SEEDS, SWEPT, check_recipes
from dyncollapse.bridge.evaluation.check_runs import PARTS, run_check
from dyncollapse.bridge.evaluation.paper_tables import as_markdown, compare
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.training.loop import Stopped
from dyncollapse.bridge.training.run_folder import find_runs
from dyncollapse.commands.bridge_check_images import BUDGET, CHECK, OwnImages, prepare
from dyncollapse.commands.bridge_real_scale import RealScaleOptions, check_real_scale
from dyncollapse.commands.bridge_shared import refusals
from dyncollapse.commands.bridge_table import print_table
from dyncollapse.commands.shared import fail, say_saved, use_machine, warn
from dyncollapse.runtime.canvas import save_picture
from dyncollapse.runtime.files import CannotWrite, write_bytes, write_json
from dyncollapse.runtime.folders import claimed_folder
from dyncollapse.runtime.process import check_count
from dyncollapse.runtime.progress import progress_bars

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CheckOptions:
    """The options of the check of projectors."""

    data: str | None
    budget: float | None
    seeds: int | None
    epochs: int | None
    short: bool
    workers: int | None

    def named(self) -> list[str]:
        """The names of the options that were given."""
        return [f"--{name}" for name, value in vars(self).items() if value not in (None, False)]


@dataclass(frozen=True)
class Digits:
    """The check on digits: its runs follow from the options."""

    recipes: dict[str, Recipe]

    most = None

    def goes_on(self, folder: Path) -> bool:
        """Whether this check can continue in a folder. One that was killed early leaves empty folders of runs."""
        return not (folder / CHECK).exists() and any((folder / name).is_dir() for name in self.recipes)

    def runs(self, _folder: Path) -> tuple[dict[str, Recipe], Data | None]:
        """The recipes; each run opens the digits itself."""
        return self.recipes, None


def check(
    *,
    data: str | None,
    budget: float | None,
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
    """Check the projectors on images or, with `full`, the full size on one device."""
    options = CheckOptions(data, budget, seeds, epochs, short, workers)
    at_real_scale = RealScaleOptions(tiny, device, cifar, minutes)
    full = full or tiny
    if wrong := (options if full else at_real_scale).named():
        here = "only for the check of projectors; drop it, or --full and --tiny"
        fail(2, f"{', '.join(wrong)}: {here if full else 'only with --full or --tiny; add one, or drop it'}")
    if full:
        check_real_scale(at_real_scale, out, as_json=as_json)
    else:
        _check_projectors(options, out, as_json=as_json)


def _opened(options: CheckOptions) -> Digits | OwnImages:
    """Digits or the user's images. Raises ValueError for what cannot be checked."""
    check_count("workers", options.workers)
    if options.data in (None, "digits"):
        if options.budget is not None:
            raise ValueError(
                "--budget is for images of your own, and digits have settings of their own: six minutes on two cores; "
                "drop it, or name images with --data; --short, --seeds and --epochs shorten the check on digits"
            )
        return Digits(check_recipes(options.seeds or SEEDS, short=options.short, epochs=options.epochs))
    assert options.data is not None
    use_machine("cpu", None, 0)
    budget = BUDGET if options.budget is None else options.budget
    return prepare(options.data, Wishes(budget, options.seeds, options.epochs, options.short, options.workers))


def _check_projectors(options: CheckOptions, out: Path | None, *, as_json: bool) -> None:
    """Run all recipes, print the table, and exit with 1 if one failed."""
    with refusals():
        images = _opened(options)
        with claimed_folder(out, "check", images.goes_on) as folder:
            again = f"dyncollapse bridge check --out {folder} with the same options continues"
            try:
                recipes, data = images.runs(folder)
                with progress_bars(PARTS) as advance:
                    failures = run_check(folder, recipes, options.workers, advance, data=data, most=images.most)
                compared = _save(folder) | {"failures": failures}
            except (KeyboardInterrupt, Stopped):
                fail(130, f"Interrupted; the results so far are in {folder}/, and {again}")
            except CannotWrite as error:
                fail(1, f"{error.filename} could not be written ({error.strerror}); {again}")
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **compared}, allow_nan=False))
    print_table(compared, to_stderr=as_json)
    names = (name for name in (CHECK, "figures.png") if (folder / name).exists())
    say_saved(folder, ("table.json", "table.md", *names, "and a folder of each run"), to_stderr=as_json)
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
    write_bytes(folder / "table.md", as_markdown(compared).encode())
    if problem := save_picture(folder / "figures.png", draw):
        warn(problem)
    return {**compared}
