"""How an encoder is read from a checkpoint, which images it is given, and what is made of them."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from dyncollapse.bridge.recipe import NARROWEST_IMAGE, SPACES, WIDEST, WIDEST_IMAGE, Augmentation, Stem
from dyncollapse.runtime.records import (
    DEVICE,
    DEVICE_WORDS,
    MOST_EPOCHS,
    MOST_SEED,
    MOST_WORKERS,
    REQUIRED,
    Several,
    Text,
    Whole,
    record,
    setting,
)
from dyncollapse.runtime.settings import SettingError

Activation = Literal["relu", "gelu", "tanh", "silu", "leaky-relu", "elu", "selu", "sigmoid", "identity"]
Last = Literal["normalise", "relu", "gelu", "tanh", "silu", "leaky-relu", "elu", "selu", "sigmoid", "identity"]
Split = Literal["train", "test"]
EmbeddedViews = Literal["clean", "one-sided", "two-sided"]
Saved = Literal["representation", "embedding", "both"]
Classifier = Literal["logistic", "sgd"]
VIEWS: tuple[str, ...] = get_args(EmbeddedViews)
# Training images up to which the probe is by logistic regression, unless asked for otherwise: all features are held
# in memory, 2048 of them 1.6 GB in float64.
LOGISTIC_MOST = 100_000
SGD_EPOCHS = 100
Renaming = Annotated[Text, Field(pattern=r"(?s)^[^=]*=.*$")]


@record
class EncoderOptions:
    """What the user says of a checkpoint and of the images that its encoder is given.

    Raises:
        SettingError: One line for an option of another type or out of range.

    Example:
        >>> EncoderOptions(Path("resnet50.pth"), prefix_map=("model=module", "neck=")).renames
        {'model': 'module', 'neck': ''}
    """

    checkpoint: Path = setting(REQUIRED, "A file, or a run's folder.", group="encoder")
    data: Text | None = setting(
        None, "Folder of images, or digits.", group="data", unset="the images that the run was trained on"
    )
    augment: Augmentation | None = setting(
        None, "Augmentations that the encoder was trained with.", group="data", unset="by its `stem`"
    )
    image_size: Whole | None = setting(
        None,
        "Side of the images that the encoder takes.",
        group="data",
        unit="pixels",
        low=NARROWEST_IMAGE,
        high=WIDEST_IMAGE,
        unset="its own; 224, or 32 for small stems",
    )
    arch: Text | None = setting(
        None, "timm model of a checkpoint by others.", group="encoder", unset="detected among ResNets"
    )
    stem: Stem | None = setting(None, "Its first layers.", group="encoder", unset="detected")
    prefix_map: Several[Renaming] = setting(
        (),
        "Replace the beginning OLD of its tensors' names; repeatable.",
        group="encoder",
        must="write OLD=NEW",
        metavar="OLD=NEW",
        repeat=True,
    )
    trust_checkpoint: bool = setting(False, "Unpickle the file, which runs any code in it.", group="encoder")
    d0: Whole | None = setting(
        None,
        "Its embedding is the first d0 dimensions of the representation (DirectCLR).",
        group="projector",
        unit="dimensions",
        low=1,
        high=WIDEST,
    )
    projector_prefix: Text | None = setting(
        None,
        "Beginning of its projector's tensors' names, even of one linear layer named fc.",
        group="projector",
        metavar="NAME",
        unset="detected",
    )
    projector_activation: Activation | None = setting(
        None, "Activation between the projector's layers.", group="projector", unset="by its layout, or relu"
    )
    projector_last: Last | None = setting(
        None,
        "What follows the projector's last layer: normalise, division by the norm, or an activation.",
        group="projector",
        unset="nothing",
    )
    device: Text = setting("cpu", "cpu, cuda or cuda:N.", group="run", pattern=DEVICE, must=DEVICE_WORDS)
    threads: Whole = setting(1, "CPU threads.", group="run", unit="threads", low=1, high=MOST_WORKERS)
    workers: Whole = setting(
        0,
        "Worker processes that read images; 0: this process reads them.",
        group="run",
        unit="processes",
        low=0,
        high=MOST_WORKERS,
    )
    batch_size: Whole = setting(256, "Images at a time.", group="run", unit="images", low=1, high=10**9)
    strict: bool = setting(False, "Stop at an image that cannot be read, instead of leaving it out.", group="run")
    seed: Whole = setting(0, "Seed of the augmented views.", group="run", low=0, high=MOST_SEED)

    @property
    def renames(self) -> dict[str, str]:
        """Beginnings of tensors' names and what replaces them."""
        return {old: new for old, _, new in (text.partition("=") for text in self.prefix_map)}

    def as_dict(self) -> dict[str, Any]:
        """All options as plain values for JSON."""
        return {**asdict(self), "checkpoint": str(self.checkpoint), "prefix_map": list(self.prefix_map)}


@record
class EmbedOptions:
    """Which of an encoder's spaces and views are saved, and of which images.

    Raises:
        SettingError: One line for an option of another type or out of range.

    Example:
        >>> EmbedOptions(space="embedding").spaces, EmbedOptions().spaces
        (('embedding',), ('representation', 'embedding'))
    """

    space: Saved = setting(
        "both",
        "Which space to save: representation, before the projector; embedding, after it; or both.",
        group="embeddings",
    )
    split: Split | None = setting(None, "Which images.", group="data", unset="test if there are any, else train")
    views: EmbeddedViews = setting(
        "clean",
        "clean: the plain images; one-sided: an augmented view of each besides; two-sided: two augmented views.",
        group="embeddings",
        unset="clean: one view is enough to count dimensions",
    )

    @property
    def spaces(self) -> tuple[str, ...]:
        """The spaces by name."""
        return SPACES if self.space == "both" else (self.space,)


@record
class ProbeOptions:
    """How a linear probe is trained, and on which dimensions.

    Raises:
        SettingError: One line for an option of another type or out of range, and for epochs of logistic regression.

    Example:
        >>> ProbeOptions(epochs=5).choose(images=1000), ProbeOptions().choose(images=1000)
        ('sgd', 'logistic')
    """

    classifier: Classifier | None = setting(
        None,
        "logistic: regression on stored representations of plain images; sgd: trained on new crops and flips.",
        group="probe",
        unset=f"logistic up to {LOGISTIC_MOST} images, sgd beyond",
        former="method",
    )
    subvector: Whole | None = setting(
        None,
        "Probe the first N dimensions only.",
        group="probe",
        unit="dimensions",
        low=1,
        high=WIDEST,
        unset="all",
        metavar="N",
    )
    epochs: Whole | None = setting(
        None, "Epochs of sgd.", group="probe", unit="epochs", low=1, high=MOST_EPOCHS, unset=f"{SGD_EPOCHS} epochs"
    )

    def __post_init__(self) -> None:
        """Check what the options say together."""
        if self.classifier == "logistic" and self.epochs is not None:
            raise SettingError(f"`epochs` is {self.epochs}, but `classifier` logistic has none; drop one of them")

    def choose(self, images: int) -> str:
        """The classifier for so many training images."""
        return self.classifier or ("logistic" if images <= LOGISTIC_MOST and self.epochs is None else "sgd")
