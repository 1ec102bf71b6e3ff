"""What the page draws, as numbers: closed forms of a setting, records beside them, and the phase diagram."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dyncollapse.dynamics.training import record_steps
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.explore.controls import CONTROLS
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.simulation.build import Simulation, build
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.dimensions import Dimensions, geometric_mean, mode_dimensions
from dyncollapse.simulation.outcome import Outcome, embedding_scale
from dyncollapse.simulation.prediction import (
    Outlook,
    delays_of_steps,
    escape_times,
    outlook,
    sizes,
    steps_at,
    time_per_step,
)
from dyncollapse.simulation.report import report
from dyncollapse.simulation.verdict import measured_values
from dyncollapse.theory.mode_paths import mode_paths
from dyncollapse.theory.modes import modes

# Points of a curve over log time, and columns and rows of the phase diagram.
POINTS, COLUMNS, ROWS = 160, 49, 60
SAME = 1e-5  # relative distance within which two flow times are one: the slider has six digits


@dataclass(frozen=True, eq=False)
class Path:
    """Singular values of the modes over flow time.

    Attributes:
        time: Flow times (t,).
        values: Mean over runs (t, k), in the order of the modes.
        spread: Standard deviation over runs (t, k).
    """

    time: Float[Tensor, " t"]
    values: Float[Tensor, "t k"]
    spread: Float[Tensor, "t k"]


@dataclass(frozen=True, eq=False)
class View:
    """What the page shows of a setting: closed forms, and the records that there are.

    Attributes:
        simulation: The setting, built.
        trajectories: Records by the name of the dynamics.
    """

    simulation: Simulation
    trajectories: Mapping[str, Trajectory] = field(default_factory=dict)

    @property
    def configuration(self) -> Configuration:
        """The settings."""
        return self.simulation.configuration

    @cached_property
    def outcome(self) -> Outcome:
        """The records as a simulation's outcome."""
        return Outcome(self.simulation, self.trajectories)

    @cached_property
    def report(self) -> dict[str, Any]:
        """What run.json would hold."""
        return report(self.outcome)

    @property
    def prediction(self) -> dict[str, Any]:
        """What run.json says under "prediction": threshold, modes with rho, rest value and escape time, assumptions."""
        found: dict[str, Any] = self.report["prediction"]
        return found

    @cached_property
    def escape_steps(self) -> list[float | None]:
        """The SGD step at which each mode escapes from the start, in closed form."""
        c, times = self.configuration, [mode["escape_time"] for mode in self.prediction["modes"]]
        growth = None if self.outcome.outlook is None else self.outcome.outlook.growth
        return steps_at(c, times, delays_of_steps(c, growth, len(times)))

    @cached_property
    def start(self) -> Float[Tensor, " k"]:
        """Size of each mode at t = 0 (`sizes`; without closed forms its singular value), geometric mean over runs."""
        weights, predicted = self.simulation.weights, self.outcome.outlook
        if predicted is None:
            return geometric_mean(mode_dimensions(weights, self.simulation.task).singular_value.to(torch.float64))
        return geometric_mean(sizes(self.simulation, predicted, weights).to(torch.float64))

    @cached_property
    def times(self) -> Float[Tensor, " t"]:
        """Flow times at which dynamics are recorded."""
        c = self.configuration
        return time_per_step(c) * torch.tensor(record_steps(c.steps), dtype=torch.float64)

    @cached_property
    def closed(self) -> Path | None:
        """Paths in closed form at the recorded times, and densely for a curve; None where there are none."""
        first, last = self.times[self.times > 0][[0, -1]].log().tolist()
        dense = torch.linspace(first, last, POINTS, dtype=torch.float64).exp()
        time = torch.cat([self.times, dense]).unique()
        values = _paths(self.simulation, self.outcome.outlook, self.start, time)
        return None if values is None else Path(time, values, torch.zeros_like(values))

    def recorded(self, name: str) -> Path:
        """Paths of a dynamics, each singular value assigned to a mode."""
        path = self.trajectories[name]
        weights = tuple(w.to(torch.float64) for w in path.weights)
        found = mode_dimensions(weights, self.simulation.task).singular_value
        return Path(path.time, found.mean(1), found.std(1, correction=0))

    @cached_property
    def paths(self) -> dict[str, Path]:
        """All paths by name: "closed form" where there is one, then the records."""
        closed = {} if self.closed is None else {"closed form": self.closed}
        return {**closed, **{name: self.recorded(name) for name in self.trajectories}}

    def at(self, time: float) -> dict[str, tuple[Float[Tensor, " k"], Float[Tensor, " k"]]]:
        """Values and spreads of each path at the recorded time nearest to this one, where the path has come so far."""
        found = {}
        for name, path in self.paths.items():
            place = int((path.time - time).abs().argmin())
            if abs(float(path.time[place]) - time) <= SAME * time:
                found[name] = path.values[place], path.spread[place]
        return found

    def collapsed_below(self, values: Float[Tensor, " k"]) -> float:
        """The value up to which a dimension counts as collapsed beside these, as in the verdict."""
        nothing = torch.zeros_like(values)
        scale = embedding_scale(self.simulation, whitened=self.prediction["whitened"])
        return measured_values(Dimensions(values, nothing, nothing, nothing), scale)[1]

    def rows(self, time: float) -> list[dict[str, Any]]:
        """One row per mode: variances, rho, start, rest value, escape time and step, and each path's value at a time.

        Args:
            time: One of `times`.

        Returns:
            Rows of numbers; None where a number is infinite or unknown.
        """
        paths, rows = self.at(time), []
        for k, (mode, step) in enumerate(zip(self.prediction["modes"], self.escape_steps, strict=True)):
            row = {"mode": k + 1, **mode, "start": float(self.start[k])}
            row["escape_step"] = None if step is None else round(step)
            rows.append(row | {name: float(values[k]) for name, (values, _) in paths.items()})
        return rows


@dataclass(frozen=True, eq=False)
class Phases:
    """The size of an augmented mode over augmentation strength and flow time, in closed form.

    Attributes:
        strengths: Augmentation variances k (n,).
        time: Flow times (t,).
        start: Its singular value at t = 0.
        sizes: Singular value (t, n); None where there is no closed form of paths.
        escapes: Flow time (n,) until which the mode waits; infinite for one that never grows.
        threshold: k from which on the mode dies; None without one.
    """

    strengths: Float[Tensor, " n"]
    time: Float[Tensor, " t"]
    start: float
    sizes: Float[Tensor, "t n"] | None
    escapes: Float[Tensor, " n"]
    threshold: float | None


def moments(lr: float, steps: int) -> list[float]:
    """The flow times between which the page's slider chooses: those at which dynamics are recorded, to six digits.

    Args:
        lr: Learning rate.
        steps: Steps of SGD.

    Returns:
        Ascending times above 0.

    Examples:
        >>> moments(0.1, 3000)[-1]
        300.0
    """
    return list(dict.fromkeys(float(f"{lr * step:.6g}") for step in record_steps(steps) if step))


def view_of(configuration: Configuration) -> View:
    """Build a setting's closed forms, without records.

    Args:
        configuration: The settings.

    Returns:
        What the page shows of it at once.

    Raises:
        SettingError: As `build`.

    Examples:
        >>> from dyncollapse.explore.controls import configuration_of
        >>> view = view_of(configuration_of({"dim": 4, "aug_strength": 0.5}))
        >>> [round(row["rho"], 3) for row in view.rows(300.0)]
        [0.0, 0.0, 0.5, 0.5]
    """
    return View(build(configuration))


def phases(view: View) -> Phases | None:
    """Compute the phase diagram around a setting: all strengths of the slider, over the setting's times.

    Args:
        view: The setting.

    Returns:
        The diagram; None where nothing is augmented and where there are no closed forms.
    """
    c, simulation = view.configuration, view.simulation
    if c.aug_dim == 0:
        return None
    most = CONTROLS["aug_strength"].values[-1]
    strengths = torch.linspace(0, most, COLUMNS, dtype=torch.float64)
    eye, noise = torch.eye(COLUMNS, dtype=torch.float64), torch.diag(strengths)
    between = None if c.view_corr is None else float(c.view_corr) * noise
    grid = replace(simulation, task=GaussianTask(c.data_var * eye, noise, c.view_convention, between))
    predicted = outlook(grid)
    if predicted is None:
        return None
    common = modes(grid.task)
    place = common.directions.abs().argmax(0).argsort()  # of each strength among the modes
    start = _start_of_augmented(simulation)
    first, last = view.times[view.times > 0][[0, -1]].log().tolist()
    time = torch.linspace(first, last, ROWS, dtype=torch.float64).exp()
    values = torch.full((COLUMNS,), start, dtype=torch.float64)
    paths, escapes = _paths(grid, predicted, values, time), escape_times(grid, predicted, values)
    paths = None if paths is None else paths[:, place]
    return Phases(strengths, time, start, paths, escapes[place], view.prediction["threshold"])


def _start_of_augmented(simulation: Simulation) -> float:
    """Geometric mean of the singular values with which augmented modes start, over modes and runs.

    In narrow layers some modes start without an output, at 0. They are left out; where all augmented modes are among
    them, the other modes say from where a mode starts.
    """
    found = mode_dimensions(simulation.weights, simulation.task).singular_value.to(torch.float64)
    augmented = modes(simulation.task).aug_var > 0
    of_augmented = found[:, : len(augmented)][:, augmented]
    started = of_augmented if bool((of_augmented > 0).any()) else found
    return float(geometric_mean(started[started > 0].unsqueeze(-1))[0])


def _paths(
    simulation: Simulation, predicted: Outlook | None, start: Float[Tensor, " k"], time: Float[Tensor, " t"]
) -> Float[Tensor, "t k"] | None:
    c = simulation.configuration
    if predicted is None or predicted.forces is None:
        return None
    return mode_paths(predicted.forces, start[: len(predicted.rest)], time, c.weight_decay, c.depth)
