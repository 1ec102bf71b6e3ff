"""Part 6: the rows of the paper's Tables 1 and 2 on CIFAR-10, for as many epochs as there is time."""

import math
import shutil
import tarfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dyncollapse.bridge.data.image_folders import folder_names
from dyncollapse.bridge.data.image_sets import HeldImages
from dyncollapse.bridge.data.images import CIFAR, Data, hold, open_data
from dyncollapse.bridge.data.skipped import Skipped
from dyncollapse.bridge.evaluation.digits_check import finish_run, table_recipes
from dyncollapse.bridge.evaluation.paper_tables import compare
from dyncollapse.bridge.real_scale.findings import Finding, PartResult, Site
from dyncollapse.bridge.real_scale.throughput import rates
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.training.checkpoints import FOLDER
from dyncollapse.bridge.training.loop import LossDiverged
from dyncollapse.bridge.training.optimisation import chosen_kernels
from dyncollapse.bridge.training.run_folder import find_runs
from dyncollapse.runtime.canvas import save_picture
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.process import cores
from dyncollapse.runtime.settings import SettingError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Table 1 first, for where the time ends before the rows do.
ORDER = ("mlp", "linear", "none", "low-rank-diagonal", "linear-matched")
# Seconds that a row takes besides its steps, a guess for one GPU: start, two embeddings, a probe of 10 000 rows, a
# report. Rows are begun by the time that earlier ones really took.
BESIDES = 12.0
# Rules of thumb: a row is begun where this much of what the slowest took is left, and so many seconds for table and
# picture.
ROOM, AFTER = 1.2, 6.0
CHANCE = 10.0  # top-1 in percent that a guess has: a representation that is read no better is none
# Of log N, the loss of embeddings that know nothing of each other: a rule of thumb for a run that has learnt something.
LEARNT = 0.95


def measure(site: Site) -> PartResult:
    """Train, probe and diagnose a run of each row, one after the other, and set them beside the paper."""
    if site.cifar is None:
        return PartResult([], {}, ["CIFAR-10 was not given (--cifar PATH): no rows of Tables 1 and 2"])
    recipes = _recipes(site)
    first = recipes["mlp"]
    data = open_data(str(unpacked(site.cifar, site.folder / "cifar")), site.tell)
    data.check_labels()
    train, data = _held(data, first.image_size, site)
    with chosen_kernels(first):  # epochs enough for as many steps as a rate takes
        measured, _ = rates(replace(first, epochs=1000), train, train, ("memory",), site)
    seconds = len(train) // first.batch_size * first.batch_size / measured.trained["memory"]
    epochs = _epochs(site, len(recipes), seconds)
    site.tell(f"{measured.trained['memory']:.4g} images/s: {epochs} epoch(s) of each of {len(recipes)} rows")
    values: dict[str, Any] = {
        "bare": measured.bare,
        "rate": measured.trained["memory"],
        "epochs": epochs,
        "images": len(train),
        "failed": {},
    }
    return _train({name: replace(recipe, epochs=epochs) for name, recipe in recipes.items()}, data, values, site)


def _result(runs: Sequence[Path], values: dict[str, Any], skipped: list[str], site: Site) -> PartResult:
    """The table of the rows that there are, and whether each learned."""
    finished = find_runs(runs) if runs else []
    compared = compare(finished) if runs else None
    findings = [
        Finding("network alone", values["bare"], "images/s"),
        Finding("trained from device memory", values["rate"], "images/s"),
        Finding("that is of the network's own rate", values["rate"] / values["bare"]),
        Finding("epochs of each row", values["epochs"]),
        Finding("rows of the tables", len(runs), limit=1, least=True),
        Finding("rows that failed", len(values["failed"]), limit=0),
        *(
            Finding(f"top-1 of {row['row']}, %", row["top1"], limit=CHANCE, least=True)
            for row in (compared["rows"] if compared else [])
        ),
    ]
    if runs and site.scale.judged:
        chance = math.log(finished[0].recipe.batch_size)
        last = {run.folder.name: run.log[-1]["loss"] / chance for run in finished}
        findings += [Finding(f"last loss of {name}, of a guess's", loss, limit=LEARNT) for name, loss in last.items()]
    return PartResult(findings, {**values, **(compared or {})}, skipped)


def unpacked(path: Path, folder: Path) -> Path:
    """The folder of images that a path is, or that its archive holds. Raises SettingError where it holds none."""
    if path.is_dir():
        return path
    folder.mkdir(exist_ok=True)
    try:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        shown, reason = unmarked(str(path)), unmarked(str(error))
        raise SettingError(f"`cifar` {shown} is no folder, nor a tar archive that can be unpacked ({reason})") from None
    inside = folder_names(str(folder))
    wrapped = len(inside) == 1 and inside[0] != CIFAR
    return folder / inside[0] if wrapped else folder


def _held(data: Data, size: int, site: Site) -> tuple[HeldImages, Data]:
    """The training images in memory, and the data with all images there: every row reads them anew otherwise."""
    site.tell(f"reading {len(data.train)} images")
    train, test = (hold(part, size, Skipped(part, strict=True), cores()) for part in (data.train, data.split("test")))
    return train, replace(data, train=train, test=test)


def _recipes(site: Site) -> dict[str, Recipe]:
    """A recipe for each row, Table 1 first, whose epochs are still to be found."""
    common = {**site.scale.cifar, "data": str(site.cifar), "device": str(site.device), "epochs": 1}
    recipes = table_recipes({**common, "tensorboard": False, "keep": 1})
    return {name: recipes[name] for name in (*ORDER, *(name for name in recipes if name not in ORDER))}


def _epochs(site: Site, rows: int, seconds: float) -> int:
    """Epochs of each row that fit into what is left, at so many seconds each; at least one."""
    if site.scale.most_epochs is not None:
        return site.scale.most_epochs
    return max(1, int(((site.left - AFTER) / (rows - 1 + ROOM) - BESIDES) / seconds))


def _train(recipes: dict[str, Recipe], data: Data, values: dict[str, Any], site: Site) -> PartResult:
    """Row after row for as long as there is time; what is there is saved after each."""
    done: list[Path] = []
    skipped: list[str] = []
    slowest = 0.0
    for name, recipe in recipes.items():
        if ROOM * slowest + AFTER > site.left:
            skipped.append(f"no time for the row {name}; give more --minutes")
            continue
        start = time.time()
        folder = site.report / "cifar" / name
        folder.mkdir(parents=True)
        try:
            finish_run(recipe, folder, data, site.scale.probed)
        except (ValueError, LossDiverged) as error:
            values["failed"][name] = str(error)
            site.tell(f"{name} failed: {error}")
            continue
        finally:
            shutil.rmtree(folder / FOLDER, ignore_errors=True)  # a report is to be kept, and nine networks are large
        done.append(folder)
        slowest = max(slowest, time.time() - start)
        site.tell(f"{name}: {slowest:.0f} s at most a row, {len(done)} of {len(recipes)} done")
        site.save(_result(done, values, skipped, site))
    if done:

        def draw() -> "Figure":
            from dyncollapse.bridge.evaluation.pictures import (
                draw_check,  # which imports Matplotlib, where that is possible
            )

            return draw_check(find_runs(done))

        if problem := save_picture(site.report / "cifar.png", draw):
            site.tell(problem)
    return _result(done, values, skipped, site)
