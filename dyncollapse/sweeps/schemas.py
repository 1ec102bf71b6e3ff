"""Shapes of a sweep's files: sweep.json, failures.json and each point's run.json."""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from dyncollapse.runtime.schemas import Column, Count, Name, Number, Text


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
