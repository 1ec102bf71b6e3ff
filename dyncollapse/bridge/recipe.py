"""Every setting of a pretraining run in one immutable record: presets, files, defaults, validation."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
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
    check_value,
    record,
    setting,
    settings_of,
)
from dyncollapse.runtime.settings import SettingError, quoted
from dyncollapse.runtime.settings_file import by_keys, read_toml

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
Stem = Literal["imagenet", "cifar", "cifar-padding-2"]
Augmentation = Literal["imagenet", "cifar", "digits"]
Pipeline = Literal["mixed", "workers", "memory"]
Optimiser = Literal["lars", "sgd", "adamw"]
Precision = Literal["float32", "bfloat16", "float16"]
PresetName = Literal["paper-imagenet", "cifar10", "digits"]
PROJECTORS: tuple[str, ...] = get_args(Projector)
STEMS: tuple[str, ...] = get_args(Stem)
AUGMENTATIONS: tuple[str, ...] = get_args(Augmentation)
PIPELINES: tuple[str, ...] = get_args(Pipeline)
PRESETS: tuple[str, ...] = get_args(PresetName)
SUBVECTORS = ("low-rank", "low-rank-diagonal", "random-subvector")  # the loss sees d0 dimensions of the representation
# Which projectors have which width.
WIDTHS = {"d0": SUBVECTORS, "out_dim": ("mlp", "linear"), "hidden_dim": ("mlp",)}

# Widths, sides of images in pixels and counts of steps beyond which a number is a slip: what they take is checked
# besides. An image of the largest side takes 200 MB as floats.
WIDEST, NARROWEST_IMAGE, WIDEST_IMAGE, MOST_STEPS = 10**6, 4, 4096, 10**12


@record
class Recipe:
    """One pretraining run. The defaults are the paper's for ImageNet (Appendix D, Section 6) as far as it gives them.

    Sizes left at None follow from the representation's dimension R (`projectors.build_projector`).

    Raises:
        SettingError: One line for a setting of another type or out of range, and for settings that contradict
            each other.

    Example:
        >>> Recipe(data="digits", epochs=20).warmup
        2.0
        >>> Recipe(data="digits", lr=0)
        Traceback (most recent call last):
            ...
        dyncollapse.runtime.settings.SettingError: lr is 0.0; it must be between 1e-15 and 1e15
    """

    preset: PresetName = setting(
        "paper-imagenet",
        "Sets the others; what you add changes it.",
        group="data",
        unset="paper-imagenet; digits for `data` digits",
    )
    data: Text = setting(
        "",
        "Folder with train/CLASS/*.jpg and val/ or test/; a CIFAR-10 folder; or digits.",
        group="data",
        unset="required",
    )
    pipeline: Pipeline = setting(
        "mixed",
        "Worker processes decode and crop, the device does the rest; or workers do all; or memory, the device all.",
        group="data",
    )
    augment: Augmentation = setting("imagenet", "The two views' augmentations.", group="augmentation")
    image_size: Whole = setting(
        224, "Side of a view.", group="augmentation", unit="pixels", low=NARROWEST_IMAGE, high=WIDEST_IMAGE
    )
    arch: Text = setting(
        "resnet50", "Backbone, a timm model; resnet10-narrow is a small one for digits.", group="encoder"
    )
    stem: Stem = setting("imagenet", "First layers: 7x7 and pooling, or 3x3 without for small images.", group="encoder")
    method: Method = setting("simclr", "directclr is simclr with the projector low-rank-diagonal.", group="projector")
    projector: Projector | None = setting(None, "Between representation and loss.", group="projector", unset="mlp")
    d0: Whole | None = setting(
        None,
        "Dimensions that a sub-vector keeps.",
        group="projector",
        unit="dimensions",
        low=1,
        high=WIDEST,
        unset="0.176 R: 360 of 2048",
    )
    hidden_dim: Whole | None = setting(
        None,
        "Hidden width of mlp.",
        group="projector",
        unit="dimensions",
        low=1,
        high=WIDEST,
        unset="R, the representation's",
    )
    out_dim: Whole | None = setting(
        None,
        "Output of mlp and linear.",
        group="projector",
        unit="dimensions",
        low=1,
        high=WIDEST,
        unset="128, or R if that is less",
    )
    temperature: Number = setting(0.1, "Of the contrastive loss.", group="loss", low=SMALL, high=LARGE)
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
        "lars", "lars is timm's: norms and biases neither adapted nor decayed.", group="optimisation"
    )
    lr: Number = setting(4.8, "Peak learning rate, for the whole batch.", group="optimisation", low=SMALL, high=LARGE)
    momentum: Number = setting(0.9, "Of lars and sgd.", group="optimisation", low=0, below=1)
    weight_decay: Number = setting(1e-6, "Of matrices and filters.", group="optimisation", low=0, high=LARGE)
    warmup_epochs: Number | None = setting(
        None,
        "Linear rise of the learning rate; then a cosine to 0.",
        group="optimisation",
        unit="epochs",
        low=0,
        high=MOST_EPOCHS,
        unset="a tenth of the epochs",
    )
    precision: Precision = setting("bfloat16", "Of the network; the loss is always float32.", group="run")
    seed: Whole = setting(0, "Seed of the start, the batches and the views.", group="run", low=0, high=MOST_SEED)
    device: Text = setting(
        "cuda",
        "cpu, cuda or cuda:N; under torchrun each process takes its own.",
        group="run",
        pattern=DEVICE,
        must=DEVICE_WORDS,
    )
    workers: Whole = setting(
        8,
        "Worker processes that read images, for each process that trains; 0: that process reads them.",
        group="run",
        unit="processes",
        low=0,
        high=MOST_WORKERS,
    )
    threads: Whole = setting(1, "CPU threads of each process.", group="run", unit="threads", low=1, high=MOST_WORKERS)
    compile: bool = setting(False, "torch.compile the encoder.", group="run")
    deterministic: bool = setting(
        False, "Only kernels that give the same bits each time, on a GPU too; slower.", group="run"
    )
    strict: bool = setting(False, "Stop at an image that cannot be read, instead of leaving it out.", group="run")
    log_every: Whole = setting(
        50, "Steps between lines of log.jsonl.", group="run", unit="steps", low=1, high=MOST_STEPS
    )
    monitor_every: Whole = setting(
        1560, "Steps between lines of monitor.jsonl; 0 for none.", group="run", unit="steps", low=0, high=MOST_STEPS
    )
    tensorboard: bool = setting(True, "Show the journals in TensorBoard, too, where it is installed.", group="run")
    checkpoint_every: Whole = setting(
        1000, "Steps between checkpoints.", group="run", unit="steps", low=1, high=MOST_STEPS
    )
    keep: Whole = setting(2, "Checkpoints that are kept.", group="run", unit="files", low=1, high=10**6)

    def __post_init__(self) -> None:
        """Check what the settings say together."""
        _check_together(self)

    @property
    def head(self) -> str:
        """The projector, with the method's name for it resolved."""
        return _head(self.method, self.projector)

    @property
    def warmup(self) -> float:
        """Epochs of warm-up: the paper's 10 of 100 in proportion, where they are not given."""
        return self.epochs / 10 if self.warmup_epochs is None else self.warmup_epochs

    def as_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        return asdict(self)


def _head(method: str, projector: str | None) -> str:
    return "low-rank-diagonal" if method == "directclr" else projector or "mlp"


# What differs from the defaults; CIFAR-10's SGD at 0.06 per 256 pairs is that of MoCo's demonstration on it.
SETTINGS_OF_PRESETS: dict[str, dict[str, Any]] = {
    "paper-imagenet": {},
    "cifar10": {
        "arch": "resnet18",
        "stem": "cifar",
        "augment": "cifar",
        "image_size": 32,
        "pipeline": "memory",
        "epochs": 200,
        "batch_size": 512,
        "optimiser": "sgd",
        "lr": 0.12,
        "weight_decay": 5e-4,
        "workers": 2,
        "monitor_every": 490,
        "checkpoint_every": 970,
    },
    "digits": {
        "data": "digits",
        "arch": "resnet10-narrow",
        "stem": "cifar",
        "augment": "digits",
        "image_size": 8,
        "out_dim": 64,
        "pipeline": "memory",
        "epochs": 60,
        "batch_size": 128,
        "optimiser": "sgd",
        "lr": 0.3,
        "weight_decay": 1e-4,
        "precision": "float32",
        "device": "cpu",
        "workers": 0,
        "log_every": 20,
        "monitor_every": 200,
        "checkpoint_every": 200,
    },
}


def resolve(given: Mapping[str, Any], config: Path | None = None) -> Recipe:
    """Settings as a recipe: the preset's, then those of a TOML file, then `given`; None counts as not given.

    Raises SettingError, one line, for unknown names, wrong types, and values that contradict each other. It names what
    comes from the file by the file and its key.
    """
    known = settings_of(Recipe)
    given = {name: value for name, value in given.items() if value is not None}
    if unknown := given.keys() - known.keys():
        raise SettingError(f"there is no setting {quoted(min(unknown, key=str))}; settings are {', '.join(known)}")
    given = {name: check_value(Recipe, name, value) for name, value in given.items()}
    written = {} if config is None else read_toml(Recipe, config)
    own = {name: value for name, (_, value) in written.items()} | given
    preset = own.get("preset", "digits" if own.get("data") == "digits" else "paper-imagenet")
    settings = {"preset": preset, **SETTINGS_OF_PRESETS[preset], **own}
    head = _head(settings.get("method", "simclr"), settings.get("projector"))
    # A preset's widths are for the projectors that have them.
    settings |= {name: None for name, heads in WIDTHS.items() if head not in heads and name not in own}
    try:
        recipe = Recipe(**settings)
        if recipe.optimiser == "adamw" and "momentum" in own:
            raise SettingError("`momentum` is of lars and sgd, not of adamw; drop it")
    except SettingError as error:
        if config is None:
            raise
        keys = {name: key for name, (key, _) in written.items() if name not in given}
        raise by_keys(error, config, keys) from None
    return recipe


def _check_together(recipe: Recipe) -> None:
    if not recipe.data:
        raise SettingError("`data` is not given; name a folder of images, or digits")
    if recipe.method == "directclr" and recipe.projector not in (None, "low-rank-diagonal"):
        raise SettingError(
            f"`projector` is {recipe.projector!r}, but directclr has none: it is low-rank-diagonal; "
            f"drop it or use `method` simclr"
        )
    if recipe.optimiser == "lars" and recipe.weight_decay == 0:
        raise SettingError("`weight_decay` is 0, with which timm's lars adapts no rate; give a small one, as 1e-6")
    if recipe.warmup >= recipe.epochs:
        raise SettingError(f"`warmup_epochs` is {recipe.warmup_epochs} of `epochs` {recipe.epochs}; it must be less")
    for name, heads in WIDTHS.items():
        value = getattr(recipe, name)
        if value is not None and recipe.head not in heads:
            raise SettingError(
                f"`{name}` is {value}, but the projector {recipe.head} has none; it is for {', '.join(heads)}"
            )
