"""A prediction as plain JSON values and as CSV."""

import csv
import io
import math
from typing import Any

from torch import Tensor

from dyncollapse.bridge.prediction.outcome import Prediction
from dyncollapse.bridge.prediction.prediction import LossPrediction


def as_values(prediction: Prediction, config: dict[str, Any]) -> dict[str, Any]:
    """Everything as plain JSON values; infinite numbers are None.

    Args:
        prediction: The prediction.
        config: Options and versions, which are kept beside it.

    Returns:
        One object. `rho`, `gamma`, `error`, and each loss's `rest` and `learning_steps` have a number for each of the
        `directions`, least augmented first.
    """
    found, table = prediction.found, prediction.table
    moments = found.measured.moments
    return {
        "config": config,
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
        "losses": {name: loss_values(one) for name, one in prediction.losses.items()},
        "augmentations": [row.as_values() for row in table.rows],
        "augmentation": {
            "images": table.images,
            "directions": table.directions,
            "share": table.share,
            "whole": vars(table.whole),
        },
        "trained": {
            one.loss: {
                **one.agreement,
                "singular_values": numbers(one.singular_values),
                "learning_steps": numbers(one.learning_steps),
                "seconds": one.seconds,
            }
            for one in prediction.trained
        }
        or None,
    }


def loss_values(one: LossPrediction) -> dict[str, Any]:
    """The prediction for one loss as plain JSON values."""
    return {
        **one.fates.counts(),
        "learnt": one.learnt,
        "lr": one.lr,
        "rest": numbers(one.rest),
        "spectrum": numbers(one.spectrum),
        "learning_steps": numbers(one.learning_steps),
    }


def directions_csv(prediction: Prediction) -> bytes:
    """One line per direction: rho, gamma, their error, whether it shares signal, and what each loss makes of it."""
    found, losses = prediction.found, prediction.losses
    columns: dict[str, list[Any]] = {
        "direction": list(range(1, found.count + 1)),
        "rho": found.rho.tolist(),
        "gamma": found.gamma.tolist(),
        "error": found.error.tolist(),
        "shared": [int(one) for one in found.shared],
    }
    for name, one in losses.items():
        columns[f"rest_{name}"] = one.rest.tolist()
        columns[f"learning_step_{name}"] = one.learning_steps.tolist()
    for trained in prediction.trained:
        columns[f"trained_singular_value_{trained.loss}"] = trained.singular_values.tolist()
        columns[f"trained_learning_step_{trained.loss}"] = trained.learning_steps.tolist()
    return _csv(list(columns), zip(*columns.values(), strict=True))


def augmentations_csv(prediction: Prediction) -> bytes:
    """Two lines per operation, it alone and all but it, after one for the whole pipeline."""
    table = prediction.table
    rows: list[tuple[Any, ...]] = [("all", "together", *vars(table.whole).values())]
    for row in table.rows:
        rows.append((row.operation, "alone", *vars(row.alone).values()))
        if row.without is not None:
            rows.append((row.operation, "left out", *vars(row.without).values()))
    return _csv(["operation", "how", *vars(table.whole)], rows)


def numbers(values: Tensor) -> list[float | None]:
    """Numbers of a tensor; those that are not finite as None."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _csv(names: list[str], rows: Any) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return file.getvalue().encode()
