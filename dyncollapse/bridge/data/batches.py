"""Batches of views, which depend only on seed and step, not on workers, ranks or history."""

import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dyncollapse.bridge.data.augmentations import (
    View,
    batched_view,
    crop_only,
    draw_views,
    normalise,
    plain,
    worker_view,
)
from dyncollapse.bridge.data.image_sets import HeldImages, Images
from dyncollapse.bridge.data.pixels import UnknownRange, Unreadable, quiet_decoders
from dyncollapse.bridge.data.preparation import Preparation
from dyncollapse.bridge.data.skipped import NEIGHBOURS, read_near
from dyncollapse.runtime.process import check_count, end_with_parent
from dyncollapse.runtime.settings import SettingError

# Views of an image, its number, the failures before it could be read, and an error that ends the loading.
_Item = tuple[list[Tensor], int, list[tuple[int, str]], ValueError | None]

# Images per message from a worker process. Whole batches of hundreds would take one worker many seconds each, and all
# workers together would hold gigabytes; single images would cost a message each.
CHUNK = 32


class LostWorker(RuntimeError):
    """A worker process that reads images was killed."""


@contextmanager
def lost_workers() -> Iterator[None]:
    """Turn torch's error for a dead worker process into LostWorker, with one line.

    torch raises a plain RuntimeError from a signal handler, at any line, so only its text tells it from others.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise LostWorker(str(error).splitlines()[0]) from error


@dataclass(frozen=True, eq=False)
class Batch:
    """One process's share of a step's batch.

    Attributes:
        views: Normalised views of the same n images, on the process's device.
        indices: The images' numbers in the data.
        failures: Numbers of images that could not be read, each with the reason.
    """

    views: tuple[Float[Tensor, "n c h w"], ...]
    indices: Int[Tensor, " n"]
    failures: Sequence[tuple[int, str]] = ()


@dataclass(frozen=True)
class Order:
    """The order of images: a new permutation for every epoch, without an incomplete last batch.

    Attributes:
        count: Number of images.
        batch_size: Images in a whole batch, over all processes.
        seed: Seed of the permutations.
    """

    count: int
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Number of whole batches in the data."""
        return self.count // self.batch_size

    def permutation(self, epoch: int) -> Int[Tensor, " n"]:
        """The image numbers in the order of an epoch, counted from 0."""
        generator = torch.Generator().manual_seed(mix(self.seed, epoch))
        return torch.randperm(self.count, generator=generator)

    def steps(self, first: int, end: int) -> Iterator[tuple[int, int, Int[Tensor, " b"]]]:
        """Yield step, epoch and the image numbers of the whole batch, for steps first, ..., end - 1."""
        shuffled, of_epoch = torch.empty(0, dtype=torch.int64), -1
        for step in range(first, end):
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != of_epoch:
                shuffled, of_epoch = self.permutation(epoch), epoch
            yield step, epoch, shuffled[place * self.batch_size : (place + 1) * self.batch_size]


def mix(*numbers: int) -> int:
    """Hash several numbers into one 64-bit seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def batches_from_memory(
    images: HeldImages,
    views: Sequence[View],
    size: int,
    order: Order,
    *,
    steps: tuple[int, int],
    rows: slice,
    device: torch.device,
    prepared: Preparation | None = None,
) -> Iterator[Batch]:
    """Yield batches of images that are in memory, copied to the device once and augmented there.

    Args:
        images: n images of one size.
        views: The augmentations; each image is made into one view by each.
        size: Side of the views, in pixels.
        order: Which images make up which step.
        steps: The first step, and the one after the last.
        rows: This process's rows of each whole batch.
        device: Where pixels and views are.
        prepared: How views are normalised; None for the usual way.

    Yields:
        A batch for each step.

    Raises:
        SettingError: If the pixels do not fit into the device's memory.
    """
    try:
        pixels = images.pixels.to(device)
    except torch.OutOfMemoryError:
        room = f"{images.pixels.nbytes / 2**30:.3g} GiB"
        raise SettingError(f"the images take {room}, more than {device} has free; use `pipeline` mixed") from None
    shape = (images.channels, *images.pixels.shape[-2:], size)
    for step, _, chosen in order.steps(*steps):
        draws = _draws(views, order, step, shape, rows)
        indices = chosen[rows]
        taken = pixels[indices.to(device, non_blocking=True)]
        made = [batched_view(taken, drawn, view, size) for drawn, view in zip(draws, views, strict=True)]
        yield Batch(tuple(normalise(view, prepared) for view in made), indices)


def _draws(
    views: Sequence[View], order: Order, step: int, shape: tuple[int, int, int, int], rows: slice
) -> list[dict[str, Tensor]]:
    """Random numbers for the views of a step, from seed and step alone; only the `rows` of this process."""
    generator = torch.Generator().manual_seed(mix(order.seed, 1, step))
    return [draw_views(view, order.batch_size, generator, shape, rows) for view in views]


def batches_from_workers(
    images: Images,
    views: Sequence[View],
    size: int,
    order: Order,
    *,
    steps: tuple[int, int],
    rows: slice,
    device: torch.device,
    workers: int,
    mixed: bool = False,
    prepared: Preparation | None = None,
) -> Iterator[Batch]:
    """Yield batches that worker processes read and augment.

    Args:
        images: n images.
        views: The augmentations; each image is made into one view by each.
        size: Side of the views, in pixels.
        order: Which images make up which step.
        steps: The first step, and the one after the last.
        rows: This process's rows of each whole batch.
        device: Where the views go.
        workers: Number of worker processes; 0 to read in this process.
        mixed: Whether workers only decode and crop (a sixth of the work for JPEGs of ImageNet's size, docs/results.md)
            and the device makes the rest of the views.
        prepared: How views are normalised; None for the usual way.

    Yields:
        A batch for each step.

    Raises:
        UnknownRange: For an image whose values for black and white are unknown.
        Unreadable: If an image and the next `NEIGHBOURS` - 1 cannot be read.
    """
    check_count("workers", workers, least=0)
    keys = _Keys(order, steps, rows)
    loader = DataLoader(
        _Views(images, [crop_only(view) for view in views] if mixed else views, size, order.seed),
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_signals,
        generator=torch.Generator(),  # the default would draw from torch's global generator
    )
    chunks = _delivered(loader)
    for step in range(*steps):
        parts, indices, failed = zip(*islice(chunks, keys.per_batch), strict=True)
        made = [torch.cat([part.to(device, non_blocking=True) for part in view]) for view in zip(*parts, strict=True)]
        if mixed:
            draws = _draws(views, order, step, (images.channels, size, size, size), rows)
            made = [
                batched_view(crop, drawn, view, size, cropped=True)
                for crop, drawn, view in zip(made, draws, views, strict=True)
            ]
        failures = [failure for part in failed for failure in part]
        yield Batch(tuple(normalise(view, prepared) for view in made), torch.cat(indices), failures)


def batches_in_order(
    images: Images,
    views: Sequence[View | None],
    size: int,
    *,
    batch_size: int,
    device: torch.device,
    workers: int,
    seed: int,
    prepared: Preparation | None = None,
) -> Iterator[Batch]:
    """Yield all images once, in order; images that cannot be read are left out and listed in the batch's failures.

    Args:
        images: n images.
        views: The augmentations; None leaves an image as it is.
        size: Side of the views, in pixels.
        batch_size: Images at a time.
        device: Where the views go.
        workers: Number of worker processes; 0 to read in this process.
        seed: Seed of the augmentations.
        prepared: How plain images are resized and all views are normalised; None for the usual way.

    Yields:
        A batch for each `batch_size` images.

    Raises:
        UnknownRange: For an image whose values for black and white are unknown.
    """
    check_count("workers", workers, least=0)
    if isinstance(images, HeldImages):
        shape = (images.channels, *images.pixels.shape[-2:], size)
        for start in range(0, len(images), batch_size):
            indices = torch.arange(start, min(start + batch_size, len(images)))
            taken = images.pixels[indices].to(device)
            generator = torch.Generator().manual_seed(mix(seed, 3, start))
            made = []
            for view in views:
                if view is None:
                    made.append(normalise(plain(taken, size, prepared), prepared))
                else:
                    drawn = draw_views(view, len(indices), generator, shape, slice(None))
                    made.append(normalise(batched_view(taken, drawn, view, size), prepared))
            yield Batch(tuple(made), indices)
        return
    loader = DataLoader(
        _Views(images, views, size, seed, replace=False, prepared=prepared),
        sampler=[(-1, index) for index in range(len(images))],
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_collate,
        generator=torch.Generator(),
        worker_init_fn=_leave_signals,
    )
    for made, indices, failures in _delivered(loader):
        yield Batch(tuple(normalise(view.to(device), prepared) for view in made), indices, failures)


def _leave_signals(_worker: int) -> None:
    """Ignore Ctrl-C and SIGTERM, which the training process handles after its step, and end with that process."""
    end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _delivered(loader: "DataLoader[_Item]") -> Iterator[tuple[list[Tensor], Tensor, list[tuple[int, str]]]]:
    """Yield views, image numbers and failures from a loader of `_Views`.

    A tensor from a worker holds an open file as long as it lives. So views are copied here, chunk by chunk, and image
    numbers are sent as integers. Raises the error that ends the loading, UnknownRange or Unreadable.
    """
    copied = loader.num_workers == 0 or loader.pin_memory
    with warnings.catch_warnings():
        # More workers than cores are useful where the disk is slow.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        collated = iter(loader)
    try:
        for made, indices, failures, refusal in collated:
            if refusal is not None:
                raise refusal
            views = made if copied else [view.clone() for view in made]
            yield views, torch.tensor(indices, dtype=torch.int64), failures
    finally:
        # End the workers now: a traceback would keep them alive, and they ignore the SIGTERM that Python sends at exit.
        # One that missed the loader's message would then be waited for for ever.
        workers = getattr(collated, "_workers", ())
        del collated
        for worker in workers:
            if worker.is_alive():
                worker.kill()
                worker.join()


class _Keys:
    """Keys (epoch, image) in chunks, generated on demand: an ImageNet run of 100 epochs has 128 million."""

    def __init__(self, order: Order, steps: tuple[int, int], rows: slice) -> None:
        self.order, self.steps, self.rows = order, steps, rows
        self.per_batch = -(-(rows.stop - rows.start) // CHUNK)

    def __len__(self) -> int:
        return (self.steps[1] - self.steps[0]) * self.per_batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for _, epoch, chosen in self.order.steps(*self.steps):
            for chunk in chosen[self.rows].split(CHUNK):
                yield [(epoch, index) for index in chunk.tolist()]


class _Views(Dataset[_Item]):
    """Views of images by key (epoch, image); an unreadable image is replaced by the next one, or left out."""

    def __init__(
        self,
        images: Images,
        views: Sequence[View | None],
        size: int,
        seed: int,
        *,
        replace: bool = True,
        prepared: Preparation | None = None,
    ) -> None:
        self.images, self.seed, self.replace = images, seed, replace
        as_plain = partial(plain, size=size, prepared=prepared)
        self.transforms = [as_plain if view is None else worker_view(view, size) for view in views]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> _Item:
        epoch, index = key
        with quiet_decoders():
            try:
                number, image, failures = read_near(self.images, index, NEIGHBOURS if self.replace else 1)
            except UnknownRange as error:
                return [], index, [], error
            except Unreadable as error:
                return [], index, [(index, str(error))], error if self.replace else None
        # torchvision draws from the global generator: seed it for this image and restore it afterwards.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(self.seed, 2, epoch + 1, index))
            return [transform(image) for transform in self.transforms], number, failures, None


def _collate(items: Sequence[_Item]) -> tuple[list[Tensor], list[int], list[tuple[int, str]], ValueError | None]:
    failures = [failure for _, _, failed, _ in items for failure in failed]
    read = [(made, number) for made, number, _, _ in items if made]
    views = [torch.stack(view) for view in zip(*(made for made, _ in read), strict=True)]
    refusal = next((error for _, _, _, error in items if error is not None), None)
    return views, [number for _, number in read], failures, refusal
