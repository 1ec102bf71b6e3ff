"""The outcome of a simulation: its records, the dimensions at the end of each, and the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from dyncollapse.diagnostics.verdict import Verdict
from dyncollapse.dynamics.trajectory import Trajectory
from dyncollapse.model.networks import end_to_end
from dyncollapse.model.self_distillation import SelfDistillation
from dyncollapse.simulation.build import Simulation
from dyncollapse.simulation.dimensions import Dimensions, mode_dimensions, sampled_dimensions
from dyncollapse.simulation.distillation import distilled_scale, judge_distilled, rest_of
from dyncollapse.simulation.prediction import (
    Outlook,
    batch_growth,
    delays_of_steps,
    escape_times,
    held_at_zero,
    outlook,
    room,
    time_per_step,
)
from dyncollapse.simulation.verdict import judge, natural_scale, rho_decides_fate


@dataclass(frozen=True, eq=False, repr=False)
class Outcome:
    """What a simulation has recorded so far, and what became of its dimensions.

    Attributes:
        simulation: The simulation.
        trajectories: The record of each dynamics by name, in the order in which they ran.
        status: "running", "finished", "diverged", "failed" or "interrupted".
    """

    simulation: Simulation
    trajectories: Mapping[str, Trajectory] = field(default_factory=dict)
    status: str = "running"

    def __repr__(self) -> str:
        """Which dynamics are recorded, and the status."""
        return f"Outcome({', '.join(self.trajectories) or 'no dynamics'}, {self.status})"

    @cached_property
    def ends(self) -> dict[str, Dimensions]:
        """The dimensions at the end of each dynamics."""
        return {name: dimensions(self.simulation, path) for name, path in self.trajectories.items()}

    @cached_property
    def verdict(self) -> Verdict | None:
        """The verdict on the end of SGD, or of the first flow where there is no SGD; None without any record."""
        if not self.trajectories:
            return None
        name = self.judged
        return _judge_end(self.simulation, self.outlook, name, self.trajectories[name], self.ends[name])

    @cached_property
    def delays(self) -> list[float]:
        """How many times as many steps of SGD each dimension takes as its flow time says, see `delays_of_steps`."""
        if self.verdict is None:
            return []
        predicted = self.outlook if self.judged == "sgd" else None  # a flow takes its time
        return delays_of_steps(self.simulation.configuration, predicted, len(self.verdict.fates))

    @property
    def steps_delay(self) -> bool:
        """Whether large steps or momentum delay the escape of a waiting dimension."""
        times = [] if self.verdict is None else self.verdict.escapes
        return any(delay > 1 for time, delay in zip(times, self.delays, strict=True) if time is not None)

    @cached_property
    def escape_steps(self) -> list[float | None]:
        """The SGD step at which each dimension escapes: from now on a step may cover less than its flow time."""
        if self.verdict is None:
            return []
        step, now = time_per_step(self.simulation.configuration), float(self.trajectories[self.judged].time[-1])
        return [
            None if time is None else (now + (time - now) * delay) / step
            for time, delay in zip(self.verdict.escapes, self.delays, strict=True)
        ]

    @property
    def judged(self) -> str:
        """The dynamics that the verdict is on: SGD, or the first flow where there is no SGD."""
        return next(name for name in ("sgd", "flow", "population") if name in self.trajectories)

    @cached_property
    def follows_batches(self) -> bool:
        """Whether escape times follow from the present force on batches, and not on infinitely many samples."""
        path = self.trajectories.get("sgd") or self.trajectories.get("flow")
        return path is not None and batch_growth(self.simulation, end_to_end(path.final())) is not None

    @cached_property
    def outlook(self) -> Outlook | None:
        """What the closed forms say on the modes; None where there are none."""
        return outlook(self.simulation)


def dimensions(simulation: Simulation, trajectory: Trajectory) -> Dimensions:
    """The dimensions at a trajectory's end: mode by mode for a linear network, from the probe samples for ReLU."""
    weights = tuple(w.to(simulation.task.data_cov.dtype) for w in trajectory.final())
    if simulation.objective.activation == "linear":
        return mode_dimensions(weights, simulation.task)
    biases = tuple(b[-1].to(weights[0].dtype) for b in trajectory.biases)
    return sampled_dimensions(weights, simulation.probe, simulation.objective.activation, biases)


def embedding_scale(simulation: Simulation, *, whitened: bool = False) -> float:
    """Singular value at which the embeddings of a simulation reach the scale of its loss.

    Args:
        simulation: The simulation.
        whitened: Whether its dimensions are whitened, see `Dimensions`.

    Returns:
        `natural_scale`; of byol and simsiam the value at rest of a mode without augmentation and weight decay.
    """
    if isinstance(simulation.objective, SelfDistillation):
        return distilled_scale(simulation.configuration)
    return natural_scale(simulation.task, simulation.objective, whitened=whitened)


def _judge_end(
    simulation: Simulation, prediction: Outlook | None, name: str, trajectory: Trajectory, end: Dimensions
) -> Verdict:
    if isinstance(simulation.objective, SelfDistillation):
        found, outputs = rest_of(simulation.configuration, simulation.task), simulation.weights[-1].shape[-2]
        return judge_distilled(
            simulation.configuration, end, found, float(trajectory.time[-1]), room(simulation), outputs
        )
    escape = held = None
    # Weight decay may hold at zero what rho < 1 would let grow.
    undecided = prediction is None and simulation.configuration.weight_decay > 0
    followed = prediction if name == "sgd" else None
    delays = delays_of_steps(simulation.configuration, followed, end.singular_value.shape[-1])
    if prediction is not None:
        # How long a dimension still waits follows from its value and its force now, not from those at the start.
        growth = None if name == "population" else batch_growth(simulation, end_to_end(trajectory.final()))
        values = end.singular_value[..., : len(prediction.rest)]
        held = held_at_zero(simulation, prediction, values)
        escape = float(trajectory.time[-1]) + escape_times(simulation, prediction, values, growth)
    return judge(
        end,
        scale=embedding_scale(simulation, whitened=end.whitened),
        rest=None if prediction is None else prediction.rest,
        growth=None if prediction is None else prediction.growth,
        held=held,
        escape=escape,
        time_per_step=None if max(delays, default=1.0) > 1 else time_per_step(simulation.configuration),
        room=room(simulation),
        outputs=simulation.weights[-1].shape[-2],
        rho_decides=rho_decides_fate(simulation.objective, simulation.task.views) and not undecided,
        decays=undecided,
    )
