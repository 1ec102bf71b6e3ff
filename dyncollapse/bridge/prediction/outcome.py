"""All that is predicted of images under an augmentation, in one record."""

from dataclasses import dataclass

from dyncollapse.bridge.prediction.directions import Directions
from dyncollapse.bridge.prediction.prediction import LossPrediction
from dyncollapse.bridge.prediction.table import AugmentationTable
from dyncollapse.bridge.prediction.training import TrainedLinear


@dataclass(frozen=True, eq=False)
class Prediction:
    """All that is predicted of images under an augmentation.

    Attributes:
        found: The measured directions.
        losses: Predictions by loss.
        table: The effect of each operation.
        image_shape: Shape (c, h, w) of an input; None for representations of an encoder.
        trained: What was trained to compare.

    Examples:
        >>> from dyncollapse.bridge import PredictOptions, predict
        >>> prediction = predict(PredictOptions("digits", images=400, directions=8, loss=("spectral", "vcreg")))
        >>> list(prediction.losses), prediction.image_shape
        (['spectral', 'vcreg'], (1, 8, 8))
    """

    found: Directions
    losses: dict[str, LossPrediction]
    table: AugmentationTable
    image_shape: tuple[int, int, int] | None = None
    trained: tuple[TrainedLinear, ...] = ()
