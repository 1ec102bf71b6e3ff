"""A prediction as plain JSON values and as CSV."""

import csv
import io
from typing import Any

from dyncollapse.bridge.prediction.outcome import Prediction


def as_values(prediction: Prediction, config: dict[str, Any]) -> dict[str, Any]:
    """Everything as plain JSON values; infinite numbers are None.

    Args:
        prediction: The prediction.
        config: Options and versions, which are kept beside it.

    Returns:
        The options and versions under "config", and what `Prediction.to_dict` returns.
    """
    return {"config": config, **prediction.to_dict()}


def directions_csv(prediction: Prediction) -> bytes:
    """One line per direction: rho, gamma, their error, whether it is shared, and what each loss makes of it."""
    columns = prediction.columns()
    columns["shared"] = list(map(int, columns["shared"]))
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


def _csv(names: list[str], rows: Any) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return file.getvalue().encode()
