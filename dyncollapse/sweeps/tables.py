"""What the points of a sweep found, as rows, as a CSV or Parquet file and over the axes of their grid."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from dyncollapse.runtime.files import write_bytes, write_whole
from dyncollapse.simulation.configuration import Configuration
from dyncollapse.sweeps.grid import KINDS, NOT_HASHED

if TYPE_CHECKING:
    import xarray

# Between the name of a dynamics and a singular value's rank.
SIGMA = "_sigma_"


def as_row(name: str, configuration: Configuration, report: Mapping[str, Any]) -> dict[str, Any]:
    """A point's settings and results as one flat row.

    `collapse_threshold` is of the augmentation, in closed form; `at_threshold` counts the modes for which it is exactly
    that, up to round-off.
    """
    row = {"point": name} | {key: value for key, value in vars(configuration).items() if key not in NOT_HASHED}
    verdict = report["verdict"]
    row |= {"dynamics": ",".join(configuration.dynamics), "status": report["status"]}
    row |= {key: verdict[key] for key in ("collapsed", "mechanism")}
    row |= {"collapsed_below": verdict["threshold"], "collapse_threshold": report["prediction"]["threshold"]}
    row["at_threshold"] = report["prediction"].get("at_threshold")  # runs of earlier versions do not say
    for other in ("sgd_vs_flow", "sgd_vs_population"):
        row[other] = (report[other] or {}).get("relative_distance")
    for dynamics, found in report["dynamics"].items():
        row |= {f"{dynamics}_{key}": found[key] for key in ("loss", "time", "seconds")}
        row |= {f"{dynamics}{SIGMA}{i}": value for i, value in enumerate(found["product_singular_values"], 1)}
    return row


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every column that any row has, singular values last and in order."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    ranks = {name: (parts[0], int(parts[1])) for name in names if len(parts := name.split(SIGMA)) > 1}
    return [name for name in names if name not in ranks] + sorted(ranks, key=ranks.__getitem__)


def write_csv(rows: Sequence[Mapping[str, Any]], file: TextIO) -> None:
    """Write the rows with a header; what a row does not have is empty."""
    writer = csv.DictWriter(file, columns_of(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a .csv or .parquet file, whole or not at all. Raises ValueError, one line, for other names."""
    check_table(path)
    if path.suffix == ".csv":
        text = io.StringIO()
        write_csv(rows, text)
        write_bytes(path, text.getvalue().encode())
        return
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({name: [row.get(name) for row in rows] for name in columns_of(rows)})
    write_whole(path, lambda file: parquet.write_table(table, file))


def check_table(path: Path) -> None:
    """Raise ValueError, one line, where `write_table` would: nothing is read for a table that cannot be written."""
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"--out {path} is neither .csv nor .parquet; name one of these")
    if path.suffix == ".parquet":
        need_tables("pyarrow", f"--out {path}")


def need_tables(module: str, what: str) -> None:
    """Raise ValueError, one line, unless a module of the extra `tables` is installed."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise ValueError(f"{what} needs {module}: pip install 'dyncollapse[tables]'")


def as_dataset(
    points: Mapping[str, Configuration], axes: Mapping[str, Sequence[Any]], rows: Sequence[Mapping[str, Any]]
) -> "xarray.Dataset":
    """Results over the axes, and singular values over `rank` besides; what is missing is NaN, settings are attributes.

    Raises ValueError unless the points are every combination of the axes' values.
    """
    need_tables("xarray", "to_xarray")
    import xarray

    shape = tuple(map(len, axes.values()))
    if math.prod(shape) != len(points):
        names = ", ".join(f"{len(values)} {name}" for name, values in axes.items())
        raise ValueError(f"{len(points)} points are no full grid of {names}; use table(), which needs none")
    index = {name: tuple(axes[axis].index(getattr(c, axis)) for axis in axes) for name, c in points.items()}
    results = [name for name in columns_of(rows) if name not in {"point", *vars(next(iter(points.values())))}]
    data: dict[str, Any] = {}
    for name in results:
        words = any(isinstance(row.get(name), str) for row in rows)
        cells = np.full(shape, "" if words else np.nan, dtype=object if words else float)
        for row in rows:
            if row.get(name) is not None:
                cells[index[row["point"]]] = row[name]
        data[name] = (tuple(axes), cells)
    coordinates = {name: list(values) for name, values in axes.items()}
    for dynamics in dict.fromkeys(name.split(SIGMA)[0] for name in results if SIGMA in name):
        ranked = [data.pop(name)[1] for name in results if name.startswith(dynamics + SIGMA)]
        data[f"{dynamics}_sigma"] = ((*axes, "rank"), np.stack(ranked, -1))
        coordinates["rank"] = list(range(1, len(ranked) + 1))
    settings = {key: {getattr(c, key) for c in points.values()} for key in KINDS if key not in NOT_HASHED}
    fixed = {key: values.pop() for key, values in settings.items() if len(values) == 1}
    plain = {key: ",".join(value) if isinstance(value, tuple) else value for key, value in fixed.items()}
    attributes = {key: value for key, value in plain.items() if value is not None}
    return xarray.Dataset(data, coordinates, attributes)
