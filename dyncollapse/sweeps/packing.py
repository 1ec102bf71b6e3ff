"""Points of a sweep that train together as one ensemble (a pack), each with the result that it has alone."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from dyncollapse.dynamics.ensemble import blow_up_bound
from dyncollapse.dynamics.training import Diverged, train
from dyncollapse.dynamics.trajectory import Trajectory, parameter_fields, parameters_of
from dyncollapse.model.networks import end_to_end
from dyncollapse.model.streams import join_streams, numbers_per_step
from dyncollapse.simulation.build import Simulation
from dyncollapse.simulation.configuration import Configuration, setting_names

# Numbers per step at which a run is about cheapest (measured for d = 16, docs/results.md): 16 runs of 128 pairs, twice
# as fast per run as a single one in float32 and as fast as 64; or 128 runs of 16 pairs, six times as fast as one.
# Larger packs would only be shared less evenly among workers. A GPU needs more; its value is a rule of thumb.
CACHED, CACHED_GPU = 2**18, 2**24
# Settings in which the points of a pack may differ: they choose initial weights and data, or do not concern SGD.
OWN = frozenset(
    {"aug_strength", "aug_dim", "data_var", "pool", "init", "init_scale", "init_rate", "runs", "seed"}
    | {"preset", "case", "flow_batches", "out"}
)


def packs(configurations: Sequence[Configuration], most_runs: int) -> list[list[Configuration]]:
    """Group points into ensembles; a point is never split.

    Args:
        configurations: The points.
        most_runs: Most runs in an ensemble; a single point may have more.

    Returns:
        The ensembles. A point without SGD gains nothing from an ensemble and stays alone.

    Examples:
        >>> points = [Configuration(runs=3, seed=seed) for seed in range(3)]
        >>> [len(pack) for pack in packs(points, most_runs=6)]
        [2, 1]
    """
    groups: dict[tuple[object, ...], list[list[Configuration]]] = {}
    for point in configurations:
        group = groups.setdefault(shape_of(point) if "sgd" in point.dynamics else (point,), [[]])
        if group[-1] and sum(other.runs for other in group[-1]) + point.runs > most_runs:
            group.append([])
        group[-1].append(point)
    return [pack for group in groups.values() for pack in group]


def shape_of(configuration: Configuration) -> tuple[object, ...]:
    """Return the values of the settings in which all points of an ensemble agree."""
    return tuple(getattr(configuration, name) for name in setting_names() if name not in OWN)


def best_runs(configuration: Configuration) -> int:
    """Return the number of runs at which a run is cheapest in an ensemble; more would not fit into a core's cache.

    Args:
        configuration: Settings with the size of a step.

    Returns:
        Runs, at least 1.

    Examples:
        >>> best_runs(Configuration(batch_size=128, dim=16))
        16
    """
    cached = CACHED if configuration.device == "cpu" else CACHED_GPU
    return max(1, cached // numbers_per_step(configuration.batch_size, max(configuration.layer_widths)))


def train_together(simulations: Sequence[Simulation], threads: int | None = None) -> list[Trajectory]:
    """Train several simulations by SGD in one ensemble, each with the weights and batches that it has alone.

    Args:
        simulations: They may differ only in the settings of OWN.
        threads: CPU threads, as in `train`.

    Returns:
        A trajectory for each; `meta["seconds"]` is its share of the time.

    Raises:
        Diverged: When any of the points leaves its bounds. Training each alone then shows which.
    """
    distilled = simulations[0].predictor is not None
    shared, runs = simulations[0].configuration, [one.configuration.runs for one in simulations]
    path = train(
        tuple(torch.cat(layers) for layers in zip(*(one.weights for one in simulations), strict=True)),
        join_streams([one.stream for one in simulations]),
        lr=shared.lr,
        steps=shared.steps,
        objective=simulations[0].objective,
        biases=tuple(torch.cat(layers) for layers in zip(*(one.biases for one in simulations), strict=True)),
        predictor=torch.cat([one.predictor for one in simulations if one.predictor is not None]) if distilled else None,
        momentum=shared.momentum,
        weight_decay=shared.weight_decay,
        threads=threads,
    )
    parts = [values.split(runs, 1) for values in parameters_of(path)]
    split = []
    for i, (simulation, loss) in enumerate(zip(simulations, path.loss.split(runs, 1), strict=True)):
        meta = path.meta | {"seconds": path.meta["seconds"] * runs[i] / sum(runs)}
        fields = parameter_fields([values[i] for values in parts], len(path.weights))
        own = replace(path, loss=loss, meta=meta, **fields)
        check_bound(simulation, own)
        split.append(own)
    return split


def check_bound(simulation: Simulation, path: Trajectory) -> None:
    """Hold a point to its own bound; `train` used one for all, from the largest weights and inputs among them."""
    largest = end_to_end(path.weights).abs().amax((1, 2, 3))
    inputs = next(iter(simulation.stream)).anchor.abs().max()
    if not largest.max() <= blow_up_bound(float(inputs), float(largest[0])):
        raise Diverged(path, path.meta["lr"], path.meta["steps"], None, path.meta["steps"])
