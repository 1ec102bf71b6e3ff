"""One toy simulation from its configuration: build, run the asked-for dynamics, report, save."""

import itertools
import json
import math
import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from dyncollapse.comparison import relative_distance
from dyncollapse.configuration import Configuration
from dyncollapse.diagnosis import Dimensions, Verdict, judge, mode_dimensions, natural_scale, sampled_dimensions
from dyncollapse.equilibria import collapse_threshold, escape_time, growth_rates, modes, rest_singular_values
from dyncollapse.files import write_whole
from dyncollapse.flow import FlowFailed, population_flow, sample_flow
from dyncollapse.gaussian import GaussianTask, Pairs, PairStream, stack_pairs
from dyncollapse.networks import (
    Weights,
    end_to_end,
    forward,
    gaussian_init,
    spectrum_init,
    uniform_biases,
    uniform_init,
)
from dyncollapse.objective import Objective
from dyncollapse.population import check_population
from dyncollapse.spectra import covariance_spectrum, mode_singular_values
from dyncollapse.training import Diverged, record_steps, train
from dyncollapse.trajectory import Trajectory

Progress = Callable[[str, float, float], None]

# Samples for the embedding spectrum and for the verdict on ReLU networks: 1 % accuracy of a variance needs 2e4.
PROBE_SAMPLES = 20_000


@dataclass(frozen=True, eq=False)
class Simulation:
    """A configuration turned into the objects that the dynamics need; every run shares `objective` and `task`."""

    configuration: Configuration
    task: GaussianTask
    objective: Objective
    weights: Weights
    biases: tuple[Tensor, ...]
    stream: PairStream
    probe: Pairs


@dataclass(eq=False)
class Outcome:
    """What a simulation has recorded so far; `status` is running, finished, diverged, failed or interrupted."""

    simulation: Simulation
    trajectories: dict[str, Trajectory] = field(default_factory=dict)
    status: str = "running"


def build(configuration: Configuration) -> Simulation:
    """Make task, objective, initial weights and batches. Raises ValueError for settings that do not fit together."""
    c = configuration
    device, dtype = torch.device(c.device), getattr(torch, c.dtype)
    task = GaussianTask.block(c.dim, c.aug_dim, c.aug_strength, c.data_var, c.views).to(dtype, device)
    objective = Objective(c.loss, c.temperature, c.activation)
    objective.check_views(c.views)
    if "population" in c.dynamics:
        check_population(objective)
    source = Generator().manual_seed(c.seed)
    widths, runs = [c.dim] * (c.depth + 1), (c.runs,)
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


def run(simulation: Simulation, progress: Progress, keep: Callable[[Outcome], None]) -> Outcome:
    """Run each of the configuration's dynamics from the same start; `keep` is called whenever one has ended.

    The flows report at the times of the SGD record. Diverged, FlowFailed and Ctrl-C pass through after
    what they carry has been added to the outcome and handed to `keep`.
    """
    outcome = Outcome(simulation)
    names = simulation.configuration.dynamics
    for name in names:
        try:
            outcome.trajectories[name] = _dynamics(name, simulation, partial(progress, name))
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
    time = c.lr / (1 - c.momentum) * torch.tensor(record_steps(c.steps), dtype=torch.float64)
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
    trajectory = next(
        (outcome.trajectories[n] for n in ("sgd", "flow", "population") if n in outcome.trajectories), None
    )
    if trajectory is None:
        return None
    s = outcome.simulation
    return judge(dimensions(s, trajectory), natural_scale(s.task, s.objective), _rest(s))


def report(outcome: Outcome) -> dict[str, Any]:
    """Everything about an outcome as plain JSON values; what is infinite or does not exist is null."""
    simulation, judged = outcome.simulation, verdict(outcome)
    return {
        "config": {**simulation.configuration.as_dict(), "versions": _versions()},
        "status": outcome.status,
        "prediction": _prediction(simulation),
        "dynamics": {name: _summary(simulation, path) for name, path in outcome.trajectories.items()},
        "sgd_vs_flow": _distance(outcome),
        "verdict": None
        if judged is None
        else {
            "collapsed": sum(judged.collapsed),
            "mechanism": judged.mechanism,
            "threshold": judged.threshold,
            "sentence": judged.sentence,
            "dimensions": [
                {"collapsed": gone, "mechanism": mechanism}
                for gone, mechanism in zip(judged.collapsed, judged.mechanisms, strict=True)
            ],
        },
    }


def save(outcome: Outcome, folder: Path) -> None:
    """Write run.json and one .npz per trajectory; nothing is ever half-written under its final name."""
    settings = {"config": outcome.simulation.configuration.as_dict()}  # the seed goes with every file
    for name, trajectory in outcome.trajectories.items():
        replace(trajectory, meta=trajectory.meta | settings).save(folder / f"{name}.npz")
    text = json.dumps(report(outcome), indent=1, allow_nan=False) + "\n"
    write_whole(folder / "run.json", lambda partial: partial.write_text(text))


def reserve_folder(out: Path | None) -> Path:
    """Create the run folder: `out`, which must be new or empty, or the next free runs/simulate-NNNN.

    Raises ValueError, one line, when it exists with content or cannot be written.
    """
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            if any(out.iterdir()):
                raise ValueError(f"--out {out} already holds files; name a new folder or remove it")
            _probe_writable(out)
            return out
        for number in itertools.count(1):
            folder = Path("runs") / f"simulate-{number:04d}"
            folder.parent.mkdir(exist_ok=True)
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise ValueError(
            f"--out {out or 'runs'} cannot be written ({error.strerror}); name a folder you may write to"
        ) from error
    raise AssertionError("unreachable: the count has no end")


def _probe_writable(folder: Path) -> None:
    probe = folder / ".writable"
    probe.touch()
    probe.unlink()


def _prediction(s: Simulation) -> dict[str, Any]:
    c = s.configuration
    m = modes(s.task)
    start = mode_singular_values(end_to_end(s.weights), m.directions, m.groups)
    # The product's geometric mean over runs: escape times go with log p0 (one layer) or powers of it.
    start = start.log().mean(0).exp()
    rest = _rest(s)
    growth = None if rest is None else growth_rates(s.task, c.loss, c.temperature)
    listed = []
    for k in range(s.task.dim):
        entry: dict[str, Any] = {name: float(getattr(m, name)[k]) for name in ("data_var", "aug_var")}
        entry |= {"rho": float(m.ratio[k]), "rest_singular_value": None, "escape_time": None}
        if rest is not None and growth is not None:
            # An unbounded mode counts as escaped once its embedding variance reaches the kernel's width, 1.
            target = min(float(rest[k]), float(m.data_var[k]) ** -0.5)
            entry["rest_singular_value"] = _finite(float(rest[k]))
            entry["escape_time"] = _finite(escape_time(float(start[k]), target, float(growth[k]), c.depth))
        listed.append(entry)
    return {
        "threshold": None if rest is None else collapse_threshold(c.data_var, c.views, c.loss),
        "assumes": ["infinite batch", "no bias", "escape times: aligned and balanced layers"],
        "modes": listed,
    }


def _rest(s: Simulation) -> Tensor | None:
    """Rest values in closed form, or None where there is none: ntxent and ReLU networks."""
    if s.objective.loss == "ntxent" or s.objective.activation != "linear":
        return None
    return rest_singular_values(s.task, s.configuration.loss, s.configuration.temperature)


def _summary(s: Simulation, path: Trajectory) -> dict[str, Any]:
    sigma = path.singular_values[-1].to(torch.float64)
    weights, biases = path.final(), tuple(b[-1] for b in path.biases)
    inputs = s.probe.negatives.to(weights[0].dtype)
    spectrum = covariance_spectrum(forward(weights, inputs, s.objective.activation, biases))
    summary = {
        "product_singular_values": [_finite(value) for value in sigma.mean(0).tolist()],
        "product_singular_values_spread": [_finite(value) for value in sigma.std(0, correction=0).tolist()],
        "embedding_spectrum": spectrum.mean(0).tolist(),
        "time": float(path.time[-1]),
        "loss": _finite(float(path.loss[-1].mean())),
        "seconds": path.meta["seconds"],
        "imbalance_drift": path.imbalance_drift,
    }
    return summary | {
        name: path.meta[name] for name in ("method", "rtol", "evaluations", "rest_time") if name in path.meta
    }


def _distance(outcome: Outcome) -> dict[str, Any] | None:
    if not {"sgd", "flow"} <= set(outcome.trajectories):
        return None
    times, distance = relative_distance(outcome.trajectories["sgd"], outcome.trajectories["flow"])
    mean = distance.mean(-1)
    return {
        "relative_distance": _finite(float(mean.max())),
        "at_end": _finite(float(mean[-1])),
        "until_time": float(times[-1]),
    }


def _versions() -> dict[str, str]:
    try:
        own = version("dyncollapse")
    except PackageNotFoundError:  # run from a checkout that was not installed
        own = "unknown"
    packages = {name: version(name) for name in ("numpy", "scipy", "torch")}
    return {"dyncollapse": own, "python": platform.python_version(), **packages}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
