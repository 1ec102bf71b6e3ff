"""Linear probes: how well one linear layer reads the classes from a frozen encoder's representation."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dyncollapse.bridge.data.augmentations import PROBES
from dyncollapse.bridge.data.batches import Batch, Order, batches_from_memory, batches_from_workers, batches_in_order
from dyncollapse.bridge.data.images import HeldImages, Images, Skipped
from dyncollapse.bridge.evaluation.load import Loaded
from dyncollapse.bridge.models.encoders import representation_dim
from dyncollapse.bridge.training.batch_size import check_batch_room
from dyncollapse.bridge.training.optimisation import exact_float32
from dyncollapse.runtime.settings import SettingError

METHODS = ("logistic", "sgd")
# sgd, ours, for the paper gives none: epochs, batch, momentum and decay as Zbontar et al. (2021); the learning
# rate is for features whose largest variance is 1, for which SGD on a softmax is stable up to 4 without momentum.
SGD = {"lr": 1.0, "momentum": 0.9, "weight_decay": 1e-6}
SCALED_BY = 4096  # training images by which features are centred and scaled
# logistic: scikit-learn's default regularisation, its fastest solver on such features, more steps than it takes.
STRENGTH, SOLVER, ITERATIONS = 1.0, "newton-cg", 1000

CONSTANT = "the representations do not vary, or are not finite; there is nothing to probe"


@dataclass(frozen=True)
class Probed:
    """A probe's result: top-1 on the test images in percent, its standard error by their number, and its making."""

    method: str
    dimensions: int
    of: int
    top1: float
    error: float
    train_top1: float
    train: int
    test: int
    seed: int
    settings: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return asdict(self)


def logistic_probe(
    train: tuple[Float[Tensor, "n d"], Int[Tensor, " n"]],
    test: tuple[Float[Tensor, "m d"], Int[Tensor, " m"]],
    subvector: int | None = None,
) -> Probed:
    """Multinomial logistic regression by scikit-learn on features that are all there (L2, C = 1).

    Features are centred and divided by one number, the root of their mean variance, and not each by its own: collapsed
    dimensions stay as small as they are, as for the paper's SGD. Raises ValueError where nothing varies
    and for labels of one class.
    """
    from sklearn.linear_model import LogisticRegression

    check_classes(train[1])
    dim = train[0].shape[1]
    k = kept_dimensions(subvector, dim)
    x, x_test = (features[:, :k].to(torch.float64) for features in (train[0], test[0]))
    mean, scale = x.mean(0), x.var(0, correction=0).mean().sqrt()
    if not 0 < float(scale) < math.inf:
        raise ValueError(CONSTANT)
    x, x_test = ((features - mean) / scale for features in (x, x_test))
    found = LogisticRegression(C=STRENGTH, solver=SOLVER, max_iter=ITERATIONS).fit(x.numpy(), train[1].numpy())
    scores = [
        100 * float(found.score(features.numpy(), labels.numpy()))
        for features, labels in ((x_test, test[1]), (x, train[1]))
    ]
    settings = {
        "C": STRENGTH,
        "solver": SOLVER,
        "features": "centred, over the root of their mean variance",
        "augmented": False,
    }
    return _result("logistic", k, dim, scores, len(x), len(x_test), 0, settings)


def sgd_probe(
    loaded: Loaded,
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
    """One linear layer by SGD on the frozen encoder's representations of crops and flips, drawn anew every epoch.

    Features are centred, and divided by one number, the root of their largest variance, so that neither depends on the
    encoder's unit. Cosine from lr 1, momentum 0.9, weight decay 1e-6, batches of 256; tested on plain images.
    """
    device = torch.device(device)
    skipped = skipped or Skipped(train, tell=lambda _text: None)
    encoder, size = loaded.encoder.to(device).eval(), loaded.recipe.image_size
    check_classes(train.labels)
    dim = representation_dim(encoder.backbone)
    k = kept_dimensions(subvector, dim)
    batch_size = min(batch_size, len(train))
    check_batch_room(encoder.backbone, (batch_size, train.channels, size, size), 1, device)
    order = Order(len(train), batch_size, seed)
    classes = int(max(train.labels.max(), test.labels.max())) + 1

    def represent(images: Tensor) -> Tensor:
        with exact_float32():
            r: Tensor = encoder.backbone(images.contiguous(memory_format=torch.channels_last))
        return r[:, :k].clone()  # outside of inference mode, for the layer to learn from

    def plain_batches(images: Images) -> Iterator[Batch]:
        return batches_in_order(images, (None,), size, batch_size, device, workers, seed)

    first = islice(plain_batches(train), -(-SCALED_BY // batch_size))
    centre, scale = _centre_and_scale(represent, first, skipped)
    # A linear probe starts at 0: its loss is convex, and no start is better.
    layer = nn.Linear(k, classes, device=device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)

    def classify(images: Tensor) -> Tensor:
        scores: Tensor = layer((represent(images) - centre) / scale)
        return scores

    view, steps, rows = PROBES[loaded.recipe.augment], (0, epochs * order.steps_per_epoch), slice(0, batch_size)
    if isinstance(train, HeldImages):
        batches = batches_from_memory(train, (view,), size, order, steps, rows, device)
    else:
        batches = batches_from_workers(train, (view,), size, order, steps, rows, device, workers)
    right = _fit(layer, classify, batches, train.labels, steps[1], order.steps_per_epoch, skipped, progress)
    hits, count = _tested(classify, plain_batches(test), test, Skipped(test, skipped.strict, skipped.tell))
    seen = order.steps_per_epoch * batch_size
    features = "centred, over the root of their largest variance"
    settings = {**SGD, "epochs": epochs, "batch_size": batch_size, "features": features, "augmented": True}
    return _result("sgd", k, dim, [100 * hits / count, 100 * right / seen], len(train), count, seed, settings)


def _centre_and_scale(
    represent: Callable[[Tensor], Tensor], batches: Iterable[Batch], skipped: Skipped
) -> tuple[Tensor, Tensor]:
    """Mean of the representations of some images, and the root of their largest variance."""
    parts: list[Tensor] = []
    for batch in batches:
        skipped.add(batch.failures)
        if len(batch.indices):
            parts.append(represent(batch.views[0]))
        skipped.check(len(parts))
    skipped.check(len(parts), ended=True)
    some = torch.cat(parts)
    centre, scale = some.mean(0), torch.linalg.matrix_norm(some - some.mean(0), 2) / len(some) ** 0.5
    if not 0 < float(scale) < math.inf:
        raise ValueError(CONSTANT)
    return centre, scale


def _fit(
    layer: nn.Linear,
    classify: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    labels: Int[Tensor, " n"],
    total: int,
    per_epoch: int,
    skipped: Skipped,
    progress: Callable[[int, int], None] | None,
) -> int:
    """Train the layer through `total` steps; how many images of the last epoch it classified right on the way."""
    optimiser = torch.optim.SGD(layer.parameters(), SGD["lr"], SGD["momentum"], weight_decay=SGD["weight_decay"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total)
    right = torch.zeros((), device=layer.weight.device)
    for step, batch in enumerate(batches, 1):
        skipped.add(batch.failures)
        skipped.check(step)
        wanted = labels[batch.indices].to(layer.weight.device)
        scores = classify(batch.views[0])
        if step > total - per_epoch:
            right += (scores.argmax(1) == wanted).sum()
        optimiser.zero_grad()
        nn.functional.cross_entropy(scores, wanted).backward()
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(step, total)
    return int(right)


@torch.no_grad()
def _tested(
    classify: Callable[[Tensor], Tensor], batches: Iterable[Batch], test: Images, skipped: Skipped
) -> tuple[int, int]:
    """How many test images are classified right, of how many that can be read."""
    hits = count = 0
    for batch in batches:
        skipped.add(batch.failures)
        if len(batch.indices):
            hits += int((classify(batch.views[0]).argmax(1).cpu() == test.labels[batch.indices]).sum())
            count += len(batch.indices)
        skipped.check(count)
    skipped.check(count, ended=True)
    return hits, count


def check_classes(labels: Int[Tensor, " n"]) -> None:
    """Raise SettingError unless the training images are of at least two classes, for a probe tells them apart."""
    if len(found := labels.unique()) < 2:
        raise SettingError(f"`data` has training images of {len(found)} class; a probe needs at least two")


def kept_dimensions(subvector: int | None, dim: int) -> int:
    """How many dimensions of the representation a probe reads. Raises ValueError for more than there are."""
    if subvector is not None and not 1 <= subvector <= dim:
        raise SettingError(f"`subvector` is {subvector}, but the representation has {dim} dimensions; give 1 to {dim}")
    return subvector or dim


def _result(
    method: str, k: int, dim: int, scores: list[float], train: int, test: int, seed: int, settings: dict[str, Any]
) -> Probed:
    top1, train_top1 = scores
    error = 100 * math.sqrt(top1 / 100 * (1 - top1 / 100) / test)
    return Probed(method, k, dim, top1, error, train_top1, train, test, seed, settings)
