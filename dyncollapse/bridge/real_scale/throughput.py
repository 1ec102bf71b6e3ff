"""Part 1: training steps at full size, from device memory and from a folder, against the network alone."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, TypedDict

import torch

from dyncollapse.bridge.data.augmentations import View, batched_view, draw_views, pair_of
from dyncollapse.bridge.data.batches import CHUNK, Batch, Order, batches_from_memory, batches_from_workers
from dyncollapse.bridge.data.image_sets import HeldImages, Images
from dyncollapse.bridge.data.images import hold, open_data, some_images
from dyncollapse.bridge.data.skipped import Skipped
from dyncollapse.bridge.presets import resolve
from dyncollapse.bridge.real_scale.findings import Finding, PartResult, Site, record_failure
from dyncollapse.bridge.real_scale.synthetic_images import write_jpegs
from dyncollapse.bridge.real_scale.timing import peak_memory, seconds_per_call
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.training.distributed import Process
from dyncollapse.bridge.training.optimisation import autocast, chosen_kernels
from dyncollapse.bridge.training.trainer import Trainer, build_trainer
from dyncollapse.runtime.process import cores

VARIANTS: dict[str, dict[str, str]] = {
    "SimCLR-mlp": {"projector": "mlp"},
    "SimCLR-linear": {"projector": "linear"},
    "SimCLR-none": {"projector": "none"},
    "DirectCLR": {"method": "directclr"},
}
# The last one is measured once: it is limited by the CPUs, which do not depend on the projector.
PIPELINES = ("memory", "mixed", "workers")
TITLES = {
    "memory": "from device memory",
    "mixed": "from a folder that workers read and crop",
    "workers": "from a folder, all by workers",
}
FROM_MEMORY = 0.9  # of the network's own rate: the target
AS_FAST, ROOM = 0.98, 0.85  # choose the largest batch within 2 % of the fastest that takes at most 85 % of the memory
ROOM_OF_TIME = 1.2  # a variant is started if 1.2 times the time of the slowest is left
PREFETCHED = 2  # chunks that each worker process keeps ready (torch's default)


@dataclass
class Rates:
    """Images per second of one encoder, and signs that it trained.

    Attributes:
        bare: Images per second of the network alone, forwards and backwards.
        trained: Images per second of training, by pipeline.
        peaks: Peak memory in bytes, by pipeline; None on a CPU.
        losses: Losses of all steps.
        moved: Share of the weights that training changed.
    """

    bare: float
    trained: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, int | None] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    moved: float = 0.0

    @property
    def not_finite(self) -> int:
        """Number of losses that are not finite."""
        return sum(not math.isfinite(loss) for loss in self.losses)

    def as_values(self) -> dict[str, object]:
        """All numbers as plain JSON values."""
        peaks = {f"{name}_peak_bytes": peak for name, peak in self.peaks.items()}
        values = {"not_finite": self.not_finite, "steps": len(self.losses), "loss": self.losses[-1]}
        return {"bare": self.bare, **self.trained, **peaks, **values, "moved": self.moved}


class Trial(TypedDict):
    """The network's own rate and memory at one batch size."""

    pairs: int
    images_per_second: float
    peak_bytes: int | None


def measure(site: Site) -> PartResult:
    """Measure images per second, each as two views, and peak memory of each variant.

    Args:
        site: Where to work; gets the checkpoint for part 2.

    Returns:
        Rates and memory.
    """
    scale, device = site.scale, site.device
    folder = site.folder / "images"
    site.tell(f"writing {scale.classes * scale.per_class} JPEGs of {scale.classes} classes")
    count, size = write_jpegs(folder / "train", scale.classes, scale.per_class, scale.jpeg_sides)
    workers = cores()
    common = {**scale.recipe, "data": str(folder), "device": str(device), "workers": workers, "tensorboard": False}
    images = open_data(str(folder)).train
    values: dict[str, Any] = {"images": count, "mean_jpeg_bytes": size, "workers": workers}
    with chosen_kernels(resolve(common)):
        tried, pairs = _batches(resolve(common | {"batch_size": max(2, scale.batches[0])}), site)
        site.tell(f"reading {scale.held} images into memory, and timing their views")
        some = some_images(images, scale.held)
        held = hold(some, resolve(common).image_size, Skipped(some, strict=True), workers)
        findings = [Finding("pairs in a batch, the largest within 2 % of the fastest", pairs)]
        rows: dict[str, dict[str, object]] = {}
        views, skipped = _views(held, pairs, resolve(common), site)
        slowest = 0.0
        values |= {"batch": pairs, "batches": tried, "rates": rows, "failed": {}, **views}
        site.save(PartResult(findings, values, skipped))
        for name, settings in VARIANTS.items():
            if ROOM_OF_TIME * slowest > site.left:
                skipped.append(f"no time for {name}; give more --minutes")
                continue
            start = time.time()
            pipelines = PIPELINES if not rows else PIPELINES[:-1]
            site.tell(f"{name}: the network alone, then training by {', '.join(pipelines)}")
            recipe = resolve({**common, **settings, "batch_size": pairs})
            try:
                measured, trainer = rates(recipe, images, held, pipelines, site)
            except (RuntimeError, MemoryError) as error:  # the other variants may do better
                site.tell(f"{name} failed: {record_failure(error, name, values)}")
                continue
            if not rows:
                trainer.checkpoint(len(measured.losses)).save(site.folder, keep=1)  # for part 2
            del trainer  # otherwise the next variant's peak memory would include it
            rows[name] = measured.as_values()
            speeds = {"bare": measured.bare, **measured.trained}
            site.tell(f"{name}, images/s: " + ", ".join(f"{kind} {speed:.4g}" for kind, speed in speeds.items()))
            findings += _findings(name, measured, site)
            site.save(PartResult(findings, values, skipped))
            slowest = max(slowest, time.time() - start)
    findings.append(Finding("variants that failed", len(values["failed"]), limit=0))
    return PartResult(findings, values, skipped)


def _findings(name: str, measured: Rates, site: Site) -> list[Finding]:
    findings = [Finding(f"{name}, network alone, forwards and backwards", measured.bare, "images/s")]
    for kind, speed in measured.trained.items():
        findings.append(Finding(f"{name}, trained {TITLES[kind]}", speed, "images/s"))
        over = Finding(f"{name}, share of the network's own rate, {TITLES[kind]}", speed / measured.bare)
        findings.append(site.target(over.what, over.value, FROM_MEMORY, least=True) if kind == "memory" else over)
    findings += [
        Finding(f"{name}, losses that are not finite", measured.not_finite, limit=0),
        Finding(f"{name}, share of weights that training changed", measured.moved, limit=0.5, least=True),
    ]
    if (peak := measured.peaks["memory"]) is not None:
        findings.append(Finding(f"{name}, peak memory, trained from device memory", peak / 2**30, "GiB"))
    return findings


def _batches(recipe: Recipe, site: Site) -> tuple[list[Trial], int]:
    """Measure the network's own rate and memory for growing batches that fit, and choose one."""
    tried: list[Trial] = []
    trainer = build_trainer(recipe, Process(0, 1, site.device), recipe.batch_size, 3)
    total = torch.cuda.get_device_properties(site.device).total_memory if site.device.type == "cuda" else None
    for pairs in site.scale.batches:
        site.tell(f"{pairs} pairs a batch, the network alone")
        try:
            step = _bare_step(trainer, pairs)
            step()  # searches the fastest kernels, which takes more memory than training
            peak = peak_memory(site.device, step)
            # A third of the time is enough to choose a batch.
            rate = pairs / seconds_per_call(step, site.device, site.scale.seconds / 3)
        except torch.OutOfMemoryError:
            break
        tried.append({"pairs": pairs, "images_per_second": rate, "peak_bytes": peak})
        site.tell(f"{pairs} pairs a batch: {rate:.4g} images/s")
        if total is not None and peak is not None and 2 * peak > total:
            break
    if not tried:
        raise MemoryError(f"not even {site.scale.batches[0]} pairs a batch fit into the device's memory")
    return tried, chosen_batch(tried, total)


def chosen_batch(tried: Sequence[Trial], total: int | None) -> int:
    """Choose the largest batch within 2 % of the fastest, of those that leave room in memory.

    Args:
        tried: Rates and memory by batch size.
        total: Memory of the device, in bytes; None for no limit.

    Returns:
        Pairs in the batch.
    """
    roomy = [trial for trial in tried if total is None or (trial["peak_bytes"] or 0) < ROOM * total] or tried[:1]
    best = max(trial["images_per_second"] for trial in roomy)
    return max(trial["pairs"] for trial in roomy if trial["images_per_second"] >= AS_FAST * best)


def _bare_step(trainer: Trainer, pairs: int) -> Callable[[], None]:
    """One forward and backward pass of the network on given views, without loss, optimiser and loading."""
    recipe, device = trainer.recipe, trainer.process.device
    side = recipe.image_size
    views = torch.randn(2 * pairs, trainer.channels, side, side, device=device)
    views = views.contiguous(memory_format=torch.channels_last)
    gradient: torch.Tensor | None = None
    trainer.encoder.train()

    def step() -> None:
        nonlocal gradient
        trainer.optimiser.zero_grad(set_to_none=True)
        with autocast(recipe, device):
            _, z = trainer.network(views)
        if gradient is None:
            gradient = torch.randn_like(z)
        z.backward(gradient)

    return step


def rates(
    recipe: Recipe, images: Images, held: HeldImages, pipelines: Sequence[str], site: Site
) -> tuple[Rates, Trainer]:
    """Measure the network alone and each pipeline, on one encoder that goes on training.

    Args:
        recipe: The run's settings.
        images: Images for the pipelines that read files.
        held: Images for the pipeline from memory.
        pipelines: Any of PIPELINES.
        site: Gives the device, and the seconds for each rate.

    Returns:
        The rates, and the trainer after all steps.
    """
    device, pairs = site.device, recipe.batch_size
    trainer = build_trainer(recipe, Process(0, 1, device), len(held), 3)
    start = [parameter.detach().clone() for parameter in trainer.encoder.parameters()]
    seconds = seconds_per_call(_bare_step(trainer, pairs), device, site.scale.seconds, warm=2)
    measured = Rates(pairs / seconds)
    trainer.optimiser.zero_grad(set_to_none=True)
    losses: list[torch.Tensor] = []
    for name in pipelines:
        batches, warm = _pipeline(name, trainer, images, held)
        if not site.scale.judged:
            warm = 1  # speeds are not compared at toy size

        def step(batches: Iterator[Batch] = batches) -> None:
            losses.append(trainer.step(len(losses), next(batches))[0])

        def rate(name: str = name, step: Callable[[], None] = step, warm: int = warm) -> None:
            measured.trained[name] = pairs / seconds_per_call(step, device, site.scale.seconds, warm=warm)

        measured.peaks[name] = peak_memory(device, rate)
    measured.losses = torch.stack(losses).tolist()
    moved = sum(int((end != begin).sum()) for end, begin in zip(trainer.encoder.parameters(), start, strict=True))
    measured.moved = moved / sum(begin.numel() for begin in start)
    return measured, trainer


def _pipeline(name: str, trainer: Trainer, images: Images, held: HeldImages) -> tuple[Iterator[Batch], int]:
    """Batches as in training, and how many to skip before the clock starts."""
    recipe, device = trainer.recipe, trainer.process.device
    views, steps, rows = pair_of(recipe), (0, trainer.total), slice(0, recipe.batch_size)
    if name == "memory":
        batches = batches_from_memory(
            held, views, recipe.image_size, trainer.order, steps=steps, rows=rows, device=device
        )
        return batches, 2
    order = Order(len(images), recipe.batch_size, recipe.seed)
    batches = batches_from_workers(
        images,
        views,
        recipe.image_size,
        order,
        steps=steps,
        rows=rows,
        device=device,
        workers=recipe.workers,
        mixed=name == "mixed",
    )
    # Batches that the workers have prepared before the first one arrives say nothing about their speed.
    return batches, 1 + -(-recipe.workers * PREFETCHED * CHUNK // recipe.batch_size)


def _views(held: HeldImages, pairs: int, recipe: Recipe, site: Site) -> tuple[dict[str, float], list[str]]:
    """Seconds to make a batch's two views on the device, by `batched_view` and, if installed, by kornia."""
    images, size, pair = held.pixels[:pairs].to(site.device), recipe.image_size, pair_of(recipe)
    generator = torch.Generator().manual_seed(0)
    shape = (held.channels, *images.shape[-2:], size)

    def by_batched_view() -> None:
        for view in pair:
            batched_view(images, draw_views(view, len(images), generator, shape, slice(None)), view, size)

    values = {"views_seconds": seconds_per_call(by_batched_view, site.device, site.scale.seconds / 5)}
    if find_spec("kornia") is None:
        return values, ["kornia is not installed: the time of the views is not compared with it"]
    transforms = [kornia_view(view, size).to(site.device) for view in pair]

    def by_kornia() -> None:
        for transform in transforms:
            transform(images.float() / 255)

    return values | {"kornia_seconds": seconds_per_call(by_kornia, site.device, site.scale.seconds / 5)}, []


def kornia_view(view: View, size: int) -> torch.nn.Module:
    """The augmentations of kornia that come closest to `batched_view`."""
    import kornia.augmentation as k

    steps = [
        k.RandomResizedCrop((size, size), view.scale, view.ratio),
        k.RandomHorizontalFlip(view.flip),
        k.ColorJitter(*view.jitter, p=view.jitter_probability),
        k.RandomGrayscale(p=view.grey),
    ]
    if view.blur:
        steps.append(k.RandomGaussianBlur((view.blur_size,) * 2, view.blur_sigma, p=view.blur))
    if view.solarise:
        steps.append(k.RandomSolarize(0.0, 0.0, p=view.solarise))
    return torch.nn.Sequential(*steps)
