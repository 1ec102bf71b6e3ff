"""Sentences on a simulation's report that the command line and the page with sliders share."""

from collections.abc import Mapping
from typing import Any

from dyncollapse.theory.population import POPULATION_FACTOR


def population_limit_sentence(report: Mapping[str, Any]) -> str:
    """One sentence on whether the population flow may be compared with dynamics on finite batches."""
    name = next(name for name in ("sgd", "flow", "population") if name in report["dynamics"])
    limit, batch_size = report["dynamics"][name]["population_limit"], report["config"]["batch_size"]
    if limit is None:
        return "Population limit: whether batches of N behave as it says is not known for this network."
    needed, effective = limit["negatives_needed"], limit["effective_negatives"]
    if needed == 0:
        return "Population limit: equal to the expected flow at every N; only the noise of the batches differs."
    least = "more than any" if needed is None else f"N >= {POPULATION_FACTOR * needed:.3g}"
    counts = "" if effective is None else f", effectively {effective:.3g} negatives"
    return (
        f"Population limit at the end of {name}: {'valid' if limit['valid'] else 'not valid'} "
        f"(it takes {least}; N = {batch_size}{counts})."
    )


def saddle_sentence(end: Mapping[str, Any]) -> str:
    """One sentence on a flow that may have stayed at a saddle, from its part of the report; empty for others."""
    if (since := end.get("unseen_from")) is None:
        return ""
    return (
        f"The population flow may have stayed at a saddle: from t = {since:.4g} on something grew from below the "
        "solver's tolerance, and would have taken too long to follow."
    )


def threshold_sentence(report: Mapping[str, Any]) -> str:
    """One sentence on modes at the threshold; empty where there are none."""
    count, total = report["prediction"]["at_threshold"], report["config"]["dim"]
    if not count:
        return ""
    return (
        f"Modes at the threshold: {count} of {total} have rho = 1 up to round-off. They "
        "decay to zero, but only as a power of time."
    )
