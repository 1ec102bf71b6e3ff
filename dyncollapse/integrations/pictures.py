"""The picture of a report, sent to the loggers that take pictures."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def to_tensorboard(writer: Any, name: str, pixels: Pixels, step: int) -> None:
    """Send a picture to a `SummaryWriter` of TensorBoard."""
    writer.add_image(name, pixels, step, dataformats="HWC")


def to_mlflow(client: Any, run_id: str, name: str, pixels: Pixels, step: int) -> None:
    """Send a picture to a run by an `MlflowClient`, as an artifact."""
    client.log_image(run_id, pixels, artifact_file=f"{name}-{step}.png")


# By the class of a logger of Lightning. Names stand for the classes of both of its packages, lightning and
# pytorch_lightning, neither of which is imported for it.
SENDERS: dict[str, Callable[[Any, str, Pixels, int], None]] = {
    "TensorBoardLogger": lambda logger, name, pixels, step: to_tensorboard(logger.experiment, name, pixels, step),
    "WandbLogger": lambda logger, name, pixels, _step: logger.log_image(key=name, images=[pixels]),
    "MLFlowLogger": lambda logger, name, pixels, step: to_mlflow(logger.experiment, logger.run_id, name, pixels, step),
}


def send(logger: Any, name: str, pixels: Pixels, step: int) -> bool:
    """Send a picture to a logger of Lightning.

    Args:
        logger: The logger.
        name: Name of the picture.
        pixels: Red, green and blue (height, width, 3).
        step: The step that it belongs to.

    Returns:
        Whether this kind of logger is known to take pictures.
    """
    sender = next((SENDERS[kind.__name__] for kind in type(logger).__mro__ if kind.__name__ in SENDERS), None)
    if sender is not None:
        sender(logger, name, pixels, step)
    return sender is not None
