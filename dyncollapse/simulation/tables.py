"""A simulation's dimensions as a table and its comparisons as sentences, for the terminal and the page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dyncollapse.diagnostics.verdict import Verdict
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.representation import representation_dimensions
from dyncollapse.simulation.sentences import population_limit_sentence, saddle_sentence, threshold_sentence
from dyncollapse.simulation.verdict import moment


def dimension_table(outcome: Outcome, report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Put the dimensions into a table.

    Args:
        outcome: The simulation and its records, at least one.
        report: The content of run.json.

    Returns:
        Names of the columns, and a row of cells per dimension.
    """
    judged, ends = outcome.verdict, outcome.ends
    assert judged is not None
    first = next(iter(ends.values()))
    variances = [_column(values.mean(0).tolist()) for values in (first.data_var, first.aug_var, first.ratio)]
    linear = outcome.simulation.objective.activation == "linear"
    kind = ("mode", "data var", "aug var") if linear else ("dimension", "embedding var", "of it aug")
    costs = report["dynamics"][next(iter(ends))].get("probe_cost_by_mode")
    kept = representation_dimensions(outcome.simulation, next(iter(outcome.trajectories.values())))
    more = [*(["representation"] if kept else []), *(["probe misses"] if costs else [])]
    rows = []
    for k, fate in enumerate(_fates(judged, outcome.escape_steps)):
        row = [f"{k + 1}", *(column[k] for column in variances)]
        for end in ends.values():
            values = end.singular_value[:, k]
            row.append(f"{float(values.mean()):.3g} ± {float(values.std(correction=0)):.1g}")
        if kept:
            row.append(f"{float(kept.singular_value[:, k].mean()):.3g}" if k < kept.singular_value.shape[-1] else "-")
        if costs:
            row.append(f"{costs[k]:.1%}" if k < len(costs) else "-")
        rows.append([*row, fate])
    return [*kind, "rho", *ends, *more, "collapsed?"], rows


def remarks(outcome: Outcome, report: Mapping[str, Any]) -> list[str]:
    """Say how the dynamics differ, what holds at the threshold, and what collapse costs a probe.

    Args:
        outcome: The simulation and its records, at least one.
        report: The content of run.json.

    Returns:
        Sentences.
    """
    said = []
    for other, name in (("flow", "flow"), ("population", "population flow")):
        distance = report[f"sgd_vs_{other}"]
        if distance is not None and None not in distance.values():
            said.append(
                f"SGD and {name} differ by {distance['relative_distance']:.2g} of the flow's norm at most, "
                f"{distance['at_end']:.2g} at the end."
            )
    if "population" in outcome.ends:
        said.append(population_limit_sentence(report))
        if text := saddle_sentence(report["dynamics"]["population"]):
            said.append(text)
    if text := threshold_sentence(report):
        said.append(text)
    if text := _runs_that_lost(outcome):
        said.append(text)
    priced = report["dynamics"][next(iter(outcome.ends))]
    if priced.get("probe_cost_by_mode"):
        said.append(_price(priced, report["config"]["ridge"]))
    return said


def _runs_that_lost(outcome: Outcome) -> str:
    """How many runs lost dimensions that others kept, where none is lost on average; empty otherwise."""
    verdict = outcome.verdict
    if verdict is None or verdict.count:
        return ""
    values = outcome.ends[outcome.judged].singular_value
    alive = (values.reshape(-1, values.shape[-1]) > verdict.threshold).sum(-1)
    lost = (verdict.dim - alive).clamp(min=0)
    if not int(lost.max()):
        return ""
    return (
        f"The verdict is on means over runs: {int((lost > 0).sum())} of {len(lost)} runs lost up to "
        f"{int(lost.max())} of {verdict.dim} dimensions, not the same in all."
    )


def _price(priced: Mapping[str, Any], ridge: float) -> str:
    """One sentence on what collapse costs a ridge probe."""
    said = (
        f"A ridge probe (penalty {ridge:g}) of the embedding misses {priced['probe_cost']:.1%} of the data's variance"
    )
    if (below := priced.get("representation_probe_cost")) is not None:
        said += f", one of the representation below the last layer {below:.1%}"
    return said + "."


def _fates(judged: Verdict, steps: Sequence[float | None]) -> list[str]:
    """The last column: each dimension's fate and, if it waits, until when, also in SGD steps."""
    cells = []
    for one, step in zip(judged.dimensions, steps, strict=True):
        time = one.escape_time
        escape = None if time is None else moment(time, time / step if step else None)
        end = "" if escape is None else " for ever" if escape == "never" else f" until {escape}"
        cells.append(f"{one.fate}{end}" if one.fate.collapsed else "no")
    return cells


def _column(values: list[float]) -> list[str]:
    """Values with three decimals, or in scientific notation if the largest is too small or too large; NaN as a dash."""
    known = [value for value in values if not math.isnan(value)]
    fixed = 0.01 <= max(known, default=0.0) < 1e4
    return ["-" if math.isnan(v) else f"{v:.3f}" if fixed or v == 0 else f"{v:.1e}" for v in values]
