"""Image datasets of Hugging Face, by the library `datasets`: of the Hub, saved ones, and folders of parquet files."""

import glob
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from dyncollapse.bridge.data.hub_columns import columns_of, labels_of
from dyncollapse.bridge.data.hub_connection import offline_if_unreachable
from dyncollapse.bridge.data.pixels import Unreadable, read_rgb, rgb_of_bytes
from dyncollapse.bridge.data.splits import Data
from dyncollapse.runtime.extras import need
from dyncollapse.runtime.files import first_line, printable, read_json, unmarked
from dyncollapse.runtime.settings import SettingError

if TYPE_CHECKING:
    import datasets

HUB_MARK = "hf:"
HUB_NAME = re.compile(r"\w[\w.-]{0,95}(/\w[\w.-]{0,95})?", re.ASCII)
# Ways in which a dataset may be stored that hold images and run no code. The library's others are not for images.
FORMATS = ("parquet", "arrow", "imagefolder")
CACHE = "cache"  # any of these, found in the cache while the Hub cannot be reached
TRAIN, TESTS = "train", ("validation", "val", "valid", "test")
NEEDS = "`data` {} needs the library datasets"


@dataclass(frozen=True, eq=False)
class HubImages:
    """Images in a column of a dataset, each decoded to RGB by Pillow when it is read.

    Attributes:
        rows: The dataset, of which only the column of images is read, as bytes.
        column: The name of that column.
        numbers: The row of each image.
        labels: The class of each image; -1 without classes.
        title: What messages call the set.
        channels: Number of colour channels, 3.
    """

    rows: "datasets.Dataset"
    column: str
    numbers: Int[Tensor, " n"]
    labels: Int[Tensor, " n"]
    title: str
    channels: int = 3

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def name(self, index: int) -> str:
        """Name an image in messages.

        Args:
            index: Number of the image.

        Returns:
            The set's title and the number of the row, from 0.
        """
        return printable(f"{self.title} row {int(self.numbers[index])}")

    def read(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """Read and decode one image.

        Args:
            index: Number of the image.

        Returns:
            Its pixels, from 0 to 255.

        Raises:
            Unreadable: If the image is damaged, too large or missing.
            UnknownRange: If its values for black and white are unknown.
        """
        name = self.name(index)
        try:
            value = self.rows[int(self.numbers[index])][self.column]
        except Exception as error:  # files can be damaged in any way
            raise Unreadable(f"{name} cannot be read ({printable(first_line(error))})") from None
        value = {"bytes": value} if isinstance(value, bytes) else value
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (None, None)
        if content is not None:
            pixels = rgb_of_bytes(lambda: content, len(content), name)
        elif isinstance(path, str) and os.path.isabs(path):
            pixels = read_rgb(path)
        else:
            raise Unreadable(f"{name} holds no image")
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def take(self, kept: Int[Tensor, " k"]) -> "HubImages":
        """Select images.

        Args:
            kept: Numbers of images.

        Returns:
            The images with these numbers, in this order.
        """
        return HubImages(self.rows, self.column, self.numbers[kept], self.labels[kept], self.title, self.channels)


def check_hub_name(name: str) -> None:
    """Refuse a name that begins with hf: and can be no dataset. Raises SettingError."""
    source, config = _parted(name)
    if not (HUB_NAME.fullmatch(source) or os.path.isdir(source)) or "/" in (config or ""):
        raise SettingError(
            f"`data` {unmarked(name)} is no name of a dataset; write hf:ORG/NAME, hf:ORG/NAME:CONFIG, or hf:FOLDER"
        )
    need("datasets", "datasets", NEEDS.format(unmarked(name)))


def _parted(name: str) -> tuple[str, str | None]:
    """The dataset or folder, and the configuration, in hf:NAME, hf:NAME:CONFIG or the name of a folder."""
    whole = name.removeprefix(HUB_MARK)
    if os.path.isdir(whole):
        return whole, None
    source, _, config = whole.rpartition(":")
    return (source, config) if source else (whole, None)


def open_hub(name: str, tell: Callable[[str], object]) -> Data:
    """Open a dataset of the Hub, or a local folder of files as on the Hub.

    Args:
        name: hf:ORG/NAME, hf:ORG/NAME:CONFIG, hf:FOLDER, or a folder.
        tell: Called with lines on what is downloaded, and on choices among columns and splits.

    Returns:
        Training images, and test images if there are any.

    Raises:
        SettingError: If `datasets` is missing; if the dataset cannot be had, is not stored as FORMATS are, or has no
            images. One line.
    """
    library = _library(name)
    source, config = _parted(name)
    local = os.path.isdir(source)
    if local and glob.has_magic(place := os.path.realpath(source)):  # it would read other folders, or none
        raise SettingError(
            f"`data` {unmarked(name)} is {unmarked(place)}, and the library datasets takes *, ? and [ in names for "
            "patterns; rename the folder"
        )
    with _in_one_line(name), _quiet(library):
        try:
            with nullcontext() if local else offline_if_unreachable(library):
                builder = _prepared(name, library.load_dataset_builder(source, config), local, tell)
        except ConnectionError:
            cache, hub = (
                unmarked(str(place)) for place in (library.config.HF_DATASETS_CACHE, library.config.HF_ENDPOINT)
            )
            raise SettingError(
                f"`data` {unmarked(name)} is not in {cache}, and {hub} cannot be reached; set HF_HOME to a folder that "
                "has it, or save it with save_to_disk where there is a network, and name that folder"
            ) from None
        return _data(name, lambda split: builder.as_dataset(split=split), list(builder.info.splits), tell)


def _prepared(name: str, builder: Any, local: bool, tell: Callable[[str], object]) -> Any:
    """The builder of a dataset, once it has put that into the library's cache."""
    if (kind := _format(builder)) not in (*FORMATS, CACHE):
        raise SettingError(
            f"`data` {unmarked(name)} is stored as {kind}; {', '.join(FORMATS)} can be read by this name, and .tar "
            "shards from a folder"
        )
    if not os.path.exists(builder.cache_dir):
        doing = "converting" if local else f"downloading{_size(builder)}"
        tell(f"`data` {unmarked(name)}: {doing} into {unmarked(str(builder.cache_dir))}")
    builder.download_and_prepare()
    return builder


def open_saved(name: str, tell: Callable[[str], object]) -> Data:
    """Open a folder that `save_to_disk` of `datasets` wrote.

    Args:
        name: The folder, of one dataset or of one with splits.
        tell: Called with a line on choices among columns and splits.

    Returns:
        Training images, and test images if there are any.

    Raises:
        SettingError: If `datasets` is missing, or if the folder is damaged or has no images. One line.
    """
    library, folder = _library(name), Path(name)
    with _in_one_line(name), _quiet(library):
        if not (folder / "dataset_dict.json").is_file():
            return _data(name, lambda _split: _from_disk(library, folder), [TRAIN], tell)
        splits = read_json(folder / "dataset_dict.json")["splits"]
        if not (isinstance(splits, list) and all(isinstance(one, str) and HUB_NAME.fullmatch(one) for one in splits)):
            raise ValueError("dataset_dict.json names no splits")
        return _data(name, lambda split: _from_disk(library, folder / split), splits, tell)


def _library(name: str) -> Any:
    """The library, whose import takes seconds. Raises SettingError without it."""
    need("datasets", "datasets", NEEDS.format(unmarked(name)))
    import datasets

    if not hasattr(datasets, "load_dataset_builder"):
        where = unmarked(str(getattr(datasets, "__file__", None)))
        raise SettingError(f"`data` {unmarked(name)}: {where} hides the library datasets; rename it")
    return datasets


@contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    """Turn errors of the library, which are of many kinds and lengths, into one line."""
    try:
        yield
    except SettingError:
        raise
    except Exception as raised:  # damaged files raise anything
        error: BaseException = raised
        if type(error).__name__ == "DatasetGenerationError":  # which says nothing itself
            error = error.__cause__ or error
        reason = unmarked(f"{type(error).__name__}: {first_line(error)}"[:300])
        raise SettingError(f"`data` {unmarked(name)} cannot be opened ({reason})") from None


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Show the library's progress bars only on a terminal, and its errors only in our one line."""
    logger = logging.getLogger("datasets")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    enabled = library.is_progress_bar_enabled() and not sys.stderr.isatty()
    if enabled:
        library.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if enabled:
            library.enable_progress_bars()


def _format(builder: Any) -> str:
    """How the library stores a dataset: the name of the module of its own that reads it."""
    marks = [kind.__module__.split(".") for kind in type(builder).__mro__]
    return next((words[2] for words in marks if words[:2] == ["datasets", "packaged_modules"]), "a script")


def _size(builder: Any) -> str:
    size = builder.info.download_size
    return f" {size / 1e6:.3g} MB" if isinstance(size, int) and size > 0 else ""


def _from_disk(library: Any, folder: Path) -> Any:
    """One split of a saved dataset, whose small files are checked before the library reads them."""
    for file in ("state.json", "dataset_info.json"):
        content = read_json(folder / file)
        if not isinstance(content, dict):
            raise ValueError(f"{file} holds no settings")
        if content.get("_data_files") == []:  # of state.json, which the library reads as an IndexError
            raise ValueError(f"{printable(folder.name)} has no rows")
    return library.load_from_disk(str(folder)).with_format(None)


def _chosen_splits(splits: Sequence[str]) -> tuple[str, str | None]:
    """The splits for training and testing. Raises ValueError."""
    if TRAIN in splits:
        return TRAIN, next((split for split in TESTS if split in splits), None)
    if len(splits) == 1:
        return splits[0], None
    names = ", ".join(map(printable, splits)) or "none"
    raise ValueError(f"it has the splits {names}, and no {TRAIN}; rename one, or save one alone")


def _data(name: str, load: Callable[[str], Any], splits: Sequence[str], tell: Callable[[str], object]) -> Data:
    """The images and labels of the splits for training and testing. Raises ValueError with a clause."""
    train, test = _chosen_splits(splits)
    parts = {split: load(split) for split in (train, test) if split is not None}
    columns, *others = (columns_of(part.features) for part in parts.values())
    if any(other != columns for other in others):
        raise ValueError(f"{train} and {test} differ in their columns or classes; is one of them of another dataset?")
    if empty := [split for split, part in parts.items() if not len(part)]:
        raise ValueError(f"its split {empty[0]} has no rows")
    choices = [columns.choices] if columns.choices else []
    if test is not None and (unused := [split for split in TESTS if split in splits and split != test]):
        choices.append(f"test images are those of {test}, not of {', '.join(unused)}")
    if choices:
        tell(f"`data` {unmarked(name)}: {unmarked('; '.join(choices))}")
    labels, classes = labels_of(list(parts.values()), columns)
    images = [
        HubImages(_encoded(part, columns.image), columns.image, torch.arange(len(part)), own, f"{name} {split}")
        for (split, part), own in zip(parts.items(), labels, strict=True)
    ]
    return Data(images[0], images[1] if test else None, classes, name)


def _encoded(part: Any, column: str) -> Any:
    """The column of images as bytes, which our own function decodes, since the library's cuts 16-bit values off."""
    import datasets

    if isinstance(part.features[column], datasets.Image):
        part = part.cast_column(column, datasets.Image(decode=False))
    part = part.select_columns([column])
    part.data.validate(full=True)  # a damaged file could point beyond its end
    return part
