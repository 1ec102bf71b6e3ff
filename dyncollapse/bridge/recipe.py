"""Every setting of a pretraining run in one immutable record: presets, files, defaults, validation."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from dyncollapse.untrusted import read_text

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


def _setting(default: Any, text: str, allowed: tuple[str, ...] = (), kind: type | None = None) -> Any:
    kind = kind or type(default)
    return field(default=default, metadata={"help": text, "allowed": allowed, "kind": kind})


@dataclass(frozen=True)
class Recipe:
    """One pretraining run. The defaults are the paper's for ImageNet (Appendix D, Section 6), ours where it has none.

    Sizes left at None follow from the representation's dimension R (`projectors.build_projector`).
    """

    preset: str = _setting("paper-imagenet", "Sets the others; what you add changes it.", PRESETS)
    data: str = _setting("", "Folder with train/CLASS/*.jpg and val/ or test/; a CIFAR-10 folder; or digits.")
    arch: str = _setting("resnet50", "Backbone, a timm model; resnet10-narrow is a small one for digits.")
    stem: str = _setting("imagenet", "First layers: 7x7 and pooling, or 3x3 without for small images.", STEMS)
    method: str = _setting("simclr", "directclr is simclr with the projector low-rank-diagonal.", METHODS)
    projector: str | None = _setting(None, "Between representation and loss.  [mlp]", PROJECTORS, str)
    d0: int | None = _setting(None, "Dimensions that a sub-vector keeps.  [0.176 R: 360 of 2048]", (), int)
    hidden_dim: int | None = _setting(None, "Hidden width of mlp.  [R, the representation's]", (), int)
    out_dim: int | None = _setting(None, "Output of mlp and linear.  [128, or R if that is less]", (), int)
    temperature: float = _setting(0.1, "Of the contrastive loss.")
    augment: str = _setting("imagenet", "The two views' augmentations.", AUGMENTATIONS)
    image_size: int = _setting(224, "Side of a view, in pixels.")
    pipeline: str = _setting(
        "mixed",
        "Worker processes decode and crop, the device does the rest; or workers do all; or memory, the device all.",
        PIPELINES,
    )
    epochs: int = _setting(100, "Passes over the data.")
    batch_size: int = _setting(4096, "Pairs of views in a batch, over all processes.")
    optimiser: str = _setting("lars", "lars is timm's: norms and biases neither adapted nor decayed.", OPTIMISERS)
    lr: float = _setting(4.8, "Peak learning rate, for the whole batch.")
    momentum: float = _setting(0.9, "Of lars and sgd.")
    weight_decay: float = _setting(1e-6, "Of matrices and filters.")
    warmup_epochs: float | None = _setting(
        None, "Linear rise of the learning rate; then a cosine to 0.  [a tenth of the epochs]", (), float
    )
    precision: str = _setting("bfloat16", "Of the network; the loss is always float32.", PRECISIONS)
    seed: int = _setting(0, "Seed of the start, the batches and the views.")
    device: str = _setting("cuda", "cpu, cuda or cuda:N; under torchrun each process takes its own.")
    workers: int = _setting(8, "Worker processes per process that read images.")
    threads: int = _setting(1, "CPU threads of each process.")
    compile: bool = _setting(False, "torch.compile the encoder.")
    deterministic: bool = _setting(False, "Only kernels that give the same bits each time, on a GPU too; slower.")
    strict: bool = _setting(False, "Stop at an image that cannot be read, instead of leaving it out.")
    log_every: int = _setting(50, "Steps between lines of log.jsonl.")
    monitor_every: int = _setting(1560, "Steps between lines of monitor.jsonl; 0 for none.")
    tensorboard: bool = _setting(True, "Show the journals in TensorBoard, too, where it is installed.")
    checkpoint_every: int = _setting(1000, "Steps between checkpoints.")
    keep: int = _setting(2, "Checkpoints that are kept.")

    @property
    def head(self) -> str:
        """The projector, with the method's name for it resolved."""
        return "low-rank-diagonal" if self.method == "directclr" else self.projector or "mlp"

    @property
    def warmup(self) -> float:
        """Epochs of warm-up: the paper's 10 of 100 in proportion, where they are not given."""
        return self.epochs / 10 if self.warmup_epochs is None else self.warmup_epochs

    def as_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        return asdict(self)


# What differs from the defaults, ours; CIFAR-10's SGD at 0.06 per 256 pairs is that of MoCo's demonstration on it.
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

    Raises ValueError, one line, for unknown names, wrong types, and values that contradict each other.
    """
    written = {} if config is None else _read_toml(config)
    mine = {name: value for name, value in given.items() if value is not None}
    settings = written | mine
    preset = settings.get("preset", "digits" if settings.get("data") == "digits" else "paper-imagenet")
    if preset not in PRESETS:
        raise ValueError(f"--preset is {preset!r}; choose one of {', '.join(PRESETS)}")
    recipe = Recipe(**{"preset": preset, **SETTINGS_OF_PRESETS[preset], **settings})
    # A preset's widths are for the projectors that have them.
    unused: dict[str, Any] = {n: None for n, heads in WIDTHS.items() if recipe.head not in heads and n not in settings}
    recipe = replace(recipe, **unused)
    if recipe.optimiser == "adamw" and "momentum" in settings:
        raise ValueError("--momentum is of lars and sgd, not of adamw; drop it")
    check(recipe)
    return recipe


def option(name: str) -> str:
    """A setting as its option on the command line."""
    return f"--{name.replace('_', '-')}"


def settings_of() -> tuple[Field[Any], ...]:
    """The settings of a run, in order, each with its help, type and allowed values."""
    return fields(Recipe)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(read_text(path, MOST_TOML))
    except OSError as error:
        raise ValueError(f"--config {path} cannot be read ({error.strerror})") from None
    except RecursionError:
        raise ValueError(f"--config {path} is nested too deeply; write NAME = VALUE at the top level") from None
    except ValueError as error:
        raise ValueError(f"--config {path} is no TOML ({error})") from None
    known = {setting.name: setting for setting in fields(Recipe)}
    settings = {}
    for name, value in found.items():
        setting = known.get(name.replace("-", "_"))
        if setting is None:
            raise ValueError(f"--config {path} has {name!r}; settings are {', '.join(known)}, at the top level")
        kind = setting.metadata["kind"]
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"--config {path} has {name} = {value!r}; it takes a value of type {kind.__name__}")
        settings[setting.name] = value
    return settings


def check(recipe: Recipe) -> None:
    """Refuse what no run can do, whatever the data. Raises ValueError, one line that names the option."""
    for setting in fields(Recipe):
        value, allowed = getattr(recipe, setting.name), setting.metadata["allowed"]
        if allowed and value is not None and value not in allowed:
            raise ValueError(f"{option(setting.name)} is {value!r}; choose one of {', '.join(allowed)}")
    if not recipe.data:
        raise ValueError("--data is not given; name a folder of images, or digits")
    if recipe.method == "directclr" and recipe.projector not in (None, "low-rank-diagonal"):
        raise ValueError(
            f"--projector is {recipe.projector!r}, but directclr has none: it is low-rank-diagonal; "
            f"drop it or use --method simclr"
        )
    if recipe.batch_size == 1:
        raise ValueError("--batch-size is 1: a pair alone has no negatives; give at least 2")
    least: dict[str, float] = {
        "batch_size": 2,
        "image_size": 4,
        "epochs": 1,
        "threads": 1,
        "log_every": 1,
        "checkpoint_every": 1,
        "keep": 1,
    }
    least |= {"d0": 1, "hidden_dim": 1, "out_dim": 1, "workers": 0, "monitor_every": 0, "seed": 0}
    least |= {"lr": 0.0, "momentum": 0.0, "weight_decay": 0.0, "warmup_epochs": 0.0}
    for name, low in least.items():
        value = getattr(recipe, name)
        if value is not None and not low <= value < math.inf:
            raise ValueError(f"{option(name)} is {value}; it must be finite and at least {low}")
    if recipe.lr == 0 or recipe.momentum >= 1:
        raise ValueError(f"--lr is {recipe.lr} and --momentum {recipe.momentum}; lr must be above 0, momentum below 1")
    if not 0 < recipe.temperature < math.inf:
        raise ValueError(f"--temperature is {recipe.temperature}; it must be finite and above 0")
    if recipe.optimiser == "lars" and recipe.weight_decay == 0:
        raise ValueError("--weight-decay is 0, with which timm's lars adapts no rate; give a small one, as 1e-6")
    if recipe.seed >= 2**63:
        raise ValueError(f"--seed is {recipe.seed}; it must be below 2^63")
    if recipe.warmup >= recipe.epochs:
        raise ValueError(f"--warmup-epochs is {recipe.warmup_epochs} of --epochs {recipe.epochs}; it must be less")
    for name, heads in WIDTHS.items():
        value = getattr(recipe, name)
        if value is not None and recipe.head not in heads:
            raise ValueError(
                f"{option(name)} is {value}, but the projector {recipe.head} has none; it is for {', '.join(heads)}"
            )
