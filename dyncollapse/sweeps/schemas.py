"""The structure of a sweep's files: sweep.json, failures.json and the run.json of each point."""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from dyncollapse.runtime.schemas import Column, Count, Name, Number, Text


class Plan(TypedDict):
    """sweep.json: every point that was ever requested in the folder."""

    points: Annotated[list["PlannedPoint"], Meta(max_length=10**7)]


class PlannedPoint(TypedDict):
    """A point in sweep.json."""

    point: Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    config: dict[str, Any]


Failures = dict[Name, Text]


class Report(TypedDict):
    """run.json of a finished point: the keys that tables and pictures use."""

    status: Literal["finished"]
    config: dict[str, Any]
    prediction: "Prediction"
    dynamics: dict[Literal["sgd", "flow", "population"], "Summary"]
    sgd_vs_flow: "Distance | None"
    sgd_vs_population: "Distance | None"
    verdict: "Judged"


class Prediction(TypedDict):
    """The predictions of the closed forms."""

    threshold: Number | None
    modes: Annotated[list["Mode"], Meta(min_length=1, max_length=10**6)]
    at_threshold: NotRequired[Count]


class Mode(TypedDict):
    """The prediction for one mode."""

    rest_singular_value: Number | None


class Summary(TypedDict):
    """The end of one dynamics."""

    loss: Number | None
    time: Number
    seconds: Number
    product_singular_values: Column
    probe_cost: NotRequired[Number]
    representation_probe_cost: NotRequired[Number]


class Distance(TypedDict):
    """The distance between two dynamics."""

    relative_distance: Number | None


class Judged(TypedDict):
    """The verdict."""

    collapsed: Count
    mechanism: Name
    threshold: Number
