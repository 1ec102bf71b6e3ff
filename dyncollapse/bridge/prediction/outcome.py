"""All that is predicted of images under an augmentation, in one record."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dyncollapse.bridge.prediction.directions import Directions
from dyncollapse.bridge.prediction.prediction import LossPrediction
from dyncollapse.bridge.prediction.table import AugmentationTable
from dyncollapse.bridge.prediction.tested import WORDS
from dyncollapse.bridge.prediction.training import TrainedLinear
from dyncollapse.runtime.extras import as_frame
from dyncollapse.runtime.results import html_table, plain

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """All that is predicted of images under an augmentation.

    Attributes:
        found: The measured directions.
        losses: Predictions by loss.
        table: The effect of each operation.
        image_shape: Shape (c, h, w) of an input; None for representations of an encoder.
        trained: What was trained to compare.
        untrained: Why other losses were not trained to the end, by loss: SGD diverged, or the training was interrupted.

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
    untrained: Mapping[str, str] = field(default_factory=dict)

    def columns(self) -> dict[str, list[Any]]:
        """Return what is known of each direction, least augmented first.

        Returns:
            Lists of one length: direction (from 1 on), rho, gamma, error, shared (as in `Directions`), and for each
            loss its rest value and the step at which the direction is learnt, infinite for never; likewise for encoders
            that were trained.
        """
        found = self.found
        columns: dict[str, list[Any]] = {
            "direction": list(range(1, found.count + 1)),
            "rho": found.rho.tolist(),
            "gamma": found.gamma.tolist(),
            "error": found.error.tolist(),
            "shared": found.shared.tolist(),
        }
        for name, one in self.losses.items():
            columns |= {f"rest_{name}": one.rest.tolist(), f"learning_step_{name}": one.learning_steps.tolist()}
        for trained in self.trained:
            columns[f"trained_singular_value_{trained.loss}"] = trained.singular_values.tolist()
            columns[f"trained_learning_step_{trained.loss}"] = trained.learning_steps.tolist()
        return columns

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per direction.

        Returns:
            Rows of `columns`; infinite and undefined numbers are None.
        """
        columns = plain(self.columns())
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def to_pandas(self) -> "pandas.DataFrame":
        """Return `rows` as a data frame.

        Returns:
            One row per direction.

        Raises:
            ValueError: If pandas is not installed; the extra `dyncollapse[tables]` installs it.
        """
        return as_frame(self.rows())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values, as the command predict prints it beside its options.

        Returns:
            One object. `rho`, `gamma`, `error`, and each loss's `rest` and `learning_steps` have a number for each of
            the `directions`, least augmented first; infinite numbers are None. `signal_rank` is the number of
            directions that are `shared`: that share signal, or under one-sided `views` have rho below 1.
        """
        found, table = self.found, self.table
        moments = found.measured.moments
        trained = {
            one.loss: {
                **one.agreement,
                "singular_values": numbers(one.singular_values),
                "learning_steps": numbers(one.learning_steps),
                "seconds": one.seconds,
            }
            for one in self.trained
        }
        return plain(
            {
                "images": moments.samples,
                "dim": len(found.frame),
                "directions": found.count,
                "share": found.share,
                "views": moments.views,
                "signal_rank": int(found.shared.sum()),
                "opposed": int(found.opposed.sum()),
                "explained": found.explained,
                "rho": numbers(found.rho),
                "gamma": numbers(found.gamma),
                "error": numbers(found.error),
                "shared": found.shared.tolist(),
                "losses": {name: _loss_values(one) for name, one in self.losses.items()},
                "augmentations": [row.as_values() for row in table.rows],
                "augmentation": {
                    "images": table.images,
                    "directions": table.directions,
                    "share": table.share,
                    "whole": vars(table.whole),
                },
                "trained": trained or None,
                "untrained": dict(self.untrained),
            }
        )

    @property
    def sentence(self) -> str:
        """How many directions share signal (one-sided: have rho below 1), and how many live under each loss."""
        living = ", ".join(f"{one.fates.counts()['alive']} alive under {name}" for name, one in self.losses.items())
        found = self.found
        words = WORDS[found.measured.moments.views]
        return f"{int(found.shared.sum())} of {found.count} directions {words.pass_it}; {living}."

    def __repr__(self) -> str:
        """The number of images, and the sentence."""
        return f"Prediction({self.found.measured.moments.samples} images: {self.sentence.removesuffix('.')})"

    def _repr_html_(self) -> str:
        """The sentence and a row per direction, for notebooks."""
        return html_table([self.sentence], self.rows())


def numbers(values: Tensor) -> list[float | None]:
    """Numbers of a tensor; those that are not finite as None."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _loss_values(one: LossPrediction) -> dict[str, Any]:
    """The prediction for one loss."""
    return {
        **one.fates.counts(),
        "learnt": one.learnt,
        "lr": one.lr,
        "rest": numbers(one.rest),
        "spectrum": numbers(one.spectrum),
        "learning_steps": numbers(one.learning_steps),
    }
