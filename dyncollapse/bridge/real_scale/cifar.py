"""Part 6: the rows of the paper's Tables 1 and 2 on CIFAR-10, for as many epochs as the time allows."""

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
from dyncollapse.bridge.data.images import Data, hold, open_data
from dyncollapse.bridge.data.named_sets import CIFAR
from dyncollapse.bridge.data.skipped import Skipped
from dyncollapse.bridge.evaluation.check_rows import table_recipes
from dyncollapse.bridge.evaluation.check_runs import finish_run
from dyncollapse.bridge.evaluation.paper_tables import compare
from dyncollapse.bridge.real_scale.findings import Finding, PartResult, Site, record_failure
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

# Table 1 first, in case the time ends before all rows are done.
ORDER = ("mlp", "linear", "none", "low-rank-diagonal", "linear-matched")
# Seconds that a row takes besides its steps: start, two embeddings, a probe of 10 000 rows, a report. A guess for one
# GPU; later rows are started by the time that earlier ones took.
BESIDES = 12.0
# Rules of thumb: a row is started if ROOM times the time of the slowest row and AFTER seconds for table and picture are
# left.
ROOM, AFTER = 1.2, 6.0
CHANCE = 10.0  # top-1 of a guess, in percent: a useful representation does better
# Share of log N, the loss of unrelated embeddings: a rule of thumb for a run that has learned something.
LEARNT = 0.95


def measure(site: Site) -> PartResult:
    """Train, probe and diagnose a run of each row, one after the other, and compare them with the paper.

    Args:
        site: Where to work, with CIFAR-10.

    Returns:
        Numbers, limits and the table; only a reason if CIFAR-10 was not given.
    """
    if site.cifar is None:
        return PartResult([], {}, ["CIFAR-10 was not given (--cifar PATH): no rows of Tables 1 and 2"])
    recipes = _recipes(site)
    first = recipes["mlp"]
    data = open_data(str(unpacked(site.cifar, site.folder / "cifar")), site.tell)
    data.check_labels()
    train, data = _held(data, first.image_size, site)
    site.tell(f"measuring the rate of training on {len(train)} images")
    with chosen_kernels(first):  # more epochs than measuring a rate takes
        measured, _ = rates(replace(first, epochs=1000), train, train, ("memory",), site)
    seconds = len(train) // first.batch_size * first.batch_size / measured.trained["memory"]
    epochs = epochs_that_fit(site, len(recipes), seconds)
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
    """The table of the finished rows, and whether each run learned."""
    finished = find_runs(runs) if runs else []
    compared = compare(finished) if runs else None
    findings = [
        Finding("network alone", values["bare"], "images/s"),
        Finding("trained from device memory", values["rate"], "images/s"),
        Finding("share of the network's own rate", values["rate"] / values["bare"]),
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
        findings += [
            Finding(f"last loss of {name}, over that of a guess", loss, limit=LEARNT) for name, loss in last.items()
        ]
    return PartResult(findings, {**values, **(compared or {})}, skipped)


def unpacked(path: Path, folder: Path) -> Path:
    """Unpack CIFAR-10 if it is an archive.

    Args:
        path: A folder of images, or a tar archive of one.
        folder: Where to unpack the archive.

    Returns:
        The folder of images.

    Raises:
        SettingError: If the archive cannot be unpacked.
    """
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
    """Read all images into memory, so that rows do not read them again; return training images and data."""
    site.tell(f"reading {len(data.train)} images")
    train, test = (hold(part, size, Skipped(part, strict=True), cores()) for part in (data.train, data.split("test")))
    return train, replace(data, train=train, test=test)


def _recipes(site: Site) -> dict[str, Recipe]:
    """A recipe for each row, Table 1 first, with epochs to be set later."""
    common = {**site.scale.cifar, "data": str(site.cifar), "device": str(site.device), "epochs": 1}
    recipes = table_recipes({**common, "tensorboard": False, "keep": 1})
    return {name: recipes[name] for name in (*ORDER, *(name for name in recipes if name not in ORDER))}


def epochs_that_fit(site: Site, rows: int, seconds: float) -> int:
    """Epochs of each row that fit into the time that is left, at least one.

    Args:
        site: Says how much time is left.
        rows: Number of rows.
        seconds: Time of one epoch.

    Returns:
        The number of epochs.
    """
    if site.scale.most_epochs is not None:
        return site.scale.most_epochs
    return max(1, int(((site.left - AFTER) / (rows - 1 + ROOM) - BESIDES) / seconds))


def _train(recipes: dict[str, Recipe], data: Data, values: dict[str, Any], site: Site) -> PartResult:
    """Train row after row while there is time, and save the result after each."""
    done: list[Path] = []
    skipped: list[str] = []
    slowest = 0.0
    for name, recipe in recipes.items():
        if ROOM * slowest + AFTER > site.left:
            skipped.append(f"no time for the row {name}; give more --minutes")
            continue
        start = time.time()
        site.tell(f"{name}: training, diagnosis and probe, {recipe.epochs} epoch(s)")
        folder = site.report / "cifar" / name
        folder.mkdir(parents=True)
        try:
            finish_run(recipe, folder, data, site.scale.probed)
        except (ValueError, RuntimeError, LossDiverged, MemoryError) as error:  # the other rows may do better
            site.tell(f"{name} failed: {record_failure(error, name, values)}")
            site.save(_result(done, values, skipped, site))
            continue
        finally:
            shutil.rmtree(folder / FOLDER, ignore_errors=True)  # the report is kept, and nine networks are large
        done.append(folder)
        slowest = max(slowest, time.time() - start)
        site.tell(f"{name}: {slowest:.0f} s at most a row, {len(done)} of {len(recipes)} done")
        site.save(_result(done, values, skipped, site))
    if done:

        def draw() -> "Figure":
            from dyncollapse.bridge.evaluation.check_pictures import (
                draw_check,  # imports Matplotlib, which may fail
            )

            return draw_check(find_runs(done))

        if problem := save_picture(site.report / "cifar.png", draw):
            site.tell(problem)
    return _result(done, values, skipped, site)
