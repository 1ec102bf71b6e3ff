"""Which columns of a dataset of Hugging Face hold its images and its labels, and what the labels are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from dyncollapse.bridge.data.class_numbers import numbered
from dyncollapse.bridge.data.image_sets import NO_CLASS
from dyncollapse.runtime.files import printable

# Of several columns that may be meant, the first of these names is taken, else the first column.
IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "cls", "target", "category", "y")
CLASS_LABELS, NUMBERS, TEXTS = "class labels", "whole numbers", "text"
MOST_LABEL = 2**53


# What may hold images, and what labels: the first kind of which there is a column is taken. Types are told by name, so
# that this module needs no import of the library, which takes seconds.
IMAGE_KINDS: tuple[Callable[[Any], bool], ...] = (
    lambda feature: type(feature).__name__ == "Image",
    lambda feature: isinstance(feature, dict) and {"bytes", "path"} == feature.keys(),
    lambda feature: str(getattr(feature, "dtype", "")) in ("binary", "large_binary"),
)
LABEL_KINDS: dict[str, Callable[[str, Any], bool]] = {
    CLASS_LABELS: lambda _, feature: type(feature).__name__ == "ClassLabel",
    NUMBERS: lambda column, feature: column in LABEL_NAMES and "int" in str(getattr(feature, "dtype", "")),
    TEXTS: lambda column, feature: column in LABEL_NAMES and "string" in str(getattr(feature, "dtype", "")),
}


@dataclass(frozen=True)
class Columns:
    """The columns that are read.

    Attributes:
        image: The column of images.
        label: That of labels; None if there is none.
        kind: class labels, whole numbers or text; empty without labels.
        names: Names of the classes, if the dataset has them.
        choices: Words on other columns that could be meant; empty if there are none.
    """

    image: str
    label: str | None
    kind: str
    names: tuple[str, ...]
    choices: str


def columns_of(features: Mapping[str, Any]) -> Columns:
    """Choose the columns of images and labels.

    Args:
        features: The type of each column.

    Returns:
        The columns.

    Raises:
        ValueError: If there is no column of images. A clause.

    Examples:
        >>> columns_of({"picture": {"bytes": None, "path": None}, "img": {"bytes": None, "path": None}}).choices
        'images are those of img, not of picture'
    """
    images = next(filter(None, ([c for c, feature in features.items() if holds(feature)] for holds in IMAGE_KINDS)), [])
    if not images:
        raise ValueError(f"it has no column of images, but {', '.join(map(printable, features)) or 'none at all'}")
    image, others = _first(images, IMAGE_NAMES)
    choices = [_choice("images", image, others)] if others else []
    by_kind = {kind: [c for c, feature in features.items() if holds(c, feature)] for kind, holds in LABEL_KINDS.items()}
    for kind, labels in by_kind.items():
        if labels:
            label, _ = _first(labels, LABEL_NAMES)
            others = [c for known in by_kind.values() for c in known if c != label]
            choices += [_choice("labels", label, others)] if others else []
            names = tuple(features[label].names or ()) if kind == CLASS_LABELS else ()
            return Columns(image, label, kind, names, "; ".join(choices))
    choices += [
        f"{column} gives no classes, since it holds {_type(feature)}, not whole numbers or text"
        for column, feature in features.items()
        if column in LABEL_NAMES
    ]
    return Columns(image, None, "", (), "; ".join(choices))


def _type(feature: Any) -> str:
    """What a column holds, as the library calls it."""
    return printable(str(getattr(feature, "dtype", None) or type(feature).__name__))


def _first(columns: Sequence[str], names: Sequence[str]) -> tuple[str, list[str]]:
    """The column to take, and the others."""
    chosen = next((name for name in names if name in columns), columns[0])
    return chosen, [column for column in columns if column != chosen]


def _choice(what: str, chosen: str, others: Sequence[str]) -> str:
    return f"{what} are those of {printable(chosen)}, not of {', '.join(map(printable, others))}"


def labels_of(parts: Sequence[Any], columns: Columns) -> tuple[list[Int[Tensor, " n"]], Sequence[str]]:
    """Read the labels of training and test images.

    Args:
        parts: Datasets of the library `datasets`.
        columns: What their columns are.

    Returns:
        The classes of each part, -1 where the label is missing or -1; and the names of the classes.

    Raises:
        ValueError: For labels that are no classes. A clause.
    """
    if columns.label is None:
        return [torch.full((len(part),), NO_CLASS) for part in parts], []
    values = [part.select_columns([columns.label]).with_format("arrow")[:].column(0) for part in parts]
    if columns.kind == TEXTS:
        texts = [value.to_pylist() for value in values]
        names = sorted({text for part in texts for text in part if text is not None})
        known = {text: number for number, text in enumerate(names)} | {None: NO_CLASS}
        return numbered([torch.tensor([known[text] for text in part]) for part in texts], names)
    numbers = [torch.from_numpy(value.cast("int64").fill_null(NO_CLASS).to_numpy().copy()) for value in values]
    least, most = min(int(part.min()) for part in numbers), max(int(part.max()) for part in numbers)
    if least < NO_CLASS or most > MOST_LABEL:
        raise ValueError(f"the labels in {printable(columns.label)} go from {least} to {most}, and classes from 0 on")
    return numbered(numbers, list(columns.names) if columns.kind == CLASS_LABELS else None)
