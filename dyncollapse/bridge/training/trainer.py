"""One step of contrastive training, and the state that it changes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dyncollapse.bridge.data.batches import Batch, Order
from dyncollapse.bridge.models.encoders import Encoder, build_encoder
from dyncollapse.bridge.models.projectors import RandomSubVector
from dyncollapse.bridge.recipe import Recipe
from dyncollapse.bridge.training.checkpoints import Checkpoint
from dyncollapse.bridge.training.collapse_monitor import SPACES
from dyncollapse.bridge.training.distributed import Process, gather, gather_values, synchronise_norms
from dyncollapse.bridge.training.optimisation import autocast, build_optimiser, build_schedule, default_precision
from dyncollapse.bridge.training.restoring import restore_states
from dyncollapse.model.losses import ntxent
from dyncollapse.runtime.settings import SettingError

if TYPE_CHECKING:
    from timm.scheduler import CosineLRScheduler

# The encoder, or its distributed or compiled wrapper: maps images to representations and embeddings.
Network = Callable[[Float[Tensor, "n c h w"]], tuple[Float[Tensor, "n d"], Float[Tensor, "n m"]]]


@dataclass(frozen=True, eq=False)
class Trainer:
    """The state of a run in memory: everything that a step needs or changes.

    Attributes:
        recipe: The run's settings.
        process: This process.
        encoder: The network.
        network: The encoder, or its distributed or compiled wrapper.
        optimiser: Optimiser of the encoder's parameters.
        schedule: Schedule of the learning rate.
        scaler: Scaler of the loss, for float16.
        order: Which images make up which step.
        channels: Channels of the images.

    Examples:
        >>> from dyncollapse.bridge import resolve
        >>> recipe = resolve({"data": "digits", "batch_size": 4})
        >>> trainer = build_trainer(recipe, Process(0, 1, torch.device("cpu")), images=4, channels=1)
        >>> views = tuple(torch.randn(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
        >>> loss, spaces = trainer.step(0, Batch(views, torch.arange(4)))
        >>> loss.shape, [view.shape[1] for view in spaces["representation"]]
        (torch.Size([]), [128, 128])
    """

    recipe: Recipe
    process: Process
    encoder: Encoder
    network: Network
    optimiser: torch.optim.Optimizer
    schedule: "CosineLRScheduler"
    scaler: torch.amp.GradScaler
    order: Order
    channels: int

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.recipe.epochs * self.order.steps_per_epoch

    @property
    def finite(self) -> bool:
        """Whether all weights are finite."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.encoder.parameters())

    def step(self, number: int, batch: Batch) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """Take a training step.

        Args:
            number: The step, counted from 0; it sets the learning rate.
            batch: This process's share of the step's batch.

        Returns:
            The loss, and by space this process's rows of both views, (n, d) and (n, m).
        """
        self.schedule.step_update(number)
        if isinstance(self.encoder.projector, RandomSubVector):
            self.encoder.projector.redraw(number)
        loss, views = contrast(self.network, batch.views, self.recipe, self.process)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return loss.detach(), views

    def checkpoint(self, step: int) -> Checkpoint:
        """Collect the state for a checkpoint; all processes have to call it.

        Args:
            step: Steps that were taken.

        Returns:
            The state.
        """
        states = {
            "model": self.encoder.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": gather_values(_generator_states(self.process.device), self.process.count),
        }
        return Checkpoint(step, self.recipe, self.channels, states)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the state of a checkpoint.

        Args:
            checkpoint: A checkpoint of the same run.

        Raises:
            ValueError: If it does not belong to this encoder and optimiser.
        """
        try:
            restore_states(checkpoint.states, self.recipe, self.optimiser, self.schedule, self.scaler)
            self.encoder.load_state_dict(checkpoint.states["model"])
            states = checkpoint.states["random"]
            if self.process.rank < len(states):
                _set_generators(states[self.process.rank], self.process.device)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ValueError(
                f"the checkpoint of step {checkpoint.step} does not fit this run ({type(error).__name__}); "
                "remove it to go on from an earlier one"
            ) from None


def contrast(
    network: Network,
    views: Sequence[Float[Tensor, "n c h w"]],
    recipe: Recipe,
    process: Process,
) -> tuple[Float[Tensor, ""], dict[str, tuple[Tensor, Tensor]]]:
    """Compute NT-Xent over the whole batch of all processes.

    Every process computes the whole loss from the gathered embeddings. Averaged over processes, as torch's
    DistributedDataParallel does, the gradients are those of a single process with the whole batch. Both views pass the
    network together, so BatchNorm's statistics are over both. The loss is computed in float32.

    Args:
        network: The encoder, or its distributed or compiled wrapper.
        views: This process's two views of the same images.
        recipe: Settings; used are temperature and precision, by default that of the device.
        process: This process.

    Returns:
        The loss, and by space ("representation", "embedding") this process's rows of both views, (n, d) and (n, m).

    References:
        Chen et al. (2020), arXiv:2002.05709. `dyncollapse.ntxent` is the loss.

    Examples:
        >>> from dyncollapse.bridge import resolve
        >>> recipe, process = resolve({"data": "digits", "batch_size": 8}), Process(0, 1, torch.device("cpu"))
        >>> views = torch.randn(2, 8, 1, 8, 8).unbind()
        >>> loss, spaces = contrast(build_encoder(recipe, channels=1), views, recipe, process)
        >>> loss.requires_grad, [tuple(view.shape) for view in spaces["embedding"]]
        (True, [(8, 64), (8, 64)])
    """
    with autocast(recipe, process.device):
        r, z = network(torch.cat(tuple(views)).contiguous(memory_format=torch.channels_last))
    (r1, r2), (z1, z2) = r.chunk(2), z.float().chunk(2)
    loss = ntxent(gather(z1, process.count), gather(z2, process.count), recipe.temperature)
    return loss, {SPACES[0]: (r1, r2), SPACES[1]: (z1, z2)}


def build_trainer(recipe: Recipe, process: Process, images: int, channels: int) -> Trainer:
    """Build network, optimiser and schedule of a run.

    Args:
        recipe: The run's settings.
        process: This process.
        images: Number of training images.
        channels: Channels of the images.

    Returns:
        The state before the first step.

    Raises:
        SettingError: If the batch is larger than the data or cannot be shared evenly by the processes; also as
            `build_encoder`.

    Examples:
        >>> from dyncollapse.bridge import resolve
        >>> trainer = build_trainer(resolve({"data": "digits"}), Process(0, 1, torch.device("cpu")), 1297, channels=1)
        >>> trainer.order.steps_per_epoch, trainer.total
        (10, 600)
    """
    process.share(recipe.batch_size)
    recipe = replace(recipe, precision=recipe.precision or default_precision(process.device.type))
    if images < 2:
        few = f"`data` has {images} image to train on"
        raise SettingError(f"{few}; training needs at least 2, and as many as `batch_size`")
    if recipe.batch_size > images:
        raise SettingError(f"`batch_size` is {recipe.batch_size}, but there are {images} images; give at most {images}")
    encoder = build_encoder(recipe, channels).to(process.device)
    encoder = encoder.to(memory_format=torch.channels_last)  # faster, on CPUs too
    synchronise_norms(encoder, process)
    optimiser = build_optimiser(recipe, encoder)
    order = Order(images, recipe.batch_size, recipe.seed)
    schedule = build_schedule(recipe, optimiser, order.steps_per_epoch)
    network: nn.Module = encoder
    if process.count > 1:
        network = nn.parallel.DistributedDataParallel(encoder)
    if recipe.compile:
        network = torch.compile(network)  # type: ignore[assignment]
    scaler = torch.amp.GradScaler(process.device.type, enabled=recipe.precision == "float16")
    return Trainer(recipe, process, encoder, network, optimiser, schedule, scaler, order, channels)


def _generator_states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_generators(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
