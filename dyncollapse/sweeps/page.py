"""The results of a sweep as a page for a browser."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dyncollapse.runtime.command_line import shown
from dyncollapse.runtime.page.record import Page, Picture, Table
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.sweeps.grid import NOT_HASHED, axes_of
from dyncollapse.sweeps.schemas import Report
from dyncollapse.sweeps.tables import as_row

LISTED = 20  # failed points that the page names
SHOWN = 8  # letters of a point's name, enough to find its folder


def sweep_page(
    points: Mapping[str, Configuration],
    reports: Mapping[str, Report],
    failures: Mapping[str, str] = MappingProxyType({}),
    *,
    folder: Path | None = None,
    pictures: Sequence[Picture] = (),
    reproduce: str = "",
) -> Page:
    """Put the results of a sweep on a page.

    Args:
        points: Settings by the name of the point, at least one.
        reports: The content of run.json for each finished point.
        failures: Why points failed, by name.
        folder: Where the sweep is saved; None if it is not.
        pictures: Pictures of the results.
        reproduce: The command line that runs the same points.

    Returns:
        In how many points dimensions collapsed and why, pictures, a row per point, failures, and the settings that all
        points share.
    """
    table = [as_row(name, points[name], report) for name, report in reports.items()]
    every, axes = list(points.values()), axes_of(list(points.values()))
    sizes = " x ".join(f"{len(values)} {name.replace('_', ' ')}" for name, values in axes.items())
    first = vars(every[0])
    shared = {name: first[name] for name in first if all(getattr(point, name) == first[name] for point in every)}
    settings = {name: value for name, value in shared.items() if name not in NOT_HASHED}
    versions = [report["config"]["versions"] for report in reports.values() if "versions" in report["config"]]
    cautions = [f"Point {name} failed: {text}" for name, text in list(failures.items())[:LISTED]]
    return Page(
        command="sweep",
        subject=f"{'' if folder is None else f'{folder}: '}{len(points)} points, {sizes or 'one setting'}",
        verdict=_verdict(table),
        facts=[f"{len(table)} of {len(points)} points are finished."],
        pictures=pictures,
        tables=[_points(table, list(axes))] if table else [],
        cautions=[*cautions, *([f"{len(failures) - LISTED} more points failed."] if len(failures) > LISTED else [])],
        settings=settings | ({"versions": versions[0]} if versions else {}),
        reproduce=reproduce,
    )


def _verdict(table: Sequence[Mapping[str, Any]]) -> str:
    """One sentence on how many points have collapsed dimensions, and why."""
    if not table:
        return "No point is finished."
    causes = Counter(row["mechanism"] for row in table if row["collapsed"])
    if not causes:
        return f"No dimension collapsed in any of {len(table)} points."
    named = ", ".join(f"{cause} in {count}" for cause, count in causes.most_common())
    return f"Dimensions collapsed in {causes.total()} of {len(table)} points: {named}."


def _points(table: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> Table:
    """A row per point: its settings on the axes, what collapsed, and how far SGD is from the flow."""
    compared = any(row["sgd_vs_flow"] is not None for row in table)
    rows = [
        [
            row["point"][:SHOWN],
            *(_short(row[name]) for name in axes),
            row["collapsed"],
            row["out_dim"] or row["dim"],
            row["mechanism"],
            *([row["sgd_vs_flow"]] if compared else []),
        ]
        for row in table
    ]
    words = [name.replace("_", " ") for name in axes]
    columns = ["point", *words, "collapsed", "of", "mechanism", *(["SGD-flow"] if compared else [])]
    return Table("Points", columns, rows)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else shown(value)
