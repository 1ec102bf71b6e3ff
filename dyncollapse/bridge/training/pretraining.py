"""Contrastive pretraining: from a recipe to a folder of curves and checkpoints, stopped and resumed at will."""

import gc
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from dyncollapse.bridge.data.augmentations import PAIRS
from dyncollapse.bridge.data.batches import Batch, batches_from_memory, batches_from_workers
from dyncollapse.bridge.data.images import Data, HeldImages, Images, Skipped, hold, open_data
from dyncollapse.bridge.models.encoders import Encoder, embedding_dim, representation_dim
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.training.batch_size import batch_advice, check_step_room
from dyncollapse.bridge.training.checkpoints import checkpoints, load_checkpoint
from dyncollapse.bridge.training.collapse_monitor import CollapseMonitor
from dyncollapse.bridge.training.distributed import Process, gather_values
from dyncollapse.bridge.training.optimisation import chosen_kernels
from dyncollapse.bridge.training.run_folder import CONFIG, read_run
from dyncollapse.bridge.training.trainer import Trainer, build_trainer
from dyncollapse.bridge.training.training_log import TrainingLog
from dyncollapse.runtime.files import remove_partial, write_json
from dyncollapse.runtime.folders import held
from dyncollapse.runtime.settings import SettingError
from dyncollapse.runtime.threads import check_count
from dyncollapse.simulation.report import versions

# What may change between the parts of one run: nothing that its weights depend on.
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
FREE += ("checkpoint_every", "keep", "data")  # data may move, and is compared by its size
# The update after the last good loss may have been the bad one, and is in the newest checkpoint.
LOWER = "lower --lr or raise --warmup-epochs in a new run; to look at this one, take the checkpoint before the newest"


class Stopped(Exception):
    """The run was asked to stop; its state is saved, and `--resume` goes on."""


class LossDiverged(Exception):
    """The loss or the weights are no numbers any more; no checkpoint holds such weights."""


class TooBig(SettingError):
    """The batch does not fit into memory; the message says which would."""


@dataclass(frozen=True)
class Progress:
    """What a run tells on its way: a step's number of how many, and a sentence now and then."""

    step: Callable[[int, int], object] = lambda _done, _total: None
    tell: Callable[[str], object] = lambda _text: None


def pretrain(
    recipe: Recipe, folder: Path, process: Process, progress: Progress | None = None, data: Data | None = None
) -> Encoder:
    """Train, from the last checkpoint in `folder` where there is one, to the end of the recipe.

    `data` is the recipe's where it is open already. Leaves in the folder config.json, log.jsonl (loss, rate, speed),
    monitor.jsonl (spectra and ranks of both spaces) and checkpoints/. Raises ValueError for what cannot run and for a
    folder that another process uses, Stopped after Ctrl-C or SIGTERM (the state is saved first), LossDiverged for a
    loss that is NaN or infinite, TooBig where memory ran out, CannotWrite, an OSError, where a file cannot be written
    (earlier checkpoints stay).
    """
    if process.first:
        folder.mkdir(parents=True, exist_ok=True)
    with held(folder) if process.first else nullcontext():
        return train_in(folder, recipe, process, progress, data)


def train_in(
    folder: Path, recipe: Recipe, process: Process, progress: Progress | None = None, data: Data | None = None
) -> Encoder:
    """What `pretrain` does, in a folder that the first process holds already."""
    progress = progress or Progress()
    check_count("workers", recipe.workers, least=0)
    found = data or open_data(recipe.data, progress.tell if process.first else lambda _text: None)
    exhausted: TooBig | None = None
    try:
        with chosen_kernels(recipe):
            return _pretrain(recipe, folder, process, progress, found)
    except RuntimeError as error:  # torch.OutOfMemoryError of a GPU, or the CPU's allocator
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        exhausted = TooBig(str(error).splitlines()[0])
    # Out of the handler: until then the traceback holds on to what filled the memory.
    gc.collect()
    raise TooBig(batch_advice(recipe, process, found.train.channels)) from exhausted


def _pretrain(recipe: Recipe, folder: Path, process: Process, progress: Progress, data: Data) -> Encoder:
    tell = progress.tell if process.first else lambda _text: None
    done = checkpoints(folder)
    checkpoint = load_checkpoint(done[-1]) if done else None  # before minutes are spent on images
    images, skipped = _stored(recipe, data.train, tell)
    trainer = build_trainer(recipe, process, len(images), images.channels)
    watch = CollapseMonitor(
        recipe.monitor_every,
        recipe.batch_size,
        (representation_dim(trainer.encoder.backbone), embedding_dim(trainer.encoder)),
        process,
    )
    check_step_room(recipe, trainer.encoder, process, images.channels)
    _try(trainer, recipe)
    if process.first:
        remove_partial(folder)
        _record(trainer, data, images, folder)
    first = 0
    if checkpoint is not None:
        trainer.restore(checkpoint)
        first = checkpoint.step
        tell(f"going on from {done[-1]}, step {first} of {trainer.total}")
    journals = [TrainingLog(folder / name) for name in ("log.jsonl", "monitor.jsonl")] if process.first else []
    for journal in journals:
        journal.cut(first)
        if recipe.tensorboard:
            journal.mirror(folder / "tensorboard", first)
    trainer.encoder.train()
    try:
        _loop(trainer, _batches(trainer, images, first), watch, journals, first, folder, skipped, progress)
    finally:
        for journal in journals:
            journal.close()
    if skipped.sentence:
        tell(skipped.sentence)
    return trainer.encoder.eval()


def _loop(
    trainer: Trainer,
    batches: Iterator[Batch],
    watch: CollapseMonitor,
    journals: Sequence[TrainingLog],
    first: int,
    folder: Path,
    skipped: Skipped,
    progress: Progress,
) -> None:
    recipe, total, per_epoch = trainer.recipe, trainer.total, trainer.order.steps_per_epoch
    summed, summed_steps = torch.zeros((), device=trainer.process.device), 0
    unread: list[tuple[int, str]] = []  # this process's, since the last line of the log
    started = begun = time.perf_counter()
    progress.step(first, total)
    with stop_signals() as stop:
        for step, batch in enumerate(batches, first + 1):
            unread.extend(batch.failures)
            if recipe.strict:
                skipped.add(unread)
            loss, views = trainer.step(step - 1, batch)
            summed, summed_steps = summed + loss, summed_steps + 1
            report = watch.update(step, views)
            if report is not None:
                for journal in journals[1:]:
                    journal.write({"step": step, **report})
            saving = step == total or step % recipe.checkpoint_every == 0
            # Several processes agree on a stop at lines of the log; one alone stops at once.
            alone = stop.is_set() and trainer.process.count == 1
            stopping = False
            if saving or alone or step % recipe.log_every == 0:
                mean = float(summed) / summed_steps  # waits for the device
                if not math.isfinite(mean):
                    raise LossDiverged(f"the loss is {mean} at step {step}; {LOWER}")
                for failures, asked in gather_values((unread, stop.is_set()), trainer.process.count):
                    skipped.add(failures)
                    skipped.check(step)
                    stopping = stopping or asked
                unread.clear()
                seconds = time.perf_counter() - started
                line = {
                    "step": step,
                    "epoch": step / per_epoch,
                    "loss": mean,
                    "lr": trainer.optimiser.param_groups[0]["lr"],
                    "images_per_second": summed_steps * recipe.batch_size / seconds,
                    "monitor_share": watch.seconds / (time.perf_counter() - begun),
                    "skipped_images": len(skipped.reasons),
                }
                for journal in journals[:1]:
                    journal.write(line)
                summed, summed_steps, started = summed.zero_(), 0, time.perf_counter()
            if saving or stopping:
                if not trainer.finite:
                    raise LossDiverged(f"the weights overflowed at step {step}; {LOWER}")
                checkpoint = trainer.checkpoint(step)
                if trainer.process.first:
                    checkpoint.save(folder, recipe.keep)
            progress.step(step, total)
            if stopping and step < total:
                raise Stopped(f"stopped at step {step} of {total}")


def _try(trainer: Trainer, recipe: Recipe) -> None:
    """Raise ValueError where the backbone does not take such views, before anything is written."""
    trainer.encoder.eval()
    try:
        with torch.no_grad():
            shape = (2, trainer.channels, recipe.image_size, recipe.image_size)
            trainer.encoder(torch.zeros(shape, device=trainer.process.device))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingError(
            f"`arch` {recipe.arch} does not take views of `image_size` {recipe.image_size} ({reason}); give others"
        ) from None


def _record(trainer: Trainer, data: Data, images: Images, folder: Path) -> None:
    """Say in config.json what this run is. Raises ValueError where it says already that it is another one."""
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
                raise SettingError(f"`data` has {facts[name]} {name}, but this run began with {before}")
    content = {"recipe": trainer.recipe.as_dict(), "facts": facts, "processes": trainer.process.count}
    write_json(folder / CONFIG, content | {"versions": versions("timm", "torchvision", "scikit-learn")})


def _stored(recipe: Recipe, images: Images, tell: Callable[[str], object]) -> tuple[Images, Skipped]:
    """The images as the recipe's pipeline wants them, and the record of those that cannot be read."""
    skipped = Skipped(images, recipe.strict, tell)
    if recipe.pipeline == "memory":
        if not isinstance(images, HeldImages):
            tell(f"reading {len(images)} images into memory")
        return hold(images, recipe.image_size, skipped, recipe.workers), skipped
    return images, skipped


def _batches(trainer: Trainer, images: Images, first: int) -> Iterator[Batch]:
    recipe, process = trainer.recipe, trainer.process
    views, steps, rows = PAIRS[recipe.augment], (first, trainer.total), process.share(recipe.batch_size)
    if isinstance(images, HeldImages) and recipe.pipeline == "memory":
        return batches_from_memory(images, views, recipe.image_size, trainer.order, steps, rows, process.device)
    return batches_from_workers(
        images,
        views,
        recipe.image_size,
        trainer.order,
        steps,
        rows,
        process.device,
        recipe.workers,
        mixed=recipe.pipeline == "mixed",
    )


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, for a step must not be cut in two; a second Ctrl-C interrupts at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # where signals cannot be set
        yield asked
        return

    def ask(number: int, _frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def same_run(old: Recipe, new: Recipe) -> None:
    """Raise ValueError where `new` would not go on with what `old` began."""
    changed = {name: value for name, value in old.as_dict().items() if name not in FREE}
    for name, value in changed.items():
        if getattr(new, name) != value:
            raise SettingError(
                f"`{name}` is {getattr(new, name)!r}, but this run began with {value!r}; drop it, or "
                f"begin another run (a resumed one may change {', '.join(FREE)})"
            )
