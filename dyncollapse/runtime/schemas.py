"""Shapes of the files that are read back: types, names and sizes, checked before anything is made of what they hold."""

from typing import Annotated, Any, Literal, NotRequired, TypedDict, TypeVar

import msgspec
from msgspec import Meta

from dyncollapse.runtime.files import printable

SchemaT = TypeVar("SchemaT")
# Letters of a complaint, for it may repeat what was read.
MOST_LETTERS = 200

Count = Annotated[int, Meta(ge=0, le=2**53)]
Size = Annotated[int, Meta(ge=1, le=10**7)]
# JSON has no NaN; these bounds leave out infinity, which numbers such as 1e999 become.
Number = Annotated[float, Meta(ge=-1.7e308, le=1.7e308)]
Name = Annotated[str, Meta(max_length=4096)]
Text = Annotated[str, Meta(max_length=10**5)]
Column = Annotated[list[Number | None], Meta(min_length=1, max_length=10**6)]
Spectrum = Annotated[list[Number], Meta(min_length=1, max_length=10**6)]


def checked(values: Any, schema: type[SchemaT]) -> SchemaT:
    """What was read from a file, when it has the shape of `schema`.

    Args:
        values: Plain values, as `files.read_json` gives them.
        schema: A type of this module; of a dictionary only the keys that it names are kept.

    Returns:
        The values as that type.

    Raises:
        ValueError: One line that says where the shape differs.

    Example:
        >>> checked([1, 2], list[Count])
        [1, 2]
        >>> checked([1, "2"], list[Count])
        Traceback (most recent call last):
            ...
        ValueError: Expected `int`, got `str` - at `$[1]`
    """
    try:
        return msgspec.convert(values, schema)
    except msgspec.ValidationError as error:
        raise ValueError(printable(str(error))[:MOST_LETTERS]) from None


class Plan(TypedDict):
    """sweep.json: every point that a folder was ever asked for."""

    points: Annotated[list["PlannedPoint"], Meta(max_length=10**7)]


class PlannedPoint(TypedDict):
    """One of them."""

    config: dict[str, Any]


Failures = dict[Name, Text]


class Report(TypedDict):
    """run.json of a finished point, as far as tables and pictures read it."""

    status: Literal["finished"]
    config: dict[str, Any]
    prediction: "Prediction"
    dynamics: dict[Literal["sgd", "flow", "population"], "Summary"]
    sgd_vs_flow: "Distance | None"
    sgd_vs_population: "Distance | None"
    verdict: "Judged"


class Prediction(TypedDict):
    """The closed forms."""

    threshold: Number | None
    modes: Annotated[list["Mode"], Meta(min_length=1, max_length=10**6)]
    at_threshold: NotRequired[Count]


class Mode(TypedDict):
    """One mode's rest point."""

    rest_singular_value: Number | None


class Summary(TypedDict):
    """Where one dynamics ended."""

    loss: Number | None
    time: Number
    seconds: Number
    product_singular_values: Column


class Distance(TypedDict):
    """How far two dynamics are apart."""

    relative_distance: Number | None


class Judged(TypedDict):
    """What became of the dimensions."""

    collapsed: Count
    mechanism: Name
    threshold: Number


class Settings(TypedDict):
    """config.json of a run of the bridge."""

    recipe: dict[str, Any]
    facts: "Facts"


class Facts(TypedDict):
    """Sizes of a run; those that a table does not need may be missing."""

    data: Name
    images: Count
    representation_dim: Size
    embedding_dim: Size
    steps: Annotated[int, Meta(ge=1, le=2**53)]
    test_images: NotRequired[Count]
    classes: NotRequired[Count]
    channels: NotRequired[Count]


Percent = Annotated[float, Meta(ge=0, le=100)]


class Probe(TypedDict):
    """One linear probe in probes.json."""

    method: Name
    dimensions: Size
    top1: Percent
    error: Percent
    step: NotRequired[Count | None]


Probes = Annotated[list[Probe], Meta(max_length=10**5)]


class Diagnosis(TypedDict):
    """diagnosis.json of a run."""

    spaces: dict[Literal["representation", "embedding"], "Space"]
    config: "DiagnosisConfig"


class DiagnosisConfig(TypedDict):
    """Which images and views it is of."""

    split: Name
    views: Name


class Space(TypedDict):
    """One space's measures and verdict, and the spectrum that pictures draw."""

    measures: "Measures"
    verdict: "SpaceVerdict"
    dim: NotRequired[Size]
    spectrum: NotRequired[Spectrum]
    noise_floor: NotRequired[Number]


class Measures(TypedDict):
    """The rank measures of the tables."""

    rankme: Number | None
    effective_rank: Number | None
    participation_ratio: Number | None


class SpaceVerdict(TypedDict):
    """How many dimensions collapsed, and how."""

    collapsed: Count
    mechanism: Name
    threshold: NotRequired[Number]


class LogLine(TypedDict):
    """A line of log.jsonl."""

    step: Count
    loss: Number
    epoch: NotRequired[Number]
    lr: NotRequired[Number]
    images_per_second: NotRequired[Number]
    monitor_share: NotRequired[Number]
    skipped_images: NotRequired[Count]


# A line of monitor.jsonl, whose measures may be others one day, and what a picture reads of it.
MonitorLine = dict[Name, int | Number | Text | Column | None]


class Watched(TypedDict):
    """What a picture reads of a line of monitor.jsonl."""

    step: Count
    representation_effective_rank: NotRequired[Number | None]
    embedding_effective_rank: NotRequired[Number | None]
    representation_spectrum: NotRequired[Spectrum]
    embedding_spectrum: NotRequired[Spectrum]
