"""The picture of a report, sent to the loggers that take pictures."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def _to_tensorboard(writer: Any, name: str, pixels: Pixels, step: int) -> None:
    if writer is not None:  # opened by the first process alone
        writer.add_image(name, pixels, step, dataformats="HWC")


def _to_wandb(name: str, pixels: Pixels) -> None:
    wandb = importlib.import_module("wandb")
    wandb.log({name: wandb.Image(pixels)}, commit=False)


# By the class of what logs. In Lightning, names stand for the classes of both of its packages, neither of which is
# imported for it. In Hugging Face's Trainer callbacks log, to the active run of Weights & Biases and MLflow.
SENDERS: dict[str, Callable[[Any, str, Pixels, int], object]] = {
    "TensorBoardLogger": lambda logger, name, pixels, step: _to_tensorboard(logger.experiment, name, pixels, step),
    "WandbLogger": lambda logger, name, pixels, step: logger.log_image(key=name, images=[pixels], step=step),
    "MLFlowLogger": lambda logger, name, pixels, step: logger.experiment.log_image(
        logger.run_id, pixels, artifact_file=f"{name}-{step}.png"
    ),
    "TensorBoardCallback": lambda callback, name, pixels, step: _to_tensorboard(callback.tb_writer, name, pixels, step),
    "WandbCallback": lambda _callback, name, pixels, _step: _to_wandb(name, pixels),
    "MLflowCallback": lambda _callback, name, pixels, step: importlib.import_module("mlflow").log_image(
        pixels, artifact_file=f"{name}-{step}.png"
    ),
}


def send(logger: Any, name: str, draw: Callable[[], Pixels], step: int) -> bool:
    """Send a picture to a logger of Lightning, or to what a callback of Hugging Face's Trainer logs to.

    Args:
        logger: The logger or callback.
        name: Name of the picture.
        draw: Returns red, green and blue (height, width, 3); called for a logger that takes pictures.
        step: The step that it belongs to.

    Returns:
        Whether this kind of logger is known to take pictures.
    """
    sender = next((SENDERS[kind.__name__] for kind in type(logger).__mro__ if kind.__name__ in SENDERS), None)
    if sender is not None:
        sender(logger, name, draw(), step)
    return sender is not None
