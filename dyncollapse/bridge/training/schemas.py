"""Shapes of a training run's files: config.json, probes.json, diagnosis.json, log.jsonl and monitor.jsonl."""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from dyncollapse.runtime.schemas import Column, Count, Name, Number, Size, Spectrum, Text

SpaceName = Literal["representation", "embedding"]
MeasureName = Literal["rankme", "effective_rank", "participation_ratio"]


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

    spaces: dict[SpaceName, "Space"]
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


class PlottedMonitorLine(TypedDict):
    """What a picture reads of a line of monitor.jsonl."""

    step: Count
    representation_effective_rank: NotRequired[Number | None]
    embedding_effective_rank: NotRequired[Number | None]
    representation_spectrum: NotRequired[Spectrum]
    embedding_spectrum: NotRequired[Spectrum]
