"""The bridge proved on a small machine: every projector trained on digits, probed, diagnosed, tabled and drawn."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from dyncollapse.bridge.data.images import Data, open_data, some_images
from dyncollapse.bridge.evaluation.diagnose import diagnose_spaces
from dyncollapse.bridge.evaluation.embed import VIEWS_OF_LOSS, embed
from dyncollapse.bridge.evaluation.load import from_recipe
from dyncollapse.bridge.evaluation.probe import logistic_probe
from dyncollapse.bridge.models.encoders import build_encoder, embedding_dim
from dyncollapse.bridge.recipe import PROJECTORS, Recipe, resolve
from dyncollapse.bridge.training.distributed import Process
from dyncollapse.bridge.training.pretraining import LossDiverged, pretrain, same_run
from dyncollapse.bridge.training.run_folder import CONFIG, DIAGNOSIS, PROBES, add_probe, read_run
from dyncollapse.bridge.training.training_log import read_log
from dyncollapse.runtime.dispatch import dispatch
from dyncollapse.runtime.executors import local_workers
from dyncollapse.runtime.files import write_json
from dyncollapse.runtime.memory import recycle_freed_memory
from dyncollapse.runtime.threads import torch_threads

# Each projector of the tables, by seed; then, for Fig. 12, DirectCLR with other sub-vectors, by the first seed.
EPOCHS, SEEDS = 30, 3
SUBVECTORS = (4, 8, 64)
SHORT_EPOCHS, SHORT_HEADS, SHORT_SUBVECTORS = 15, ("mlp", "linear", "none", "low-rank-diagonal"), (4, 64)
SWEPT = "sweep-d0-"  # begins the names of these last
LOOK = 1.0  # seconds between two looks at the runs' journals


def check_recipes(seeds: int = SEEDS, *, short: bool = False, epochs: int | None = None) -> dict[str, Recipe]:
    """The runs of the check by the name of their folder; `short` leaves out the ablations of Table 2.

    A linear projector with as many outputs as DirectCLR keeps dimensions is among them: the paper's have 128 and 360.
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


def table_recipes(common: Mapping[str, Any], heads: Sequence[str] = PROJECTORS) -> dict[str, Recipe]:
    """A recipe for each row of the tables, by its projector; beside all of them also the matched linear one."""
    recipes = {head: resolve({**common, "projector": head}) for head in heads}
    if {"linear", "low-rank-diagonal"} <= recipes.keys() and len(heads) == len(PROJECTORS):
        # With as many outputs as DirectCLR keeps: the channels of the images do not matter to that.
        d0 = embedding_dim(build_encoder(recipes["low-rank-diagonal"], 1))
        recipes["linear-matched"] = resolve({**common, "projector": "linear", "out_dim": d0})
    return recipes


def run_check(
    folder: Path,
    recipes: dict[str, Recipe],
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, str]:
    """Do what is left of these runs in `folder`, several at a time on one thread each; the failures by name.

    Finished runs are not done again, and begun ones go on from their last checkpoint. Raises ValueError where `folder`
    holds a run of another recipe by one of these names.
    """
    for name, recipe in recipes.items():
        if (folder / name / CONFIG).exists():
            same_run(read_run(folder / name).recipe, recipe)
    total = sum(map(_steps, recipes.values()))
    left = [name for name in recipes if not is_done(folder / name)]
    failures: dict[str, str] = {}
    packs = [[(name, recipes[name], folder / name)] for name in left]
    at_hand = local_workers(workers)
    with _watched(folder, recipes, total, progress):
        # In this process where it is to be one at a time: nothing else has to start.
        results = ((pack, _do(pack)) for pack in packs) if at_hand.count == 1 else dispatch(_do, packs, at_hand)
        for pack, outcome in results:
            if outcome:
                failures[pack[0][0]] = str(outcome)
    return failures


def finish_run(recipe: Recipe, folder: Path, data: Data | None = None, most: int | None = None) -> None:
    """Train, probe on the test images and diagnose on the training images, whatever of it is not done yet.

    `data` is the recipe's where it is open already. Probe and diagnosis see all training images, or `most`, drawn once.
    """
    data = data or open_data(recipe.data)
    encoder = pretrain(recipe, folder, Process(0, 1, torch.device(recipe.device)), data=data)
    pretrained = from_recipe(encoder, recipe, data.train.channels, folder, run=folder)
    with TemporaryDirectory(dir=folder) as temporary:
        images = data.train if most is None else some_images(data.train, most)
        # The loss saw two augmented views, and so does the diagnosis; the probe learns from images as they are.
        if not (folder / DIAGNOSIS).exists():
            pairs = embed(pretrained, images, Path(temporary), views=VIEWS_OF_LOSS, device=recipe.device)
            both = diagnose_spaces(pairs, encoder, VIEWS_OF_LOSS)
            write_json(folder / DIAGNOSIS, both.as_values() | {"config": {"split": "train", "views": VIEWS_OF_LOSS}})
        train = embed(pretrained, images, Path(temporary), spaces=["representation"], device=recipe.device)
        train_rows = train["representation"][0].clone(), train.labels
        test = embed(pretrained, data.split("test"), Path(temporary), spaces=["representation"], device=recipe.device)
        test_rows = test["representation"][0].clone(), test.labels
    done = read_run(folder)
    d0 = embedding_dim(encoder)
    wanted = [None, *([d0] if recipe.head == "low-rank-diagonal" and d0 < train_rows[0].shape[1] else [])]
    for subvector in wanted:
        if done.top1(subvector) is None:
            probe = logistic_probe(train_rows, test_rows, subvector)
            add_probe(folder, probe.as_dict() | {"step": done.facts["steps"]})


def is_done(folder: Path) -> bool:
    """Whether a run has its last step, its diagnosis and its probes."""
    if not (folder / PROBES).exists() or not (folder / DIAGNOSIS).exists():
        return False
    run = read_run(folder)
    subvector = run.recipe.head == "low-rank-diagonal" and run.top1(run.facts["embedding_dim"]) is None
    return run.finished and run.top1() is not None and not subvector


def _do(pack: Sequence[tuple[str, Recipe, Path]]) -> str:
    """Finish one run in a worker, and say what went wrong."""
    recycle_freed_memory()
    try:
        with torch_threads(1):
            for _, recipe, folder in pack:
                finish_run(recipe, folder)
    except (ValueError, LossDiverged, OSError) as error:
        return str(error)
    return ""


def _steps(recipe: Recipe) -> int:
    return recipe.epochs * (len(open_data(recipe.data).train) // recipe.batch_size)


@contextmanager
def _watched(
    folder: Path, recipes: dict[str, Recipe], total: int, progress: Callable[[int, int], object] | None
) -> Iterator[None]:
    """Tell how many steps all runs have taken, by their journals, until the context ends."""
    if progress is None:
        yield
        return
    ended = threading.Event()

    def taken() -> int:
        lines = (read_log(folder / name / "log.jsonl") for name in recipes)
        return sum(found[-1]["step"] for found in lines if found)

    def look() -> None:
        while not ended.wait(LOOK):
            with suppress(OSError, ValueError):  # what is broken is reported by its run
                progress(taken(), total)

    progress(taken(), total)
    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        progress(taken(), total)
