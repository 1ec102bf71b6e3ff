"""The runs of the check: train, diagnose and probe each, several at a time."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor

from dyncollapse.bridge.data.image_sets import Images
from dyncollapse.bridge.data.images import Data, limited, open_data, some_images
from dyncollapse.bridge.data.mapped_images import map_data, save_data
from dyncollapse.bridge.evaluation.depth import ranks_by_depth
from dyncollapse.bridge.evaluation.diagnose import diagnose_spaces
from dyncollapse.bridge.evaluation.embed import VIEWS_OF_LOSS, embed
from dyncollapse.bridge.evaluation.load import LoadedEncoder, from_recipe
from dyncollapse.bridge.evaluation.probe import logistic_probe
from dyncollapse.bridge.models.encoders import embedding_dim
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.training.distributed import Process
from dyncollapse.bridge.training.loop import LossDiverged
from dyncollapse.bridge.training.pretraining import pretrain, same_run
from dyncollapse.bridge.training.run_folder import CONFIG, DIAGNOSIS, PROBES, add_probe, read_run
from dyncollapse.bridge.training.training_log import LOG, read_log
from dyncollapse.runtime.dispatch import dispatch
from dyncollapse.runtime.executors import local_workers
from dyncollapse.runtime.files import write_json
from dyncollapse.runtime.process import check_count, cores, default_threads, recycle_freed_memory, torch_threads
from dyncollapse.runtime.progress import called_every

IMAGES = ".images-"  # beginning of the name of the folder of images for the workers, which is removed at the end
PARTS = ("steps", "probes")  # of the work, as they are reported
PAUSE = 1.0  # seconds between two reads of the runs' logs


class _Job(NamedTuple):
    """What a worker needs for a run; `images` is a folder of `save_data`, None to open the recipe's own data."""

    name: str
    recipe: Recipe
    folder: Path
    images: Path | None
    most: int | None
    threads: int


def run_check(
    folder: Path,
    recipes: dict[str, Recipe],
    workers: int | None = None,
    progress: Callable[[str, int, int], object] | None = None,
    *,
    data: Data | None = None,
    most: int | None = None,
) -> dict[str, str]:
    """Train, diagnose and probe runs, several at a time, which share the cores.

    Finished runs are skipped; unfinished ones continue from their last checkpoint.

    Args:
        folder: Gets a folder for each run.
        recipes: Settings by the name of the run's folder, as from `check_recipes`.
        workers: Runs at a time; None for the number of cores, or of runs if there are fewer.
        progress: Called with one of PARTS, how much of it is done and how much there is: steps of training, and runs
            that were diagnosed and probed.
        data: The images of all recipes, in memory; None to let each run open those that its recipe names.
        most: Number of training images for diagnosis and probe; None for all.

    Returns:
        One line on each run that failed, by its name.

    Raises:
        ValueError: If `folder` holds a run of another recipe under one of these names.

    Examples:
        >>> from dyncollapse.bridge import find_runs, resolve
        >>> recipe = resolve({"data": "digits", "projector": "none", "images": 100, "epochs": 1, "batch_size": 50})
        >>> run_check(Path("runs"), {"none": recipe}, workers=1)
        {}
        >>> run, = find_runs([Path("runs")])
        >>> run.finished, run.facts["steps"], run.top1() > 10
        (True, 2, True)
    """
    check_begun(folder, recipes)
    check_count("workers", workers)
    left = [name for name in recipes if not is_done(folder / name)]
    count = max(1, min(workers or cores(), len(left)))
    others = local_workers(count) if count > 1 else None  # one run at a time needs no other process
    total = _steps(recipes, data)
    failures: dict[str, str] = {}
    shared = data if others and left else None
    with _shared(shared, folder) as images, _reported(folder, recipes, total, progress):
        packs = [[_Job(name, recipes[name], folder / name, images, most, default_threads(count))] for name in left]
        results = dispatch(_finish, packs, others) if others else ((pack, _finish(pack, data)) for pack in packs)
        for pack, outcome in results:
            if outcome:
                failures[pack[0].name] = str(outcome)
    return failures


def check_begun(folder: Path, recipes: Mapping[str, Recipe]) -> None:
    """Check that the runs in a folder are those of these recipes.

    Args:
        folder: The folder of the check.
        recipes: Settings by the name of the run's folder.

    Raises:
        ValueError: If a run began with another recipe, or cannot be read.
    """
    for name, recipe in recipes.items():
        if (folder / name / CONFIG).exists():
            same_run(read_run(folder / name).recipe, recipe)


def finish_run(recipe: Recipe, folder: Path, data: Data | None = None, most: int | None = None) -> None:
    """Train a run, diagnose it on training images and probe it on test images; finished steps are skipped.

    Args:
        recipe: The run's settings.
        folder: The run's folder.
        data: The recipe's images, if they are open already.
        most: Number of training images for diagnosis and probe; None for all.

    Raises:
        ValueError: As `pretrain`, `embed` and `logistic_probe`.
        LossDiverged: As `pretrain`.

    Examples:
        >>> from dyncollapse.bridge import resolve
        >>> recipe = resolve({"data": "digits", "method": "directclr", "images": 100, "epochs": 1, "batch_size": 50})
        >>> finish_run(recipe, Path("direct"))
        >>> sorted(path.name for path in Path("direct").glob("*.json"))
        ['config.json', 'diagnosis.json', 'probes.json']
    """
    data = limited(data or open_data(recipe.data), recipe.images)
    encoder = pretrain(recipe, folder, Process(0, 1, torch.device(recipe.device)), data=data)
    pretrained = from_recipe(encoder, recipe, data.train.channels, folder, run=folder)
    with TemporaryDirectory(dir=folder) as temporary:
        scratch = Path(temporary)
        images = data.train if most is None else some_images(data.train, most)
        # Diagnose two augmented views, as the loss saw them; probe plain images.
        if not (folder / DIAGNOSIS).exists():
            pairs = embed(pretrained, images, scratch, views=VIEWS_OF_LOSS, device=recipe.device)
            depth = tuple(ranks_by_depth(pretrained, images, device=recipe.device))
            diagnosed = replace(diagnose_spaces(pairs, encoder, VIEWS_OF_LOSS), depth=depth)
            config = {"split": "train", "views": VIEWS_OF_LOSS}
            write_json(folder / DIAGNOSIS, diagnosed.as_values() | {"config": config})
        train, test = (_representations(pretrained, part, scratch) for part in (images, data.split("test")))
    done = read_run(folder)
    d0 = embedding_dim(encoder)
    subvectors = [None, *([d0] if recipe.head == "low-rank-diagonal" and d0 < train[0].shape[1] else [])]
    for subvector in subvectors:
        if done.top1(subvector) is None:
            probe = logistic_probe(train, test, subvector)
            add_probe(folder, probe.as_dict() | {"step": done.facts["steps"]})


def _representations(pretrained: LoadedEncoder, images: Images, scratch: Path) -> tuple[Tensor, Tensor]:
    """Representations of plain images, copied into memory, and their classes."""
    assert pretrained.recipe is not None
    embedded = embed(pretrained, images, scratch, spaces=["representation"], device=pretrained.recipe.device)
    return embedded["representation"][0].clone(), embedded.labels


def is_done(folder: Path) -> bool:
    """Whether a run has taken its last step and has its diagnosis and probes."""
    if not (folder / PROBES).exists() or not (folder / DIAGNOSIS).exists():
        return False
    run = read_run(folder)
    subvector = run.recipe.head == "low-rank-diagonal" and run.top1(run.facts["embedding_dim"]) is None
    return run.finished and run.top1() is not None and not subvector


def _finish(pack: Sequence[_Job], data: Data | None = None) -> str:
    """Finish runs in a worker; return one line on what went wrong, or an empty one."""
    recycle_freed_memory()
    try:
        for job in pack:
            with torch_threads(job.recipe.threads or job.threads):
                finish_run(job.recipe, job.folder, data if job.images is None else map_data(job.images), job.most)
    except (ValueError, LossDiverged, OSError) as error:
        return str(error)
    return ""


def _steps(recipes: Mapping[str, Recipe], data: Data | None) -> int:
    """Steps of all runs together."""
    sizes = {recipe.data: 0 for recipe in recipes.values()}
    sizes = {name: len((data or open_data(name)).train) for name in sizes}
    return sum(
        recipe.epochs * ((recipe.images or sizes[recipe.data]) // recipe.batch_size) for recipe in recipes.values()
    )


@contextmanager
def _shared(data: Data | None, folder: Path) -> Iterator[Path | None]:
    """Write images for the workers, each of which would read all files again, until the context ends."""
    if data is None:
        yield None
        return
    for left in folder.glob(f"{IMAGES}*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=IMAGES) as scratch:
        yield save_data(data, Path(scratch))


@contextmanager
def _reported(
    folder: Path, recipes: dict[str, Recipe], total: int, progress: Callable[[str, int, int], object] | None
) -> Iterator[None]:
    """Report the steps of all runs from their logs until the context ends, and when all are taken, the probes."""
    if progress is None:
        yield
        return

    taken, done = -1, set[str]()

    def report() -> None:
        nonlocal taken
        with suppress(OSError, ValueError):  # a broken log is reported by its own run
            logs = [read_log(folder / name / LOG) for name in recipes]
            steps = sum(lines[-1]["step"] for lines in logs if lines)
            if steps > taken:
                progress(PARTS[0], taken := steps, total)
            if steps >= total:
                done.update(name for name in recipes.keys() - done if is_done(folder / name))  # reads a run's files
                progress(PARTS[1], len(done), len(recipes))

    report()
    try:
        with called_every(PAUSE, report):
            yield
    finally:
        report()
