"""Contrastive pretraining: from a recipe to a run's folder of logs and checkpoints; runs can be stopped and resumed."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from dyncollapse.bridge.data.augmentations import pair_of
from dyncollapse.bridge.data.batches import Batch, batches_from_memory, batches_from_workers
from dyncollapse.bridge.data.image_sets import HeldImages, Images
from dyncollapse.bridge.data.images import Data, hold, limited, open_data
from dyncollapse.bridge.data.skipped import Skipped
from dyncollapse.bridge.models.backbones import representation_dim
from dyncollapse.bridge.models.encoders import Encoder, embedding_dim
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.training.batch_size import batch_advice, check_step_room
from dyncollapse.bridge.training.checkpoints import checkpoints, load_checkpoint
from dyncollapse.bridge.training.collapse_monitor import CollapseMonitor
from dyncollapse.bridge.training.distributed import Process
from dyncollapse.bridge.training.loop import LossDiverged as LossDiverged
from dyncollapse.bridge.training.loop import Outputs, Progress, take_steps
from dyncollapse.bridge.training.loop import Stopped as Stopped
from dyncollapse.bridge.training.optimisation import chosen_kernels, with_precision
from dyncollapse.bridge.training.run_folder import CONFIG, read_run
from dyncollapse.bridge.training.trainer import Trainer, build_trainer
from dyncollapse.bridge.training.training_log import LOG, MONITOR, TrainingLog
from dyncollapse.runtime.files import first_line, remove_partial, unmarked, write_json
from dyncollapse.runtime.folders import held
from dyncollapse.runtime.out_of_memory import OutOfMemory, out_of_memory_raised
from dyncollapse.runtime.process import check_count
from dyncollapse.runtime.settings import SettingError
from dyncollapse.simulation.report import versions

# Settings that a resumed run may change: the weights do not depend on them.
FREE: tuple[str, ...] = (
    "device",
    "workers",
    "threads",
    "compile",
    "strict",
    "log_every",
    "monitor_every",
    "tensorboard",
)
FREE += ("checkpoint_every", "keep", "data")  # data may have moved; its sizes are compared


class TooBig(SettingError):
    """Raised if a step runs out of memory; the message says which batch size would fit.

    On a GPU the size is extrapolated from the memory of two small batches.

    Examples:
        >>> raise TooBig("`batch_size` 4096 does not fit into memory; halve it until it does")
        Traceback (most recent call last):
            ...
        dyncollapse.bridge.training.pretraining.TooBig: batch_size 4096 does not fit into memory; halve it until it does
    """


def pretrain(
    recipe: Recipe, folder: Path, process: Process, progress: Progress | None = None, data: Data | None = None
) -> Encoder:
    """Train an encoder to the end of the recipe, from the newest checkpoint in `folder` if there is one.

    Args:
        recipe: All settings of the run.
        folder: The run's folder. Gets config.json, log.jsonl (loss, learning rate, speed), monitor.jsonl (spectra and
            ranks of both spaces) and checkpoints/.
        process: This process, alone or one of several that train together.
        progress: Callbacks for progress; None for none.
        data: The recipe's images, if they are open already.

    Returns:
        The encoder, in evaluation mode.

    Raises:
        SettingError: If the run cannot work with these settings; `TooBig` if memory ran out.
        ValueError: If images cannot be read, or if another process uses the folder.
        Stopped: After Ctrl-C or SIGTERM, once the state is saved.
        LossDiverged: If the loss or the weights are not finite.
        CannotWrite: If a file cannot be written; earlier checkpoints stay.

    References:
        Jing et al. (2022), arXiv:2110.09348, Section 6 and Appendix D.

    Examples:
        >>> from dyncollapse.bridge import Process, load_encoder, resolve
        >>> recipe = resolve({"data": "digits", "method": "directclr", "epochs": 1, "images": 64, "batch_size": 32})
        >>> encoder = pretrain(recipe, Path("direct"), Process(0, 1, torch.device("cpu")))
        >>> encoder.projector.d0, load_encoder(Path("direct")).step
        (22, 2)
    """
    if process.first:
        folder.mkdir(parents=True, exist_ok=True)
    with held(folder) if process.first else nullcontext():
        return train_in(folder, recipe, process, progress, data)


def train_in(
    folder: Path, recipe: Recipe, process: Process, progress: Progress | None = None, data: Data | None = None
) -> Encoder:
    """Do what `pretrain` does, in a folder that the first process has locked already.

    Args:
        folder: As for `pretrain`.
        recipe: As for `pretrain`.
        process: As for `pretrain`.
        progress: As for `pretrain`.
        data: As for `pretrain`.

    Returns:
        The encoder, in evaluation mode.
    """
    progress = progress or Progress()
    check_count("workers", recipe.workers, least=0)
    data = data or open_data(recipe.data, progress.tell if process.first else lambda _text: None)
    data = limited(data, recipe.images)
    recipe = with_precision(recipe, folder, process)
    exhausted: TooBig | None = None
    try:
        with chosen_kernels(recipe), out_of_memory_raised():
            return _pretrain(recipe, folder, process, progress, data)
    except OutOfMemory as error:
        exhausted = TooBig(unmarked(str(error)))
    # Outside of the handler: inside, the traceback would keep alive what filled the memory.
    gc.collect()
    raise TooBig(batch_advice(recipe, process, data.train.channels)) from exhausted


def _pretrain(recipe: Recipe, folder: Path, process: Process, progress: Progress, data: Data) -> Encoder:
    tell = progress.tell if process.first else lambda _text: None
    done = checkpoints(folder)
    checkpoint = load_checkpoint(done[-1]) if done else None  # before minutes are spent on images
    images, skipped = _stored(recipe, data.train, tell)
    if 2 <= len(images) < recipe.batch_size and skipped.reasons:
        raise SettingError(f"`batch_size` is {recipe.batch_size}, but {skipped.sentence}; give at most {len(images)}")
    trainer = build_trainer(recipe, process, len(images), images.channels)
    dims = representation_dim(trainer.encoder.backbone), embedding_dim(trainer.encoder)
    monitor = CollapseMonitor(recipe.monitor_every, recipe.batch_size, dims, process)
    check_step_room(recipe, trainer.encoder, process, images.channels)
    _check_views(trainer, recipe)
    if process.first:
        remove_partial(folder)
        _write_config(trainer, data, images, folder)
    first = 0
    if checkpoint is not None:
        trainer.restore(checkpoint)
        first = checkpoint.step
        tell(f"going on from {done[-1]}, step {first} of {trainer.total}")
    trainer.encoder.train()
    with (
        _log(folder / LOG, first, recipe, process) as log,
        _log(folder / MONITOR, first, recipe, process) as report_log,
    ):
        outputs = Outputs(folder, log, report_log, monitor, skipped, progress)
        take_steps(trainer, training_batches(trainer, images, first), first, outputs)
    if skipped.sentence:
        tell(skipped.sentence)
    return trainer.encoder.eval()


@contextmanager
def _log(path: Path, first: int, recipe: Recipe, process: Process) -> Iterator[TrainingLog | None]:
    """Open a log that continues after step `first`; None except in the first process."""
    if not process.first:
        yield None
        return
    log = TrainingLog(path)
    log.cut(first)
    if recipe.tensorboard:
        log.mirror(path.parent / "tensorboard", first)
    try:
        yield log
    finally:
        log.close()


def _check_views(trainer: Trainer, recipe: Recipe) -> None:
    """Check that the backbone takes such views, before anything is written. Raises SettingError."""
    trainer.encoder.eval()
    try:
        with torch.no_grad():
            shape = (2, trainer.channels, recipe.image_size, recipe.image_size)
            trainer.encoder(torch.zeros(shape, device=trainer.process.device))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = unmarked(first_line(error))
        raise SettingError(
            f"`arch` {recipe.arch} does not take views of `image_size` {recipe.image_size} ({reason}); give others"
        ) from None


def _write_config(trainer: Trainer, data: Data, images: Images, folder: Path) -> None:
    """Write config.json. Raises SettingError if the folder holds the config.json of another run."""
    facts = {
        "data": Path(data.title).resolve().name if data.title != "digits" else data.title,
        "images": len(images),
        "test_images": 0 if data.test is None else len(data.test),
        "classes": len(data.classes),
        "channels": trainer.channels,
        "representation_dim": representation_dim(trainer.encoder.backbone),
        "embedding_dim": embedding_dim(trainer.encoder),
        "steps": trainer.total,
    }
    if (folder / CONFIG).exists():
        begun = read_run(folder)
        same_run(begun.recipe, trainer.recipe)
        for name in ("images", "classes", "channels", "steps"):
            if (before := dict(begun.facts).get(name)) != facts[name]:
                raise SettingError(
                    f"`data` has {facts[name]} {name}, but this run began with {before}; name its images, or begin "
                    "another run"
                )
    content = {"recipe": trainer.recipe.as_dict(), "facts": facts, "processes": trainer.process.count}
    content["threads"] = torch.get_num_threads()  # resumed with as many, the run ends with the same bits
    write_json(folder / CONFIG, content | {"versions": versions("timm", "torchvision", "scikit-learn")})


def _stored(recipe: Recipe, images: Images, tell: Callable[[str], object]) -> tuple[Images, Skipped]:
    """Prepare the images for the recipe's pipeline; also return the record of images that cannot be read."""
    skipped = Skipped(images, recipe.strict, tell)
    if recipe.pipeline == "memory":
        if not isinstance(images, HeldImages):
            tell(f"reading {len(images)} images into memory")
        return hold(images, recipe.image_size, skipped, max(recipe.workers, torch.get_num_threads())), skipped
    return images, skipped


def training_batches(trainer: Trainer, images: Images, first: int) -> Iterator[Batch]:
    """Return this process's share of the batches from step `first` on, made by the pipeline of the recipe."""
    recipe, process = trainer.recipe, trainer.process
    views, steps, rows = pair_of(recipe), (first, trainer.total), process.share(recipe.batch_size)
    size, device = recipe.image_size, process.device
    if isinstance(images, HeldImages) and recipe.pipeline == "memory":
        return batches_from_memory(images, views, size, trainer.order, steps=steps, rows=rows, device=device)
    return batches_from_workers(
        images,
        views,
        size,
        trainer.order,
        steps=steps,
        rows=rows,
        device=device,
        workers=recipe.workers,
        mixed=recipe.pipeline == "mixed",
    )


def same_run(old: Recipe, new: Recipe) -> None:
    """Check that a run begun with one recipe can be resumed with another.

    Args:
        old: The recipe that the run began with.
        new: The recipe to resume it with.

    Raises:
        SettingError: If they differ in a setting that the weights depend on.
    """
    free = (*FREE, "precision") if new.precision is None else FREE  # a run keeps the precision that it chose
    changed = {name: value for name, value in old.as_dict().items() if name not in free}
    for name, value in changed.items():
        if getattr(new, name) != value:
            raise SettingError(
                f"`{name}` is {getattr(new, name)!r}, but this run began "
                f"{'without it' if value is None else f'with {value!r}'}; drop it, or "
                f"begin another run (a resumed one may change {', '.join(FREE)})"
            )
