"""A linear probe by SGD, on new crops and flips of the training images."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dyncollapse.bridge.data.augmentations import PROBES, View
from dyncollapse.bridge.data.batches import Batch, Order, batches_from_memory, batches_from_workers, batches_in_order
from dyncollapse.bridge.data.image_sets import HeldImages, Images
from dyncollapse.bridge.data.preparation import Preparation
from dyncollapse.bridge.data.skipped import Skipped
from dyncollapse.bridge.evaluation.load import LoadedEncoder
from dyncollapse.bridge.evaluation.probe import CONSTANT, Probed, check_classes, kept_dimensions, standard_error
from dyncollapse.bridge.models.backbones import representation_dim
from dyncollapse.bridge.training.batch_size import check_batch_room
from dyncollapse.bridge.training.optimisation import exact_float32

# The paper does not state its probe's settings. Epochs, batch size, momentum and weight decay are those of Zbontar et
# al. (2021). The learning rate is for features whose largest variance is 1, where SGD on a softmax without momentum is
# stable up to a rate of 4.
SGD = {"lr": 1.0, "momentum": 0.9, "weight_decay": 1e-6}
SCALED_BY = 4096  # training images whose mean and variance centre and scale the features
LARGEST_VARIANCE = "centred, over the root of their largest variance"


def sgd_probe(
    pretrained: LoadedEncoder,
    train: Images,
    test: Images,
    *,
    subvector: int | None = None,
    epochs: int = 100,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    workers: int = 0,
    seed: int = 0,
    skipped: Skipped | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Probed:
    """Train a linear layer by SGD on the frozen encoder's representations of random crops and flips.

    Features are centred and divided by a single number, the root of their largest variance, so that learning rate and
    weight decay do not depend on the scale of the representation. The rate falls from 1 to 0 as a cosine, with momentum
    0.9 and weight decay 1e-6. The test uses plain images.

    Args:
        pretrained: The encoder.
        train: Images to train on, of at least two classes.
        test: Images to test on.
        subvector: Dimensions of the representation to use, from the first; None for all.
        epochs: Passes over the training images.
        batch_size: Images at a time; at most all of them.
        device: Where the network computes.
        workers: Worker processes that read images; 0 to read in this process.
        seed: Seed of the order of images and of views.
        skipped: Record of training images that cannot be read; None for one that reports nothing.
        progress: Called with the steps that were taken and the steps in all.

    Returns:
        Accuracies and settings.

    Raises:
        SettingError: If the training images have a single class, if `subvector` exceeds the representation, or if a
            batch does not fit into memory.
        ValueError: If the representations do not vary, or if none of the first images can be read.

    Examples:
        >>> from pathlib import Path
        >>> from dyncollapse.bridge import build_encoder, open_data, resolve
        >>> from dyncollapse.bridge.evaluation.load import from_recipe
        >>> recipe, digits = resolve({"data": "digits"}), open_data("digits")
        >>> untrained = from_recipe(build_encoder(recipe, channels=1), recipe, 1, Path("untrained"))
        >>> probed = sgd_probe(untrained, digits.train, digits.test, epochs=1)
        >>> probed.method, probed.test, probed.top1 > 10
        ('sgd', 500, True)
    """
    device = torch.device(device)
    skipped = skipped or Skipped(train, tell=lambda _text: None)
    backbone, spec = pretrained.encoder.to(device).eval().backbone, pretrained.spec
    size = spec.image_size
    check_classes(train.labels)
    dim = representation_dim(backbone)
    kept = kept_dimensions(subvector, dim)
    batch_size = min(batch_size, len(train))
    check_batch_room(backbone, (batch_size, train.channels, size, size), 1, device)
    on: dict[str, Any] = {"device": device, "workers": workers, "prepared": spec.prepared}
    in_order: Callable[[Images], Iterator[Batch]] = partial(
        batches_in_order, views=(None,), size=size, batch_size=batch_size, seed=seed, **on
    )
    features = _fit_features(backbone, kept, islice(in_order(train), -(-SCALED_BY // batch_size)), skipped)
    order = Order(len(train), batch_size, seed)
    batches = _augmented_batches(train, PROBES[spec.augment], size, order, epochs=epochs, **on)
    layer = _zero_layer(kept, int(max(train.labels.max(), test.labels.max())) + 1, device)
    steps = epochs * order.steps_per_epoch, order.steps_per_epoch
    right = _train_layer(layer, features, batches, train.labels, steps, skipped=skipped, progress=progress)
    hits, count = _test_layer(layer, features, in_order(test), test, Skipped(test, skipped.strict, skipped.tell))
    top1 = 100 * hits / count
    return Probed(
        method="sgd",
        dimensions=kept,
        of=dim,
        top1=top1,
        error=standard_error(top1, count),
        train_top1=100 * right / (order.steps_per_epoch * batch_size),
        train=len(train),
        test=count,
        seed=seed,
        settings={**SGD, "epochs": epochs, "batch_size": batch_size, "features": LARGEST_VARIANCE, "augmented": True},
    )


@dataclass(frozen=True, eq=False)
class _Features:
    """The first `kept` dimensions of a frozen representation, centred and divided by a single number."""

    backbone: nn.Module
    kept: int
    centre: Float[Tensor, " k"] | float = 0.0
    scale: Float[Tensor, ""] | float = 1.0

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        with exact_float32():
            r: Tensor = self.backbone(images.contiguous(memory_format=torch.channels_last))
        r = r[:, : self.kept].clone()  # a copy outside of inference mode, which autograd accepts
        return (r - self.centre) / self.scale


def _fit_features(backbone: nn.Module, kept: int, batches: Iterable[Batch], skipped: Skipped) -> _Features:
    """Centre features at the mean of some images, and divide them by the root of their largest variance."""
    raw = _Features(backbone, kept)
    parts: list[Tensor] = []
    for batch in batches:
        skipped.add(batch.failures)
        if len(batch.indices):
            parts.append(raw(batch.views[0]))
        skipped.check(len(parts))
    skipped.check(len(parts), ended=True)
    some = torch.cat(parts)
    centre, scale = some.mean(0), torch.linalg.matrix_norm(some - some.mean(0), 2) / len(some) ** 0.5
    if not 0 < float(scale) < math.inf:
        raise ValueError(CONSTANT)
    return replace(raw, centre=centre, scale=scale)


def _augmented_batches(
    train: Images,
    view: View,
    size: int,
    order: Order,
    *,
    epochs: int,
    device: torch.device,
    workers: int,
    prepared: Preparation | None,
) -> Iterator[Batch]:
    """Batches of augmented views for all epochs, in random order."""
    steps, rows = (0, epochs * order.steps_per_epoch), slice(0, order.batch_size)
    if isinstance(train, HeldImages):
        return batches_from_memory(
            train, (view,), size, order, steps=steps, rows=rows, device=device, prepared=prepared
        )
    return batches_from_workers(
        train, (view,), size, order, steps=steps, rows=rows, device=device, workers=workers, prepared=prepared
    )


def _zero_layer(inputs: int, classes: int, device: torch.device) -> nn.Linear:
    """A linear layer that starts at 0; its loss is convex, so the start does not matter."""
    layer = nn.Linear(inputs, classes, device=device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _train_layer(
    layer: nn.Linear,
    features: _Features,
    batches: Iterable[Batch],
    labels: Int[Tensor, " n"],
    steps: tuple[int, int],
    *,
    skipped: Skipped,
    progress: Callable[[int, int], None] | None,
) -> int:
    """Train for steps[0] steps, steps[1] per epoch; return how many images of the last epoch were classified right."""
    total, per_epoch = steps
    optimiser = torch.optim.SGD(layer.parameters(), SGD["lr"], SGD["momentum"], weight_decay=SGD["weight_decay"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total)
    right = torch.zeros((), device=layer.weight.device)
    for step, batch in enumerate(batches, 1):
        skipped.add(batch.failures)
        skipped.check(step)
        targets = labels[batch.indices].to(layer.weight.device)
        scores = layer(features(batch.views[0]))
        if step > total - per_epoch:
            right += (scores.argmax(1) == targets).sum()
        optimiser.zero_grad()
        nn.functional.cross_entropy(scores, targets).backward()
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(step, total)
    return int(right)


@torch.no_grad()
def _test_layer(
    layer: nn.Linear, features: _Features, batches: Iterable[Batch], test: Images, skipped: Skipped
) -> tuple[int, int]:
    """Count the test images that are classified right and those that can be read."""
    hits = count = 0
    for batch in batches:
        skipped.add(batch.failures)
        if len(batch.indices):
            classes = layer(features(batch.views[0])).argmax(1).cpu()
            hits += int((classes == test.labels[batch.indices]).sum())
            count += len(batch.indices)
        skipped.check(count)
    skipped.check(count, ended=True)
    return hits, count
