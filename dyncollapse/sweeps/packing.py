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

# Numbers in a step at which a run costs about the least (measured, d = 16): 16 runs of 128 pairs, in float32 twice as
# fast as one run and as fast as 64, or 128 runs of 16 pairs, six times as fast as one. Fewer and larger packs would
# only share less evenly. A GPU takes more (ours).
CACHED, CACHED_GPU = 2**18, 2**24
# Settings that only choose a run's initial weights and data, or that SGD does not read; all others fix its step.
OWN = frozenset(
    {"aug_strength", "aug_dim", "data_var", "pool", "init", "init_scale", "init_rate", "runs", "seed"}
    | {"preset", "case", "flow_batches", "out"}
)


def packs(configurations: Sequence[Configuration], most_runs: int) -> list[list[Configuration]]:
    """Part the points into ensembles of at most `most_runs` runs; one point is never parted.

    Points without SGD gain nothing from company and stay alone.
    """
    groups: dict[tuple[object, ...], list[list[Configuration]]] = {}
    for c in configurations:
        group = groups.setdefault(shape_of(c) if "sgd" in c.dynamics else (c,), [[]])
        if group[-1] and sum(point.runs for point in group[-1]) + c.runs > most_runs:
            group.append([])
        group[-1].append(c)
    return [pack for group in groups.values() for pack in group]


def shape_of(configuration: Configuration) -> tuple[object, ...]:
    """The settings that points of an ensemble share."""
    return tuple(getattr(configuration, name) for name in setting_names() if name not in OWN)


def best_runs(configuration: Configuration) -> int:
    """Runs whose step costs the least per run: more of them no longer fit a core's cache."""
    cached = CACHED if configuration.device == "cpu" else CACHED_GPU
    return max(1, cached // numbers_per_step(configuration.batch_size, max(configuration.widths)))


def train_together(simulations: Sequence[Simulation]) -> list[Trajectory]:
    """SGD of several simulations in one ensemble; each has the weights and the batches that it has alone.

    The settings outside OWN must agree. `meta["seconds"]` is a point's share of the time. Raises Diverged when any
    of the points leaves its bounds: each should then be trained alone, where it is told apart.
    """
    first = simulations[0]
    c, runs = first.configuration, [s.configuration.runs for s in simulations]
    path = train(
        tuple(torch.cat(layers) for layers in zip(*(s.weights for s in simulations), strict=True)),
        join_streams([s.stream for s in simulations]),
        lr=c.lr,
        steps=c.steps,
        objective=first.objective,
        biases=tuple(torch.cat(layers) for layers in zip(*(s.biases for s in simulations), strict=True)),
        momentum=c.momentum,
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
    """Hold a point to its own bound, for `train` took one for all from the largest weights and inputs among them."""
    largest = end_to_end(path.weights).abs().amax((1, 2, 3))
    inputs = next(iter(simulation.stream)).anchor.abs().max()
    if not largest.max() <= blow_up_bound(float(inputs), float(largest[0])):
        raise Diverged(path, path.meta["lr"], path.meta["steps"], None, path.meta["steps"])
