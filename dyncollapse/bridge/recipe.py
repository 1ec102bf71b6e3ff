"""All settings of a pretraining run in one immutable record, with their defaults and ranges."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, get_args

from dyncollapse.runtime.records import (
    DEVICE,
    DEVICE_WORDS,
    LARGE,
    MOST_EPOCHS,
    MOST_SEED,
    MOST_WORKERS,
    SMALL,
    Number,
    Text,
    Whole,
    from_values,
    record,
    setting,
)
from dyncollapse.runtime.settings import SettingError

Method = Literal["simclr", "directclr"]
Projector = Literal[
    "mlp",
    "linear",
    "none",
    "diagonal",
    "orthogonal",
    "low-rank",
    "low-rank-diagonal",
    "random-subvector",
]
Stem = Literal["imagenet", "cifar", "cifar-padding-2", "cifar-stride-2"]
Augmentation = Literal["imagenet", "cifar", "digits"]
Pipeline = Literal["mixed", "workers", "memory"]
Optimiser = Literal["lars", "sgd", "adamw"]
Precision = Literal["float32", "bfloat16", "float16"]
PresetName = Literal["paper-imagenet", "cifar10", "digits"]
PROJECTORS: tuple[str, ...] = get_args(Projector)
STEMS: tuple[str, ...] = get_args(Stem)
STEM_WORDS = (
    "imagenet starts with 7x7 filters and pooling, cifar with 3x3 and no pooling; cifar-padding-2 is solo-learn's; "
    "cifar-stride-2 halves the image, and costs a quarter of cifar."
)
AUGMENTATIONS: tuple[str, ...] = get_args(Augmentation)
PIPELINES: tuple[str, ...] = get_args(Pipeline)
PRESETS: tuple[str, ...] = get_args(PresetName)
SUBVECTORS = ("low-rank", "low-rank-diagonal", "random-subvector")  # projectors with d0 outputs
# Projectors that have each width.
WIDTHS = {"d0": SUBVECTORS, "out_dim": ("mlp", "linear"), "hidden_dim": ("mlp",)}

# Limits of widths, sides of images in pixels and counts of steps: larger numbers are typing errors. Memory is checked
# separately; an image of the largest side takes 200 MB as floats.
WIDEST, NARROWEST_IMAGE, WIDEST_IMAGE, MOST_STEPS = 10**6, 4, 4096, 10**12
# A crop of a thousandth of an image's area has one pixel of 32 x 32. The strongest jitter of brightness and contrast
# has strength 0.4; 2.5 times that reaches black.
SMALLEST_CROP, MOST_COLOUR = 0.001, 2.5


# Settings that files of earlier versions lack, with the values that these versions used.
ADDED_LATER = {"images": None, "crop_scale": None, "colour": 1.0}


@record
class Recipe:
    """All settings of a pretraining run; docs/reference/settings.md lists them with their ranges and units.

    The defaults are the paper's for ImageNet as far as it gives them (Section 6 and Appendix D). Sizes left at None
    follow from the dimension of the representation, see `build_projector`. `resolve` applies a preset; this constructor
    does not.

    Raises:
        SettingError: If a setting has another type or is out of range, or if settings contradict each other. One line.

    References:
        Jing et al. (2022), arXiv:2110.09348.

    Examples:
        >>> Recipe(data="digits", epochs=20).warmup
        2.0
        >>> Recipe(data="digits", lr=0)
        Traceback (most recent call last):
            ...
        dyncollapse.runtime.settings.SettingError: lr is 0.0; it must be between 1e-15 and 1e15
    """

    preset: PresetName = setting(
        "paper-imagenet",
        "Named defaults for the other settings; any setting that is given overrides them.",
        group="data",
        unset="paper-imagenet; that of `data` digits and cifar10",
    )
    data: Text = setting(
        "",
        "Folder with train/CLASS/*.jpg and val/ or test/; cifar10, which is downloaded once; digits; hf:ORG/NAME, a "
        "dataset of Hugging Face, or a folder of one; or webdataset shards: a folder, or train-{0000..0099}.tar.",
        group="data",
        unset="required",
    )
    images: Whole | None = setting(
        None,
        "Training images to use, drawn at random, the same ones for every seed.",
        group="data",
        unit="images",
        low=2,
        high=10**9,
        unset="all",
    )
    pipeline: Pipeline = setting(
        "mixed",
        "workers: worker processes make the views; memory: the device makes them from images in its memory; "
        "mixed: workers crop, the device does the rest.",
        group="data",
    )
    augment: Augmentation = setting("imagenet", "Augmentations of the two views.", group="augmentation")
    crop_scale: Number | None = setting(
        None,
        "Smallest area of a crop, as a fraction of the image's.",
        group="augmentation",
        low=SMALLEST_CROP,
        high=1,
        unset="that of `augment`",
    )
    colour: Number = setting(
        1.0,
        "Factor on the strengths of the colour jitters of `augment`.",
        group="augmentation",
        low=0,
        high=MOST_COLOUR,
    )
    image_size: Whole = setting(
        224, "Side of a view.", group="augmentation", unit="pixels", low=NARROWEST_IMAGE, high=WIDEST_IMAGE
    )
    arch: Text = setting(
        "resnet50",
        "Backbone: a timm model; or a small one: resnet10-narrow for digits, resnet10-half-N with N outputs.",
        group="encoder",
    )
    stem: Stem = setting("imagenet", STEM_WORDS, group="encoder")
    method: Method = setting(
        "simclr", "simclr, or directclr, which is simclr with the projector low-rank-diagonal.", group="projector"
    )
    projector: Projector | None = setting(
        None, "Projector between representation and loss.", group="projector", unset="mlp"
    )
    d0: Whole | None = setting(
        None,
        "Dimensions that a sub-vector keeps.",
        group="projector",
        unit="dimensions",
        low=1,
        high=WIDEST,
        unset="0.176 of the representation's dimensions, as 360 of 2048",
    )
    hidden_dim: Whole | None = setting(
        None,
        "Hidden width of the projector mlp.",
        group="projector",
        unit="dimensions",
        low=1,
        high=WIDEST,
        unset="the dimension of the representation",
    )
    out_dim: Whole | None = setting(
        None,
        "Outputs of the projectors mlp and linear.",
        group="projector",
        unit="dimensions",
        low=1,
        high=WIDEST,
        unset="128, or the dimension of the representation if that is less",
    )
    temperature: Number = setting(0.1, "Temperature of the contrastive loss.", group="loss", low=SMALL, high=LARGE)
    epochs: Whole = setting(100, "Passes over the data.", group="optimisation", unit="epochs", low=1, high=MOST_EPOCHS)
    batch_size: Whole = setting(
        4096,
        "Pairs of views in a batch, over all processes.",
        group="optimisation",
        unit="pairs",
        low=2,
        high=10**9,
    )
    optimiser: Optimiser = setting(
        "lars",
        "Optimiser; lars is timm's, which leaves norms and biases without adapted rates and weight decay.",
        group="optimisation",
    )
    lr: Number = setting(4.8, "Peak learning rate, for the whole batch.", group="optimisation", low=SMALL, high=LARGE)
    momentum: Number = setting(0.9, "Momentum of lars and sgd.", group="optimisation", low=0, below=1)
    weight_decay: Number = setting(
        1e-6, "Weight decay of matrices and filters.", group="optimisation", low=0, high=LARGE
    )
    warmup_epochs: Number | None = setting(
        None,
        "Linear warm-up of the learning rate, before a cosine to 0.",
        group="optimisation",
        unit="epochs",
        low=0,
        high=MOST_EPOCHS,
        unset="a tenth of the epochs",
    )
    precision: Precision | None = setting(
        None,
        "Precision of the network; the loss is always computed in float32.",
        group="run",
        unset="bfloat16 on GPUs and processors that compute in it (since Ampere; AMX, AVX512_BF16), else float32",
    )
    seed: Whole = setting(0, "Seed of weights, batches and views.", group="run", low=0, high=MOST_SEED)
    device: Text = setting(
        "cuda",
        "cpu, cuda or cuda:N; under torchrun each process takes its own GPU.",
        group="run",
        pattern=DEVICE,
        must=DEVICE_WORDS,
    )
    workers: Whole = setting(
        8,
        "Worker processes that read images, per training process; 0 reads them in the training process.",
        group="run",
        unit="processes",
        low=0,
        high=MOST_WORKERS,
    )
    threads: Whole | None = setting(
        None,
        "CPU threads of each process.",
        group="run",
        unit="threads",
        low=1,
        high=MOST_WORKERS,
        unset="the usable cores, shared by the processes on this machine",
    )
    compile: bool = setting(False, "Compile the encoder with torch.compile.", group="run")
    deterministic: bool = setting(
        False, "Use only kernels that give the same bits every time, also on a GPU; slower.", group="run"
    )
    strict: bool = setting(False, "Stop at the first image that cannot be read, instead of skipping it.", group="run")
    log_every: Whole = setting(
        50, "Steps between lines of log.jsonl.", group="run", unit="steps", low=1, high=MOST_STEPS
    )
    monitor_every: Whole = setting(
        1560, "Steps between lines of monitor.jsonl; 0 for none.", group="run", unit="steps", low=0, high=MOST_STEPS
    )
    tensorboard: bool = setting(True, "Write the logs for TensorBoard, too, if it is installed.", group="run")
    checkpoint_every: Whole = setting(
        1000, "Steps between checkpoints.", group="run", unit="steps", low=1, high=MOST_STEPS
    )
    keep: Whole = setting(2, "Checkpoints to keep.", group="run", unit="files", low=1, high=10**6)

    def __post_init__(self) -> None:
        """Check settings against each other."""
        _check_together(self)

    @property
    def head(self) -> str:
        """The projector's name; low-rank-diagonal for the method directclr."""
        return head_of(self.method, self.projector)

    @property
    def warmup(self) -> float:
        """Epochs of warm-up; if not given, a tenth of all epochs, as the paper's 10 of 100."""
        return self.epochs / 10 if self.warmup_epochs is None else self.warmup_epochs

    def as_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        return asdict(self)


def head_of(method: str, projector: str | None) -> str:
    """The projector's name, which the method may choose."""
    return "low-rank-diagonal" if method == "directclr" else projector or "mlp"


def recorded(values: Any) -> Recipe:
    """Make a recipe from what a run's file holds, whichever version began the run.

    Args:
        values: What was read.

    Returns:
        The recipe.

    Raises:
        SettingError: For anything but a recipe's settings.
    """
    return from_values(Recipe, ADDED_LATER | dict(values) if isinstance(values, Mapping) else values)


def _check_together(recipe: Recipe) -> None:
    if not recipe.data:
        raise SettingError("`data` is not given; name a folder of images, cifar10, or digits")
    if recipe.method == "directclr" and recipe.projector not in (None, "low-rank-diagonal"):
        raise SettingError(
            f"`projector` is {recipe.projector!r}, but directclr fixes it to low-rank-diagonal; "
            f"drop it or use `method` simclr"
        )
    if recipe.optimiser == "lars" and recipe.weight_decay == 0:
        raise SettingError("`weight_decay` is 0, with which timm's lars adapts no rate; give a small one, such as 1e-6")
    if recipe.warmup >= recipe.epochs:
        raise SettingError(f"`warmup_epochs` is {recipe.warmup_epochs} of `epochs` {recipe.epochs}; it must be less")
    for name, heads in WIDTHS.items():
        value = getattr(recipe, name)
        if value is not None and recipe.head not in heads:
            raise SettingError(
                f"`{name}` is {value}, but the projector {recipe.head} has none; it is for {', '.join(heads)}"
            )
