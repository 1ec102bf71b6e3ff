"""The check on digits: train every projector, probe and diagnose each run, and compare them with the paper."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from dyncollapse.bridge.data.image_sets import Images
from dyncollapse.bridge.data.images import Data, limited, open_data, some_images
from dyncollapse.bridge.evaluation.diagnose import diagnose_spaces
from dyncollapse.bridge.evaluation.embed import VIEWS_OF_LOSS, embed
from dyncollapse.bridge.evaluation.load import LoadedEncoder, from_recipe
from dyncollapse.bridge.evaluation.probe import logistic_probe
from dyncollapse.bridge.models.encoders import build_encoder, embedding_dim
from dyncollapse.bridge.recipe import PROJECTORS, Recipe, resolve
from dyncollapse.bridge.training.distributed import Process
from dyncollapse.bridge.training.loop import LossDiverged
from dyncollapse.bridge.training.pretraining import pretrain, same_run
from dyncollapse.bridge.training.run_folder import CONFIG, DIAGNOSIS, PROBES, add_probe, read_run
from dyncollapse.bridge.training.training_log import LOG, read_log
from dyncollapse.runtime.dispatch import dispatch
from dyncollapse.runtime.executors import local_workers
from dyncollapse.runtime.files import write_json
from dyncollapse.runtime.process import recycle_freed_memory, torch_threads

# Epochs and seeds of each projector in the tables; then, for Fig. 12, sizes of DirectCLR's sub-vector, with one seed.
EPOCHS, SEEDS = 30, 3
SUBVECTORS = (4, 8, 64)
SHORT_EPOCHS, SHORT_HEADS, SHORT_SUBVECTORS = 15, ("mlp", "linear", "none", "low-rank-diagonal"), (4, 64)
SWEPT = "sweep-d0-"  # beginning of the names of the runs for Fig. 12
PAUSE = 1.0  # seconds between two reads of the runs' logs


def check_recipes(seeds: int = SEEDS, *, short: bool = False, epochs: int | None = None) -> dict[str, Recipe]:
    """Choose the runs of the check on digits.

    Besides the paper's rows there is a linear projector with as many outputs as DirectCLR keeps dimensions. In the
    paper these numbers differ, 128 and 360.

    Args:
        seeds: Runs of each projector.
        short: Whether to leave out the ablations of Table 2.
        epochs: Epochs of each run; None for 30, or 15 if `short`.

    Returns:
        Settings by the name of the run's folder.

    Examples:
        >>> list(check_recipes(seeds=1, short=True))
        ['mlp-seed0', 'linear-seed0', 'none-seed0', 'low-rank-diagonal-seed0', 'sweep-d0-4', 'sweep-d0-64']
    """
    epochs = epochs or (SHORT_EPOCHS if short else EPOCHS)
    common = {"data": "digits", "epochs": epochs, "monitor_every": 0, "tensorboard": False}
    recipes: dict[str, Recipe] = {}
    for seed in range(seeds):
        heads = SHORT_HEADS if short else PROJECTORS
        recipes |= {f"{name}-seed{seed}": r for name, r in table_recipes(common | {"seed": seed}, heads).items()}
    for size in SHORT_SUBVECTORS if short else SUBVECTORS:
        recipes[f"{SWEPT}{size}"] = resolve(common | {"method": "directclr", "d0": size})
    return recipes


def table_recipes(common: Mapping[str, object], heads: Sequence[str] = PROJECTORS) -> dict[str, Recipe]:
    """Make a recipe for each row of the tables.

    Args:
        common: Settings that all of them share.
        heads: Projectors. With all of PROJECTORS, the linear one that matches DirectCLR's d0 is added.

    Returns:
        Recipes by projector; the added one is "linear-matched".
    """
    recipes = {head: resolve({**common, "projector": head}) for head in heads}
    if {"linear", "low-rank-diagonal"} <= recipes.keys() and len(heads) == len(PROJECTORS):
        # As many outputs as DirectCLR keeps, which does not depend on the images' channels.
        d0 = embedding_dim(build_encoder(recipes["low-rank-diagonal"], 1))
        recipes["linear-matched"] = resolve({**common, "projector": "linear", "out_dim": d0})
    return recipes


def run_check(
    folder: Path,
    recipes: dict[str, Recipe],
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, str]:
    """Train, diagnose and probe runs, several at a time on one thread each.

    Finished runs are skipped; unfinished ones continue from their last checkpoint.

    Args:
        folder: Gets a folder for each run.
        recipes: Settings by the name of the run's folder, as from `check_recipes`.
        workers: Runs at a time; None for the number of cores.
        progress: Called with the steps that were taken and the steps in all.

    Returns:
        One line on each run that failed, by its name.

    Raises:
        ValueError: If `folder` holds a run of another recipe under one of these names.

    Examples:
        >>> from dyncollapse.bridge import find_runs
        >>> recipe = resolve({"data": "digits", "projector": "none", "epochs": 1, "batch_size": 648, "lr": 0.01})
        >>> run_check(Path("runs"), {"none": recipe}, workers=1)
        {}
        >>> run, = find_runs([Path("runs")])
        >>> run.finished, run.facts["steps"], run.top1() > 10
        (True, 2, True)
    """
    for name, recipe in recipes.items():
        if (folder / name / CONFIG).exists():
            same_run(read_run(folder / name).recipe, recipe)
    total = sum(map(_steps, recipes.values()))
    left = [name for name in recipes if not is_done(folder / name)]
    failures: dict[str, str] = {}
    packs = [[(name, recipes[name], folder / name)] for name in left]
    at_hand = local_workers(workers)
    with _progress_reported(folder, recipes, total, progress):
        # One at a time needs no other process.
        results = ((pack, _finish(pack)) for pack in packs) if at_hand.count == 1 else dispatch(_finish, packs, at_hand)
        for pack, outcome in results:
            if outcome:
                failures[pack[0][0]] = str(outcome)
    return failures


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
        >>> recipe = resolve({"data": "digits", "method": "directclr", "epochs": 1, "batch_size": 648, "lr": 0.01})
        >>> finish_run(recipe, Path("direct"), most=300)
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
            diagnosed = diagnose_spaces(pairs, encoder, VIEWS_OF_LOSS)
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


def _finish(pack: Sequence[tuple[str, Recipe, Path]]) -> str:
    """Finish runs in a worker; return one line on what went wrong, or an empty one."""
    recycle_freed_memory()
    try:
        with torch_threads(1):
            for _, recipe, folder in pack:
                finish_run(recipe, folder)
    except (ValueError, LossDiverged, OSError) as error:
        return str(error)
    return ""


def _steps(recipe: Recipe) -> int:
    return recipe.epochs * ((recipe.images or len(open_data(recipe.data).train)) // recipe.batch_size)


@contextmanager
def _progress_reported(
    folder: Path, recipes: dict[str, Recipe], total: int, progress: Callable[[int, int], object] | None
) -> Iterator[None]:
    """Report the steps of all runs from their logs until the context ends."""
    if progress is None:
        yield
        return
    ended = threading.Event()

    def taken() -> int:
        logs = (read_log(folder / name / LOG) for name in recipes)
        return sum(lines[-1]["step"] for lines in logs if lines)

    def report() -> None:
        while not ended.wait(PAUSE):
            with suppress(OSError, ValueError):  # a broken log is reported by its own run
                progress(taken(), total)

    progress(taken(), total)
    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        yield
    finally:
        ended.set()
        reporter.join()
        progress(taken(), total)
