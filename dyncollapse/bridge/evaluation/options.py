"""The options of `bridge embed`, `diagnose` and `probe` that say how a checkpoint and its images are read."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from dyncollapse.bridge.models.activations import Activation, Last
from dyncollapse.bridge.recipe import NARROWEST_IMAGE, STEM_WORDS, WIDEST, WIDEST_IMAGE, Augmentation, Stem
from dyncollapse.runtime.files import unmarked
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
from dyncollapse.runtime.settings import SettingError

Renaming = Annotated[Text, Field(pattern=r"(?s)^[^=]*=.*$")]


@record
class EncoderOptions:
    """How to read a checkpoint and which images to give to its encoder; each attribute is an option.

    Raises:
        SettingError: If an option has another type or is out of range. One line.

    Examples:
        >>> EncoderOptions(Path("resnet50.pth"), prefix_map=("model=module", "neck=")).renames
        {'model': 'module', 'neck': ''}
    """

    checkpoint: Path = setting(
        REQUIRED,
        "Checkpoint file, a run's folder, timm/NAME, hf-hub:ORG/NAME, or a folder with config.json and "
        "model.safetensors.",
        group="encoder",
    )
    data: Text | None = setting(
        None,
        "Folder of images, cifar10, digits, hf:ORG/NAME of Hugging Face, or .tar shards.",
        group="data",
        unset="the images that the run was trained on",
    )
    augment: Augmentation | None = setting(
        None, "Augmentations that the encoder was trained with.", group="data", unset="by its `stem` or image size"
    )
    image_size: Whole | None = setting(
        None,
        "Side of the images that the encoder takes.",
        group="data",
        unit="pixels",
        low=NARROWEST_IMAGE,
        high=WIDEST_IMAGE,
        unset="the checkpoint's own; else 224, or 32 for the cifar stems",
    )
    arch: Text | None = setting(
        None,
        "Name of the encoder in timm, for a file that another library wrote.",
        group="encoder",
        unset="detected among ResNets",
    )
    stem: Stem | None = setting(None, STEM_WORDS, group="encoder", unset="detected")
    prefix_map: Several[Renaming] = setting(
        (),
        "Replace OLD at the beginning of tensor names by NEW; OLD=unused leaves them out; repeatable.",
        group="encoder",
        must="write OLD=NEW",
        metavar="OLD=NEW",
        repeat=True,
    )
    trust_checkpoint: bool = setting(False, "Unpickle the file, which may run any code in it.", group="encoder")
    d0: Whole | None = setting(
        None,
        "Take the first d0 dimensions of the representation as the embedding (DirectCLR).",
        group="projector",
        unit="dimensions",
        low=1,
        high=WIDEST,
    )
    projector_prefix: Text | None = setting(
        None,
        "Beginning of the projector's tensor names; it may have a single linear layer.",
        group="projector",
        metavar="NAME",
        unset="detected",
    )
    projector_activation: Activation | None = setting(
        None, "Activation between the projector's layers.", group="projector", unset="that of its library, or relu"
    )
    projector_last: Last | None = setting(
        None,
        "What follows the projector's last layer: an activation, or normalise (division by the norm).",
        group="projector",
        unset="nothing",
    )
    device: Text = setting("cpu", "cpu, cuda or cuda:N.", group="run", pattern=DEVICE, must=DEVICE_WORDS)
    threads: Whole | None = setting(
        None, "CPU threads.", group="run", unit="threads", low=1, high=MOST_WORKERS, unset="the usable cores"
    )
    workers: Whole = setting(
        0,
        "Worker processes that read images; 0 reads them in this process.",
        group="run",
        unit="processes",
        low=0,
        high=MOST_WORKERS,
    )
    batch_size: Whole = setting(256, "Images at a time.", group="run", unit="images", low=1, high=10**9)
    strict: bool = setting(False, "Stop at the first image that cannot be read, instead of skipping it.", group="run")
    seed: Whole = setting(0, "Seed of the augmented views.", group="run", low=0, high=MOST_SEED)

    @property
    def renames(self) -> dict[str, str]:
        """Beginnings of tensor names and their replacements. Raises SettingError for two of one beginning."""
        pairs = [(old, new) for old, _, new in (text.partition("=") for text in self.prefix_map)]
        twice = [old for old, count in Counter(old for old, _ in pairs).items() if count > 1]
        if twice:
            raise SettingError(f"`prefix_map` {unmarked(twice[0])} is given twice; give each beginning once")
        return dict(pairs)

    def as_dict(self) -> dict[str, Any]:
        """All options as plain JSON values."""
        return {**asdict(self), "checkpoint": str(self.checkpoint), "prefix_map": list(self.prefix_map)}
