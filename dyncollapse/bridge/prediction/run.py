"""From options to a prediction: open the images, measure their views, predict, and train if asked to."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from dyncollapse.bridge.data.image_sets import HeldImages, Images
from dyncollapse.bridge.data.images import open_data, some_images
from dyncollapse.bridge.data.skipped import Skipped
from dyncollapse.bridge.evaluation.load import LoadedEncoder, load_encoder
from dyncollapse.bridge.prediction.directions import LEAST, Directions, Measured, find_directions, measure_pairs
from dyncollapse.bridge.prediction.options import PredictOptions
from dyncollapse.bridge.prediction.outcome import Prediction
from dyncollapse.bridge.prediction.pipelines import Pipeline, effective, open_pipeline
from dyncollapse.bridge.prediction.prediction import LinearEncoder, LossPrediction, predict_loss
from dyncollapse.bridge.prediction.table import augmentation_table
from dyncollapse.bridge.prediction.training import projected_pairs, train_linear_encoder
from dyncollapse.bridge.prediction.views import ViewPairs
from dyncollapse.dynamics.training import Diverged
from dyncollapse.runtime.files import unmarked
from dyncollapse.runtime.process import available_memory
from dyncollapse.runtime.settings import SettingError

Advance = Callable[[str, float, float], None]
SIDE = 32  # pixels of the views of images in a folder
MATRICES = 10  # of d x d numbers in float64 at a time, at most


@dataclass(frozen=True, eq=False)
class Opened:
    """Pairs of views that are not yet drawn, and what they are made of.

    Attributes:
        pairs: The pairs.
        dim: Numbers in a row.
        image_shape: Shape (c, h, w) of a row; None for representations.
        source: Where the images come from.
        kind: What a row is, in words.
    """

    pairs: ViewPairs
    dim: int
    image_shape: tuple[int, int, int] | None
    source: str
    kind: str


def open_pairs(options: PredictOptions, tell: Callable[[str], object]) -> Opened:
    """Open the images, the pipeline and the encoder.

    Args:
        options: What to open.
        tell: Called with a line on each entry and image that is skipped.

    Returns:
        The pairs.

    Raises:
        SettingError: For options that do not fit the images, too few images, and moments that do not fit into memory.
        ValueError: For images and checkpoints that cannot be used.
    """
    images = open_data(options.data, tell).train
    if len(images) < LEAST:
        raise SettingError(
            f"`data` {unmarked(options.data)} has {len(images)} image{'s' * (len(images) != 1)}, too few to measure a "
            f"correlation; give at least {LEAST}"
        )
    if options.images < LEAST:
        raise SettingError(f"`images` is {options.images}, too few to measure a correlation; give at least {LEAST}")
    chosen = some_images(images, options.images, options.seed)
    loaded = _loaded(options, images)
    pipeline = _pipeline(options, loaded, images.channels)
    side = images.pixels.shape[-1] if isinstance(images, HeldImages) else SIDE
    size = loaded.spec.image_size if loaded else options.image_size or side
    skipped = Skipped(chosen, options.strict, tell)
    pairs = ViewPairs(chosen, pipeline, options.views, size, options.seed, skipped)
    shape = (images.channels, size, size)
    kind = f"{size} x {size} pixels in {images.channels} channel{'s' * (images.channels > 1)}"
    dim = images.channels * size**2
    if loaded is not None:
        encoder = loaded.encoder
        pairs = pairs.with_(encoder=lambda view: encoder(view)[0], prepared=loaded.spec.prepared)
        dim = encoder.backbone.num_features if isinstance(encoder.backbone.num_features, int) else _width(pairs)
        kind = f"representations of {unmarked(str(loaded.path))}"
    _check_room(dim, options)
    return Opened(pairs, dim, None if loaded else shape, unmarked(options.data), kind)


def _loaded(options: PredictOptions, images: Images) -> LoadedEncoder | None:
    """The encoder whose representations are the rows, if one is given."""
    if options.features is None:
        return None
    loaded = load_encoder(options.features, arch=options.arch, stem=options.stem, trust=options.trust_checkpoint)
    loaded.check_channels(images.channels)
    return loaded


def _pipeline(options: PredictOptions, loaded: LoadedEncoder | None, channels: int) -> Pipeline:
    """The augmentations that were asked for; else those with which the encoder was trained, or usual ones."""
    if options.augment is not None:
        return open_pipeline(options.augment, channels)
    if loaded is not None:
        return effective(Pipeline(*loaded.spec.pair, loaded.spec.augment), channels)
    return open_pipeline("digits" if options.data == "digits" else "cifar10", channels)


def _width(pairs: ViewPairs) -> int:
    """Numbers in a row, from the first images."""
    return int(next(iter(pairs.with_(progress=None)))[0].shape[1])


def _check_room(dim: int, options: PredictOptions) -> None:
    """Refuse moments that do not fit into memory."""
    needed, available = 8 * MATRICES * dim**2, available_memory()
    if available is not None and needed > available:
        smaller = "give an encoder of fewer features" if options.features else "lower `image_size`"
        raise SettingError(
            f"covariances of {dim} inputs take {needed / 2**30:.3g} GiB, and {available / 2**30:.3g} GiB are free; "
            f"{smaller}"
        )


def encoder_of(options: PredictOptions) -> LinearEncoder:
    """The linear encoder and its training that the options describe."""
    return LinearEncoder(
        options.out_dim, options.weight_decay, options.invariance, options.init_scale, options.lr, options.steps
    )


def run(
    opened: Opened,
    options: PredictOptions,
    progress: Callable[[tuple[str, ...]], AbstractContextManager[Advance]],
    keep: Callable[[Prediction], object] = lambda _: None,
) -> Prediction:
    """Measure, predict, and train if asked to.

    Args:
        opened: From `open_pairs`.
        options: What to predict.
        progress: Shows progress of named parts; takes their names.
        keep: With `train`, called with the prediction before the training, and again after that of each loss.

    Returns:
        The prediction; losses under which SGD diverged are in `untrained`.

    Raises:
        ValueError: For views that cannot be measured. One line.
    """
    names = ("views", "directions", "operations", *(f"sgd {loss}" for loss in options.loss if options.train))
    pairs, encoder = opened.pairs, encoder_of(options)
    with progress(names) as advance:
        measured = _measured(pairs, options, advance)
        advance("directions", 0, len(options.loss) + 1)
        found = find_directions(measured, options.directions, alike=pairs.alike)
        losses = dict[str, LossPrediction]()
        for number, loss in enumerate(options.loss):
            losses[loss] = predict_loss(found, loss, encoder, alike=pairs.alike)
            advance("directions", number + 2, len(options.loss) + 1)
        table = augmentation_table(pairs, found, lambda done, total: advance("operations", done, total))
        prediction = Prediction(found, losses, table, opened.image_shape)
        return _with_training(prediction, pairs, options, advance, keep) if options.train else prediction


def predict(
    options: PredictOptions,
    *,
    tell: Callable[[str], object] = print,
    progress: Callable[[tuple[str, ...]], AbstractContextManager[Advance]] | None = None,
) -> Prediction:
    """Predict what a linear encoder keeps of images under an augmentation, as `dyncollapse predict` does.

    Args:
        options: Images, augmentation, losses and training.
        tell: Called with a line on each entry and image that is skipped, and on each loss under which SGD diverged.
        progress: Takes the names of the parts, and gives a context in which progress(name, done, total) is shown; None
            shows nothing.

    Returns:
        The measured directions, what each loss makes of them, the effect of each operation, and with `train` what SGD
        came to. Where the learning rate is too large for a loss, its `untrained` says so, and all else is there.

    Raises:
        SettingError: For options that do not fit the images, and moments that do not fit into memory. One line.
        ValueError: For images and checkpoints that cannot be used, and views that cannot be measured.

    References:
        docs/how-to/choose-an-augmentation.md; docs/explanation/one-axis.md.

    Examples:
        >>> from dyncollapse.bridge import PredictOptions
        >>> prediction = predict(PredictOptions("digits", images=400, directions=12, loss=("spectral",)))
        >>> prediction.losses["spectral"].fates.counts()["dead"]  # two views drawn alike kill nothing
        0
        >>> prediction.found.count, [row.operation for row in prediction.table.rows]
        (12, ['crop', 'rotation', 'colour', 'noise'])
    """
    prediction = run(open_pairs(options, tell), options, progress or _unseen)
    for loss, reason in prediction.untrained.items():
        tell(f"{loss}: {reason}")
    return prediction


@contextmanager
def _unseen(_names: tuple[str, ...]) -> Iterator[Advance]:
    """Progress that nobody is shown."""
    yield lambda _name, _done, _total: None


def _measured(pairs: ViewPairs, options: PredictOptions, advance: Advance) -> Measured:
    shown = pairs.with_(progress=lambda done, total: advance("views", done, total))
    return measure_pairs(shown, options.views, len(pairs), options.seed)


def _with_training(
    prediction: Prediction,
    pairs: ViewPairs,
    options: PredictOptions,
    advance: Advance,
    keep: Callable[[Prediction], object],
) -> Prediction:
    """Train an encoder for each loss, from the start for which it is predicted anew."""
    keep(prediction)
    every = projected_pairs(pairs, prediction.found)
    for loss in options.loss:
        try:
            predicted, one = train_linear_encoder(
                prediction.found,
                every,
                loss,
                encoder_of(options),
                batch_size=options.batch_size,
                seed=options.seed,
                alike=pairs.alike,
                progress=partial(advance, f"sgd {loss}"),
            )
        except Diverged as error:  # each loss has a learning rate of its own: others may do better
            prediction = replace(prediction, untrained={**prediction.untrained, loss: str(error)})
        else:
            losses, trained = {**prediction.losses, loss: predicted}, (*prediction.trained, one)
            prediction = replace(prediction, losses=losses, trained=trained)
        keep(prediction)
    return prediction


def emptied_share(found: Directions) -> float:
    """Share of all variance of the views that lies in directions of the frame without shared signal."""
    inner: Tensor = found.measured.moments.view_cov @ (found.frame.T @ found.vectors[:, ~found.shared])
    within = float(inner.square().sum() / torch.clamp(found.measured.moments.view_cov.trace(), min=1e-300))
    return within * found.share


def pipeline_in_words(pipeline: Pipeline, views: str) -> str:
    """The name of a pipeline, its operations, and how its views are drawn."""
    drawn = (
        "the first view is the plain image"
        if views == "one-sided"
        else "both drawn alike"
        if pipeline.alike
        else "drawn by two different pipelines"
    )
    return f"{views} views by {unmarked(pipeline.name)} ({', '.join(pipeline.operations)}), {drawn}"
