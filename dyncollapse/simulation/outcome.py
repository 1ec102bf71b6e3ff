"""The outcome of a simulation: its records, the dimensions at the end of each, and the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

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
    sizes,
    steps_at,
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
        return _judge_end(self) if self.trajectories else None

    @property
    def judged(self) -> str:
        """The dynamics that the verdict is on: SGD, or the first flow where there is no SGD."""
        return next(name for name in ("sgd", "flow", "population") if name in self.trajectories)

    @cached_property
    def present_growth(self) -> Tensor | None:
        """Rate of each mode on batches at the end, on which escape times rest; None where closed forms give them."""
        closed = self.outlook is None or self.outlook.growth is None or self.simulation.configuration.weight_decay > 0
        if closed or self.judged == "population":
            return None
        return batch_growth(self.simulation, end_to_end(self.trajectories[self.judged].final()))

    @property
    def force(self) -> str:
        """Under which force escape times hold, in words."""
        return "with infinite batches" if self.present_growth is None else "at the present force"

    @cached_property
    def delays(self) -> list[float]:
        """How many times as many steps of SGD each dimension takes as its flow time says, see `delays_of_steps`."""
        count = self.ends[self.judged].singular_value.shape[-1]
        growth = None if self.outlook is None or self.judged != "sgd" else self.outlook.growth  # a flow takes its time
        return delays_of_steps(self.simulation.configuration, growth, count)

    @property
    def steps_delay(self) -> bool:
        """Whether large steps or momentum delay the escape of a waiting dimension."""
        times = [] if self.verdict is None else self.verdict.escapes
        return any(delay > 1 for time, delay in zip(times, self.delays, strict=True) if time is not None)

    @cached_property
    def escape_steps(self) -> list[float | None]:
        """The SGD step at which each dimension escapes."""
        if self.verdict is None:
            return []
        now = float(self.trajectories[self.judged].time[-1])
        return steps_at(self.simulation.configuration, self.verdict.escapes, self.delays, now)

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


def _judge_end(outcome: Outcome) -> Verdict:
    simulation, prediction = outcome.simulation, outcome.outlook
    end, time = outcome.ends[outcome.judged], float(outcome.trajectories[outcome.judged].time[-1])
    if isinstance(simulation.objective, SelfDistillation):
        found, outputs = rest_of(simulation.configuration, simulation.task), simulation.weights[-1].shape[-2]
        return judge_distilled(simulation.configuration, end, found, time, room(simulation), outputs)
    escape = held = None
    # Weight decay may hold at zero what rho < 1 would let grow.
    undecided = prediction is None and simulation.configuration.weight_decay > 0
    if prediction is not None:
        # How long a dimension still waits follows from its value and its force now, not from those at the start.
        values = sizes(simulation, prediction, outcome.trajectories[outcome.judged].final())
        held = held_at_zero(simulation, prediction, values)
        escape = time + escape_times(simulation, prediction, values, outcome.present_growth)
    return judge(
        end,
        scale=embedding_scale(simulation, whitened=end.whitened),
        rest=None if prediction is None else prediction.rest,
        growth=None if prediction is None else prediction.growth,
        held=held,
        escape=escape,
        force=outcome.force,
        time_per_step=None if max(outcome.delays) > 1 else time_per_step(simulation.configuration),
        room=room(simulation),
        outputs=simulation.weights[-1].shape[-2],
        rho_decides=rho_decides_fate(simulation.objective, simulation.task.views) and not undecided,
        decays=undecided,
    )
