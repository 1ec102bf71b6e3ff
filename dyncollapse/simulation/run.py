"""One toy simulation from its configuration: build it, run the asked-for dynamics, judge what became of it."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dyncollapse.diagnostics.verdict import (
    Dimensions,
    Verdict,
    judge,
    mode_dimensions,
    natural_scale,
    sampled_dimensions,
)
from dyncollapse.dynamics.flow import population_flow, sample_flow
from dyncollapse.dynamics.solver import FlowFailed
from dyncollapse.dynamics.training import Diverged, record_steps, train
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.initialisers import gaussian_init, spectrum_init, uniform_biases, uniform_init
from dyncollapse.model.networks import Weights, end_to_end
from dyncollapse.model.objective import Objective, mean_force
from dyncollapse.model.pairs import Pairs, stack_pairs
from dyncollapse.model.streams import JoinedStream, PairStream
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.footprint import check_room, simulation_bytes
from dyncollapse.theory.equilibria import escape_time, growth_rates, rest_singular_values
from dyncollapse.theory.modes import modes

Progress = Callable[[str, float, float], None]

# Samples for the embedding spectrum and for the verdict on ReLU networks: 1 % accuracy of a variance needs 2e4.
PROBE_SAMPLES = 20_000

# Pairs of the probe, in batches, that the force is averaged over: a few per cent of it. Larger batches than that, whose
# n x n weights would not fit, differ from infinitely many samples no more than one of this size does.
MOST_PAIRS = 4096


@dataclass(frozen=True, eq=False)
class Simulation:
    """A configuration turned into the objects that the dynamics need; every run shares `objective` and `task`."""

    configuration: Configuration
    task: GaussianTask
    objective: Objective
    weights: Weights
    biases: tuple[Tensor, ...]
    stream: PairStream | JoinedStream
    probe: Pairs


@dataclass(eq=False)
class Outcome:
    """What a simulation has recorded so far; `status` is running, finished, diverged, failed or interrupted."""

    simulation: Simulation
    trajectories: dict[str, Trajectory] = field(default_factory=dict)
    status: str = "running"


def build(configuration: Configuration) -> Simulation:
    """Make task, objective, initial weights and batches. Raises SettingError for what does not fit into memory."""
    c = configuration
    advice = "lower `dim`, `depth`, `batch_size`, `pool` or `runs`"
    check_room(simulation_bytes(c), c.device, "this simulation", advice)
    device, dtype = torch.device(c.device), getattr(torch, c.dtype)
    task = GaussianTask.block(c.dim, c.aug_dim, c.aug_strength, c.data_var, c.views).to(dtype, device)
    objective = Objective(c.loss, c.temperature, c.activation)
    source = Generator().manual_seed(c.seed)
    widths, runs = c.widths, (c.runs,)
    if c.init == "spectrum":
        weights = spectrum_init(widths, source, runs, c.init_scale, c.init_rate or 0.0)
    else:
        weights = (gaussian_init if c.init == "gaussian" else uniform_init)(widths, source, runs, c.init_scale)
    biases = uniform_biases(widths, source, runs) if c.bias else ()
    draw, probe = (Generator(device).manual_seed(int(torch.randint(2**62, (), generator=source))) for _ in range(2))
    return Simulation(
        c,
        task,
        objective,
        tuple(w.to(device, dtype) for w in weights),
        tuple(b.to(device, dtype) for b in biases),
        task.stream(c.batch_size, draw, runs, c.pool or None),
        task.sample(PROBE_SAMPLES, probe),
    )


def run(
    simulation: Simulation,
    progress: Progress,
    keep: Callable[[Outcome], None],
    known: Mapping[str, Trajectory] | None = None,
) -> Outcome:
    """Run each of the configuration's dynamics from the same start; `keep` is called whenever one has ended.

    Dynamics in `known` have been run already and are not run again. Diverged, FlowFailed and Ctrl-C pass through after
    what they carry has been added to the outcome and handed to `keep`.
    """
    outcome = Outcome(simulation)
    names = simulation.configuration.dynamics
    for name in names:
        try:
            done = (known or {}).get(name)
            outcome.trajectories[name] = done or _dynamics(name, simulation, partial(progress, name))
        except (Diverged, FlowFailed, KeyboardInterrupt) as stop:
            partial_record = getattr(stop, "trajectory", None)  # a Ctrl-C between two dynamics carries none
            if partial_record is not None and len(partial_record.time):
                outcome.trajectories[name] = partial_record
            outcome.status = {Diverged: "diverged", FlowFailed: "failed"}.get(type(stop), "interrupted")
            keep(outcome)
            raise
        if name == names[-1]:
            outcome.status = "finished"
        keep(outcome)
    return outcome


def _dynamics(name: str, s: Simulation, progress: Callable[[float, float], None]) -> Trajectory:
    c = s.configuration
    if name == "sgd":
        return train(
            s.weights,
            s.stream,
            lr=c.lr,
            steps=c.steps,
            objective=s.objective,
            biases=s.biases,
            momentum=c.momentum,
            progress=progress,
        )
    time = time_per_step(c) * torch.tensor(record_steps(c.steps), dtype=torch.float64)
    if name == "flow":
        batches = stack_pairs(list(itertools.islice(s.stream, c.flow_batches)))
        return sample_flow(
            s.weights,
            batches,
            time,
            objective=s.objective,
            biases=s.biases,
            progress=progress,
        )
    return population_flow(s.weights, s.task, time, objective=s.objective, progress=progress)


def dimensions(simulation: Simulation, trajectory: Trajectory) -> Dimensions:
    """Dimensions of the network at the trajectory's end: mode by mode for linear ones, from probe samples for ReLU."""
    weights = tuple(w.to(simulation.task.data_cov.dtype) for w in trajectory.final())
    if simulation.objective.activation == "linear":
        return mode_dimensions(weights, simulation.task)
    biases = tuple(b[-1].to(weights[0].dtype) for b in trajectory.biases)
    return sampled_dimensions(weights, simulation.probe, simulation.objective.activation, biases)


def verdict(outcome: Outcome) -> Verdict | None:
    """Judge SGD's end if SGD was run, else the first flow's; None when nothing has been recorded."""
    name = next((n for n in ("sgd", "flow", "population") if n in outcome.trajectories), None)
    if name is None:
        return None
    s, trajectory = outcome.simulation, outcome.trajectories[name]
    found = dimensions(s, trajectory)
    escape = None
    if rest_values(s) is not None:
        # Where it stands now, not where it started, tells how long a dimension still waits; so does what pulls it now.
        growth = None if name == "population" else batch_growth(s, end_to_end(trajectory.final()))
        escape = float(trajectory.time[-1]) + escape_times(s, found.singular_value[..., : s.task.dim], growth)
    return judge(
        found,
        natural_scale(s.task, s.objective),
        rest_values(s),
        escape,
        time_per_step(s.configuration),
        room(s),
    )


def room(s: Simulation) -> int:
    """How many dimensions the layers can pass on: the width of the narrowest.

    What a nonlinearity makes of the inputs may have more dimensions than these, so that only the widths behind it
    count.
    """
    outputs = [w.shape[-2] for w in s.weights]
    linear = s.objective.activation == "linear" or len(s.weights) == 1
    return min([s.task.dim, *outputs] if linear else outputs)


def rest_values(s: Simulation) -> Tensor | None:
    """Rest values in closed form, or None where there is none: ntxent and ReLU networks."""
    if s.objective.loss == "ntxent" or s.objective.activation != "linear":
        return None
    return rest_singular_values(s.task, s.configuration.loss, s.configuration.temperature)


def escape_times(
    s: Simulation, values: Float[Tensor, "*runs d"], growth: Float[Tensor, " d"] | None = None
) -> Float[Tensor, " d"]:
    """Flow time by which each mode escapes from the given singular values, for linear networks.

    Assumes aligned layers under a constant force `growth`, by default that of infinitely many samples at W = 0:
    balanced layers then take this long, all others less. While other modes still grow, or grow without bound, the
    force of finite batches goes on fading, and escapes come later than this says. The mean over runs is geometric,
    for escape times go with log p (one layer) or powers of it.
    """
    rest, m = rest_values(s), modes(s.task)
    assert rest is not None
    if growth is None:
        growth = growth_rates(s.task, s.configuration.loss, s.configuration.temperature)
    # An unbounded mode counts as escaped once its embedding variance reaches the kernel's width, 1.
    target = torch.minimum(rest, m.data_var.rsqrt())
    start = values.reshape(-1, s.task.dim).log().mean(0).exp()
    depth = s.configuration.depth
    modewise = zip(start.tolist(), target.tolist(), growth.tolist(), strict=True)
    return torch.tensor([escape_time(p, p_end, x0, depth) for p, p_end, x0 in modewise], dtype=torch.float64)


def batch_growth(s: Simulation, product: Float[Tensor, "runs m d"]) -> Float[Tensor, " d"] | None:
    """v^T X v on batches of the configured size, mean over runs, for the direction v of each of `modes`.

    Once unaugmented modes separate the embeddings, the softmax of a finite batch has little weight left for its
    negatives and every force fades: infinitely many samples would say nothing about how long a dimension waits.
    Among equal modes the directions are P's own. None for losses other than Eq. 2, and beyond floating point.
    """
    if s.objective.loss != "infonce":
        return None
    n = min(s.configuration.batch_size, MOST_PAIRS)
    anchor, positive = (x[: MOST_PAIRS // n * n].unflatten(0, (-1, n)) for x in (s.probe.anchor, s.probe.positive))
    pairs = Pairs(anchor, positive, s.task.views)
    product, m = product.to(s.task.data_cov.dtype), modes(s.task)
    growth = product.new_empty(len(product), s.task.dim)
    for p, rates in zip(product, growth, strict=True):
        force = mean_force(p, pairs)
        for group in m.groups:
            frame = m.directions[:, group]
            v = frame @ torch.linalg.svd(p @ frame).Vh.T  # all of them, beyond P's rank too
            rates[group] = ((v.T @ force) * v.T).sum(-1)
    mean = growth.mean(0)
    return mean if mean.isfinite().all() else None


def time_per_step(c: Configuration) -> float:
    """Flow time that one SGD step covers."""
    return c.lr / (1 - c.momentum)
