"""The options of `predict`; nothing heavy is imported for them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from dyncollapse.bridge.recipe import NARROWEST_IMAGE, STEM_WORDS, WIDEST, Stem
from dyncollapse.model.choices import Views
from dyncollapse.runtime.records import (
    LARGE,
    MOST_SEED,
    MOST_WORKERS,
    REQUIRED,
    SMALL,
    Number,
    Several,
    Text,
    Whole,
    record,
    setting,
)
from dyncollapse.runtime.settings import SettingError

PredictedLoss = Literal["infonce", "spectral", "vcreg", "barlow", "byol"]
PREDICTED: tuple[str, ...] = get_args(PredictedLoss)
SIMULATED_ONLY = ("ntxent", "vicreg", "barlow-normalised")  # losses of `simulate` without a closed form
# Larger images have covariances of more than 12 288 x 12 288 numbers.
WIDEST_PIXELS = 64
MOST_IMAGES, MOST_DIRECTIONS, MOST_STEPS = 10**9, 10**5, 10**9


@record
class PredictOptions:
    """Which images, augmentation and losses to predict for, and how the encoder would be trained.

    Raises:
        SettingError: If an option has another type, is out of range, or contradicts another. One line.

    Examples:
        >>> PredictOptions("digits").loss
        ('infonce', 'spectral', 'vcreg', 'barlow', 'byol')
    """

    data: Text = setting(
        REQUIRED, "Folder of images, cifar10, digits, hf:ORG/NAME of Hugging Face, or .tar shards.", group="data"
    )
    augment: Text | None = setting(
        None,
        "Augmentation: imagenet, cifar10, digits, or a TOML file of a view's settings.",
        group="data",
        unset="that of `features`; else digits for `data` digits, else cifar10",
    )
    views: Views = setting(
        "two-sided", "two-sided: both views are augmented; one-sided: the anchor is the plain image.", group="data"
    )
    images: Whole = setting(
        10_000,
        "Images to read at most, drawn at random.",
        group="data",
        unit="images",
        low=1,
        high=MOST_IMAGES,
    )
    image_size: Whole | None = setting(
        None,
        "Side of a view.",
        group="data",
        unit="pixels",
        low=NARROWEST_IMAGE,
        high=WIDEST_PIXELS,
        unset="8 for `data` digits, 32 for others; with `features` the encoder's own",
    )
    directions: Whole = setting(
        256,
        "Principal directions of largest variance to predict for, at most; a quarter of the images bounds it as well. "
        "Of more directions, each is known less well.",
        group="data",
        unit="directions",
        low=1,
        high=MOST_DIRECTIONS,
    )
    features: Path | None = setting(
        None,
        "Checkpoint of an encoder, or a published model such as timm/resnet18.a1_in1k: predict a linear head on its "
        "frozen representations.",
        group="encoder",
    )
    arch: Text | None = setting(
        None, "Name of the encoder in timm, for a file that another library wrote.", group="encoder", unset="detected"
    )
    stem: Stem | None = setting(None, STEM_WORDS, group="encoder", unset="detected")
    trust_checkpoint: bool = setting(False, "Unpickle the file, which may run any code in it.", group="encoder")
    loss: Several[Text] = setting(
        PREDICTED, f"Losses to predict for: any of {', '.join(PREDICTED)}, separated by commas.", group="training"
    )
    invariance: Number | None = setting(
        None, "Coefficient of the invariance term of vcreg.", group="training", low=0, high=LARGE, unset="1.0"
    )
    weight_decay: Number = setting(
        0.0, "Weight decay w: w |W|^2 / 2 is added to the loss.", group="training", low=0, high=LARGE
    )
    out_dim: Whole | None = setting(
        None,
        "Outputs of the encoder.",
        group="training",
        unit="dimensions",
        low=1,
        high=WIDEST,
        unset="as many as directions",
    )
    lr: Number | None = setting(
        None,
        "Learning rate of SGD.",
        group="training",
        low=SMALL,
        high=LARGE,
        unset="a tenth of the time in which the fastest direction grows by e, by loss",
    )
    init_scale: Number | None = setting(
        None,
        "Standard deviation of the entries of the encoder's first matrix.",
        group="training",
        low=SMALL,
        high=LARGE,
        unset="so small that the embedding starts with a standard deviation of 0.01 along the direction of largest "
        "variance",
    )
    steps: Whole = setting(
        2000,
        "SGD steps up to which directions count as learnt.",
        group="training",
        unit="steps",
        low=1,
        high=MOST_STEPS,
    )
    batch_size: Whole = setting(
        1024, "Pairs in a batch of SGD, with `train`.", group="training", unit="pairs", low=2, high=10**6
    )
    train: bool = setting(
        False,
        "Train the linear encoder by SGD on the measured pairs, and compare it with the prediction.",
        group="training",
    )
    threads: Whole | None = setting(
        None, "CPU threads.", group="run", unit="threads", low=1, high=MOST_WORKERS, unset="the usable cores"
    )
    strict: bool = setting(False, "Stop at the first image that cannot be read, instead of skipping it.", group="run")
    seed: Whole = setting(0, "Seed of the images drawn, the views and the start.", group="run", low=0, high=MOST_SEED)

    def __post_init__(self) -> None:
        """Refuse losses that cannot be predicted, and settings without what they belong to."""
        for name in self.loss:
            if name in SIMULATED_ONLY:
                raise SettingError(
                    f"`loss` {name} has no closed form that predicts it; train it with dyncollapse simulate, or choose "
                    f"any of {', '.join(PREDICTED)}"
                )
            if name not in PREDICTED:
                raise SettingError(f"`loss` has {name!r:.60}; choose any of {', '.join(PREDICTED)}")
        if not self.loss or len(set(self.loss)) < len(self.loss):
            raise SettingError(f"`loss` names {'no loss' if not self.loss else 'a loss twice'}; name each loss once")
        if self.invariance is not None and "vcreg" not in self.loss:
            raise SettingError("`invariance` is for `loss` vcreg, which is not predicted; drop it")
        if self.features is None and (hints := [n for n in ("arch", "stem") if getattr(self, n) is not None]):
            raise SettingError(f"`{hints[0]}` says how `features` is read, which is not given; drop it")
        if self.features is not None and self.image_size is not None:
            raise SettingError("`image_size` is the encoder's own with `features`; drop it")

    def as_dict(self) -> dict[str, Any]:
        """All options as plain JSON values."""
        return {**asdict(self), "features": self.features and str(self.features), "loss": list(self.loss)}
