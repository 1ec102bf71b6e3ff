"""How an encoder is read from a checkpoint, and its images with it: the options of embed, diagnose and probe."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from dyncollapse.bridge.recipe import NARROWEST_IMAGE, WIDEST, WIDEST_IMAGE, Augmentation, Stem
from dyncollapse.runtime.records import (
    DEVICE,
    DEVICE_WORDS,
    MOST_SEED,
    MOST_WORKERS,
    REQUIRED,
    Several,
    Text,
    Whole,
    record,
    setting,
)

Activation = Literal["relu", "gelu", "tanh", "silu", "leaky-relu", "elu", "selu", "sigmoid", "identity"]
Last = Literal["normalise", "relu", "gelu", "tanh", "silu", "leaky-relu", "elu", "selu", "sigmoid", "identity"]
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
