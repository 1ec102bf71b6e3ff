"""All that is predicted of images under an augmentation, in one record."""

from dataclasses import dataclass

from dyncollapse.bridge.prediction.directions import Directions
from dyncollapse.bridge.prediction.prediction import LossPrediction
from dyncollapse.bridge.prediction.table import AugmentationTable
from dyncollapse.bridge.prediction.training import Trained


@dataclass(frozen=True, eq=False)
class Prediction:
    """All that is predicted of images under an augmentation.

    Attributes:
        found: The measured directions.
        losses: Predictions by loss.
        table: The effect of each operation.
        image_shape: Shape (c, h, w) of an input; None for representations of an encoder.
        trained: What was trained to compare.
    """

    found: Directions
    losses: dict[str, LossPrediction]
    table: AugmentationTable
    image_shape: tuple[int, int, int] | None = None
    trained: tuple[Trained, ...] = ()
