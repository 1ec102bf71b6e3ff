"""A simulation's outcome as plain values and as the files of a run folder."""

import math
import platform
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dyncollapse.diagnostics.spectra import covariance_spectrum
from dyncollapse.diagnostics.verdict import DimensionVerdict
from dyncollapse.dynamics.comparison import relative_distance
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.losses import effective_negatives, infonce_weights
from dyncollapse.model.networks import Weights, end_to_end, forward
from dyncollapse.model.self_distillation import SelfDistillation
from dyncollapse.runtime.files import read_json, write_json
from dyncollapse.simulation.build import Simulation
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.dimensions import mode_dimensions
from dyncollapse.simulation.outcome import Outcome
from dyncollapse.simulation.prediction import MOST_PAIRS, Outlook, escape_times, room, sizes
from dyncollapse.simulation.remedies import remedies
from dyncollapse.simulation.representation import probe_costs, representation_dimensions
from dyncollapse.theory.equilibria import collapse_threshold
from dyncollapse.theory.population import POPULATION_LOSSES, negatives_needed, population_valid

RECORD = "run.json"
# What escape times assume, and what they assume in addition where the covariances have no common modes.
ALIGNED = "escape times: aligned layers near zero; at most these if unbalanced"
COUPLED = "escape times: faster modes are followed without delay, an estimate"


def report(outcome: Outcome) -> dict[str, Any]:
    """The report of an outcome as plain JSON values: settings, predictions, ends of the dynamics, verdict.

    Args:
        outcome: The outcome.

    Returns:
        What run.json holds; infinite and undefined numbers are None.
    """
    simulation = outcome.simulation
    return {
        "config": {**simulation.configuration.as_dict(), "versions": versions()},
        "status": outcome.status,
        "prediction": _prediction(simulation, outcome.outlook),
        "dynamics": {name: _summary(simulation, path) for name, path in outcome.trajectories.items()},
        "sgd_vs_flow": _distance(outcome, "flow"),
        "sgd_vs_population": _distance(outcome, "population"),
        "verdict": _verdict(outcome),
        "remedies": [one.as_values() for one in remedies(outcome)],
    }


def save(outcome: Outcome, folder: Path) -> dict[str, Any]:
    """Write run.json and one .npz file per trajectory, each atomically.

    The first run.json of a folder is written before the trajectories, with none in it: whenever the process is killed,
    `was_killed` knows the folder again.

    Args:
        outcome: The outcome.
        folder: The run folder; it must exist.

    Returns:
        The content of run.json.

    Raises:
        CannotWrite: Where a file cannot be written.
    """
    values = report(outcome)
    if not (folder / RECORD).exists():
        write_json(folder / RECORD, values | {"status": "running", "dynamics": {}, "verdict": None, "remedies": []})
    settings = {"config": outcome.simulation.configuration.as_dict()}  # so that every file has its seed
    for name, trajectory in outcome.trajectories.items():
        replace(trajectory, meta=trajectory.meta | settings).save(folder / f"{name}.npz")
    write_json(folder / RECORD, values)
    return values


def was_killed(folder: Path, configuration: Configuration) -> bool:
    """Whether an unlocked folder was left by a process that was killed while it ran this configuration."""
    try:
        found = read_json(folder / RECORD)
        settings = {name: found["config"][name] for name in configuration.as_dict()}
        return found["status"] == "running" and settings | {"out": None} == configuration.as_dict() | {"out": None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def recorded(folder: Path) -> dict[str, Trajectory]:
    """The trajectories that a killed run had saved, one for each dynamics that had ended."""
    found = {}
    for name in read_json(folder / RECORD)["dynamics"]:
        with suppress(OSError, ValueError):  # a dynamics whose file cannot be read is run again
            found[name] = Trajectory.load(folder / f"{name}.npz")
    return found


def _prediction(simulation: Simulation, predicted: Outlook | None) -> dict[str, Any]:
    end = mode_dimensions(simulation.weights, simulation.task)
    count = int((~end.ratio[0].isnan()).sum()) if end.whitened else simulation.task.dim
    columns: dict[str, list[Any]] = {
        "data_var": end.data_var[0, :count].tolist(),
        "aug_var": end.aug_var[0, :count].tolist(),
        "rho": [_finite(value) for value in end.ratio[0, :count].tolist()],
        "rest_singular_value": [None] * count,
        "escape_time": [None] * count,
    }
    if predicted is not None:
        columns["rest_singular_value"] = [_finite(value) for value in predicted.rest.tolist()]
        times = escape_times(simulation, predicted, sizes(simulation, predicted, simulation.weights))
        columns["escape_time"] = [_finite(time) for time in times.tolist()]
    growth, decay = None if predicted is None else predicted.growth, simulation.configuration.weight_decay
    threshold = None if growth is None else _threshold(simulation.configuration)
    own, modes = room(simulation), simulation.task.dim
    narrow = [f"room for every mode, which these layers have for {own} of {modes}"] if own < modes else []
    return {
        "threshold": threshold,
        # With weight decay such a mode decays exponentially, as any other.
        "at_threshold": 0 if growth is None or threshold is None or decay else int((growth == 0).sum()),
        "assumes": ["infinite batch", "no bias", ALIGNED, *([COUPLED] if end.whitened else []), *narrow],
        "whitened": end.whitened,
        "modes": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
    }


def _threshold(c: Configuration) -> float | None:
    """The augmentation variance that collapses a mode of one layer; None where there is no such single number."""
    if c.data_cov is not None or c.aug_cov is not None or (c.weight_decay and c.depth > 1):
        return None
    try:
        correlation = float(c.view_corr or 0)
    except ValueError:  # the name of a file
        return None
    return collapse_threshold(
        c.data_var,
        c.view_convention,
        c.loss,
        temperature=c.temperature,
        invariance=c.invariance,
        weight_decay=c.weight_decay,
        correlation=correlation,
    )


def _verdict(outcome: Outcome) -> dict[str, Any] | None:
    verdict = outcome.verdict
    if verdict is None:
        return None
    judged = zip(verdict.dimensions, outcome.escape_steps, strict=True)
    return {
        "collapsed": verdict.count,
        "embedding_dim": verdict.dim,
        "mechanism": verdict.mechanism.value,
        "threshold": verdict.threshold,
        "sentence": verdict.sentence,
        "dimensions": [_dimension(one, step) for one, step in judged],
    }


def _dimension(judged: DimensionVerdict, step: float | None) -> dict[str, Any]:
    time = judged.escape_time
    return {
        "collapsed": judged.fate.collapsed,
        "mechanism": judged.fate.mechanism.value,
        "fate": judged.fate.value,
        "escape_time": None if time is None else _finite(time),
        "escape_step": None if step is None or math.isinf(step) else round(step),
    }


def _summary(simulation: Simulation, path: Trajectory) -> dict[str, Any]:
    sigma = path.singular_values[-1].to(torch.float64)
    weights, biases = path.final(), tuple(b[-1] for b in path.biases)
    inputs = simulation.probe.negatives.to(weights[0].dtype)
    spectrum = covariance_spectrum(forward(weights, inputs, simulation.objective.activation, biases))
    summary = {
        "product_singular_values": [_finite(value) for value in sigma.mean(0).tolist()],
        "product_singular_values_spread": [_finite(value) for value in sigma.std(0, correction=0).tolist()],
        "embedding_spectrum": spectrum.mean(0).tolist(),
        "time": float(path.time[-1]),
        "loss": _finite(float(path.loss[-1].mean()) + _loss_offset(simulation, path)),
        "seconds": path.meta["seconds"],
        "imbalance_drift": path.imbalance_drift,
        "population_limit": population_limit(simulation, weights),
    }
    summary |= _costs(simulation, path)
    return summary | {
        name: path.meta[name]
        for name in ("method", "rtol", "evaluations", "rest_time", "stiff_from", "stiff_method", "unseen_from")
        if name in path.meta
    }


def _costs(simulation: Simulation, path: Trajectory) -> dict[str, Any]:
    """What a ridge probe of the embedding misses, and of the representation if there is one; linear networks only."""
    if simulation.objective.activation != "linear" and len(path.weights) > 1:
        return {}
    by_mode, whole = probe_costs(simulation, path.final())
    found: dict[str, Any] = {"probe_cost": float(whole.mean()), "probe_cost_by_mode": by_mode.mean(0).tolist()}
    if (kept := representation_dimensions(simulation, path)) is not None:
        found["representation_singular_values"] = kept.singular_value.mean(0).tolist()
        found["representation_probe_cost"] = float(probe_costs(simulation, path.final()[:-1])[1].mean())
    return found


def _loss_offset(simulation: Simulation, path: Trajectory) -> float:
    """Log N, by which the population's loss of a softmax falls short of that of batches of N."""
    softmax = path.meta.get("dynamics") == "population" and simulation.objective.loss in ("infonce", "dot")
    return math.log(simulation.configuration.batch_size) if softmax else 0.0


def population_limit(simulation: Simulation, weights: Weights) -> dict[str, Any] | None:
    """Say whether batches of N behave as infinitely many samples at these weights; None without a closed form."""
    if simulation.objective.activation != "linear" and len(weights) > 1:
        return None
    if isinstance(simulation.objective, SelfDistillation):  # there are no negatives
        return {"negatives_needed": 0.0, "valid": True, "effective_negatives": None}
    if simulation.objective.loss not in POPULATION_LOSSES:
        return None
    product, task = end_to_end(weights).to(torch.float64), simulation.task.to(torch.float64)
    objective = replace(simulation.objective, activation="linear")  # one layer has no activation
    needed = negatives_needed(product, task, objective)
    return {
        "negatives_needed": _finite(float(needed.max())),
        "valid": bool(population_valid(product, task, simulation.configuration.batch_size, objective).all()),
        "effective_negatives": _effective_negatives(simulation, product),
    }


def _effective_negatives(simulation: Simulation, product: Tensor) -> float | None:
    n = simulation.configuration.batch_size
    if simulation.objective.loss != "infonce" or n > MOST_PAIRS:
        return None
    z, z_pos = (x[:n].to(product.dtype) @ product.mT for x in (simulation.probe.anchor, simulation.probe.positive))
    y = z if simulation.task.views == "one-sided" else z_pos
    found = [effective_negatives(infonce_weights(*one)) for one in zip(z, z_pos, y, strict=True)]
    return float(torch.stack(found).mean())


def _distance(outcome: Outcome, other: str) -> dict[str, Any] | None:
    if not {"sgd", other} <= set(outcome.trajectories):
        return None
    sgd, flow = outcome.trajectories["sgd"], outcome.trajectories[other]
    if sgd.product.shape[1:] != flow.product.shape[1:]:  # interrupted before all runs were integrated
        return None
    times, distance = relative_distance(sgd, flow)
    mean = distance.mean(-1)
    return {
        "relative_distance": _finite(float(mean.max())),
        "at_end": _finite(float(mean[-1])),
        "until_time": float(times[-1]),
    }


@cache
def _version(name: str) -> str:
    return version(name)  # which reads a file


def versions(*others: str) -> dict[str, str]:
    """Versions of this package, of Python and of the libraries on which the numbers depend.

    Args:
        *others: Further packages; those that are not installed are left out.

    Returns:
        Versions by name.
    """
    try:
        own = _version("dyncollapse")
    except PackageNotFoundError:  # run from a checkout that was not installed
        own = "unknown"
    packages = {name: _version(name) for name in ("numpy", "scipy", "torch")}
    for name in others:
        with suppress(PackageNotFoundError):
            packages[name] = _version(name)
    return {"dyncollapse": own, "python": platform.python_version(), **packages}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
