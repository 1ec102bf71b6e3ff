"""From a configuration to what the dynamics need: task, objective, initial weights and batches."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from dyncollapse.dynamics.ensemble import BLOW_UP
from dyncollapse.model.gaussian import GaussianTask
from dyncollapse.model.initialisers import gaussian_init, spectrum_init, uniform_biases, uniform_init
from dyncollapse.model.networks import Weights, end_to_end
from dyncollapse.model.objective import Objective
from dyncollapse.model.pairs import Pairs
from dyncollapse.model.self_distillation import SelfDistillation, balanced_predictor
from dyncollapse.model.streams import JoinedStream, PairStream
from dyncollapse.runtime.settings import SettingError
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.simulation.distillation import self_distillation
from dyncollapse.simulation.footprint import check_room, simulation_bytes
from dyncollapse.simulation.task import task_of

# Samples for the embedding spectrum and for the verdict on ReLU networks: a variance to 1 % takes 2e4 of them.
PROBE_SAMPLES = 20_000


@dataclass(frozen=True, eq=False, repr=False)
class Simulation:
    """What the dynamics of a configuration need.

    Attributes:
        configuration: The settings.
        task: The distribution of data and augmentation, shared by all runs.
        objective: The loss, or BYOL's rates, and the activation, shared by all runs.
        weights: Initial weights, one tensor (runs, out, in) per layer.
        biases: Initial biases, one tensor (runs, out) per layer, or none.
        stream: The batches of all runs.
        probe: PROBE_SAMPLES further pairs, by which the end of a simulation is judged.
        predictor: Initial predictors (runs, out, out) of byol and simsiam, in balance with the last layer; else None.
    """

    configuration: Configuration
    task: GaussianTask
    objective: Objective | SelfDistillation
    weights: Weights
    biases: tuple[Tensor, ...]
    stream: PairStream | JoinedStream
    probe: Pairs
    predictor: Tensor | None = None

    def __repr__(self) -> str:
        """The loss, the layers and the number of runs."""
        c = self.configuration
        return f"Simulation({c.loss}, widths {c.layer_widths}, {c.runs} runs)"


def build(configuration: Configuration) -> Simulation:
    """Draw initial weights and set up task, objective and batches, from the configuration's seed.

    Args:
        configuration: The settings.

    Returns:
        The simulation, ready for `run`.

    Raises:
        SettingError: Where it would not fit into memory.

    Examples:
        >>> build(Configuration(dim=4, aug_dim=2, depth=2, runs=3, pool=0)).weights[0].shape
        torch.Size([3, 4, 4])
    """
    advice = "lower `dim`, `depth`, `batch_size`, `pool` or `runs`"
    check_room(simulation_bytes(configuration), configuration.device, "this simulation", advice)
    device, dtype = torch.device(configuration.device), getattr(torch, configuration.dtype)
    task = task_of(configuration).to(dtype, device)
    distilled = self_distillation(configuration)
    objective = distilled or Objective(
        configuration.loss, configuration.temperature, configuration.activation, configuration.invariance
    )
    source = Generator().manual_seed(configuration.seed)
    widths, runs = configuration.layer_widths, (configuration.runs,)
    scale = configuration.init_scale
    if configuration.init == "spectrum":
        weights = spectrum_init(widths, source, runs, scale, configuration.init_rate or 0.0)
    else:
        initialise = gaussian_init if configuration.init == "gaussian" else uniform_init
        weights = initialise(widths, source, runs, scale)
    _check_size(end_to_end(weights), dtype)
    biases = uniform_biases(widths, source, runs) if configuration.bias else ()
    predictor = balanced_predictor(weights, distilled.predictor_rate).to(device, dtype) if distilled else None
    draw, probe = (Generator(device).manual_seed(int(torch.randint(2**62, (), generator=source))) for _ in range(2))
    return Simulation(
        configuration,
        task,
        objective,
        tuple(w.to(device, dtype) for w in weights),
        tuple(b.to(device, dtype) for b in biases),
        task.stream(configuration.batch_size, draw, runs, configuration.pool or None),
        task.sample(PROBE_SAMPLES, probe),
        predictor,
    )


def _check_size(product: Tensor, dtype: torch.dtype) -> None:
    """Refuse layers whose product, after growth by BLOW_UP, would have squares beyond the largest number."""
    largest, most = float(product.abs().max()), math.sqrt(torch.finfo(dtype).max) / (10 * BLOW_UP)
    if not largest < most:
        raise SettingError(
            f"the initial layers multiply to entries of {largest:.3g}; their squares must stay numbers, so at most "
            f"{most:.1g} is allowed; lower `init_scale` or `depth`"
        )
