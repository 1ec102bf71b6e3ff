"""Every setting of a pretraining run in one immutable record: presets, files, defaults, validation."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dyncollapse.runtime.files import printable
from dyncollapse.runtime.settings import DEVICE, SettingError, check_settings, kinds_of, option, quoted, setting, typed
from dyncollapse.runtime.untrusted import read_text

METHODS = ("simclr", "directclr")
PROJECTORS = (
    "mlp",
    "linear",
    "none",
    "diagonal",
    "orthogonal",
    "low-rank",
    "low-rank-diagonal",
    "random-subvector",
)
SUBVECTORS = ("low-rank", "low-rank-diagonal", "random-subvector")  # the loss sees d0 dimensions of the representation
# Which projectors have which width.
WIDTHS = {"d0": SUBVECTORS, "out_dim": ("mlp", "linear"), "hidden_dim": ("mlp",)}
STEMS = ("imagenet", "cifar", "cifar-padding-2")
AUGMENTATIONS = ("imagenet", "cifar", "digits")
PIPELINES = ("mixed", "workers", "memory")
OPTIMISERS = ("lars", "sgd", "adamw")
PRECISIONS = ("float32", "bfloat16", "float16")
PRESETS = ("paper-imagenet", "cifar10", "digits")
MOST_TOML = 2**14  # bytes: tomllib takes 0.5 seconds for a dotted key of this length, and 14 for one 4 times as long


# Beyond these, squares leave the range of float32.
SMALL, LARGE = 1e-15, 1e15
# Widths, passes, counts of workers and steps beyond which a number is a slip: what they take is checked besides.
WIDEST, MOST_EPOCHS, MOST_WORKERS, MOST_STEPS = 10**6, 10**6, 10**3, 10**12


@dataclass(frozen=True)
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

    preset: str = setting("paper-imagenet", "Sets the others; what you add changes it.", allowed=PRESETS)
    data: str = setting("", "Folder with train/CLASS/*.jpg and val/ or test/; a CIFAR-10 folder; or digits.")
    arch: str = setting("resnet50", "Backbone, a timm model; resnet10-narrow is a small one for digits.")
    stem: str = setting("imagenet", "First layers: 7x7 and pooling, or 3x3 without for small images.", allowed=STEMS)
    method: str = setting("simclr", "directclr is simclr with the projector low-rank-diagonal.", allowed=METHODS)
    projector: str | None = setting(None, "Between representation and loss.  [mlp]", allowed=PROJECTORS)
    d0: int | None = setting(
        None,
        "Dimensions that a sub-vector keeps.  [0.176 R: 360 of 2048]",
        low=1,
        high=WIDEST,
        unit="dimensions",
    )
    hidden_dim: int | None = setting(
        None, "Hidden width of mlp.  [R, the representation's]", low=1, high=WIDEST, unit="dimensions"
    )
    out_dim: int | None = setting(
        None, "Output of mlp and linear.  [128, or R if that is less]", low=1, high=WIDEST, unit="dimensions"
    )
    temperature: float = setting(0.1, "Of the contrastive loss.", low=SMALL, high=LARGE)
    augment: str = setting("imagenet", "The two views' augmentations.", allowed=AUGMENTATIONS)
    image_size: int = setting(224, "Side of a view, in pixels.", low=4, high=4096, unit="pixels")
    pipeline: str = setting(
        "mixed",
        "Worker processes decode and crop, the device does the rest; or workers do all; or memory, the device all.",
        allowed=PIPELINES,
    )
    epochs: int = setting(100, "Passes over the data.", low=1, high=MOST_EPOCHS)
    batch_size: int = setting(4096, "Pairs of views in a batch, over all processes.", low=2, high=10**9, unit="pairs")
    optimiser: str = setting(
        "lars", "lars is timm's: norms and biases neither adapted nor decayed.", allowed=OPTIMISERS
    )
    lr: float = setting(4.8, "Peak learning rate, for the whole batch.", low=SMALL, high=LARGE)
    momentum: float = setting(0.9, "Of lars and sgd.", low=0, below=1)
    weight_decay: float = setting(1e-6, "Of matrices and filters.", low=0, high=LARGE)
    warmup_epochs: float | None = setting(
        None, "Linear rise of the learning rate; then a cosine to 0.  [a tenth of the epochs]", low=0, high=MOST_EPOCHS
    )
    precision: str = setting("bfloat16", "Of the network; the loss is always float32.", allowed=PRECISIONS)
    seed: int = setting(0, "Seed of the start, the batches and the views.", low=0, high=2**63 - 1)
    device: str = setting("cuda", "cpu, cuda or cuda:N; under torchrun each process takes its own.", form=DEVICE)
    workers: int = setting(
        8, "Worker processes per process that read images.", low=0, high=MOST_WORKERS, unit="processes"
    )
    threads: int = setting(1, "CPU threads of each process.", low=1, high=MOST_WORKERS, unit="threads")
    compile: bool = setting(False, "torch.compile the encoder.")
    deterministic: bool = setting(False, "Only kernels that give the same bits each time, on a GPU too; slower.")
    strict: bool = setting(False, "Stop at an image that cannot be read, instead of leaving it out.")
    log_every: int = setting(50, "Steps between lines of log.jsonl.", low=1, high=MOST_STEPS, unit="steps")
    monitor_every: int = setting(
        1560, "Steps between lines of monitor.jsonl; 0 for none.", low=0, high=MOST_STEPS, unit="steps"
    )
    tensorboard: bool = setting(True, "Show the journals in TensorBoard, too, where it is installed.")
    checkpoint_every: int = setting(1000, "Steps between checkpoints.", low=1, high=MOST_STEPS, unit="steps")
    keep: int = setting(2, "Checkpoints that are kept.", low=1, high=10**6, unit="files")

    def __post_init__(self) -> None:
        """Check every setting, and what they say together."""
        check_settings(self)
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

    Raises SettingError, one line, for unknown names, wrong types, and values that contradict each other.
    """
    written = {} if config is None else _read_toml(config)
    mine = {name: value for name, value in given.items() if value is not None}
    own = written | mine
    if unknown := own.keys() - kinds_of(Recipe):
        raise SettingError(f"there is no setting {quoted(min(unknown))}; settings are {', '.join(kinds_of(Recipe))}")
    preset = own.get("preset", "digits" if own.get("data") == "digits" else "paper-imagenet")
    if preset not in PRESETS:
        raise SettingError(f"`preset` is {quoted(preset)}; choose one of {', '.join(PRESETS)}")
    settings = {"preset": preset, **SETTINGS_OF_PRESETS[preset], **own}
    head = _head(settings.get("method", "simclr"), settings.get("projector"))
    # A preset's widths are for the projectors that have them.
    settings |= {name: None for name, heads in WIDTHS.items() if head not in heads and name not in own}
    recipe = Recipe(**settings)
    if recipe.optimiser == "adamw" and "momentum" in own:
        raise SettingError("`momentum` is of lars and sgd, not of adamw; drop it")
    return recipe


def _read_toml(path: Path) -> dict[str, Any]:
    shown = f"`config` {printable(str(path))}"
    try:
        found = tomllib.loads(read_text(path, MOST_TOML))
    except OSError as error:
        raise SettingError(f"{shown} cannot be read ({error.strerror})") from None
    except RecursionError:
        raise SettingError(f"{shown} is no TOML of settings (it is nested too deeply)") from None
    except ValueError as error:  # of TOML, of UTF-8, or a number of too many digits
        raise SettingError(f"{shown} is no TOML ({printable(str(error).splitlines()[0])})") from None
    kinds = kinds_of(Recipe)
    settings: dict[str, Any] = {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in kinds:
            raise SettingError(f"{shown} has {quoted(key)}; settings are {', '.join(kinds)}, at the top level")
        if name in settings:
            raise SettingError(f"{shown} has {name} twice, as {option(name)[2:]} and {name}; keep one of them")
        try:
            settings[name] = typed(name, value, kinds[name])
        except SettingError as error:
            raise SettingError(f"{shown}: {error}") from None
    return settings


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
