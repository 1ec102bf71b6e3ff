"""The results of a sweep as rows, as a CSV or Parquet file, and over the axes of the grid."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dyncollapse.runtime.extras import as_frame, need
from dyncollapse.runtime.files import unmarked, write_bytes, write_whole
from dyncollapse.runtime.settings import SettingError
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.sweeps.grid import KINDS, NOT_HASHED

if TYPE_CHECKING:
    import pandas
    import xarray

# In a column's name, between a dynamics and the rank of a singular value.
SIGMA = "_sigma_"
# What collapse costs; linear networks only.
PRICES = ("probe_cost", "representation_probe_cost")


def as_row(name: str, configuration: Configuration, report: Mapping[str, Any]) -> dict[str, Any]:
    """A point's settings and results as one flat row.

    Args:
        name: The point.
        configuration: Its settings.
        report: The content of its run.json.

    Returns:
        Values by column. `collapse_threshold` is the closed form's smallest augmentation variance that collapses a
        mode; `at_threshold` counts the modes with exactly that variance, up to round-off; `collapsed_below` is the
        singular value below which a dimension counts as collapsed; `probe_cost` is the share of the data's variance
        that a ridge probe of the embedding misses.
    """
    row = {"point": name} | {key: value for key, value in vars(configuration).items() if key not in NOT_HASHED}
    verdict = report["verdict"]
    row |= {"dynamics": ",".join(configuration.dynamics), "status": report["status"]}
    row |= {key: verdict[key] for key in ("collapsed", "mechanism")}
    row |= {"collapsed_below": verdict["threshold"], "collapse_threshold": report["prediction"]["threshold"]}
    row["at_threshold"] = report["prediction"].get("at_threshold")  # missing in runs of earlier versions
    for other in ("sgd_vs_flow", "sgd_vs_population"):
        row[other] = (report[other] or {}).get("relative_distance")
    for dynamics, found in report["dynamics"].items():
        row |= {f"{dynamics}_{key}": found[key] for key in ("loss", "time", "seconds")}
        row |= {f"{dynamics}_{key}": found[key] for key in PRICES if key in found}
        row |= {f"{dynamics}{SIGMA}{i}": value for i, value in enumerate(found["product_singular_values"], 1)}
    return row


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """All columns of the rows; singular values come last, by dynamics and rank."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    ranks = {name: (parts[0], int(parts[1])) for name in names if len(parts := name.split(SIGMA)) > 1}
    return [name for name in names if name not in ranks] + sorted(ranks, key=ranks.__getitem__)


def to_frame(rows: Sequence[Mapping[str, Any]]) -> "pandas.DataFrame":
    """The rows as a data frame; NaN where a row lacks a column."""
    return as_frame(rows, columns_of(rows) or ["point"])


def write_csv(rows: Sequence[Mapping[str, Any]], file: TextIO) -> None:
    """Write the rows as CSV with a header; a cell is empty where a row lacks the column.

    This uses the standard library: pandas would turn whole numbers into floats in a column with an empty cell.

    Args:
        rows: The rows.
        file: Open for writing text.
    """
    writer = csv.DictWriter(file, columns_of(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def write_table(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write the rows to a .csv or .parquet file, atomically.

    Args:
        rows: The rows.
        out: The file.

    Raises:
        SettingError: As `check_table`.
        CannotWrite: Where the file cannot be written.
    """
    check_table(out)
    if out.suffix == ".csv":
        text = io.StringIO()
        write_csv(rows, text)
        write_bytes(out, text.getvalue().encode())
        return
    import pyarrow
    from pyarrow import parquet

    # Not through pandas, which would turn whole numbers into floats in a column with an empty cell.
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in columns_of(rows)})
    write_whole(out, lambda file: parquet.write_table(table, file))


def check_table(out: Path) -> None:
    """Refuse a file that `write_table` could not write, before results are read for it.

    Args:
        out: The file.

    Raises:
        SettingError: For another ending than .csv or .parquet, and for .parquet where pyarrow is not installed,
            and for a file in a folder that does not exist.
    """
    given = f"`out` {unmarked(str(out))}"
    if out.suffix not in (".csv", ".parquet"):
        raise SettingError(f"{given} is neither .csv nor .parquet; name one of these")
    if out.suffix == ".parquet":
        need("pyarrow", "tables", f"{given} needs pyarrow")
    if not out.parent.is_dir():
        raise SettingError(f"{given}: there is no folder {unmarked(str(out.parent))}; create it, or name another")


def as_dataset(
    points: Mapping[str, Configuration], axes: Mapping[str, Sequence[Any]], rows: Sequence[Mapping[str, Any]]
) -> "xarray.Dataset":
    """Arrange rows over the axes of a grid, as `Sweep.to_xarray` describes.

    Args:
        points: Configurations by the point's name.
        axes: The values of each axis.
        rows: The rows of `as_row`, one per finished point.

    Returns:
        The data set.

    Raises:
        SettingError: Where xarray is not installed.
        ValueError: Where the points are not every combination of the values of the axes.
    """
    need("xarray", "tables", "to_xarray needs xarray")
    import xarray

    shape = tuple(map(len, axes.values()))
    if math.prod(shape) != len(points):
        names = ", ".join(f"{len(values)} {name}" for name, values in axes.items())
        raise ValueError(
            f"{len(points)} points are not every combination of {names}; use table(), which takes any points"
        )
    places = {name: [axes[axis].index(getattr(c, axis)) for axis in axes] for name, c in points.items()}
    order = sorted(points, key=places.__getitem__)
    settings = vars(next(iter(points.values())))
    frame = to_frame(rows).set_index("point").reindex(order).drop(columns=list(settings), errors="ignore")
    data: dict[str, Any] = {}
    for name in [column for column in frame if SIGMA not in column]:
        cells = frame[name]
        cells = cells.fillna("").astype(object) if any(isinstance(cell, str) for cell in cells) else cells.astype(float)
        data[name] = (tuple(axes), cells.to_numpy().reshape(shape))
    coordinates = {name: list(values) for name, values in axes.items()}
    for dynamics in dict.fromkeys(name.split(SIGMA)[0] for name in frame if SIGMA in name):
        ranked = frame.filter(regex=f"^{dynamics}{SIGMA}")
        data[f"{dynamics}_sigma"] = ((*axes, "rank"), ranked.to_numpy(float).reshape(*shape, -1))
        coordinates["rank"] = list(range(1, ranked.shape[1] + 1))
    return xarray.Dataset(data, coordinates, _fixed(points.values()))


def _fixed(configurations: Iterable[Configuration]) -> dict[str, Any]:
    """The settings that all configurations share, without those that are None."""
    columns = {key: {getattr(c, key) for c in configurations} for key in KINDS if key not in NOT_HASHED}
    fixed = {key: values.pop() for key, values in columns.items() if len(values) == 1}
    plain = {key: ",".join(value) if isinstance(value, tuple) else value for key, value in fixed.items()}
    return {key: value for key, value in plain.items() if value is not None}
