"""Points of a sweep that train as one ensemble: which may, and how each keeps the result that it has alone."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from dyncollapse.dynamics.ensemble import blow_up_bound
from dyncollapse.dynamics.training import Diverged, train
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.networks import end_to_end
from dyncollapse.model.streams import join_streams, numbers_per_step
from dyncollapse.simulation.build import Simulation
from dyncollapse.simulation.configuration import Configuration, setting_names

# Numbers in a step at which a run costs about the least (measured for d = 16, docs/results.md): 16 runs of 128 pairs,
# in float32 twice as fast as one run and as fast as 64, or 128 runs of 16 pairs, six times as fast as one. Larger packs
# would only share out less evenly. A GPU needs more to be filled; its value is a rule of thumb.
CACHED, CACHED_GPU = 2**18, 2**24
# Settings that only choose a run's initial weights and data, or that SGD does not read; all others fix its step.
OWN = frozenset(
    {"aug_strength", "aug_dim", "data_var", "pool", "init", "init_scale", "init_rate", "runs", "seed"}
    | {"preset", "case", "flow_batches", "out"}
)


def packs(configurations: Sequence[Configuration], most_runs: int) -> list[list[Configuration]]:
    """Group points into ensembles; one point is never split.

    Args:
        configurations: The points.
        most_runs: How many runs an ensemble holds at most, unless a single point has more.

    Returns:
        The ensembles. Points without SGD gain nothing from company and stay alone.

    Example:
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
    """Return the settings that all points of an ensemble have in common."""
    return tuple(getattr(configuration, name) for name in setting_names() if name not in OWN)


def best_runs(configuration: Configuration) -> int:
    """Return how many runs at once cost the least per run and step: more of them no longer fit a core's cache.

    Example:
        >>> best_runs(Configuration(batch_size=128, dim=16))
        16
    """
    cached = CACHED if configuration.device == "cpu" else CACHED_GPU
    return max(1, cached // numbers_per_step(configuration.batch_size, max(configuration.widths)))


def train_together(simulations: Sequence[Simulation]) -> list[Trajectory]:
    """Train several simulations by SGD in one ensemble; each has the weights and batches that it has alone.

    Args:
        simulations: Their settings outside OWN must agree.

    Returns:
        A trajectory each; `meta["seconds"]` is its share of the time.

    Raises:
        Diverged: When any of the points leaves its bounds. Each should then be trained alone, which shows whose fault
            it is.
    """
    shared, runs = simulations[0].configuration, [one.configuration.runs for one in simulations]
    path = train(
        tuple(torch.cat(layers) for layers in zip(*(one.weights for one in simulations), strict=True)),
        join_streams([one.stream for one in simulations]),
        lr=shared.lr,
        steps=shared.steps,
        objective=simulations[0].objective,
        biases=tuple(torch.cat(layers) for layers in zip(*(one.biases for one in simulations), strict=True)),
        momentum=shared.momentum,
    )
    weights, biases = ([layer.split(runs, 1) for layer in layers] for layers in (path.weights, path.biases))
    split = []
    for i, (simulation, loss) in enumerate(zip(simulations, path.loss.split(runs, 1), strict=True)):
        meta = path.meta | {"seconds": path.meta["seconds"] * runs[i] / sum(runs)}
        own = replace(
            path, weights=tuple(w[i] for w in weights), biases=tuple(b[i] for b in biases), loss=loss, meta=meta
        )
        _check_bounds(simulation, own)
        split.append(own)
    return split


def _check_bounds(simulation: Simulation, path: Trajectory) -> None:
    """Hold a point to its own bound: `train` took one for all, from the largest weights and inputs among them."""
    largest = end_to_end(path.weights).abs().amax((1, 2, 3))
    inputs = next(iter(simulation.stream)).anchor.abs().max()
    if not largest.max() <= blow_up_bound(float(inputs), float(largest[0])):
        raise Diverged(path, path.meta["lr"], path.meta["steps"], None, path.meta["steps"])
