"""Schemas of the files in a run's folder: config.json, probes.json, diagnosis.json, log.jsonl, monitor.jsonl."""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from dyncollapse.bridge.spaces import SpaceName
from dyncollapse.runtime.schemas import Column, Count, Name, Number, Size, Spectrum, Text

MeasureName = Literal["rankme", "effective_rank", "participation_ratio"]


class Settings(TypedDict):
    """config.json of a run."""

    recipe: dict[str, Any]
    facts: "Facts"


class Facts(TypedDict):
    """Sizes of a run; those that no table needs may be missing."""

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
    train: NotRequired[Count]
    step: NotRequired[Count | None]


Probes = Annotated[list[Probe], Meta(max_length=10**5)]


class Diagnosis(TypedDict):
    """diagnosis.json of a run."""

    spaces: dict[SpaceName, "Space"]
    config: "DiagnosisConfig"
    layers: NotRequired[Annotated[list["Layer"], Meta(max_length=10**4)]]
    depth: NotRequired[Annotated[list["Stage"], Meta(max_length=10**4)]]


class Stage(TypedDict):
    """The effective rank of the features after a stage of the encoder."""

    stage: Name
    dim: Size
    effective_rank: Number


class Layer(TypedDict):
    """The alignment of two successive layers; 1 where their singular vectors agree."""

    alignment: Number


class DiagnosisConfig(TypedDict):
    """The images and views that were diagnosed."""

    split: Name
    views: Name


class Space(TypedDict):
    """Measures and verdict of a space, and the spectrum that pictures draw."""

    measures: "Measures"
    verdict: "SpaceVerdict"
    dim: NotRequired[Size]
    spectrum: NotRequired[Spectrum]
    noise_floor: NotRequired[Number]
    augmentation_ratio: NotRequired[Annotated[list[Number | None], Meta(max_length=10**6)] | None]


class Measures(TypedDict):
    """The rank measures of the tables."""

    rankme: Number | None
    effective_rank: Number | None
    participation_ratio: Number | None


class SpaceVerdict(TypedDict):
    """How many dimensions collapsed, and by which mechanism."""

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


# A line of monitor.jsonl; versions may differ in their measures.
MonitorLine = dict[Name, int | Number | Text | Column | None]


class PlottedMonitorLine(TypedDict):
    """The entries of a line of monitor.jsonl that pictures draw."""

    step: Count
    representation_effective_rank: NotRequired[Number | None]
    embedding_effective_rank: NotRequired[Number | None]
    representation_spectrum: NotRequired[Spectrum]
    embedding_spectrum: NotRequired[Spectrum]
