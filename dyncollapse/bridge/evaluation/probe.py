"""Linear probes: how well a linear classifier separates the classes in a frozen encoder's representation."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dyncollapse.bridge.data.augmentations import PROBES, View
from dyncollapse.bridge.data.batches import Batch, Order, batches_from_memory, batches_from_workers, batches_in_order
from dyncollapse.bridge.data.image_sets import HeldImages, Images
from dyncollapse.bridge.data.skipped import Skipped
from dyncollapse.bridge.evaluation.load import LoadedEncoder
from dyncollapse.bridge.models.backbones import representation_dim
from dyncollapse.bridge.training.batch_size import check_batch_room
from dyncollapse.bridge.training.optimisation import exact_float32
from dyncollapse.diagnostics.conversion import Rows, as_rows
from dyncollapse.runtime.settings import SettingError

# The paper does not state its probe's settings. Epochs, batch size, momentum and weight decay are those of Zbontar et
# al. (2021). The learning rate is for features whose largest variance is 1, where SGD on a softmax without momentum is
# stable up to a rate of 4.
SGD = {"lr": 1.0, "momentum": 0.9, "weight_decay": 1e-6}
SCALED_BY = 4096  # training images whose mean and variance centre and scale the features
# logistic: scikit-learn's default regularisation, its fastest solver on such features, and more steps than it needs.
STRENGTH, SOLVER, ITERATIONS = 1.0, "newton-cg", 1000

LARGEST_VARIANCE = "centred, over the root of their largest variance"
MEAN_VARIANCE = "centred, over the root of their mean variance"
CONSTANT = "the representations do not vary, or are not finite; there is nothing to probe"


@dataclass(frozen=True)
class Probed:
    """A linear probe's result.

    Attributes:
        method: "logistic" or "sgd".
        dimensions: Dimensions of the representation that the probe used, from the first.
        of: Dimensions of the representation.
        top1: Accuracy on the test images, in percent.
        error: Standard error of `top1` from the number of test images, in percent.
        train_top1: Accuracy on the training images, in percent.
        train: Number of training images.
        test: Number of test images that could be read.
        seed: Seed of the order of images and of views.
        settings: Training settings.

    Examples:
        >>> r, labels = torch.eye(4), torch.tensor([0, 0, 1, 1])
        >>> probed = logistic_probe((r, labels), (r, labels), subvector=3)
        >>> probed.dimensions, probed.of, probed.as_dict()["test"]
        (3, 4, 4)
    """

    method: str
    dimensions: int
    of: int
    top1: float
    error: float
    train_top1: float
    train: int
    test: int
    seed: int
    settings: dict[str, float | str]

    def as_dict(self) -> dict[str, object]:
        """The result as plain JSON values."""
        return asdict(self)


def logistic_probe(
    train: tuple[Rows, Rows],
    test: tuple[Rows, Rows],
    subvector: int | None = None,
) -> Probed:
    """Fit scikit-learn's multinomial logistic regression (L2, C = 1) to representations of plain images.

    Features are centred and divided by a single number, the root of their mean variance. Scaling each dimension by its
    own standard deviation would enlarge collapsed dimensions.

    Args:
        train: Representations (n, d) and classes (n,) to train on, as tensors or NumPy arrays.
        test: Representations (m, d) and classes (m,) to test on.
        subvector: Dimensions to use, from the first; None for all.

    Returns:
        Accuracies and settings.

    Raises:
        SettingError: If the training images have a single class, or if `subvector` exceeds the representation.
        ValueError: If the representations do not vary or are not finite.

    Examples:
        >>> r, labels = torch.tensor([[0.0, 1.0], [0.0, 2.0], [1.0, 1.0], [1.0, 2.0]]), torch.tensor([0, 0, 1, 1])
        >>> logistic_probe((r, labels), (r, labels)).top1
        100.0
    """
    from sklearn.linear_model import LogisticRegression

    (x, classes), (x_test, test_classes) = (
        (as_rows(rows, "representations"), as_rows(labels, "classes")) for rows, labels in (train, test)
    )
    check_classes(classes)
    dim = x.shape[1]
    kept = kept_dimensions(subvector, dim)
    x, x_test = (features[:, :kept].to(torch.float64) for features in (x, x_test))
    mean, scale = x.mean(0), x.var(0, correction=0).mean().sqrt()
    if not 0 < float(scale) < math.inf:
        raise ValueError(CONSTANT)
    x, x_test = ((features - mean) / scale for features in (x, x_test))
    fit = LogisticRegression(C=STRENGTH, solver=SOLVER, max_iter=ITERATIONS).fit(x.numpy(), classes.numpy())
    top1, train_top1 = (
        100 * float(fit.score(features.numpy(), labels.numpy()))
        for features, labels in ((x_test, test_classes), (x, classes))
    )
    return Probed(
        method="logistic",
        dimensions=kept,
        of=dim,
        top1=top1,
        error=standard_error(top1, len(x_test)),
        train_top1=train_top1,
        train=len(x),
        test=len(x_test),
        seed=0,
        settings={"C": STRENGTH, "solver": SOLVER, "features": MEAN_VARIANCE, "augmented": False},
    )


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
    backbone, size = pretrained.encoder.to(device).eval().backbone, pretrained.spec.image_size
    check_classes(train.labels)
    dim = representation_dim(backbone)
    kept = kept_dimensions(subvector, dim)
    batch_size = min(batch_size, len(train))
    check_batch_room(backbone, (batch_size, train.channels, size, size), 1, device)
    in_order = partial(
        batches_in_order, views=(None,), size=size, batch_size=batch_size, device=device, workers=workers, seed=seed
    )
    features = _fit_features(backbone, kept, islice(in_order(train), -(-SCALED_BY // batch_size)), skipped)
    order = Order(len(train), batch_size, seed)
    view = PROBES[pretrained.spec.augment]
    batches = _augmented_batches(train, view, size, order, epochs=epochs, device=device, workers=workers)
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
    train: Images, view: View, size: int, order: Order, *, epochs: int, device: torch.device, workers: int
) -> Iterator[Batch]:
    """Batches of augmented views for all epochs, in random order."""
    steps, rows = (0, epochs * order.steps_per_epoch), slice(0, order.batch_size)
    if isinstance(train, HeldImages):
        return batches_from_memory(train, (view,), size, order, steps=steps, rows=rows, device=device)
    return batches_from_workers(train, (view,), size, order, steps=steps, rows=rows, device=device, workers=workers)


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


def check_classes(labels: Int[Tensor, " n"]) -> None:
    """Check that there are at least two classes. Raises SettingError."""
    if len(classes := labels.unique()) < 2:
        raise SettingError(f"`data` has training images of {len(classes)} class; a probe needs at least two")


def kept_dimensions(subvector: int | None, dim: int) -> int:
    """The number of dimensions that a probe uses. Raises SettingError if `subvector` exceeds `dim`."""
    if subvector is not None and not 1 <= subvector <= dim:
        raise SettingError(f"`subvector` is {subvector}, but the representation has {dim} dimensions; give 1 to {dim}")
    return subvector or dim


def standard_error(top1: float, count: int) -> float:
    """Standard error of an accuracy from the number of test images; both in percent."""
    return 100 * math.sqrt(top1 / 100 * (1 - top1 / 100) / count)
